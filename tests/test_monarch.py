"""Monarch matrices: the paper's own factors come back, and no others are nearer."""

import pytest
import torch

from backend import formats
from backend.methods.factorise.monarch import Monarch
from tests.contract import inputs_of, normal, statistics_of


def swap(size):
    """P of the paper: a vector written by rows into a square and read by columns."""
    order = torch.arange(size * size).view(size, size).T.flatten()
    return torch.eye(size * size)[order]


def test_a_matrix_of_the_papers_form_comes_back_whole():
    """Definition 3.1: M = P L P^T R, both block-diagonal with 4 blocks of 4 x 4: 128 numbers."""
    left, right = (torch.block_diag(*normal(4, 4, 4, seed=seed)) for seed in (1, 2))
    weight = swap(4) @ left @ swap(4).T @ right
    bits = 16 * 2 * 4 * 16 / 256
    held = Monarch(bits, blocks=4).fit(weight, statistics_of(inputs_of(16)))
    assert (held.inputs, held.outputs, held.rank, held.bits) == (4, 4, 1, bits)
    assert torch.allclose(held.dense(), weight, atol=0.05)
    activation = normal(3, 16, seed=3)
    assert torch.allclose(held.multiply(activation), activation @ held.dense().T, atol=1e-4)


@pytest.mark.parametrize(("blocks", "rank"), [(2, 3), (4, 1), (4, 2)])
def test_what_is_lost_is_what_the_decomposition_of_each_block_cuts_off(blocks, rank):
    """Theorem 1: the projection is the best approximation, slice by slice."""
    weight = normal(24, 32)
    bits = 16 * rank * blocks * (24 + 32) / (24 * 32) + 1e-9
    held = Monarch(bits, blocks=blocks).fit(weight, statistics_of(inputs_of(32)))
    assert held.rank == rank
    lost = 0.0
    for row in range(blocks):
        for column in range(blocks):
            wide = 32 // blocks
            part = weight[row::blocks, column * wide : (column + 1) * wide]
            lost += float(torch.linalg.svdvals(part)[rank:].square().sum())
    found = float((held.dense() - weight).square().sum())
    assert found == pytest.approx(lost, rel=0.01)


def test_one_block_is_a_product_of_two_thin_factors():
    weight = normal(23, 29)  # primes: no other blocks divide them
    held = Monarch(8, blocks=4).fit(weight, statistics_of(inputs_of(29)))
    assert (held.inputs, held.outputs) == (1, 1)
    left = torch.linalg.svdvals(weight)[held.rank :].square().sum()
    assert float((held.dense() - weight).square().sum()) == pytest.approx(float(left), rel=0.01)


def test_a_step_multiplies_block_by_block_without_the_dense_matrix(monkeypatch):
    held = Monarch(8).fit(normal(64, 128), statistics_of(inputs_of(128)))
    activation, expected = normal(5, 128), normal(5, 128) @ held.dense().T
    monkeypatch.setattr(formats.Monarch, "dense", lambda _: pytest.fail("made dense"))
    assert torch.allclose(held.multiply(activation), expected, atol=1e-4)
    product = held.product()
    if product is None:
        pytest.skip("no extension here")
    assert torch.allclose(product(activation), expected, atol=1e-4)
