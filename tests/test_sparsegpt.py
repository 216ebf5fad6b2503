"""SparseGPT against the explicit optimal-brain-surgeon recursion, and its patterns."""

import pytest
import torch

from backend.calibrate.statistics import InputStatistics
from backend.errors import OutOfReachError
from backend.methods.base import Needs
from backend.methods.prune.sparsegpt import BLOCK, Sparsegpt


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def statistics_of(columns, tokens=300, seed=1):
    mix = normal(columns, columns, seed=seed) / columns**0.5 + 0.4
    statistics = InputStatistics(columns, Needs.HESSIAN)
    statistics.add(normal(tokens, columns, seed=seed + 1) @ mix)
    return statistics


def by_hand(weight, hessian, block, keep):
    """Explicit inverse, a row and a column removed for each weight column, float64.

    `keep` turns the scores of a block [rows, block] into a mask. A score is w^2 over the
    diagonal of the inverse Hessian of the columns from its own on, as the paper has it.
    """
    left = weight.double().clone()
    columns = left.shape[1]
    inverse = torch.linalg.inv(hessian.double())
    diagonal = torch.stack(
        [torch.linalg.inv(hessian.double()[c:, c:])[0, 0] for c in range(columns)]
    )
    mask = torch.zeros_like(left, dtype=torch.bool)
    for column in range(columns):
        if column % block == 0:
            span = slice(column, column + block)
            mask[:, span] = keep(left[:, span] ** 2 / diagonal[span])
        step = torch.where(mask[:, column], 0.0, left[:, column]) / inverse[column, column]
        left -= step[:, None] * inverse[column]
        left[:, column] *= mask[:, column]
        inverse -= (
            torch.outer(inverse[:, column], inverse[column]) / inverse[column, column].clone()
        )
    return left, mask


def best(count):
    def keep(scores):
        order = scores.flatten().argsort(descending=True)[:count]
        mask = torch.zeros(scores.numel(), dtype=torch.bool)
        mask[order] = True
        return mask.view(scores.shape)

    return keep


def best_of(count):
    def keep(scores):
        return scores.argsort(1, descending=True).argsort(1) < count

    return keep


def test_weights_and_mask_are_those_of_the_explicit_recursion():
    weight, statistics = normal(12, 64), statistics_of(64)
    method = Sparsegpt(9.0)
    held = method.fit(weight, statistics)
    kept = method.kept(12, 64)
    assert kept == 12 * 64 // 2
    expected, mask = by_hand(weight, statistics.damped(method.damping), BLOCK, best(kept))
    assert torch.equal(held.dense() != 0, mask)
    assert torch.allclose(held.dense().double(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("pattern", "keep", "of"), [("2:4", 2, 4), ("4:8", 4, 8)])
def test_a_pattern_is_exact_and_that_of_the_recursion(pattern, keep, of):
    weight, statistics = normal(12, 48), statistics_of(48)
    method = Sparsegpt(9.0, pattern)
    held = method.fit(weight, statistics)
    dense = held.dense()
    assert ((dense != 0).view(12, -1, of).sum(-1) == keep).all()
    assert held.bits == 9.0
    expected, mask = by_hand(weight, statistics.damped(method.damping), of, best_of(keep))
    assert torch.equal(dense != 0, mask)
    assert torch.allclose(dense.double(), expected, rtol=1e-2, atol=1e-3)


def test_in_one_block_of_one_column_the_mended_rest_is_the_least_squares_answer():
    """One weight of a row set to zero: the others become the best there are without it."""
    weight, statistics = normal(1, 6), statistics_of(6)
    weight[0, 0] = 1e-4  # goes first, and no later column does
    hessian = statistics.damped(1e-4).double()
    method = Sparsegpt(16 * 5 / 6 + 8 / 6, damping=1e-4)
    assert method.kept(1, 6) == 5
    held = method.fit(weight, statistics).dense().double()
    free = torch.linalg.solve(hessian[1:, 1:], hessian[1:] @ weight[0].double())
    assert held[0, 0] == 0
    assert torch.allclose(held[0, 1:], free, rtol=1e-2)


@pytest.mark.parametrize("columns", [20, 130])
def test_a_row_without_room_for_the_pattern_is_pruned_freely_and_said_so(columns):
    weight, statistics = normal(9, columns), statistics_of(columns)
    method = Sparsegpt(9.0, "2:4")
    held = method.fit(weight, statistics)
    assert held.key == "bitmask-sparse"
    assert held.bits <= 9.0
    assert f"8 does not divide {columns} columns" in method.remark(9, columns)
    assert method.remark(9, 64) == ""


def test_a_pattern_is_refused_a_budget_that_it_does_not_hold():
    for build in (lambda: Sparsegpt(4.0, "2:4"), lambda: Sparsegpt(9.0, "4:8").at(8.9)):
        with pytest.raises(OutOfReachError, match="holds 9 bits per number, not"):
            build()


def test_blocks_each_keep_their_share():
    weight, statistics = normal(8, 2 * BLOCK + 40), statistics_of(2 * BLOCK + 40, tokens=800)
    method = Sparsegpt(5.0)
    held = method.fit(weight, statistics).dense()
    share = method.kept(*weight.shape) / weight.numel()
    for start in range(0, weight.shape[1], BLOCK):
        part = held[:, start : start + BLOCK]
        assert int((part != 0).sum()) == int(share * part.numel())
