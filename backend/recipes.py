"""A recipe: an ordered set of methods with their settings; imports no torch.

Short form: stages joined by ` + `, each `key`, `key@bits` or `key(setting=value, ...)`, and
` by evopress` at the end, or another allocator, where a budget is divided other than evenly:
`gptq@4 + eora@0.25 + kv-int@4`, `sparsegpt(bits=9, pattern=2:4) by evopress`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from backend import methods, search
from backend.errors import RecipeError, SettingError
from backend.methods.base import (
    CacheMethod,
    DecodeMethod,
    EncodeMethod,
    LayerMethod,
    Method,
    ModelMethod,
    Needs,
    PrefillMethod,
    RankingMethod,
    RepairMethod,
    ServeMethod,
    TableMethod,
    TuneMethod,
)
from backend.search import UNIFORM
from backend.search.base import Allocator

WeightMethod: TypeAlias = LayerMethod | RepairMethod
_STAGE = re.compile(r"(?P<key>[a-z][a-z0-9-]*)(?:@(?P<bits>[0-9.]+)|\((?P<settings>.*)\))?")


@dataclass(frozen=True)
class Recipe:
    """Methods in the order of their stages; checked when made."""

    stages: tuple[Method, ...]
    allocator: str = UNIFORM

    def __post_init__(self) -> None:
        divides = self.division
        object.__setattr__(self, "allocator", _division_text(divides))
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            _check_order(before, after)
        _check_formats(self.stages)
        self.draft()
        if divides is not None and len(self.layer_methods) != 1:
            raise RecipeError(
                f"{divides.key()} divides the budget of exactly one method that treats layers; "
                f"this recipe has {len(self.layer_methods)}."
            )

    @property
    def division(self) -> Allocator | None:
        """What divides the budget over layers; None where all get the same."""
        if self.allocator == UNIFORM:
            return None
        match = _STAGE.fullmatch(self.allocator)
        if match is None or match["bits"]:
            raise RecipeError(
                f"{self.allocator!r} divides no budget; write its key, or key(setting=value)."
            )
        return search.find(match["key"]).make(_parse_settings(match["settings"] or ""))

    @property
    def layer_methods(self) -> tuple[LayerMethod, ...]:
        """The stages that treat one matrix at a time."""
        return tuple(stage for stage in self.stages if isinstance(stage, LayerMethod))

    def draft(self) -> Recipe | None:
        """What makes the second model that drafts; None without one.

        Raises:
            RecipeError: it does more than make a model.
        """
        for stage in self.stages:
            if not isinstance(stage, DecodeMethod) or not stage.draft_recipe:
                continue
            made = Recipe.parse(stage.draft_recipe)
            if any(isinstance(one, CacheMethod | ServeMethod) for one in made.stages):
                raise RecipeError(
                    f"{stage.key()} drafts with a model, and {stage.draft_recipe!r} does more than "
                    "make one; leave out its stages of cache and decoding."
                )
            return made
        return None

    @property
    def weight_methods(self) -> tuple[WeightMethod, ...]:
        """The stages that change what a matrix is held in: layer methods, then a repair."""
        return tuple(stage for stage in self.stages if isinstance(stage, WeightMethod))

    @property
    def tables(self) -> TableMethod | None:
        """The stage that holds embedding and head, if there is one."""
        return next((stage for stage in self.stages if isinstance(stage, TableMethod)), None)

    @property
    def encoder(self) -> EncodeMethod | None:
        """The stage that holds what is left in 16 bits in fewer, if there is one."""
        return next((stage for stage in self.stages if isinstance(stage, EncodeMethod)), None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the short form.

        Raises:
            ParetoscopeError: says what is wrong and what would be right.
        """
        body, *allocators = _split(text, " by ")
        allocator = " by ".join(allocators)
        parts = [part.strip() for part in _split(body, "+")]
        if parts in ([""], ["dense"]):
            return cls(())
        return cls(tuple(_parse_stage(part) for part in parts), allocator.strip() or UNIFORM)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the long form, as `to_json` writes it.

        Raises:
            ParetoscopeError: says what is wrong.
        """
        stages = data.get("stages") if isinstance(data, dict) else None
        if not isinstance(stages, list) or not all(_is_long_stage(stage) for stage in stages):
            raise RecipeError(
                "A recipe is {stages: [{method: key, settings: {name: value}}], allocator: key}."
            )
        made = tuple(methods.find(stage["method"]).make(stage["settings"]) for stage in stages)
        return cls(made, data.get("allocator", UNIFORM))

    def to_json(self) -> dict[str, Any]:
        """Every stage with every setting and its version, so that nothing is left to defaults."""
        stages = [
            {
                "method": stage.key(),
                "family": stage.family(),
                "version": stage.version,
                "settings": stage.settings(),
            }
            for stage in self.stages
        ]
        divides, draft = self.division, self.draft()
        beside: dict[str, Any] = {} if draft is None else {"draft": draft.to_json()}
        if divides is not None:
            beside["allocator_version"] = divides.version
        return {"stages": stages, "allocator": self.allocator, **beside}

    def text(self) -> str:
        """The short form, as far as defaults allow."""
        body = " + ".join(_stage_text(stage) for stage in self.stages) or "dense"
        return body if self.allocator == UNIFORM else f"{body} by {self.allocator}"

    @property
    def keeps_gradients(self) -> bool:
        """Whether a number to each weight is kept beside the model while it is treated."""
        return any(
            isinstance(one, RankingMethod) or one.needs & (Needs.GRADIENTS | Needs.EACH_GRADIENT)
            for one in self.stages
            if not isinstance(one, CacheMethod | ServeMethod)
        )

    @property
    def family(self) -> str:
        """Family of the only stage, `mixed` for several families, `dense` for none."""
        families = {stage.family() for stage in self.stages}
        if not families:
            return "dense"
        return families.pop() if len(families) == 1 else "mixed"


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _split(text: str, mark: str) -> list[str]:
    """The parts of a text between marks that stand outside of all parentheses."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth and index >= start and text.startswith(mark, index):
            parts.append(text[start:index])
            start = index + len(mark)
    return [*parts, text[start:]]


