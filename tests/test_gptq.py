"""GPTQ against brute force and against the recursion it is derived from."""

import itertools

import pytest
import torch

from backend.calibrate.statistics import InputStatistics
from backend.methods import _surgeon
from backend.methods.base import Needs
from backend.methods.prune.sparsegpt import Sparsegpt
from backend.methods.quantise import _grid
from backend.methods.quantise.gptq import Gptq
from backend.methods.quantise.rtn import Rtn


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def statistics_of(columns, tokens=256, seed=1):
    mix = normal(columns, columns, seed=seed) / columns**0.5 + 0.4
    statistics = InputStatistics(columns, Needs.HESSIAN)
    statistics.add(normal(tokens, columns, seed=seed + 1) @ mix)
    return statistics


def loss(weight, rounded, hessian):
    change = (weight - rounded).double()
    return ((change @ hessian.double()) * change).sum(1)


def grid_of(weight, width, group_size):
    """Scale and offset of every weight, [rows, columns], float64."""
    scale, offset = _grid.ranges(_grid.grouped(weight, group_size), width, symmetric=False)
    columns = weight.shape[1]
    return [part.repeat_interleave(group_size, 1)[:, :columns].double() for part in (scale, offset)]


def codes_by_hand(weight, hessian, order, width, group_size):
    """Optimal brain quantisation in a fixed order: rounds a column, mends all that are left,
    removes its row and column from the explicit inverse of the Hessian. float64."""
    scale, offset = grid_of(weight, width, group_size)
    left = weight.double().clone()
    inverse = torch.linalg.inv(hessian.double())
    codes = torch.zeros_like(left)
    half, top = 2 ** (width - 1), 2**width - 1
    for column in order.tolist():
        code = ((left[:, column] - offset[:, column]) / scale[:, column] + half).round()
        codes[:, column] = code.clamp(0, top)
        value = (codes[:, column] - half) * scale[:, column] + offset[:, column]
        step = (left[:, column] - value) / inverse[column, column]
        left -= step[:, None] * inverse[column]
        left[:, column] = value
        inverse -= (
            inverse[:, column : column + 1]
            * inverse[column : column + 1]
            / (inverse[column, column].clone())
        )
    return codes, left


def codes_of(held):
    return held.codes.get().double()


