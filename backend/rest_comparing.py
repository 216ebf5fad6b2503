"""Live texts, blind questions and votes over HTTP; part of the interface that `rest` serves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backend.limits import ADMISSION, LimitError, Limits
from backend.live.records import LONGEST_PROMPT, MOST_PANES, MOST_TOKENS
from backend.rest_values import Queued, answer
from backend.service import Service

PREFIX = "/api/v1"
Visitor = Annotated[str, Header(alias="X-Visitor", max_length=64)]


class WritingWish(BaseModel):
    """A text that the dense model and some runs are to write."""

    model_config = ConfigDict(extra="forbid")

    runs: list[str] = Field(min_length=1, max_length=MOST_PANES - 1)
    prompt: str = Field(max_length=LONGEST_PROMPT, examples=["Once upon a time,"])
    new_tokens: int = Field(96, ge=1, le=MOST_TOKENS)
    temperature: float = Field(0.0, ge=0.0, le=2.0, description="0 takes the likeliest token")
    seed: int = Field(0, ge=0, le=2**31, description="of the luck that all models share")


class WritingView(BaseModel):
    """A text as far as it is written; ask again with `after` set to `count`."""

    writing_id: str
    prompt: str
    new_tokens: int
    temperature: float
    seed: int
    panes: list[dict[str, Any]]
    state: Literal["queued", "writing", "done", "stopped", "failed"]
    reason: str
    count: int
    events: list[dict[str, Any]]


class QuestionView(BaseModel):
    """Two texts of which a compressed model wrote one."""

    question_id: str
    prompt: str
    left: str
    right: str
    remaining: int


class Choice(BaseModel):
    """Which text is taken for the compressed one."""

    choice: Literal["left", "right", "unsure"]


class VerdictView(BaseModel):
    """What an answer was worth."""

    answer: Literal["right", "wrong", "unsure"]
    compressed: Literal["left", "right"]
    run_id: str
    recipe: str
    counted: bool


def add_comparing(router: APIRouter, service: Service, limits: Limits) -> None:
    """Add the routes."""
    comparing = service.comparing

    @router.post(f"{PREFIX}/writings", tags=["writing"], status_code=202)
    def write(wish: WritingWish, visitor: Visitor = "") -> WritingView:
        """Have the dense model and up to three runs go on from a prompt, token by token."""
        limits.admit_text(wish.prompt, wish.new_tokens)
        told = wish.model_dump()
        return _view(
            comparing.generate(told.pop("runs"), told.pop("prompt"), **told, owner=visitor)
        )

    @router.get(f"{PREFIX}/writings/{{writing_id}}", tags=["writing"], response_model=WritingView)
    def watch(request: Request, writing_id: str, after: int = 0) -> Response:
        """A text as far as it is written, with the events after a number of them."""
        return answer(request, _view(comparing.writing(writing_id), after).model_dump())

    @router.post(f"{PREFIX}/writings/{{writing_id}}/stop", tags=["writing"])
    def stop(writing_id: str, visitor: Visitor = "") -> WritingView:
        """End a text where it is."""
        if not limits.may_change(comparing.writing(writing_id).owner, visitor):
            raise LimitError("Only who had a text written may stop it.")
        return _view(comparing.stop(writing_id))

    @router.post(f"{PREFIX}/runs/{{run_id}}/remake", tags=["jobs"], status_code=202)
    def remake(run_id: str, visitor: Visitor = "") -> Queued:
        """Queue a run once more, to have its compressed model on this machine."""
        with ADMISSION:
            limits.admit(service, service.run(run_id).model["name"], 1, visitor)
            return Queued(**asdict(comparing.remake(run_id, visitor)))

    @router.post(f"{PREFIX}/runs/{{run_id}}/blind", tags=["votes"])
    def question(run_id: str, visitor: Visitor = "") -> QuestionView:
        """Two texts, one of them by this run, in an order that only the answer tells."""
        return QuestionView(**asdict(comparing.question(run_id, visitor)))

    @router.post(f"{PREFIX}/blind/{{question_id}}", tags=["votes"])
    def vote(question_id: str, choice: Choice, visitor: Visitor = "") -> VerdictView:
        """Say which of the two the compressed model wrote; the vote is kept."""
        return VerdictView(**asdict(comparing.vote(question_id, choice.choice, visitor)))

    @router.get(f"{PREFIX}/votes", tags=["votes"])
    def votes() -> list[dict[str, Any]]:
        """How often each judged run was told from the dense model; by chance 50 %."""
        return comparing.votes()


def _view(writing: Any, after: int = 0) -> WritingView:
    told = writing.to_json(after)
    panes = [{"run_id": one["run_id"], "recipe": one["recipe"]} for one in told["panes"]]
    return WritingView(**told | {"panes": panes})