def _parse_stage(text: str) -> Method:
    match = _STAGE.fullmatch(text)
    if match is None:
        raise RecipeError(
            f"{text!r} is no stage; write key, key@bits or key(setting=value), such as gptq@4."
        )
    cls = methods.find(match["key"])
    if match["bits"]:
        try:
            bits = float(match["bits"])
        except ValueError:
            raise RecipeError(f"{match['bits']!r} is no number of bits.") from None
        return cls().at(bits)
    return cls.make(_parse_settings(match["settings"] or ""))


def _parse_settings(text: str) -> dict[str, Any]:
    settings = {}
    for pair in filter(None, (part.strip() for part in _split(text, ","))):
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingError(f"{pair!r} is no setting; write name=value.")
        try:
            settings[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            settings[name.strip()] = value.strip()
    return settings


def _is_long_stage(stage: Any) -> bool:
    return (
        isinstance(stage, dict)
        and isinstance(stage.get("method"), str)
        and isinstance(stage.get("settings"), dict)
        and all(isinstance(name, str) for name in stage["settings"])
    )


def _stage_text(stage: Method) -> str:
    defaults = type(stage)().settings()
    changed = {name: value for name, value in stage.settings().items() if value != defaults[name]}
    if not changed and stage.level not in defaults:
        return stage.key()
    if not set(changed) - {stage.level}:
        return f"{stage.key()}@{_number(stage.settings()[stage.level])}"
    settings = ", ".join(f"{name}={value}" for name, value in changed.items())
    return f"{stage.key()}({settings})"


def _division_text(divides: Allocator | None) -> str:
    if divides is None:
        return UNIFORM
    defaults = type(divides)().settings()
    changed = [
        f"{name}={value}" for name, value in divides.settings().items() if value != defaults[name]
    ]
    return f"{divides.key()}({', '.join(changed)})" if changed else divides.key()


def _number(value: float) -> str:
    """A number in as few digits as bring it back."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _check_order(before: Method, after: Method) -> None:
    if before.stage < after.stage:
        return
    if before.stage == after.stage:
        raise RecipeError(
            f"{before.key()} and {after.key()} both {before.stage.name.lower()}; "
            "a recipe holds one of each stage."
        )
    raise RecipeError(
        f"{after.key()} ({after.stage.name.lower()}) comes before "
        f"{before.key()} ({before.stage.name.lower()}): put it first."
    )


def _check_formats(stages: tuple[Method, ...]) -> None:
    held, by, shaped = ("dense",), "the model", False
    cache = next((stage for stage in stages if isinstance(stage, CacheMethod)), None)
    for stage in stages:
        if isinstance(stage, PrefillMethod) and cache is not None:
            raise RecipeError(
                f"{stage.key()} reads prompts into dense keys and values, and {cache.key()} holds "
                "them otherwise; leave one of both out."
            )
    for stage in stages:
        if isinstance(stage, ModelMethod):
            shaped = True
        bare = isinstance(stage, TuneMethod) and not shaped and by == "the model"
        if bare or (isinstance(stage, RepairMethod) and by == "the model"):
            raise RecipeError(
                f"{stage.key()} mends what another method changed, and none comes before it: "
                f"write rtn@4 + {stage.key()}."
            )
        if not isinstance(stage, LayerMethod):
            continue
        if not set(held) <= set(stage.accepts):
            raise RecipeError(
                f"{stage.key()} takes {' or '.join(stage.accepts)} weights, and {by} "
                f"leaves them {' or '.join(held)}."
            )
        held, by = stage.yields, stage.key()
