"""The service over HTTP: JSON under /api/v1, described by OpenAPI; draws nothing.

Every refusal is `{"error": sentence}` with a status of 4xx. A visitor names themself by a secret
of their own in `X-Visitor`, which is never told to anyone else.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse

from backend.errors import ParetoscopeError, UnknownNameError
from backend.jobs.records import Job
from backend.limits import ADMISSION, AT_HOME, LimitError, Limits
from backend.rest_board import Board, shown
from backend.rest_comparing import PREFIX, Visitor, add_comparing
from backend.rest_kept import Answers
from backend.rest_searching import add_searching
from backend.rest_values import (
    Chosen,
    EstimateView,
    Frontier,
    JobList,
    JobView,
    Message,
    Most,
    Names,
    Queued,
    RunWish,
    Since,
    SweepWish,
    Swept,
    Taken,
    View,
    answer,
)
from backend.service import Service

ZIP = "application/zip"
ZIPPED = {
    "requestBody": {
        "required": True,
        "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def serving(service: Service, limits: Limits = AT_HOME) -> dict[str, Any]:
    """Arguments for a FastAPI application that answers for `service`."""
    router = APIRouter(responses={400: {"model": Message}, 404: {"model": Message}})
    _add_catalogue(router, service)
    _add_runs(router, service, Answers(service.store.results.version))
    _add_exchange(router, service, limits)
    _add_jobs(router, service, limits)
    _add_shares(router, service)
    add_comparing(router, service, limits)
    add_searching(router, service, limits)
    document = get_openapi(
        title="Paretoscope",
        version="1",
        summary="Compress, measure and compare language models.",
        routes=router.routes,
    )

    @router.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        return JSONResponse(document)

    return {
        "routes": router.routes,
        "exception_handlers": {
            ParetoscopeError: refuse,
            RequestValidationError: refuse_form,
            HTTPException: refuse_way,
        },
        "openapi_url": None,
        "docs_url": None,
        "redoc_url": None,
        # Nobody watches from elsewhere; asking for watchers is a tenth of a small request.
        "telemetry": {"tracing": False, "metrics": False, "logs": False},
    }


def refuse(_: Request, error: Exception) -> JSONResponse:
    """The sentence of an error that was written for people."""
    status = 400
    if isinstance(error, UnknownNameError):
        status = 404
    elif isinstance(error, LimitError):
        status = 403
    return JSONResponse({"error": str(error)}, status)


async def refuse_way(request: Request, error: Exception) -> Response:
    """A sentence for what is not there, or not asked so; the page's own answer beside the API."""
    assert isinstance(error, HTTPException)
    if not request.url.path.startswith("/api/"):
        return await http_exception_handler(request, error)
    said = {404: "There is nothing here", 405: f"This is not asked by {request.method}"}
    told = said.get(error.status_code, str(error.detail).rstrip("."))
    sentence = f"{told}; /openapi.json lists what there is."
    return JSONResponse({"error": sentence}, error.status_code, headers=error.headers)


def refuse_form(_: Request, error: Exception) -> JSONResponse:
    """One sentence for a request that is not of the form asked for."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    place = ".".join(str(part) for part in first.get("loc", ())[1:]) or "The request"
    return JSONResponse({"error": f"{place}: {first.get('msg', 'not readable')}."}, 422)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values, None where there is none."""
    return json.loads(frame.to_json(orient="records", double_precision=15))


