"""EoRA against the projection into the inputs' eigenspace as the paper writes it."""

import pytest
import torch

from backend.calibrate.statistics import InputStatistics
from backend.formats import Dense
from backend.methods.base import Needs
from backend.methods.factorise import _rank
from backend.methods.factorise.eora import Eora
from backend.methods.quantise.rtn import Rtn
from tests.contract import error, inputs_of, normal, statistics_of


def by_eigenspace(change, hessian, rank):
    """Section 3: project with Q' = Q sqrt(L), truncate the singular values, project back."""
    values, axes = torch.linalg.eigh(hessian.double())
    into = axes * values.clamp(min=1e-12).sqrt()
    left, sizes, right = torch.linalg.svd(change.double() @ into, full_matrices=False)
    return (left[:, :rank] * sizes[:rank]) @ right[:rank] @ torch.linalg.inv(into)


@pytest.mark.parametrize("bits", [0.5, 1.0, 3.0])
def test_the_correction_is_that_of_the_eigenspace(bits):
    weight, statistics = normal(48, 96), statistics_of(inputs_of(96))
    held = Rtn(3.0).fit(weight, statistics)
    rank = int(bits * 48 * 96 / 16 // (48 + 96))
    expected = by_eigenspace(weight - held.dense(), statistics.hessian, rank)
    mended = Eora(bits).mend(weight, held, statistics)
    assert mended.repair.rank == rank
    lost = error(weight, mended, statistics)
    change = (weight - held.dense()).double() - expected
    least = float(((change @ statistics.hessian.double()) * change).sum())
    assert lost == pytest.approx(least, rel=0.01), "but for factors of 16 bits"


def test_a_change_of_low_rank_is_taken_back_whole():
    weight, statistics = normal(64, 80), statistics_of(inputs_of(80))
    held = Rtn(8.0).fit(weight + normal(64, 2, seed=3) @ normal(2, 80, seed=4), statistics)
    mended = Eora(1.0).mend(weight, held, statistics)
    assert error(weight, mended, statistics) < 1e-4 * error(weight, held, statistics)


def test_what_never_flows_in_is_not_mended():
    weight, inputs = normal(32, 64), inputs_of(64)
    inputs[:, ::2] = 0
    held = Rtn(2.5).fit(weight, statistics_of(inputs))
    repair = Eora(2.0).mend(weight, held, statistics_of(inputs)).repair.dense()
    assert torch.all(repair[:, ::2] == 0)


def test_a_few_axes_among_many_are_the_leading_ones():
    """Subspace iteration keeps as much of the outputs as the eigenvectors do."""
    weight = normal(_rank.EXACT + 76, 64) / torch.arange(1, 65) ** 0.7
    hessian = statistics_of(inputs_of(64)).hessian
    values = torch.linalg.eigvalsh((weight @ hessian @ weight.T).double())
    axes = _rank.output_axes(weight, hessian, 5)
    assert torch.allclose(axes.T @ axes, torch.eye(5), atol=1e-4)
    kept = float(((axes.T @ weight) @ hessian * (axes.T @ weight)).sum())
    assert kept == pytest.approx(float(values[-5:].sum()), rel=1e-3)


def test_where_inputs_have_one_direction_only_the_row_sums_matter():
    """All inputs lie along (1, ..., 1): the outputs are the row sums, and rank one mends them."""
    statistics = InputStatistics(8, Needs.HESSIAN)
    statistics.add(torch.tensor([[1.0] * 8, [2.0] * 8]))
    weight = normal(8, 8)
    mended = Eora(4.0).mend(weight, Dense.pack(torch.zeros(8, 8)), statistics)
    assert mended.repair.rank == 1
    assert torch.allclose(mended.dense().sum(1), weight.sum(1), atol=0.05)
