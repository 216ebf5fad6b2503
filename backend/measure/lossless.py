"""Proofs that nothing was lost: of weights (L0), of tokens (L1, L2) and of sampling (L3).

A badge is computed from these rows, never declared. A reading counts differences; 0 is proof.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import special

from backend.decoding import independent
from backend.decoding.drafter import Draft, Drafter
from backend.decoding.sampling import acceptance, chances, residual
from backend.measure.passes import blocks
from backend.measure.reading import Reading, take
from backend.measure.statistics import rule_of_three

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from backend.decoding.drafter import Writing
    from backend.decoding.model import LanguageModel

SMALLEST_CHANCE = 1e-12


@dataclass(frozen=True)
class Bitwise:
    """Outcome of comparing two sets of tensors.

    Attributes:
        compared: number of tensors.
        different: names that are missing or differ in shape, type or any bit.
        digests: SHA-256 of either set.
    """

    compared: int
    different: tuple[str, ...]
    digests: tuple[str, str]


@dataclass(frozen=True)
class Divergences:
    """Positions where other tokens than the dense model's first choice were written.

    Attributes:
        tokens: positions compared.
        ties: differences at which the dense model had no lead beyond rounding.
        real: all others.
        largest_gap: the largest lead, in logits, that was passed over.
    """

    tokens: int
    ties: int
    real: int
    largest_gap: float


class Witness(Drafter):
    """Drafts as another drafter does and notes what the rule of sampling meets.

    Attributes:
        pairs: chances [V] of the model and of the drafter, for every drafted token; a token
            chosen without chance is certain. Where several were drawn independently after one,
            how many stands behind them.
    """

    def __init__(self, drafter: Drafter, most: int = 512) -> None:
        super().__init__()
        self.pairs: list[tuple[Any, ...]] = []
        self._drafter, self._most, self._draft = drafter, most, Draft()

    def begin(self, writing: Writing) -> None:
        """A new text begins."""
        self._draft, self._temperature = Draft(), writing.temperature
        self._drafter.begin(writing)

    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """What the other drafter proposes."""
        self._draft = self._drafter.propose(tokens, limit)
        return self._draft

    def learn(
        self, tokens: Sequence[int], logits: torch.Tensor, parents: Sequence[int] | None = None
    ) -> None:
        """Note the pairs of the last draft, as far as it was verified as it was proposed."""
        self._drafter.learn(tokens, logits, parents)
        draft, self._draft = self._draft, Draft()
        if tuple(tokens[1:]) != draft.tokens or len(self.pairs) >= self._most:
            return
        if draft.drawn is not None:
            for parent, drawn in draft.drafts().items():
                p = chances(logits[parent + 1], self._temperature)
                self.pairs.append((p, draft.chances[drawn[0]], len(drawn)))
            return
        left: dict[int, NDArray[np.float64]] = {}
        for index, parent in enumerate(draft.parents):
            p = left.get(parent)
            if p is None:
                p = chances(logits[parent + 1], self._temperature)
            if draft.chances is None:
                q = np.zeros_like(p)
                q[draft.tokens[index]] = 1.0
            else:
                q = draft.chances[index]
                left[parent] = residual(p, q)  # what the next draft there is held against
            self.pairs.append((p, q))


def compare_bits(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> Bitwise:
    """Return where two sets of tensors differ in any bit (L0)."""
    names = sorted(set(first) | set(second))
    different = [
        name
        for name in names
        if name not in first or name not in second or not _same_bits(first[name], second[name])
    ]
    return Bitwise(len(names), tuple(different), (digest(first), digest(second)))


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of all bytes, in order of the names."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(_bytes(tensor).numpy().tobytes())
    return state.hexdigest()


def weight_readings(result: Bitwise) -> list[Reading]:
    """Return `lossless_l0`: tensors that differ."""
    note = f"{result.compared} tensors, SHA-256 {result.digests[1][:16]}"
    found, compared = len(result.different), result.compared
    return take("lossless_l0", found, kind="counted", samples=compared, note=note)


def token_readings(
    expected: Sequence[Sequence[int]], got: Sequence[Sequence[int]]
) -> list[Reading]:
    """Return `lossless_l1`: ids that differ between two writings of the same prompts."""
    total = wrong = 0
    for one, other in zip(expected, got, strict=True):
        total += max(len(one), len(other))
        same = sum(a == b for a, b in zip(one, other, strict=False))
        wrong += max(len(one), len(other)) - same
    bound = f"; the rate is below {100 * rule_of_three(total):.3g} %" if not wrong else ""
    note = f"{wrong} of {total} ids differ{bound}"
    return take("lossless_l1", wrong, samples=total, note=note)


def prefill_readings(
    alone: Sequence[Sequence[int]], together: Sequence[Sequence[int]]
) -> list[Reading]:
    """Return `lossless_prefill`: ids that differ where prompts were read together, by texts."""
    (found,) = token_readings(alone, together)
    return [replace(found, name="lossless_prefill")]


def divergences(
    dense: LanguageModel, prompts: Sequence[Sequence[int]], got: Sequence[Sequence[int]]
) -> Divergences:
    """Return how `got` departs from what `dense` would choose after the same tokens (L2).

    The dense model is fed the text as it was written, so it is in step again after a difference.
    A difference is a tie if the lead is at most two units in the last place of its logits' type.
    """
    rows = [[*prompt, *tokens] for prompt, tokens in zip(prompts, got, strict=True)]
    total = ties = real = 0
    largest = 0.0
    for block in blocks(dense, rows):
        width = block.logits.shape[1]
        for line, index in enumerate(block.rows):
            begin = max(len(prompts[index]) - 1, block.start)
            end = min(len(rows[index]) - 1, block.start + width)
            if begin >= end:
                continue
            logits = block.logits[line, begin - block.start : end - block.start]
            written = torch.tensor(rows[index][begin + 1 : end + 1], device=logits.device)
            plain = logits.float()
            highest, choice = plain.max(-1)
            gap = highest - plain.gather(1, written[:, None])[:, 0]
            differs = choice != written
            tie = differs & (gap <= 2 * last_place(highest, logits.dtype))
            total += end - begin
            ties += int(tie.sum())
            real += int((differs & ~tie).sum())
            largest = max(largest, float((gap * differs).max()))
    return Divergences(total, ties, real, largest)


def divergence_readings(result: Divergences) -> list[Reading]:
    """Return `lossless_l2`, the real differences, and `lossless_ties` beside it."""
    note = f"largest lead passed over: {result.largest_gap:.3g} logits"
    return [
        *take("lossless_l2", result.real, samples=result.tokens, note=note),
        *take("lossless_ties", result.ties, samples=result.tokens),
    ]


def last_place(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the distance from each value to its neighbour in `dtype`."""
    about = torch.finfo(dtype)
    exponent = torch.frexp(values.abs().double().clamp_min(about.tiny)).exponent - 1
    return torch.ldexp(torch.full_like(values, about.eps, dtype=torch.float64), exponent)