def _add_catalogue(router: APIRouter, service: Service) -> None:
    @router.get("/health", tags=["service"])
    def health() -> dict[str, Any]:
        """Whether the program answers, and what had to be repaired."""
        return {"status": "ok", "revision": service.revision(), "notice": service.notice}

    @router.get(f"{PREFIX}/methods", tags=["catalogue"])
    def list_methods() -> list[dict[str, Any]]:
        """Every method: summary, paper, claim, limits, settings."""
        return service.methods()

    @router.get(f"{PREFIX}/metrics", tags=["catalogue"])
    def list_metrics() -> list[dict[str, Any]]:
        """Every metric: title, unit, direction and what it means."""
        return service.metrics()

    @router.get(f"{PREFIX}/axes", tags=["catalogue"])
    def list_axes() -> list[dict[str, Any]]:
        """Metrics that can be an axis, with the number of runs that have each."""
        return records(service.axes())

    @router.get(f"{PREFIX}/estimate", tags=["jobs"])
    def estimate(
        recipe: Annotated[str, Query(max_length=2000)],
        model: Annotated[str, Query(max_length=300)] = "default",
    ) -> EstimateView | None:
        """What a run will take; null for a model whose files are not here."""
        found = service.estimate(recipe, model)
        return None if found is None else EstimateView(**asdict(found))


def _add_runs(router: APIRouter, service: Service, answers: Answers) -> None:
    @router.get(f"{PREFIX}/frontier", tags=["results"], response_model=Frontier)
    async def show_frontier(
        request: Request, wanted: Chosen, x: str = "resident_bytes", y: str = "kld_mean"
    ) -> Response:
        """Runs that have both readings; only runs of one model, protocol and machine compete."""

        def points() -> dict[str, Any]:
            return {"x": x, "y": y, "points": records(service.frontier(x, y, wanted))}

        return await answers.give(request, points)

    @router.get(f"{PREFIX}/runs", tags=["results"])
    async def list_runs(
        request: Request, wanted: Chosen, metric: Names = None, failed: bool = False
    ) -> Response:
        """One row a run, newest first, with the metrics named; failed attempts on request."""

        def rows() -> list[dict[str, Any]]:
            return records(service.runs(wanted, metric or [], failed))

        return await answers.give(request, rows)

    @router.get(f"{PREFIX}/runs/{{run_id}}", tags=["results"])
    def show_run(run_id: str) -> dict[str, Any]:
        """One run whole: readings, generations, layers, notes, manifest."""
        return asdict(service.run(run_id))

    @router.get(f"{PREFIX}/runs/{{run_id}}/artefact", tags=["results"])
    def download_artefact(run_id: str) -> FileResponse:
        """The compressed model of a run that was made here, as a tar file."""
        folder = service.artefact_folder(run_id, use=True)
        if folder is None:
            raise UnknownNameError(
                f"The model of run {run_id} is not on this machine; its recipe makes it again."
            )
        return _archive(folder, f"paretoscope-{run_id}", "tar")


