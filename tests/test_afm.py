"""Atomic feature mimicking against principal components of outputs that were really computed."""

import pytest
import torch

from backend import formats
from backend.methods.factorise.afm import Afm
from backend.methods.factorise.lord import Lord
from tests.contract import inputs_of, normal, statistics_of


def case(rows=24, columns=40):
    """Inputs whose mean outweighs what they vary by."""
    inputs = inputs_of(columns) + 3 * normal(columns, seed=7)
    return normal(rows, columns), inputs


def bits_of(rank, rows=24, columns=40):
    return 16 * (rank * (rows + columns) + rows) / (rows * columns) + 1e-9


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_what_is_lost_of_the_outputs_is_the_variance_of_the_components_left_out(rank):
    """PCA: the mean squared error is the sum of the smaller eigenvalues of the covariance."""
    weight, inputs = case()
    held = Afm(bits_of(rank)).fit(weight, statistics_of(inputs))
    assert held.rank == rank
    outputs = inputs.double() @ weight.double().T
    left = torch.linalg.eigvalsh(torch.cov(outputs.T, correction=0))[: 24 - rank].sum()
    found = (held.multiply(inputs).double() - outputs).square().sum(1).mean()
    assert found == pytest.approx(float(left), rel=0.02)


def test_outputs_that_hardly_leave_their_mean_need_the_shift():
    weight, inputs = case()
    statistics, bits = statistics_of(inputs), bits_of(4)
    own, other = (method.fit(weight, statistics) for method in (Afm(bits), Lord(bits)))
    outputs = inputs @ weight.T
    errors = [float((one.multiply(inputs) - outputs).square().mean()) for one in (own, other)]
    assert errors[0] < errors[1]
    assert other.nbytes <= own.nbytes


def test_a_shift_is_added_once_whatever_bias_or_sum_is_around_it():
    held = formats.LowRank.pack(normal(24, 3), normal(3, 40), normal(24, seed=1))
    activation, bias = normal(5, 40, seed=2), normal(24, seed=3)
    matrix = activation @ held.dense().T
    shift = held.shift.float()
    assert torch.allclose(held.multiply(activation), matrix + shift, atol=1e-3)
    repaired = formats.Sum.of(base=held, more=formats.Dense.pack(normal(24, 40, seed=4)))
    both = activation @ repaired.dense().T + shift
    assert torch.allclose(repaired.multiply(activation), both, atol=1e-3)
    product = held.product()
    if product is None:
        pytest.skip("no extension here")
    assert torch.allclose(product(activation), matrix + shift, atol=2e-3)
    assert torch.allclose(product.plus(bias)(activation), matrix + shift + bias, atol=2e-3)
    assert torch.allclose(repaired.product().plus(bias)(activation), both + bias, atol=2e-3)


def test_the_shift_is_counted():
    held = Afm(bits_of(4)).fit(*((weight := case()[0]), statistics_of(case()[1])))
    assert held.shape == weight.shape
    assert held.nbytes == 2 * (4 * (24 + 40) + 24)
