"""What the page fetches beside REST: chart, cards, comparisons, static files, previews."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import HTMLResponse, RedirectResponse

from backend.errors import ParetoscopeError
from backend.limits import AT_HOME, Limits
from backend.rest_kept import Answers, answer_now
from backend.rest_values import Chosen, answer
from backend.service import Service
from ui import answers, cards, catalogue, comparison, planning, report, safe, views
from ui.assets import Assets

STATIC = Path(__file__).parent / "static"
RUN_ID = re.compile(r"[0-9a-f]{1,16}")
Name = Annotated[str, Query(max_length=80)]


async def drawing(
    limit: float | None = None,
    ylimit: float | None = None,
    judged: bool = False,
    expected: bool = False,
    order: Annotated[str, Query(max_length=80)] = "",
) -> views.Drawing:
    """What is drawn beside the runs, and the order of the table, as query parameters."""
    return views.Drawing(limit, ylimit, judged, expected, order)


Drawn = Annotated[views.Drawing, Depends(drawing)]


class ComposeWish(BaseModel):
    """A recipe in its short or long form."""

    recipe: Annotated[str, Field(max_length=2000)] | dict[str, Any]


class AheadWish(BaseModel):
    """Recipes at budgets on a model, to be told of before any runs."""

    model: str = Field("default", max_length=300)
    recipes: list[Annotated[str, Field(max_length=2000)]] = Field(max_length=planning.MOST)
    budgets: list[Annotated[str, Field(max_length=200)]] = Field([], max_length=20)


def page_routes(service: Service, limits: Limits = AT_HOME) -> list[Any]:
    """Routes of the page, none of them part of the documented interface."""
    router = APIRouter(include_in_schema=False)
    kept = Answers(service.store.results.version)

    @router.get("/page/start")
    async def start(request: Request) -> Response:
        return await kept.give(request, lambda: views.start(service, limits))

    @router.get("/page/figure")
    async def figure(
        request: Request,
        wanted: Chosen,
        drawn: Drawn,
        x: Name = views.DEFAULT_X,
        y: Name = views.DEFAULT_Y,
    ) -> Response:
        # What is expected of a folder also follows from its files, so it is not kept.
        give = answer_now if drawn.expected else kept.give
        return await give(request, lambda: views.figure(service, x, y, wanted, drawn))

    @router.get("/page/table")
    async def table(
        request: Request,
        wanted: Chosen,
        drawn: Drawn,
        x: Name = views.DEFAULT_X,
        y: Name = views.DEFAULT_Y,
    ) -> Response:
        return await kept.give(request, lambda: views.rows(service, x, y, wanted, drawn))

    @router.get("/page/answer")
    def told(
        request: Request,
        wanted: Chosen,
        budget: Annotated[str, Query(max_length=200)] = "",
        model: Annotated[str, Query(max_length=300)] = "default",
    ) -> Response:
        return answer(request, answers.answer(service, budget, model, wanted))

    _add_runs(router, service, kept)
    _add_form(router, service, limits, kept)

    @router.get("/page/report")
    def download_report(
        wanted: Chosen,
        drawn: Drawn,
        x: Name = views.DEFAULT_X,
        y: Name = views.DEFAULT_Y,
    ) -> Response:
        view = views.figure(service, x, y, wanted, replace(drawn, judged=True))
        text = report.document(view, report.front(service, view, x, y))
        named = {"Content-Disposition": 'attachment; filename="paretoscope.html"'}
        return HTMLResponse(text, headers=named)

    @router.get("/r/{run_id}")
    def preview(run_id: str) -> Response:
        if not RUN_ID.fullmatch(run_id):
            return RedirectResponse("../")
        return HTMLResponse(_preview(service, run_id))

    @router.get("/docs")
    def docs() -> HTMLResponse:
        return HTMLResponse((STATIC / "docs.html").read_text(encoding="utf-8"))

    return [*router.routes, Assets(STATIC).route("/page/static")]


def _add_runs(router: APIRouter, service: Service, kept: Answers) -> None:
    @router.get("/page/card/{run_id}")
    def card(
        request: Request, run_id: str, x: Name = views.DEFAULT_X, y: Name = views.DEFAULT_Y
    ) -> Response:
        return answer(request, cards.card(service, run_id, x, y))

    @router.get("/page/compare")
    def compare(
        request: Request, runs: Annotated[str, Query(max_length=100)] = "", prompt: int = 0
    ) -> Response:
        wanted = [one for one in runs.split(",") if one]
        return answer(request, comparison.compare(service, wanted, prompt))

    @router.get("/page/votes")
    def votes(request: Request) -> Response:
        return answer(request, comparison.votes(service))

    @router.get("/page/methods")
    async def methods(request: Request) -> Response:
        return await kept.give(request, lambda: catalogue.methods(service))


def _add_form(router: APIRouter, service: Service, limits: Limits, kept: Answers) -> None:
    @router.get("/page/setup")
    async def setup(request: Request) -> Response:
        return await kept.give(request, lambda: planning.choices(service, limits))

    @router.post("/page/compose")
    def compose(wish: ComposeWish) -> dict[str, Any]:
        return planning.composition(service, wish.recipe)

    @router.post("/page/ahead")
    async def ahead(request: Request, wish: AheadWish) -> Response:
        # What a folder is expected to take also follows from its files, so it is not kept.
        give = kept.give if wish.model in ("", "default") else answer_now
        return await give(request, lambda: planning.look_ahead(service, wish.model_dump()), wish)


def _preview(service: Service, run_id: str) -> str:
    """A page for programs that preview links; people are sent on to the run."""
    target = f"../?run={run_id}"
    try:
        about = cards.card(service, run_id, views.DEFAULT_X, views.DEFAULT_Y)
        title = f"{about['recipe']} on {about['model']}"
        told = ", ".join(f"{one['title']} {one['text']}" for one in about["headlines"])
    except ParetoscopeError as error:
        title, told = "Paretoscope", str(error)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{safe.markup(title)}</title>"
        f"<meta property='og:title' content='{safe.markup(title)}'>"
        f"<meta property='og:description' content='{safe.markup(told)}'>"
        "<meta property='og:type' content='website'><meta property='og:site_name' "
        "content='Paretoscope'><meta name='twitter:card' content='summary'>"
        f"<meta name='description' content='{safe.markup(told)}'>"
        f"<meta http-equiv='refresh' content='0; url={target}'></head>"
        f"<body><a href='{target}'>{safe.markup(title)}</a></body></html>"
    )
