"""What may be asked of runs side by side: live texts, blind questions, votes; imports no torch."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.errors import ModelError, RecipeError, SettingError, UnknownNameError
from backend.jobs.records import Submission
from backend.live.desk import Desk
from backend.live.records import LONGEST_PROMPT, MOST_PANES, MOST_TOKENS, Pane, Wish, Writing
from backend.plan import TIERS, resolve
from backend.recipes import digest
from backend.sources import ModelSource, folder_of
from backend.store.results import Run
from backend.store.votes import ANSWERS

if TYPE_CHECKING:
    from backend.service import Service

OPEN_QUESTIONS = 512
HOTTEST = 2.0


class NoArtefactError(ModelError):
    """A run's compressed model is not on this machine."""


@dataclass(frozen=True)
class Question:
    """Two texts of which a compressed model wrote one; who asks does not know which.

    Attributes:
        question_id: names it in the answer.
        prompt: what both go on from.
        left: a text.
        right: the other.
        remaining: further texts of this run that the voter has not judged.
    """

    question_id: str
    prompt: str
    left: str
    right: str
    remaining: int


@dataclass(frozen=True)
class Verdict:
    """What an answer was worth.

    Attributes:
        answer: right, wrong or unsure.
        compressed: the side that the compressed model wrote, left or right.
        run_id: whose it is.
        recipe: what was done to it.
        counted: whether the vote is new.
    """

    answer: str
    compressed: str
    run_id: str
    recipe: str
    counted: bool


class Comparing:
    """Texts of several models side by side, over an open service."""

    def __init__(self, service: Service, desk: Desk) -> None:
        self._service, self._desk = service, desk
        self._open: OrderedDict[str, tuple[str, str, str]] = OrderedDict()
        self._turn = threading.Lock()

    def warm_up(self) -> None:
        """Start the writing process ahead of the first text."""
        self._desk.warm_up()

    def close(self) -> None:
        """End the writing process."""
        self._desk.close()

    # Live texts

    def generate(
        self,
        run_ids: Sequence[str],
        prompt: str,
        *,
        new_tokens: int = 96,
        temperature: float = 0.0,
        seed: int = 0,
        owner: str = "",
    ) -> Writing:
        """Have the dense model and up to three runs go on from a prompt, all with the same luck.

        Raises:
            NoArtefactError: a run's compressed model is not here; `remake` brings it.
            ParetoscopeError: an unknown run, runs of several models, or a wish beyond the limits.
        """
        runs = [self._service.run(one) for one in dict.fromkeys(run_ids)]
        _check(runs, prompt, new_tokens, temperature)
        source = source_of(runs[0])
        panes = [Pane("", "dense", None), *self._panes(runs)]
        content = [[one.run_id for one in panes], [one.recipe for one in panes],
                   runs[0].model.get("sha256"), prompt, new_tokens, temperature, seed]  # fmt: skip
        wish = Wish(digest(content), source.to_json(), tuple(panes), prompt, new_tokens,
                    float(temperature), seed)  # fmt: skip
        return self._desk.ask(wish, owner)

    def writing(self, writing_id: str) -> Writing:
        """A text as far as it is written.

        Raises:
            UnknownNameError: no such text here.
        """
        return self._desk.look(writing_id)

    def stop(self, writing_id: str) -> Writing:
        """End a text where it is."""
        return self._desk.stop(writing_id)

    def can_write(self, run: Run) -> bool:
        """Whether a run can write here and now: the dense model always, others by artefact."""
        return run.recipe == "dense" or self._service.artefact_folder(run.run_id) is not None

    def remake(self, run_id: str, owner: str = "") -> Submission:
        """Queue a run once more, so that its compressed model is on this machine.

        On another machine, or with other versions, this makes a run of its own.

        Raises:
            ParetoscopeError: its model or recipe cannot be had here.
        """
        run = self._service.run(run_id)
        tier = run.manifest.get("evaluation", {}).get("tier", "quick")
        return self._service.submit(
            run.recipe,
            _wish_for(source_of(run)),
            tier=tier if tier in TIERS else "quick",
            owner=owner,
            again=True,
        )

    def _panes(self, runs: Sequence[Run]) -> list[Pane]:
        panes = []
        for run in runs:
            if run.recipe == "dense":
                continue
            folder = self._service.artefact_folder(run.run_id, use=True)
            if folder is None:
                raise NoArtefactError(
                    f"The model of {run.recipe} is not on this machine; have it made first."
                )
            panes.append(Pane(run.run_id, run.recipe, folder))
        return panes

    # Blind questions

    def question(self, run_id: str, voter: str) -> Question:
        """The next pair of texts of a run that a voter has not judged, in random order.

        Raises:
            UnknownNameError: no such run, or nothing is left to judge.
        """
        run = self._service.run(run_id)
        told = [one for one in run.generations if "dense_text" in one]
        differ = [one for one in told if one["text"].strip() != one["dense_text"].strip()]
        if not differ:
            raise UnknownNameError(
                f"{run.recipe} writes what the dense model writes on all of its {len(told)} "
                "prompts: there is nothing to tell apart."
                if told
                else f"No texts of {run.recipe} are stored beside the dense model's."
            )
        judged = self._service.store.votes.judged(run.run_id, _nobody(voter))
        left = [one for one in differ if one["prompt"] not in judged]
        if not left:
            raise UnknownNameError(
                f"You have judged all {len(differ)} texts of {run.recipe} that differ."
            )
        one = secrets.choice(left)
        side = secrets.choice(("left", "right"))
        texts = [one["text"], one["dense_text"]]
        first, second = texts if side == "left" else texts[::-1]
        question_id = secrets.token_hex(8)
        with self._turn:
            self._open[question_id] = run.run_id, one["prompt"], side
            while len(self._open) > OPEN_QUESTIONS:
                self._open.popitem(last=False)
        return Question(
            question_id, one.get("prompt_text", one["prompt"]), first, second, len(left) - 1
        )

    def vote(self, question_id: str, choice: str, voter: str) -> Verdict:
        """Keep which text a voter takes for the compressed one: left, right or unsure.

        Raises:
            UnknownNameError: the question is not open, or was answered.
            SettingError: no such choice.
        """
        if choice not in ("left", "right", "unsure"):
            raise SettingError("The choice is left, right or unsure.")
        with self._turn:
            asked = self._open.pop(question_id, None)
        if asked is None:
            raise UnknownNameError("This question is not open any more; take the next one.")
        run_id, prompt, side = asked
        answer = "unsure" if choice == "unsure" else ANSWERS[choice != side]
        counted = self._service.store.votes.cast(run_id, prompt, answer, _nobody(voter))
        return Verdict(answer, side, run_id, self._service.run(run_id).recipe, counted)

    def votes(self) -> list[dict[str, Any]]:
        """Of every judged run: votes right, wrong and unsure, the share right with its interval.

        The share is of those who decided; by chance it is 50 %.
        """
        from backend.measure.statistics import wilson  # scipy, which the start need not wait for

        found = []
        for row in self._service.store.votes.counts().to_dict("records"):
            decided = row["right"] + row["wrong"]
            share = wilson(row["right"], decided) if decided else None
            found.append(
                row
                | {
                    "share": None if share is None else 100 * share.value,
                    "low": None if share is None or share.low is None else 100 * share.low,
                    "high": None if share is None or share.high is None else 100 * share.high,
                }
            )
        return found


