"""Budgets as people say them, and the recipe that fits one; imports no torch.

A budget has any of: bits a weight, bytes (of weights, or of weights, cache and buffers at a
context and batch), a floor of quality, a floor of speed. `fit` turns a recipe's level so that
what can be counted beforehand holds; what cannot be met gives the nearest that can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from backend.dimensions import Dimensions
from backend.errors import OutOfReachError, SettingError
from backend.recipes import Recipe
from backend.sizes import Size, level_of, reach, size_of, turned, turning

UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
STEP = 0.01  # bits between two levels that are told apart
_NUMBER = r"[0-9]*\.?[0-9]+(?:e[0-9]+)?"
_SMALL = r"[0-9]*\.?[0-9]+(?:e-?[0-9]+)?"
_MOST = r"(?:(?:<=?|≤|at most|up to|under|below)\s*)?"
_LEAST = r"(?:>=?|≥|at least)\s*"
_JOINED = re.compile(r"[,;]|\b(?:and|with|at)\b(?! (?:most|least)\b)", re.IGNORECASE)
_ASKED = re.compile(
    r"\s*(?:what(?: is|'s)(?: the)? best|(?:the )?best|fits?)\s+(?:in|within|under|below)\b|\?",
    re.IGNORECASE,
)
_LIMITS = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "nbytes": rf"{_MOST}({_NUMBER})\s*([kmgt]?i?b)",
        "context": rf"({_NUMBER})(k?)\s*(?:tokens|context)(?:\s*x\s*([0-9]+))?",
        "bits": rf"{_MOST}({_NUMBER})[\s-]*bits?",
        "kld": rf"(?=kl|.*nat)(?:kld?\s*)?{_MOST}({_SMALL})"
        r"(?:\s*nats?(?:\s*(?:/|per|a)\s*token)?)?",
        "perplexity_ratio": rf"(?:ppl|perplexity)\s*{_MOST}({_NUMBER})\s*(?:x|×)?",
        "decode_speedup": rf"(?=>|≥|at least|.*fast)(?:{_LEAST})?({_NUMBER})\s*(?:x|×|times)"
        r"(?:\s*(?:faster|as fast)(?:\s*(?:as|than)\s*(?:the )?dense(?: model)?)?)?",
        "decode_tps": rf"(?:{_LEAST})?({_NUMBER})\s*"
        r"(?:tok(?:en)?s?\s*(?:/|per|a)\s*s(?:ec(?:ond)?)?|tps|t/s)",
    }.items()
}
EXAMPLE = "'6 GB, 8k context x 1, >= 20 tok/s', '3.5 bits' or 'kld <= 0.05'"


@dataclass(frozen=True)
class Budget:
    """What may be spent and what must be reached; a field of 0 is left open.

    Attributes:
        bits: held per original weight of the treated matrices, at most.
        nbytes: held in memory, at most.
        context: tokens whose keys and values count into the bytes, with buffers.
        batch: sequences of that length.
        kld: KL divergence from the dense model, at most, in nats a token.
        perplexity_ratio: perplexity over that of the dense model, at most.
        decode_speedup: decoding speed over that of the dense model, at least.
        decode_tps: tokens a second of one sequence, at least.
    """

    bits: float = 0.0
    nbytes: int = 0
    context: int = 0
    batch: int = 1
    kld: float = 0.0
    perplexity_ratio: float = 0.0
    decode_speedup: float = 0.0
    decode_tps: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise SettingError(f"The {name} of a budget is 0 (open) or more, not {value}.")
        if self.batch < 1:
            raise SettingError(f"A budget is for 1 sequence or more, not {self.batch}.")
        if self.context and not self.nbytes:
            raise SettingError("A context counts into a budget of bytes; say how many bytes too.")
        if 0 < self.perplexity_ratio < 1:
            raise SettingError(
                f"A perplexity ratio of {self.perplexity_ratio:g} asks for better than the dense "
                "model, which is 1; ask for 1 or more."
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read parts joined by commas, such as `6 GB, 8k context x 1, >= 20 tok/s`.

        `at`, `with` and `and` join too: `6 GB at 20 tokens a second`.

        Raises:
            SettingError: a part is no limit, or two say the same.
        """
        found: dict[str, float] = {}
        parts = _JOINED.split(_ASKED.sub("", text))
        for part in filter(None, (one.strip() for one in parts)):
            for name, value in _read(part).items():
                if name in found:
                    raise SettingError(f"{part!r} limits once more what is limited already.")
                found[name] = value
        if not found:
            raise SettingError(f"A budget is written like {EXAMPLE}.")
        whole = {"nbytes", "context", "batch"}
        return cls(**{name: int(v) if name in whole else v for name, v in found.items()})

    def text(self) -> str:
        """The short form, which `parse` reads."""
        parts = []
        if self.bits:
            parts.append(f"{self.bits:.10g} bits")
        if self.nbytes:
            parts.append(f"{self.nbytes} B")
        if self.context:
            parts.append(f"{self.context} context x {self.batch}")
        parts += [f"kld <= {self.kld:.10g}"] if self.kld else []
        parts += [f"ppl <= {self.perplexity_ratio:.10g}"] if self.perplexity_ratio else []
        parts += [f">= {self.decode_speedup:.10g}x"] if self.decode_speedup else []
        parts += [f">= {self.decode_tps:.10g} tok/s"] if self.decode_tps else []
        return ", ".join(parts)

    @property
    def limits_size(self) -> bool:
        """Whether bits or bytes are limited."""
        return bool(self.bits or self.nbytes)

    @property
    def limits_quality(self) -> bool:
        """Whether a floor of quality is set."""
        return bool(self.kld or self.perplexity_ratio)

    @property
    def divergence(self) -> float:
        """The largest KL divergence that the floor of quality allows, in nats a token.

        On text like the model's own, the added loss is the divergence (their difference has
        mean zero), so a perplexity ratio r stands for ln r.
        """
        told = [self.kld] if self.kld else []
        told += [math.log(self.perplexity_ratio)] if self.perplexity_ratio else []
        return min(told, default=math.inf)

    def to_json(self) -> dict[str, float]:
        """The limits that are set."""
        empty = type(self)()
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: v for name, v in values.items() if v != getattr(empty, name)}


