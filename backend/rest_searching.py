"""Budgets over HTTP: recommendations and the search; part of the interface that `rest` serves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backend.limits import ADMISSION, LimitError, Limits
from backend.rest_comparing import PREFIX, Visitor
from backend.rest_values import Chosen, answer
from backend.searching import Search, Searches, State
from backend.service import Service
from backend.solve import WIDTH

BUDGETS = ["900 kB, 512 context x 8, >= 20 tok/s", "kld <= 0.05"]
Budget = Annotated[str, Query(max_length=200, examples=BUDGETS)]


class SearchWish(BaseModel):
    """A budget that a model is to fit."""

    model_config = ConfigDict(extra="forbid")

    budget: str = Field(min_length=1, max_length=200, examples=BUDGETS)
    model: str = Field("default", max_length=300, description="`default`, a folder, a Hub name")


class SearchView(BaseModel):
    """The search as it stands; its answer is of runs of one protocol and machine."""

    budget: str
    model: str
    state: State
    lines: list[str]
    reason: str
    started: float = Field(description="seconds since 1970; 0 where nobody asked yet")
    may_change: bool
    runs: int = Field(description="that were looked at")
    seconds: float = Field(description="that new runs took")
    protocol: str
    hardware: str
    answer: dict[str, Any] | None


def add_searching(router: APIRouter, service: Service, limits: Limits) -> None:
    """Add the routes."""
    searches = Searches(service)

    @router.get(f"{PREFIX}/recommend", tags=["budgets"])
    def recommend(
        request: Request,
        wanted: Chosen,
        budget: Budget,
        model: Annotated[str, Query(max_length=300)] = "default",
    ) -> Response:
        """The best measured runs within a budget, what binds, and what would change the answer."""
        return answer(request, asdict(service.advice.recommend(budget, model, wanted)))

    @router.get(f"{PREFIX}/search", tags=["budgets"], response_model=SearchView)
    def show(request: Request, visitor: Visitor = "") -> Response:
        """The search that goes on, or the last; ask again with the ETag."""
        return answer(request, _view(searches.now(), limits, visitor).model_dump())

    @router.post(f"{PREFIX}/search", tags=["budgets"], status_code=202)
    def begin(wish: SearchWish, visitor: Visitor = "") -> SearchView:
        """Look for recipes within a budget; every evaluation is a normal run in the queue."""
        width = min(WIDTH, limits.per_owner)
        with ADMISSION:
            if not searches.now().active:
                limits.admit(service, wish.model, width, visitor)
            found = searches.start(wish.budget, wish.model, width=width, owner=visitor)
        return _view(found, limits, visitor)

    @router.delete(f"{PREFIX}/search", tags=["budgets"])
    def stop(visitor: Visitor = "") -> SearchView:
        """End the search after the runs that wait or run; they are kept."""
        if not limits.may_change(searches.now().owner, visitor):
            raise LimitError("Only who started a search may stop it.")
        return _view(searches.stop(), limits, visitor)


def _view(one: Search, limits: Limits, visitor: str) -> SearchView:
    found = one.solution
    return SearchView(
        budget=one.budget,
        model=one.model,
        state=one.state,
        lines=list(one.lines),
        reason=one.reason,
        started=one.started,
        may_change=limits.may_change(one.owner, visitor),
        runs=0 if found is None else len(found.evaluations),
        seconds=0.0 if found is None else found.seconds,
        protocol="" if found is None else found.protocol,
        hardware="" if found is None else found.hardware_id,
        answer=None if found is None else asdict(found.answer),
    )