def _add_exchange(router: APIRouter, service: Service, limits: Limits) -> None:
    @router.get(f"{PREFIX}/export", tags=["results"])
    def export() -> FileResponse:
        """All results as JSON and Parquet, in a zip file that another copy can take in."""
        with tempfile.TemporaryDirectory() as folder:
            service.export(Path(folder))
            return _archive(Path(folder), "paretoscope-results", "zip")

    @router.post(f"{PREFIX}/import", tags=["results"], openapi_extra=ZIPPED)
    async def take_in(request: Request) -> Taken:
        """Take in the zip of another copy's results; what is known here stays as it is."""
        limits.admit_results(service)
        # Asked for by name, since a page of another site may send no body of this kind unasked.
        if request.headers.get("content-type") != ZIP:
            raise ParetoscopeError(f"Results are sent as {ZIP}: the zip that an export gives.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.zip"
            with path.open("wb") as file:
                async for part in request.stream():
                    file.write(part)
            found = await run_in_threadpool(service.import_results, path, "This file")
        return Taken(**asdict(found))


def _add_jobs(router: APIRouter, service: Service, limits: Limits) -> None:
    board = Board(service)

    @router.get(f"{PREFIX}/jobs", tags=["jobs"], response_model=JobList)
    async def list_jobs(
        request: Request, visitor: Visitor = "", since: Since = None, limit: Most = None
    ) -> Response:
        """All jobs, newest first, or what changed after a revision; ask again with the ETag.

        With `limit` no more than so many that are over; those that wait or run are all told.
        """
        found = board.look(since, limit)
        jobs = [
            one.shown | {"may_change": limits.may_change(one.owner, visitor)}
            for one in found.entries
        ]
        return answer(request, {"revision": found.revision, "count": found.count, "jobs": jobs})

    @router.post(f"{PREFIX}/jobs", tags=["jobs"], status_code=202)
    def submit(wish: RunWish, visitor: Visitor = "") -> Queued:
        """Queue a run; a finished one is answered at once, one under way is joined."""
        with ADMISSION:
            limits.admit(service, wish.model, 1, visitor)
            done = service.submit(**wish.model_dump(), owner=visitor)
        return Queued(**asdict(done))

    @router.post(f"{PREFIX}/sweep", tags=["jobs"], status_code=202)
    def sweep(wish: SweepWish, visitor: Visitor = "") -> Swept:
        """Queue every method at every budget, the dense model first."""
        count = len(wish.methods) * max(1, len(wish.budgets))
        wanted = wish.model_dump()
        given = wanted.pop("methods"), wanted.pop("budgets")
        with ADMISSION:
            limits.admit(service, wish.model, count, visitor)
            done = service.sweep(*given, **wanted, owner=visitor)
        return Swept(**asdict(done))

    @router.get(f"{PREFIX}/jobs/{{job_id}}", tags=["jobs"])
    def show_job(job_id: str, visitor: Visitor = "") -> JobView:
        """One job as it stands."""
        return _job_view(service.job(job_id), limits, visitor)

    @router.get(f"{PREFIX}/jobs/{{job_id}}/events", tags=["jobs"])
    def list_events(job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """What a job reported after an event's number."""
        return [asdict(event) for event in service.events(job_id, after)]

    @router.get(f"{PREFIX}/jobs/{{job_id}}/log", tags=["jobs"])
    def show_log(job_id: str) -> dict[str, str]:
        """The last lines that a job printed."""
        return {"log": service.log_tail(job_id)}

    @router.post(f"{PREFIX}/jobs/{{job_id}}/cancel", tags=["jobs"])
    def cancel(job_id: str, visitor: Visitor = "") -> JobView:
        """Stop a job that waits or runs."""
        _check_owner(service, limits, job_id, visitor)
        return _job_view(service.cancel(job_id), limits, visitor)

    @router.post(f"{PREFIX}/jobs/{{job_id}}/retry", tags=["jobs"], status_code=202)
    def retry(job_id: str, visitor: Visitor = "") -> Queued:
        """Queue a failed, timed-out or cancelled job again."""
        _check_owner(service, limits, job_id, visitor)
        with ADMISSION:
            limits.admit(service, service.job(job_id).model, 1, visitor)
            return Queued(**asdict(service.retry(job_id)))


def _add_shares(router: APIRouter, service: Service) -> None:
    @router.post(f"{PREFIX}/share", tags=["shares"], status_code=201)
    def share(view: View) -> dict[str, str]:
        """A short name that opens this view wherever it is kept."""
        return {"slug": service.share(view.view)}

    @router.get(f"{PREFIX}/shares/{{slug}}", tags=["shares"])
    def shared(slug: str) -> dict[str, Any]:
        """The view behind a short name."""
        view = service.shared(slug)
        if view is None:
            raise UnknownNameError("No view is kept under this name here.")
        return view


def _job_view(job: Job, limits: Limits, visitor: str) -> JobView:
    return JobView(**shown(job), may_change=limits.may_change(job.owner, visitor))


def _check_owner(service: Service, limits: Limits, job_id: str, visitor: str) -> None:
    if not limits.may_change(service.job(job_id).owner, visitor):
        raise LimitError("Only who started a job may stop or repeat it.")


def _archive(folder: Path, name: str, kind: Literal["tar", "zip"]) -> FileResponse:
    target = Path(tempfile.mkdtemp())
    path = shutil.make_archive(str(target / name), kind, folder)
    clean = BackgroundTask(shutil.rmtree, target, ignore_errors=True)
    return FileResponse(path, filename=Path(path).name, background=clean)
