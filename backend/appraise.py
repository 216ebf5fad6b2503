"""Takes every reading of an artefact in a process that never saw the compressor.

What the dense model makes of the same texts is taken once and kept below `cache/dense`. Sizes
come first and quality next, so that a point can be drawn before the slower readings are in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from backend import drafting, exactness, layers, questions
from backend.baseline import Baseline
from backend.extra_readings import ExtraReadings
from backend.extras import NO_EXTRAS, Extras
from backend.measure import (
    abilities,
    evaluation,
    generations,
    needles,
    quality,
    representation,
    scores,
    size,
    speed,
)
from backend.measure.evaluation import EvaluationSet
from backend.measure.quiet import Quiet
from backend.measure.reading import Reading, take
from backend.models.language_model import TransformersModel
from backend.models.place import HERE, Place
from backend.recipes import Recipe, digest
from backend.serving import Serving
from backend.sources import ModelSource
from backend.subject import Subject
from backend.texts import Texts
from data.texts import prompts as fixed_prompts

Value = TypeVar("Value")
Report = Callable[[list[Reading]], None]
Stage = Callable[[str, int, int], None]

SPEED_PLANS = {"sweep": speed.SWEEP, "full": speed.SpeedPlan()}
WRITTEN = {"smoke": 32, "quick": 64, "full": 128}  # tokens after each prompt
NEEDLES = needles.Plan(
    lengths=(128, 256),
    count=32,
    fact=" The secret word is {value}.",
    question=" Question: What is the secret word? Answer:",
)
PRESSURE_CONTEXT = 128
SEQUENCES, LONGEST_CONTEXT = 8, 4096


@dataclass(frozen=True)
class Order:
    """What is to be measured.

    Attributes:
        artefact: folder of the compressed model.
        source: the dense model.
        recipe: what was done.
        tier: how much text: smoke, quick or full.
        speed: how long speed is timed: sweep or full; empty for not at all.
        cache: folder of what the dense model is known to do.
        fingerprint: SHA-256 of the dense model's files.
        texts: what is read.
        heavy: takes so much memory that nothing may run beside it.
        extras: what else is asked.
        place: where models are computed.
    """

    artefact: Path
    source: ModelSource
    recipe: Recipe
    tier: str
    speed: str
    cache: Path
    fingerprint: str
    texts: Texts
    heavy: bool = False
    extras: Extras = NO_EXTRAS
    place: Place = HERE


class Appraisal:
    """The readings of one artefact, taken one group after another."""

    def __init__(self, order: Order, report: Report, stage: Stage) -> None:
        self.order, self.report, self.stage = order, report, stage
        self.baseline = Baseline(order.source, order.cache, order.fingerprint, order.place)
        parameters = order.source.parameters()
        self.subject = Subject(order.artefact, order.recipe, parameters, order.place)
        self.notes: list[str] = []
        self.readings: list[Reading] = []
        self.generations: list[dict[str, Any]] = []
        self.layers: list[dict[str, Any]] = []
        self.kinds: dict[str, str] = {}
        self.documents: dict[str, list[float]] = {}

    def run(self) -> None:
        """Take everything."""
        quiet = Quiet(self.order.cache)
        groups = self._groups()
        for number, (name, group, timed) in enumerate(groups):
            self.stage(f"measure {name}", number, len(groups))
            with quiet.alone() if timed or self.order.heavy else quiet.shared():
                found = group()
            self.readings += found
            if found:
                self.report(found)
            if name == "quality" and self.broken:
                self.notes.append("Some logits are not finite; nothing further was measured.")
                break
        self.stage("measure", len(groups), len(groups))

    def _groups(self) -> list[tuple[str, Callable[[], list[Reading]], bool]]:
        """What is to be taken, in order, and whether it is timed and so wants to be alone."""
        groups: list[tuple[str, Callable[[], list[Reading]], bool]] = [
            ("size", self.take_size, False),
            ("quality", self.take_quality, False),
            ("representation", self.take_representation, False),
            ("abilities", self.take_abilities, False),
            ("generations", self.take_generations, False),
            ("cache", self.take_cache, False),
        ]
        if exactness.promised(self.order.recipe):
            groups.append(("weights", self.take_weights, False))
        subject = self.subject
        loaded, computed = lambda: subject.artefact.loaded, lambda: subject.computed
        asked = self.order.extras, self.order.tier, computed, loaded, self.baseline, self.notes
        groups += ExtraReadings(*asked).groups()
        seconds = self._plan().seconds if self.order.speed else 0.0
        recipe, tier = self.order.recipe, self.order.tier
        groups += Serving(recipe, tier, subject, self._recorded, seconds).groups()
        if self.order.speed:
            groups.append(("speed", self.take_speed, True))
        return groups

    @property
    def broken(self) -> bool:
        """Whether the model gave logits that are not finite."""
        return any(one.name == "nonfinite" and one.value > 0 for one in self.readings)

    def take_size(self) -> list[Reading]:
        """Bytes on disk and in memory, and the peak of loading and running."""
        device = self.order.place.device
        with size.watch_peak(device) as peak:
            loaded = self.subject.artefact.loaded
            self.subject.deployed.logits(torch.zeros(1, 64, dtype=torch.int64, device=device))
        found = [] if peak.bytes is None else take("peak_bytes", peak.bytes, note=peak.note)
        self.layers = layers.describe(self.order.artefact)
        treated = [layer for layer in self.layers if layer["format"] != "dense-layer"]
        linear = sum(round(8 * layer["bytes"] / layer["bits"]) for layer in treated)
        found += size.size_readings(
            drafting.tensors_of(loaded.model, self.subject.draft),
            self.order.artefact,
            self.order.source.parameters(),
            linear_parameters=linear,
            is_linear=lambda name: name.startswith("0.") and ".held." in name,
        )
        if treated:
            held = sum(layer["bytes"] for layer in treated)
            self.kinds["memory"] = size.memory_kind(held, 2 * linear)
            self.kinds["speed"] = layers.speed(self.subject.artefact.view)
        return found

    def take_weights(self) -> list[Reading]:
        """Proof that every tensor came through to the bit."""
        return exactness.readings(self.baseline.model.model, self.subject.artefact.loaded.model)

    def take_quality(self) -> list[Reading]:
        """Distance from the dense model on held-out text."""
        dense = self.baseline.reference("reference", self.evaluation)
        table = quality.score(self.subject.computed, self.evaluation, dense)
        self.documents = scores.by_document(table)
        table.save(self.order.artefact.with_suffix(".tokens.safetensors"))
        floor = self.baseline.noise_floor(self.evaluation, dense)
        return scores.readings(table) + floor

    def take_representation(self) -> list[Reading]:
        """How far its last states spread, beside the dense model's."""
        rows = self.evaluation.windows[: representation.WINDOWS]
        baseline = self.baseline
        dense = baseline.kept(
            "spread",
            lambda: representation.norms(baseline.model.states, rows),
            digest([list(row) for row in rows]),
        )
        own = representation.norms(self.subject.computed.states, rows)
        return representation.readings(own, dense, self.evaluation.documents[: len(rows)])

    def take_abilities(self) -> list[Reading]:
        """What it still knows and can do; for the embedded model, whose texts ask of its world."""
        items = questions.items(
            self._documents(), self.order.tier, embedded=self.order.source.embedded
        )

        def ask(model: TransformersModel) -> abilities.Outcomes:
            return abilities.answer(model, items, self.subject.encode, bos=self.subject.bos)

        key = digest([[item.prompt, item.answer] for item in items])
        dense = self.baseline.kept("abilities", lambda: ask(self.baseline.model).to_json(), key)
        return abilities.readings(ask(self.subject.computed), abilities.Outcomes.from_json(dense))

    def take_generations(self) -> list[Reading]:
        """What it writes beside the dense model."""
        prompts = fixed_prompts()
        rows = self.subject.prompts()
        count = WRITTEN[self.order.tier]
        dense = self.baseline.kept(
            "writing",
            lambda: generations.write(self.baseline.model, rows, count).to_json(),
            digest([rows, count]),
        )
        expected = generations.Writing.from_json(dense)
        written = generations.write(self.subject.computed, rows, count)
        leaves = generations.departures(expected, written)
        for prompt, tokens, base, leave in zip(
            prompts, written.tokens, expected.tokens, leaves, strict=True
        ):
            self.generations.append(
                {
                    "prompt": prompt.name,
                    "prompt_text": prompt.text,
                    "text": self.subject.decode(tokens),
                    "tokens": list(tokens),
                    "dense_text": self.subject.decode(base),
                    "dense_tokens": list(base),
                    "first_divergence": leave.index,
                    "gap": leave.gap,
                }
            )
        return generations.readings(expected, written, prompts=rows, judge=self.baseline.model)

    def take_cache(self) -> list[Reading]:
        """Bytes of keys and values, and, where they are compressed, what that costs."""
        codec = self.subject.deployed.codec
        full = 0 if codec is None or codec.context is None else codec.context
        length = min(max(256, full), self.subject.longest) // 2
        found = size.cache_readings(self.subject.deployed, length=length)
        found += self._footprint(found)
        if codec is None:
            return found
        self.notes += self._untreated()
        pressed = evaluation.pressure(
            self._documents(), self.subject.encode, bos=self.subject.bos, context=PRESSURE_CONTEXT
        )
        kept = self.baseline.reference("pressure", pressed)
        found += scores.pressure_readings(quality.score(self.subject.computed, pressed, kept))
        asked = needles.questions(
            [text for _, _, text in self._documents()],
            self.subject.encode,
            NEEDLES,
            bos=self.subject.bos,
        )
        key = digest([[list(one.context), list(one.tail)] for one in asked])
        dense = self.baseline.kept(
            "needles", lambda: needles.ask(self.baseline.model, asked).to_json(), key
        )
        hits = needles.ask(self.subject.computed, asked)
        return found + needles.readings(hits, needles.Hits.from_json(dense))

    def _footprint(self, cache: list[Reading]) -> list[Reading]:
        values = {one.name: one.value for one in cache}
        context = min(self.subject.longest, LONGEST_CONTEXT)
        one = values["kv_fixed_bytes"] + context * values["kv_bytes_per_token"]
        one += drafting.cache_bytes(self.subject.draft, context)
        total = self._value("resident_bytes") + SEQUENCES * one
        note = f"{SEQUENCES} sequences of {context:,} tokens"
        return take("footprint_bytes", total, kind="counted", note=note)

    def _untreated(self) -> list[str]:
        names = ", ".join(map(str, self.subject.deployed.untreated_layers))
        told = f"The cache of layers {names} is a window of the model's own; it stayed as it is."
        return [told] if names else []

    def take_speed(self) -> list[Reading]:
        """Rates and ratios to the dense model, in rounds with it."""
        row = self._recorded()
        copied = speed.copy_bandwidth(int(self._value("resident_bytes")), self.order.place.device)
        linears = sum(layer["bytes"] for layer in self.layers)
        dense, dtype = self.baseline.quickest()
        timed = speed.measure_speed(
            self.subject.deployed,
            dense,
            row,
            self._plan(),
            bytes_per_step=linears,
            bandwidth=copied,
        )
        taken = {one.name for one in self.readings}
        told = [f"dense in {dtype}", self.order.place.told, self.subject.deployed.pace]
        if self.kinds.get("speed") == "emulated":
            told.append("emulated: weights are unpacked at every step")
        return [
            replace(one, note="; ".join(filter(None, [*told, one.note])))
            for one in timed.readings
            if one.name not in taken
        ]

    def _value(self, name: str) -> float:
        return next(one.value for one in self.readings if one.name == name)

    @cached_property
    def evaluation(self) -> EvaluationSet:
        """The held-out tokens."""
        return evaluation.build(
            self._documents(),
            self.subject.encode,
            self.subject.decode,
            bos=self.subject.bos,
            tier=self.order.tier,
        )

    def _recorded(self) -> list[int]:
        return [token for window in self.evaluation.windows[:2] for token in window]

    def _documents(self) -> list[tuple[str, str, str]]:
        return self.order.texts.heldout

    def _plan(self) -> speed.SpeedPlan:
        return SPEED_PLANS[self.order.speed]
