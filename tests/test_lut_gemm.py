"""LUT-GEMM: sums of signs against every choice of signs, products by tables against dense ones."""

import itertools

import pytest
import torch

from backend.formats import BinaryCodes
from backend.methods.quantise import lut_gemm
from backend.methods.quantise.lut_gemm import LutGemm
from kernels import extension
from tests.contract import inputs_of, normal, statistics_of


def held_of(weight, counts, planes):
    groups = weight.view(1, 1, -1)
    signs, worth, losses = lut_gemm.alternate(groups, counts.view(1, -1), planes)
    return signs[:, 0, 0], worth[0, 0], float(losses)


def test_one_pattern_stands_for_the_means_of_both_sides():
    """By hand: -1, -1, 3 and 5 are best held as -1 and 4, which is 1.5 plus or minus 2.5."""
    signs, worth, loss = held_of(torch.tensor([-1.0, -1.0, 3.0, 5.0]), torch.ones(4), 1)
    assert signs.tolist() == [[-1, -1, 1, 1]]
    assert worth.tolist() == pytest.approx([2.5, 1.5], abs=1e-3)
    assert loss == pytest.approx(2.0, abs=1e-3)


def test_an_input_that_counts_more_draws_the_values_to_its_weight():
    """By hand: with 3 counting three times, its side stands at (3 * 3 + 5) / 4 = 3.5."""
    counts = torch.tensor([1.0, 1.0, 3.0, 1.0])
    _, worth, _ = held_of(torch.tensor([-1.0, -1.0, 3.0, 5.0]), counts, 1)
    assert float(worth.sum()) == pytest.approx(3.5, abs=2e-2)


def best_by_signs(weight, counts, planes):
    """Least weighted squares over every choice of signs, by least squares for each."""
    least = float("inf")
    root = counts.sqrt().double()
    for codes in itertools.product(range(1 << planes), repeat=weight.numel()):
        if codes[0]:  # a pattern and its negative are one
            continue
        signs = 2.0 * (torch.tensor(codes) >> torch.arange(planes).unsqueeze(1) & 1) - 1
        design = torch.cat([signs, torch.ones(1, weight.numel())]).T.double() * root.unsqueeze(1)
        found = torch.linalg.lstsq(design, weight.double() * root, driver="gelsd").solution
        least = min(least, float((design @ found - weight.double() * root).square().sum()))
    return least


def test_two_patterns_are_nearly_the_best_of_every_choice_of_signs():
    ratios = []
    for seed in range(4):
        weight, counts = normal(6, seed=seed), normal(6, seed=seed + 9).square() + 0.1
        least = best_by_signs(weight, counts, 2)
        _, _, loss = held_of(weight, counts, 2)
        assert loss >= 0.99 * least - 1e-4
        ratios.append((loss + 1e-3) / (least + 1e-3))
    assert sorted(ratios)[1] < 1.1, "half of them find the best"


def test_a_group_that_is_a_sum_of_signs_is_held_exactly():
    signs = torch.where(normal(3, 8, 2, 64) > 0, 1.0, -1.0)
    scales = torch.tensor([2.0, 1.0, 0.5]).view(3, 1, 1, 1)
    weight = ((signs * scales).sum(0) + 0.5).flatten(1)
    held, losses = lut_gemm.coded(weight, torch.ones(128), 3, 64)
    assert torch.equal(held.dense(), weight)
    assert float(losses.max()) < 1e-6
    assert held.nbytes == 8 * 128 * 3 // 8 + 2 * 8 * 2 * (3 + 1)


@pytest.mark.parametrize(("rows", "columns", "size"), [(7, 24, 24), (33, 172, 64), (5, 9, 9)])
@pytest.mark.parametrize("built", [True, False])
def test_tables_or_the_extension_give_the_product(rows, columns, size, built, monkeypatch):
    if not built:
        monkeypatch.setattr(extension, "_found", lambda: (None, "left out by the test"))
    groups = -(-columns // size)
    positive, scales = normal(3, rows, columns) > 0, normal(3, rows, groups, seed=1)
    held = BinaryCodes.pack(positive, scales, normal(rows, groups, seed=2), size)
    activation = normal(2, 3, columns, seed=3)
    found = held.multiply(activation)
    assert found.shape == (2, 3, rows)
    wanted = activation.double() @ held.dense().double().T
    # the extension's activations have 16 bits
    assert (found - wanted).norm() < (6e-5 if built else 1e-6) * wanted.norm()


def test_the_rows_that_lose_most_have_one_pattern_more():
    weight, statistics = normal(64, 128), statistics_of(inputs_of(128))
    held = LutGemm(3.0).fit(weight, statistics)
    assert (held.fine.planes, held.coarse.planes) == (3, 2)
    _, losses = lut_gemm.coded(weight, statistics.mean_squares, 2, 128)
    order = losses.argsort(descending=True)
    rows = held.dense()
    fine = held.fine.dense()
    assert all(bool((rows[row] == fine).all(1).any()) for row in order[: held.fine.rows])
