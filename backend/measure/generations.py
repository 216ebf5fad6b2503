"""What a model writes, beside what the dense model writes: 32 prompts, 128 tokens, greedy.

Ids are compared, never text. Prompts and tokenizer come from outside.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from backend.decoding.greedy import generate
from backend.measure.passes import continuations
from backend.measure.reading import Reading, take
from backend.measure.statistics import kaplan_meier_median, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from backend.decoding.model import LanguageModel

PROMPTS = 32
NEW_TOKENS = 128
LOOP_WINDOW = 32
LONGEST_PERIOD = 8


@dataclass(frozen=True)
class Writing:
    """Greedy continuations of fixed prompts.

    Attributes:
        tokens: new ids per prompt.
        gaps: how far the first choice stood above the second at each of them, in logits.
    """

    tokens: tuple[tuple[int, ...], ...]
    gaps: tuple[tuple[float, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists."""
        return {name: [list(row) for row in rows] for name, rows in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Writing:
        """Return the writing `to_json` wrote."""
        return cls(*(tuple(tuple(row) for row in fields[name]) for name in ("tokens", "gaps")))


@dataclass(frozen=True)
class Departure:
    """Where one text leaves the dense model's.

    Attributes:
        index: number of identical tokens before it, or None if there is no difference.
        gap: the dense model's lead of its first over its second choice there; near 0 is a tie.
    """

    index: int | None
    gap: float | None


def write(
    model: LanguageModel, prompts: Sequence[Sequence[int]], new_tokens: int = NEW_TOKENS
) -> Writing:
    """Return the greedy continuation of `prompts`, the end token respected."""
    leads: list[list[float]] = []
    steps: list[int] = []

    def watch(position: int, logits: torch.Tensor) -> None:
        highest = logits.float().topk(2, dim=-1).values
        leads.append((highest[:, 0] - highest[:, 1]).tolist())
        steps.append(position)

    written = generate(model, prompts, new_tokens, watch=watch)
    first = steps[0] if steps else 0
    gaps = []
    for row, (prompt, generation) in enumerate(zip(prompts, written, strict=True)):
        start = len(prompt) - first
        stop = start + len(generation.tokens)
        gaps.append(tuple(leads[step][row] for step in range(start, stop)))
    return Writing(tuple(each.tokens for each in written), tuple(gaps))


def departures(dense: Writing, variant: Writing) -> list[Departure]:
    """Return for each prompt where `variant` leaves `dense`."""
    found = []
    for expected, got, gaps in zip(dense.tokens, variant.tokens, dense.gaps, strict=True):
        shared = _shared(expected, got)
        if shared == len(expected) == len(got):
            found.append(Departure(None, None))
        else:
            found.append(Departure(shared, gaps[shared] if shared < len(gaps) else None))
    return found


def readings(
    dense: Writing,
    variant: Writing,
    *,
    prompts: Sequence[Sequence[int]] = (),
    judge: LanguageModel | None = None,
) -> list[Reading]:
    """Return what can be said of `variant` beside `dense`.

    Args:
        dense: writing of the dense model.
        variant: writing of the other, over the same prompts.
        prompts: those prompts, needed with a judge.
        judge: the dense model, where it is at hand, for `self_nll`.
    """
    count = len(dense.tokens)
    leaves = departures(dense, variant)
    lengths = [
        len(tokens) if leave.index is None else leave.index
        for leave, tokens in zip(leaves, dense.tokens, strict=True)
    ]
    same = sum(leave.index is None for leave in leaves)
    survival = kaplan_meier_median(lengths, [leave.index is not None for leave in leaves])
    note = "Kaplan-Meier median " + ("beyond the end" if survival is None else f"{survival:.0f}")
    identical = wilson(same, count)
    loops = wilson(sum(map(is_loop, variant.tokens)), count)
    ratio = sum(map(len, variant.tokens)) / max(1, sum(map(len, dense.tokens)))
    flag = "" if 0.9 <= ratio <= 1.1 else "outside 0.90 to 1.10"
    found = [
        *take("exact_len", median(lengths), samples=count, note=note),
        *_percent("ident_rate", identical),
        *take("rep4", 100 * repetition(variant.tokens), samples=count),
        *_percent("loop", loops),
        *take("len_ratio", ratio, samples=count, note=flag),
    ]
    if judge is not None:
        own = _loss(judge, prompts, dense.tokens)
        found += take("self_nll", _loss(judge, prompts, variant.tokens) - own, samples=count)
    return found


def repetition(texts: Sequence[Sequence[int]]) -> float:
    """Return the share of 4-grams that occurred before in the same text."""
    total = distinct = 0
    for tokens in texts:
        grams = [tuple(tokens[start : start + 4]) for start in range(len(tokens) - 3)]
        total += len(grams)
        distinct += len(set(grams))
    return 1 - distinct / total if total else 0.0


def is_loop(tokens: Sequence[int]) -> bool:
    """Return whether the last 32 tokens repeat with a period of at most 8."""
    end = list(tokens[-LOOP_WINDOW:])
    if len(end) < LOOP_WINDOW:
        return False
    return any(
        end[period:] == end[: LOOP_WINDOW - period] for period in range(1, LONGEST_PERIOD + 1)
    )


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the common beginning."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))


def _percent(name: str, share: Any) -> list[Reading]:
    """Return a share with its interval in percent."""
    return take(name, 100 * share.value, 100 * share.low, 100 * share.high, samples=share.samples)


def _loss(
    judge: LanguageModel, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> float:
    """Return the judge's mean −log p per token of `texts`."""
    scores = continuations(judge, prompts, texts)
    return -sum(each.log_probability for each in scores) / max(1, sum(map(len, texts)))