def emitted(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Return the exact distribution [V] of the token that the accept rule lets out (L3).

    Enumerates every draft: kept with its acceptance, else replaced from the residual.
    """
    drafts = np.asarray(q, np.float64)
    kept = drafts * acceptance(p, q)
    return kept + (drafts - kept).sum() * residual(p, q)


def sampling_readings(pairs: Iterable[tuple[Any, ...]]) -> list[Reading]:
    """Return `lossless_l3`: pairs (p, q) whose emitted distribution is off p by over 1e-12."""
    total = wrong = 0
    worst = 0.0
    for p, q, *count in pairs:
        found = independent.emitted(p, q, *count) if count else emitted(p, q)
        error = float(np.abs(found - np.asarray(p, np.float64)).max())
        total, wrong, worst = total + 1, wrong + (error > SMALLEST_CHANCE), max(worst, error)
    return take("lossless_l3", wrong, samples=total, note=f"largest error {worst:.2g}")


def chi_squared(counts: ArrayLike, p: ArrayLike) -> float:
    """Return the chance of samples at least as far from `p` [V] as these `counts` [V]."""
    counts, p = np.asarray(counts, np.float64), np.asarray(p, np.float64)
    possible = p > 0
    if counts[~possible].any():
        return 0.0
    expected = counts.sum() * p[possible] / p[possible].sum()
    statistic = float(((counts[possible] - expected) ** 2 / expected).sum())
    freedom = int(possible.sum()) - 1
    return float(special.chdtrc(freedom, statistic)) if freedom else 1.0


def badge(readings: Iterable[Reading]) -> str:
    """Return the levels proved, as in `L0 L1`; empty if none or if any level failed."""
    levels = ("l0", "l1", "l2", "l3")
    found = {each.name: each for each in readings if each.name.startswith("lossless_l")}
    if any(each.value > 0 for each in found.values()):
        return ""
    return " ".join(
        level.upper()
        for level in levels
        if f"lossless_{level}" in found and found[f"lossless_{level}"].samples > 0
    )


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two tensors have the same shape, type and bits."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return torch.equal(_bytes(first), _bytes(second))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor on the host."""
    flat = tensor.detach().cpu().contiguous().reshape(math.prod(tensor.shape))
    return flat.view(torch.uint8)
