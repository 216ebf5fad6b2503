"""How far a model's last states spread over their space, by the Matrix Nuclear-Norm.

Li et al., arXiv 2410.10672: a model that has compressed more of its text says it in fewer
directions. The nuclear norm of the states would say so; sums of columns' lengths come near it
without singular values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from backend.measure.reading import Reading, take
from backend.measure.statistics import as_fields, clustered_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOWS = 32
"""Most texts whose states are looked at."""


def matrix_nuclear_norm(states: torch.Tensor) -> float:
    """The norm of states [tokens, channels], each of length one about their mean, a token.

    The lengths of the columns, of as many as the matrix can have rank, the longest first, added up
    and divided by the tokens.
    """
    centred = states.double() - states.double().mean(0)
    centred /= centred.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    lengths = centred.norm(dim=0).sort(descending=True).values
    return float(lengths[: min(states.shape)].sum()) / len(states)


def norms(
    states: Callable[[torch.Tensor], torch.Tensor], rows: Sequence[Sequence[int]]
) -> list[float]:
    """The norm of each text.

    Args:
        states: from tokens [1, length] to a model's last states [1, length, channels].
        rows: token ids of texts.
    """
    return [matrix_nuclear_norm(states(torch.tensor([list(row)]))[0]) for row in rows]


def readings(
    own: Sequence[float], dense: Sequence[float], documents: Sequence[int]
) -> list[Reading]:
    """`mnn_ratio`, to the dense model's norm on the same texts; nothing where that is none.

    Args:
        own: norms of texts.
        dense: beside them, the dense model's.
        documents: from which each text is.
    """
    if not own or min(dense) <= 0:
        return []
    ratios = [one / other for one, other in zip(own, dense, strict=True)]
    means = sum(own) / len(own), sum(dense) / len(dense)
    note = f"{means[0]:.4g} a token, the dense model {means[1]:.4g}"
    found = as_fields(clustered_mean(ratios, documents))
    found["note"] = "; ".join(filter(None, [note, found["note"]]))
    return take("mnn_ratio", **found)
