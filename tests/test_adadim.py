"""AdaDim: groups along inputs where an input is loud, along outputs where an output is."""

import pytest
import torch

from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs
from backend.methods.quantise import _grid
from backend.methods.quantise.adadim import Adadim
from backend.methods.quantise.gptq import Gptq
from backend.methods.quantise.rtn import Rtn
from tests.contract import error, inputs_of, normal, statistics_of


@pytest.mark.parametrize("within", ["rtn", "gptq"])
def test_a_few_wide_inputs_are_kept_among_themselves_and_a_few_wide_outputs_too(within):
    """The paper's figure: outliers in a column spoil every row's groups, but one of their own."""
    weight, statistics = normal(64, 64), statistics_of(inputs_of(64))
    columns, rows = weight.clone(), weight.clone()
    columns[:, ::16] *= 50
    rows[::16] *= 50
    method = Adadim(4.5, group_size=64, within=within)
    assert method.fit(columns, statistics).key == "transposed"
    assert method.fit(rows, statistics).key in ("integer-groups", "rows")


@pytest.mark.parametrize(("within", "plain"), [("rtn", Rtn), ("gptq", Gptq)])
def test_it_is_never_worse_than_what_it_wraps(within, plain):
    for seed in range(4):
        weight, statistics = normal(48, 96, seed=seed), statistics_of(inputs_of(96))
        weight[:, seed::24] *= 8
        own = Adadim(3.5, group_size=32, within=within).fit(weight, statistics)
        wrapped = plain(3.5, group_size=32).fit(weight, statistics)
        assert error(weight, own, statistics) <= 1.0001 * error(weight, wrapped, statistics)


def test_rounding_by_input_is_rounding_of_the_transpose():
    weight = normal(32, 48)
    weight[:, ::12] *= 30
    statistics = InputStatistics(48, Needs.HESSIAN)
    statistics.add(torch.eye(48))
    held = Adadim(4 + 32 / 32, group_size=32, within="rtn").fit(weight, statistics)
    codes, scale, offset = _grid.round_to_nearest(weight.T, 4, 32, symmetric=False)
    expected = _grid.decode(codes, scale, offset, 4).T
    assert held.key == "transposed"
    assert torch.equal(held.dense(), expected)


def test_errors_flow_on_to_later_inputs_as_in_the_plain_recursion():
    weight, statistics = normal(32, 24), statistics_of(inputs_of(24))
    weight[:, ::6] *= 30
    held = Adadim(3 + 32 / 32, group_size=32).fit(weight, statistics)
    assert held.key == "transposed"
    left, order = weight.double().clone(), statistics.order.tolist()
    inverse = torch.linalg.inv(statistics.damped(0.01).double())
    for column in order:
        values = left[:, column].float()[None]
        codes, scale, offset = _grid.round_to_nearest(values, 3, 32, symmetric=False)
        point = _grid.decode(codes, scale, offset, 3)[0].double()
        step = (left[:, column] - point) / inverse[column, column]
        left -= step[:, None] * inverse[column]
        left[:, column] = point
        row = inverse[column].clone()
        inverse -= torch.outer(row, row) / row[column]
    change = weight.double() - left
    plain = float(((change @ statistics.hessian.double()) * change).sum())
    assert error(weight, held, statistics) <= 1.01 * plain
