"""Takes the readings that a person asked for beyond the embedded texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend import harness
from backend.baseline import Baseline
from backend.extras import Extras
from backend.measure import wikitext
from backend.measure.reading import Reading
from backend.models.language_model import TransformersModel
from backend.models.load import LoadedModel
from backend.recipes import digest

WINDOWS = {"smoke": 4, "quick": 16, "full": None}


@dataclass(frozen=True)
class ExtraReadings:
    """An artefact, the dense model, and what is asked of both."""

    extras: Extras
    tier: str
    variant: Callable[[], TransformersModel]
    loaded: Callable[[], LoadedModel]
    baseline: Baseline
    notes: list[str]

    def groups(self) -> list[tuple[str, Callable[[], list[Reading]], bool]]:
        """The groups of readings, none of them timed."""
        found: list[tuple[str, Callable[[], list[Reading]], bool]] = []
        if self.extras.wikitext is not None:
            found.append(("wikitext", self.take_wikitext, False))
        if self.extras.tasks:
            found.append(("tasks", self.take_tasks, False))
        return found

    def take_wikitext(self) -> list[Reading]:
        """Perplexity by `wt2-2048`, of models that read 2,048 tokens."""
        loaded = self.loaded()
        most = loaded.model.config.get_text_config().max_position_embeddings
        rows = wikitext.windows(loaded.tokenizer.encode(self.extras.text()), WINDOWS[self.tier])
        if most < wikitext.LENGTH or not rows:
            told = "the text is shorter" if not rows else f"this model reads {most}"
            self.notes.append(
                f"wt2-2048 takes windows of 2,048 tokens and {told}, so it was left out."
            )
            return []
        key = digest(["wt2-2048", rows])
        dense = self.baseline.kept(
            "wikitext", lambda: wikitext.losses(self.baseline.model, rows), key
        )
        return wikitext.readings(wikitext.losses(self.variant(), rows), dense)

    def take_tasks(self) -> list[Reading]:
        """Tasks of lm-evaluation-harness."""
        loaded, limit = self.loaded(), harness.LIMITS[self.tier]
        tasks = self.extras.tasks
        dense = self.baseline.kept(
            "tasks",
            lambda: harness.ask(self.baseline.model, loaded, tasks, limit),
            digest([list(tasks), limit]),
        )
        return harness.readings(harness.ask(self.variant(), loaded, tasks, limit), dense)
