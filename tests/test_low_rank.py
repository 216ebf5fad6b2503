"""Truncated decompositions against what is known to be optimal."""

import pytest
import torch

from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs
from backend.methods.factorise.lord import Lord
from backend.methods.factorise.svd import Svd


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def case(rows=24, columns=40):
    inputs = normal(500, columns, seed=1) @ (normal(columns, columns, seed=2) / 6 + 0.2)
    statistics = InputStatistics(columns, Needs.HESSIAN)
    statistics.add(inputs)
    return normal(rows, columns), statistics


def bits_of(rank, rows=24, columns=40):
    return 16 * rank * (rows + columns) / (rows * columns)


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_what_svd_leaves_out_is_the_energy_of_the_smaller_singular_values(rank):
    """Eckart and Young: the squared error is the sum of the squares cut off."""
    weight, statistics = case()
    held = Svd(bits_of(rank)).fit(weight, statistics)
    assert held.rank == rank
    left = torch.linalg.svdvals(weight.double())[rank:].square().sum()
    found = (weight - held.dense()).double().square().sum()
    assert found == pytest.approx(float(left), rel=2e-3)


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_lord_is_the_optimum_of_the_whitened_decomposition(rank):
    """min over rank-r A of |(W - A) S|, S S^T = H, is what the SVD of W S cuts off."""
    weight, statistics = case()
    held = Lord(bits_of(rank)).fit(weight, statistics)
    assert held.rank == rank
    root = torch.linalg.cholesky(statistics.hessian.double())
    left = torch.linalg.svdvals(weight.double() @ root)[rank:].square().sum()
    found = ((weight - held.dense()).double() @ root).square().sum()
    assert found == pytest.approx(float(left), rel=5e-3)


def test_a_matrix_of_low_rank_comes_back_whole():
    weight = normal(24, 3) @ normal(3, 40, seed=5)
    _, statistics = case()
    for method in (Svd(bits_of(3)), Lord(bits_of(3))):
        held = method.fit(weight, statistics)
        assert held.rank == 3
        assert torch.allclose(held.dense(), weight, atol=0.05)