def source_of(run: Run) -> ModelSource:
    """The dense model of a run, as it is to be had on this machine.

    Raises:
        ModelError: it is not here, or has changed since.
    """
    name, place = run.model["name"], run.model.get("source", "")
    if name == "default":
        source = ModelSource.parse(name)
    elif place in ("", "hub"):
        return ModelSource(name, None, run.model.get("revision", ""))
    elif folder := folder_of(place):
        source = ModelSource(name, folder)
    else:
        raise ModelError(f"The model {name} was a folder, {place}, that is not on this machine.")
    known = run.model.get("sha256")
    if known and resolve(source)[1] != known:
        raise ModelError(f"The model {name} has changed since this run; compress it again.")
    return source


def _wish_for(source: ModelSource) -> str:
    if source.folder is not None:
        return "default" if source.embedded else str(source.folder)
    return f"{source.name}@{source.revision}" if source.revision else source.name


def _check(runs: Sequence[Run], prompt: str, new_tokens: int, temperature: float) -> None:
    if not 1 <= len(runs) < MOST_PANES:
        raise RecipeError(
            f"1 to {MOST_PANES - 1} runs write beside the dense model, not {len(runs)}."
        )
    if len({(run.model["name"], run.model.get("sha256")) for run in runs}) > 1:
        raise RecipeError("These runs are of different models; compare runs of one model.")
    if not 1 <= len(prompt.strip()) <= LONGEST_PROMPT:
        raise SettingError(f"A prompt has 1 to {LONGEST_PROMPT:,} characters.")
    if not 1 <= new_tokens <= MOST_TOKENS:
        raise SettingError(f"1 to {MOST_TOKENS} tokens are written, not {new_tokens}.")
    if not 0.0 <= temperature <= HOTTEST:
        raise SettingError(f"The temperature lies in 0 to {HOTTEST:g}; 0 takes the likeliest.")


def _nobody(voter: str) -> str:
    """A voter's name that tells nobody who it is."""
    return hashlib.sha256(f"voter {voter}".encode()).hexdigest()[:16]
