"""What goes in and out over HTTP, as checked values that OpenAPI describes."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backend.service import Filter


def whole_text(value: Any) -> Any:
    """A value whose texts can all be written down.

    Raises:
        ValueError: half of a pair of surrogates, which JSON may name and nothing can keep.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half of a pair of surrogates, which is no letter") from None
    return value


Since = Annotated[int | None, Query(description="only jobs changed after this revision")]
Most = Annotated[int | None, Query(ge=0, description="jobs that are over, at most so many")]
Names = Annotated[list[str] | None, Query(max_length=50)]


async def chosen(
    model: Names = None, family: Names = None, hardware: Names = None, protocol: Names = None
) -> Filter:
    """Which runs are meant, as query parameters that may repeat."""
    sides = (model, protocol, hardware, family)
    return Filter(*(tuple(side or ()) for side in sides))


Chosen = Annotated[Filter, Depends(chosen)]
Tier = Literal["smoke", "quick", "full"]
Speed = Literal["", "sweep", "full"]


class Message(BaseModel):
    """Why something was refused."""

    error: str


class Wish(BaseModel):
    """What both a run and a sweep say."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("default", max_length=300, description="`default`, a folder, a Hub name")
    tier: Tier = "quick"
    speed: Speed = "sweep"


class RunWish(Wish):
    """One recipe to carry out and measure."""

    recipe: str = Field(max_length=2000, examples=["gptq@4 + kv-int@4"])
    budget: Annotated[dict[str, float], AfterValidator(whole_text)] = Field(default_factory=dict)


class SweepWish(Wish):
    """Methods to carry out at each of some budgets."""

    methods: list[str] = Field(min_length=1, max_length=40, examples=[["gptq", "rtn"]])
    budgets: list[float] = Field(max_length=20, examples=[[3, 4, 8]])


class Queued(BaseModel):
    """A job that was queued, joined or answered from what is known."""

    run_id: str
    job_id: str
    outcome: Literal["queued", "joined", "cached"]


class Refused(BaseModel):
    """A recipe that a sweep left out."""

    recipe: str
    reason: str


class Swept(BaseModel):
    """What became of a sweep."""

    submissions: list[Queued]
    recipes: list[str]
    refusals: list[Refused]


class JobView(BaseModel):
    """One job as it stands; times are seconds since 1970."""

    job_id: str
    run_id: str
    model: str
    recipe: str
    family: str
    state: str
    active: bool
    stage: str
    done: float
    total: float
    attempt: int
    created: float
    started: float | None
    ended: float | None
    reason: str
    may_change: bool
    expected: float | None = Field(
        description="seconds from start to end, estimated; null where unknown or over"
    )


class JobList(BaseModel):
    """Jobs, newest first, at a revision that rises with every change; `count` is of all."""

    revision: int
    count: int
    jobs: list[JobView]


class Taken(BaseModel):
    """What a file of results brought: ids of runs, and why what was refused was."""

    added: list[str]
    known: list[str]
    conflicting: list[str] = Field(description="those known that differ from the ones here")
    refused: list[str]


class View(BaseModel):
    """A view of the page to keep under a short name."""

    view: Annotated[dict[str, Any], AfterValidator(whole_text)]


class Frontier(BaseModel):
    """Points of a chart; `on_frontier` marks those that none dominates."""

    x: str
    y: str
    points: list[dict[str, Any]]


class ForecastView(BaseModel):
    """A KL divergence before it is measured, nats a token, with its 95 % interval."""

    value: float
    low: float
    high: float
    basis: str


class EstimateView(BaseModel):
    """What a run is expected to take; all of it estimated."""

    resident_bytes: int
    dense_bytes: int
    peak_bytes: int
    seconds: float
    basis: str
    exact: bool
    quality: ForecastView | None


def answer(request: Request, content: Any, key: str = "") -> Response:
    """JSON with an ETag, or 304 where the asker has it; `key` names the content if it is known."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    tag = f'"{key or hashlib.sha256(body.encode()).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