@dataclass(frozen=True)
class Fit:
    """A recipe turned to a budget.

    Attributes:
        recipe: that fits, or the nearest there is.
        size: what it takes.
        nbytes: what counts against the budget: weights, and cache and buffers at its context.
        missing: bytes over the budget; 0 where it is kept.
        strange: nats over the divergence asked for, as expected; 0 where it is kept.
    """

    recipe: Recipe
    size: Size
    nbytes: int
    missing: int = 0
    strange: float = 0.0


def fit(
    recipe: Recipe,
    budget: Budget,
    dimensions: Dimensions,
    divergence: Callable[[Recipe], float | None] = lambda _: None,
) -> Fit:
    """Turn a recipe's level as high as bits and bytes of a budget allow.

    With a floor of quality, no higher than it asks for; `divergence` tells what to expect.

    Raises:
        OutOfReachError: the recipe cannot hold this model at any level, or not in these bits.
    """
    largest = _largest(recipe, budget, dimensions)
    if not budget.limits_quality or largest.missing:
        return largest
    asked = budget.divergence
    low, _ = reach(largest.recipe)
    best = largest
    least, most = round(low / STEP), round(level_of(largest.recipe) / STEP)
    while least <= most:  # divergence falls with the level
        middle = (least + most) // 2
        found = _at(largest.recipe, round(middle * STEP, 2), budget, dimensions)
        expected = None if found is None else divergence(found.recipe)
        if found is not None and expected is not None and expected <= asked:
            best, most = found, middle - 1
        else:
            least = middle + 1
    over = max(0.0, (divergence(best.recipe) or 0.0) - asked)
    return replace(best, strange=over)


def _largest(recipe: Recipe, budget: Budget, dimensions: Dimensions) -> Fit:
    wanted = turned(recipe, budget.bits) if budget.bits else recipe
    if not budget.nbytes:
        return _fit(_highest(wanted, budget), budget, dimensions)
    low, high = reach(wanted)
    if budget.bits:
        high = min(high, budget.bits)
    best: Fit | None = None
    least, most = round(low / STEP), round(high / STEP)
    while least <= most:  # bytes rise with the level
        middle = (least + most) // 2
        found = _at(wanted, round(middle * STEP, 2), budget, dimensions)
        if found is not None and found.missing:
            most = middle - 1
        else:
            best, least = found or best, middle + 1
    if best is not None:
        return best
    if high == low == 16.0:
        return _fit(wanted, budget, dimensions)
    return _lowest(wanted, low, high, budget, dimensions)


def _highest(recipe: Recipe, budget: Budget) -> Recipe:
    """A recipe as high as it goes where a floor of quality decides, else as it is."""
    if budget.bits or not budget.limits_quality or turning(recipe) is None:
        return recipe
    return turned(recipe, reach(recipe)[1])


def _lowest(recipe: Recipe, low: float, high: float, budget: Budget, dimensions: Dimensions) -> Fit:
    """The least that a recipe can hold: shapes may not reach as low as the method does."""
    for step in range(round(low / STEP), round(high / STEP) + 1, 5):
        found = _at(recipe, round(step * STEP, 2), budget, dimensions)
        if found is not None:
            return found
    raise OutOfReachError(f"{recipe.text()} holds no matrix of this model at any level.")


def _at(recipe: Recipe, bits: float, budget: Budget, dimensions: Dimensions) -> Fit | None:
    try:
        return _fit(turned(recipe, bits), budget, dimensions)
    except OutOfReachError:
        return None


def _fit(recipe: Recipe, budget: Budget, dimensions: Dimensions) -> Fit:
    size = size_of(recipe, dimensions)
    nbytes = size.total(dimensions, budget.context, budget.batch)
    missing = max(0, nbytes - budget.nbytes) if budget.nbytes else 0
    return Fit(recipe, size, nbytes, missing)


def _read(part: str) -> dict[str, float]:
    for name, pattern in _LIMITS.items():
        match = pattern.fullmatch(part)
        value = float(match[1]) if match else 0.0
        if not match or not value:  # a limit of nothing would be read as none
            continue
        if name == "nbytes":
            value *= UNITS[match[2].lower()]
        if name == "context":
            value *= 1024 if match[2] else 1
            return {name: value, "batch": float(match[3] or 1)}
        return {name: value}
    raise SettingError(f"{part!r} limits nothing; a budget is written like {EXAMPLE}.")
