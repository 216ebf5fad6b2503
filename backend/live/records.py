"""What is asked of the writing process and what is known of a text; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MOST_PANES = 4  # the dense model and three variants
MOST_TOKENS = 256
LONGEST_PROMPT = 4_000  # characters
ENDED = ("done", "stopped", "failed")


@dataclass(frozen=True)
class Pane:
    """One writer of a text: a variant by its artefact, or the dense model where that is None."""

    run_id: str
    recipe: str
    artefact: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        folder = None if self.artefact is None else str(self.artefact)
        return {"run_id": self.run_id, "recipe": self.recipe, "artefact": folder}


@dataclass(frozen=True)
class Wish:
    """A text to be written by several models.

    Attributes:
        writing_id: hash of all the rest.
        source: the dense model, as `ModelSource.to_json` gives it.
        panes: who writes, the dense model first.
        prompt: what they go on from.
        new_tokens: most tokens of each.
        temperature: 0 takes the likeliest token.
        seed: of the luck that all share.
    """

    writing_id: str
    source: dict[str, Any]
    panes: tuple[Pane, ...]
    prompt: str
    new_tokens: int
    temperature: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"panes": [pane.to_json() for pane in self.panes]}


@dataclass
class Writing:
    """A text as far as it is known: `state`, and events in the order they came.

    Events are `{"loading": recipe}`, `{"pane": n, "weights_bytes": b}`, for each token
    `{"pane": n, "token": id, "text": piece, "top": [[text, share], ...], "dense": ..., "kl": nats,
    "seconds": spent, "cache_bytes": b}`, and `{"pane": n, "end": reason}`.
    """

    about: dict[str, Any]
    owner: str = ""
    state: str = "queued"
    reason: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED

    def to_json(self, after: int = 0) -> dict[str, Any]:
        """What is known, with the events after the first `after`."""
        return {
            **self.about,
            "state": self.state,
            "reason": self.reason,
            "count": len(self.events),
            "events": self.events[max(0, after) :],
        }
