"""Chains of tensors: Kronecker products come back whole, and a cut loses what it cuts off."""

import pytest
import torch

from backend import formats
from backend.methods.factorise.compactifai import Compactifai, split
from tests.contract import inputs_of, normal, statistics_of


def fitted(method, weight):
    return method.fit(weight, statistics_of(inputs_of(weight.shape[1])))


@pytest.mark.parametrize("cores", [2, 3])
def test_a_product_of_kroneckers_is_a_chain_of_bond_one(cores):
    """Digit by digit, A x B (x C) joins nothing: 4 x 4 cores hold 16 numbers each."""
    parts = [normal(4, 4, seed=seed) for seed in range(cores)]
    weight = parts[0]
    for part in parts[1:]:
        weight = torch.kron(weight, part)
    bits = 16 * 16 * cores / weight.numel()
    found = split(weight, [(1, 4, 4, 1)] * cores)
    held = formats.TensorTrain.pack(found)
    assert held.bits == pytest.approx(bits)
    assert torch.allclose(held.dense(), weight, atol=0.03 * float(weight.abs().max()))


def test_a_cut_loses_the_singular_values_that_it_cuts_off():
    """Of the matrix that pairs the first digits of rows and columns with the second ones."""
    weight = normal(24, 30)
    held = fitted(Compactifai(8.0), weight)
    lost = []
    for shapes in Compactifai(8.0).chains(24, 30):
        chain = formats.TensorTrain.pack(split(weight, shapes))
        lost.append(float((chain.dense() - weight).square().sum()))
    (one, down, across, bond), (_, low, narrow, _) = held.shapes()
    assert (one, down * low, across * narrow) == (1, 24, 30)
    turned = weight.view(down, low, across, narrow).transpose(1, 2).reshape(down * across, -1)
    left = float(torch.linalg.svdvals(turned)[bond:].square().sum())
    assert float((held.dense() - weight).square().sum()) == pytest.approx(left, rel=0.01)
    assert left == pytest.approx(min(lost), rel=0.01)


def test_bonds_as_wide_as_they_come_lose_nothing():
    weight = normal(24, 30)
    full = split(weight, [(1, 2, 2, 4), (4, 3, 3, 20), (20, 4, 5, 1)])
    total = torch.einsum("aijb,bklc,cmnd->ikmjln", *full).reshape(24, 30)
    assert torch.allclose(total, weight, atol=1e-4)


def test_rounded_cores_hold_more_values_at_the_same_bytes():
    weight = torch.kron(normal(8, 8), normal(8, 16, seed=1)) + 0.2 * normal(64, 128, seed=2)
    plain, rounded = (fitted(Compactifai(4.0, precision=p), weight) for p in (16, 8))
    assert rounded.nbytes <= 4 * weight.numel() / 8
    assert rounded.bonds[0] > 1.8 * plain.bonds[0]
    lost = [float((held.dense() - weight).square().sum()) for held in (plain, rounded)]
    assert lost[1] < lost[0]


@pytest.mark.parametrize("cores", [2, 3])
def test_a_step_contracts_core_by_core_without_the_dense_matrix(cores, monkeypatch):
    held = fitted(Compactifai(6.0, cores=cores), normal(64, 128))
    activation, expected = normal(2, 5, 128), normal(2, 5, 128) @ held.dense().T
    monkeypatch.setattr(formats.TensorTrain, "dense", lambda _: pytest.fail("made dense"))
    assert torch.allclose(held.multiply(activation), expected, atol=1e-3)
    product = held.product()
    if product is None:
        pytest.skip("no extension here")
    assert torch.allclose(product(activation), expected, atol=1e-3)


def test_both_ends_give_the_same_and_the_cheaper_one_is_taken():
    """By hand: 32 x 2 rows, 2 x 64 columns, bond 8: the last core first leaves less."""
    held = formats.TensorTrain.pack([normal(1, 32, 2, 8), normal(8, 2, 64, 1, seed=1)])
    activation = normal(3, 128, seed=2)
    expected = activation @ held.dense().T
    for found in (held._from_first(activation), held._from_last(activation)):
        assert torch.allclose(found.reshape(3, 64), expected, atol=1e-3)
    assert held._costs() == (32 * 2 * 8 * 64 + 32 * 8 * 2 * 64, 2 * 8 * 2 * 64 + 2 * 32 * 2 * 8)
    three = formats.TensorTrain.pack(
        [normal(1, 4, 2, 5), normal(5, 3, 6, 7, seed=1), normal(7, 2, 3, 1, seed=2)]
    )
    activation = normal(5, 36, seed=3)
    expected = activation @ three.dense().T
    for found in (three._from_first(activation), three._from_last(activation)):
        assert torch.allclose(found.reshape(5, 24), expected, atol=1e-3)
