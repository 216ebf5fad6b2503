"""Perplexity of WikiText-2 as papers report it: protocol `wt2-2048`.

The raw test part is tokenised whole, with what the tokenizer opens a text with, and cut into
windows of 2,048 tokens that share none; the loss is the mean over windows (GPTQ, arXiv
2210.17323). Comparable under one tokenizer only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from backend.measure import statistics
from backend.measure.passes import blocks
from backend.measure.reading import Reading, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.decoding.model import LanguageModel

LENGTH = 2048
SLICE = 256  # positions whose logits are taken in float32 at once


def windows(
    tokens: Sequence[int], most: int | None = None, length: int = LENGTH
) -> list[list[int]]:
    """Return whole windows of `length` tokens, at most `most`."""
    count = len(tokens) // length
    count = count if most is None else min(count, most)
    return [list(tokens[start : start + length]) for start in range(0, count * length, length)]


def losses(model: LanguageModel, rows: Sequence[Sequence[int]]) -> list[float]:
    """Return the mean loss in nats of each window, its first token being context only.

    A model with a cache method reads a window token by token.
    """
    totals = np.zeros(len(rows))
    for block in blocks(model, rows):
        width = block.logits.shape[1]
        for line, index in enumerate(block.rows):
            true = torch.tensor(rows[index][block.start + 1 : block.start + width + 1])
            for start in range(0, len(true), SLICE):
                target = true[start : start + SLICE].to(block.logits.device)
                logits = block.logits[line, start : start + len(target)].float()
                loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
                totals[index] += float(loss)
    return [total / (len(row) - 1) for total, row in zip(totals, rows, strict=True)]


def readings(mine: Sequence[float], dense: Sequence[float]) -> list[Reading]:
    """Return the perplexity and its ratio to the dense model's, clustered by window."""
    own, other = np.asarray(mine), np.asarray(dense)
    if not np.isfinite(own).all():
        return []
    group = np.arange(len(own), dtype=np.int32)
    note = f"wt2-2048, {len(own)} windows; dense {np.exp(other.mean()):.4g}"
    loss = statistics.clustered_mean(own, group).through(np.exp)
    ratio = statistics.paired_difference(own, other, group).through(np.exp)
    return [
        *take("wt2_ppl", **(statistics.as_fields(loss) | {"note": note})),
        *take("wt2_ppl_ratio", **(statistics.as_fields(ratio) | {"note": note})),
    ]