@pytest.mark.parametrize("activation_order", [False, True])
@pytest.mark.parametrize(("columns", "group_size"), [(24, 32), (64, 32), (80, 32)])
@pytest.mark.parametrize("width", [2, 3, 4])
def test_codes_are_those_of_the_column_by_column_recursion(
    columns, group_size, width, activation_order
):
    weight, statistics = normal(20, columns), statistics_of(columns)
    groups = -(-columns // group_size)
    bits = width + 32 * groups / columns
    method = Gptq(bits, group_size, activation_order=activation_order)
    held = method.fit(weight, statistics)
    assert (held.key, held.code_bits) == ("integer-groups", width)
    hessian = statistics.damped(method.damping)
    order = torch.arange(columns)
    if activation_order:
        order = statistics.hessian.diagonal().argsort(descending=True, stable=True)
    codes, values = codes_by_hand(weight, hessian, order, width, min(group_size, columns))
    assert torch.equal(codes_of(held), codes)
    assert torch.allclose(held.dense().double(), values, atol=1e-5)


def test_no_choice_of_codes_is_better_than_the_best_and_greedy_lies_near_it():
    """Every one of 4^8 choices of codes for a row: the best bounds GPTQ from below; nearest
    rounding, which mends nothing, loses more over twenty draws together."""
    choices = torch.tensor(list(itertools.product(range(4), repeat=8)))
    total = torch.zeros(3, dtype=torch.float64)
    for seed in range(20):
        weight, statistics = normal(1, 8, seed=seed), statistics_of(8, seed=seed + 50)
        held = Gptq(2 + 32 / 8, 0, damping=1e-4).fit(weight, statistics)
        scale, offset = (part.float() for part in grid_of(weight, 2, 8))
        least = loss(weight, (choices - 2) * scale + offset, statistics.hessian).min()
        nearest = _grid.decode(_grid.encode(weight, scale, offset, 2), scale, offset, 2)
        own = loss(weight, held.dense(), statistics.hessian)
        assert held.code_bits == 2
        assert own >= least - 1e-6
        total += torch.stack([least, own[0], loss(weight, nearest, statistics.hessian)[0]])
    best, greedy, plain = total.tolist()
    assert best < greedy < 0.8 * plain


def test_with_a_diagonal_hessian_nearest_is_best_and_is_what_comes_out():
    weight = normal(8, 8)
    statistics = InputStatistics(8, Needs.HESSIAN)
    statistics.add(torch.diag(torch.arange(1.0, 9.0)))
    held = Gptq(2 + 32 / 8, 0).fit(weight, statistics)
    scale, offset = (part.float() for part in grid_of(weight, 2, 8))
    choices = torch.tensor(list(itertools.product(range(4), repeat=8))).float()
    for row in range(8):
        values = (choices - 2) * scale[row] + offset[row]
        errors = loss(weight[row], values, statistics.hessian)
        assert torch.equal(codes_of(held)[row], choices[errors.argmin()].double())


def test_the_last_column_is_the_best_answer_to_those_before_it():
    """With all others rounded, the loss is a parabola in the last; GPTQ takes its best code."""
    for seed in range(20):
        weight, statistics = normal(1, 8, seed=seed), statistics_of(8, seed=seed + 9)
        held = Gptq(3 + 32 / 8, 0, activation_order=False).fit(weight, statistics)
        assert held.code_bits == 3
        scale, offset = (part[:, 7:].float() for part in grid_of(weight, 3, 8))
        before = held.dense()[:, :7].expand(8, 7)
        answers = (torch.arange(8.0)[:, None] - 4) * scale + offset
        errors = loss(weight, torch.cat([before, answers], 1), statistics.damped(0.01))
        assert codes_of(held)[0, 7] == errors.argmin()


@pytest.mark.parametrize("leaf", [1, 2, 7, 16, 300])
def test_how_columns_are_halved_does_not_change_the_result(leaf):
    weight, statistics = normal(12, 150), statistics_of(150)
    factor = statistics.inverse_factor(0.01)

    def treat(_, values):
        return (values * 4).round() / 4

    expected = weight.T.double().clone()
    inner = factor.double()
    for place in range(150):
        values = (expected[place] * 4).round() / 4
        error = (expected[place] - values) / inner[place, place]
        expected[place] = values
        expected[place + 1 :] -= inner[place, place + 1 :, None] * error
    found = _surgeon.columns_of(weight)
    _surgeon.sweep(found, factor, treat, leaf)
    assert torch.equal(treat(0, found).double(), expected)


def test_the_factor_is_that_of_the_inverse_hessian_and_is_made_once():
    statistics = statistics_of(40)
    for ordered in (False, True):
        factor = statistics.inverse_factor(0.01, ordered)
        assert factor is statistics.inverse_factor(0.01, ordered)
        hessian = statistics.damped(0.01).double()
        if ordered:
            hessian = hessian[statistics.order][:, statistics.order]
        assert torch.equal(factor, factor.triu())
        product = factor.double().T @ factor.double()
        assert torch.allclose(product @ hessian, torch.eye(40).double(), atol=1e-4)
    old = statistics.inverse_factor(0.01)
    statistics.add(normal(10, 40, seed=77))
    assert not torch.equal(statistics.inverse_factor(0.01), old)


def test_the_loudest_columns_are_rounded_first_within_their_own_groups():
    """Static groups: the order of rounding changes codes, never which weights share a scale."""
    weight = normal(16, 64)
    inputs = normal(256, 64, seed=3) @ (normal(64, 64, seed=4) / 8 + 0.3)
    inputs[:, 40] *= 50
    statistics = InputStatistics(64, Needs.HESSIAN)
    statistics.add(inputs)
    assert statistics.order[0] == 40
    ordered = Gptq(4.0, 32).fit(weight, statistics)
    plain = Gptq(4.0, 32, activation_order=False).fit(weight, statistics)
    assert torch.equal(ordered.scales.dense(), plain.scales.dense())
    assert torch.equal(ordered.offsets.dense(), plain.offsets.dense())
    scale, offset = grid_of(weight, 3, 32)
    nearest = _grid.encode(weight.double(), scale, offset, 3)[:, 40]
    assert torch.equal(codes_of(ordered)[:, 40], nearest), "the first is rounded as it was"


def test_a_budget_between_two_widths_gives_the_wider_codes_to_the_rows_that_lose_most():
    weight, statistics = normal(64, 64), statistics_of(64)
    weight[::4] *= 20
    held = Gptq(4.6, 32).fit(weight, statistics)
    assert held.key == "rows"
    assert (held.fine.code_bits, held.coarse.code_bits) == (4, 3)
    assert held.bits <= 4.6 < held.bits + 1 / 64
    mask = held._order().argsort()[: held.fine.rows]
    assert set(range(0, 64, 4)) <= set(mask.tolist())


def sparse_by_hand(weight, kept, hessian, order, scale, offset, width):
    """The recursion with frozen zeros: what would be mended there flows on to later columns."""
    left, inverse = weight.double().clone(), torch.linalg.inv(hessian.double())
    half, top = 2 ** (width - 1), 2**width - 1
    for column in order.tolist():
        code = ((left[:, column] - offset[:, column]) / scale[:, column] + half).round()
        point = (code.clamp(0, top) - half) * scale[:, column] + offset[:, column]
        point = torch.where(kept[:, column], point, 0.0)
        step = (left[:, column] - point) / inverse[column, column]
        left -= step[:, None] * inverse[column]
        left[:, column] = point
        row = inverse[column].clone()
        inverse -= torch.outer(row, row) / row[column]
    return left


@pytest.mark.parametrize("pattern", ["2:4", "unstructured"])
def test_a_sparse_weight_is_rounded_as_by_the_recursion_with_frozen_zeros(pattern):
    weight, statistics = normal(16, 64), statistics_of(64)
    pruned = Sparsegpt(9.0, pattern=pattern).fit(weight, statistics)
    kept, target = pruned.kept(), pruned.dense()
    values = pruned.values.dense()
    grouped = _grid.grouped(values, 32)
    scale, offset = _grid.ranges(grouped, 3, symmetric=False)
    spread = [part.repeat_interleave(32, 1)[:, : values.shape[1]] for part in (scale, offset)]
    laid = []
    for part in spread:
        dense = torch.ones(16, 64)
        dense[kept] = part.flatten()
        laid.append(dense.double())
    found = Gptq(4.0, 32).fit_sparse(pruned, statistics)
    assert (found.key, found.code_bits) == ("integer-groups", 3)
    expected = sparse_by_hand(target, kept, statistics.damped(0.01), statistics.order, *laid, 3)
    pruned.values = found
    assert torch.allclose(pruned.dense().double(), expected, atol=1e-4)
    assert torch.all(pruned.dense()[~kept] == 0)


def test_rounding_a_sparse_weight_with_errors_flowing_on_beats_rounding_its_values():
    weight, statistics = normal(64, 128), statistics_of(128, tokens=512)
    losses = []
    for method in (Gptq(3.25, 128), Rtn(3.25, 128)):
        pruned = Sparsegpt(9.0, pattern="2:4").fit(weight, statistics)
        pruned.values = method.fit_sparse(pruned, statistics)
        losses.append(float(loss(weight, pruned.dense(), statistics.hessian).sum()))
    assert losses[0] < 0.9 * losses[1]
