"""DB-LLM: the four values by hand, scales against brute force, bytes, and what each part gains."""

import itertools

import pytest
import torch

from backend import formats
from backend.methods.quantise import db_llm
from backend.methods.quantise.db_llm import DbLlm
from tests.contract import error, inputs_of, normal, statistics_of


def test_two_scales_make_four_values():
    """By hand: 2s = 2 and -s = -1 give -1, 0, 1 and 2, the grid of two-bit integers."""
    values = torch.tensor([[-3.0, -0.4, 0.6, 1.4, 1.6]])
    digits, found = db_llm.nearest(values, torch.tensor([[2.0, -1.0]]))
    assert found.tolist() == [[-1.0, 0.0, 1.0, 1.0, 2.0]]
    assert digits[0].tolist() == [[0, 0, 1, 1, 1]]
    assert digits[1].tolist() == [[1, 0, 1, 1, 0]]


def best_by_digits(group, counts):
    """Least loss over every way to give each weight its two digits."""
    least = float("inf")
    for ways in itertools.product(db_llm.DIGITS, repeat=len(group)):
        design = torch.tensor(ways, dtype=torch.float64)
        root = counts.double().sqrt()
        found = torch.linalg.lstsq(
            design * root[:, None], (group.double() * root)[:, None], driver="gelsd"
        ).solution
        change = (design @ found).squeeze(1) - group.double()
        least = min(least, float((counts.double() * change.square()).sum()))
    return least


def test_scales_and_digits_are_nearly_the_best_of_all():
    groups, counts = normal(6, 1, 6), normal(1, 6, seed=1).square() + 0.1
    scales = db_llm.started(groups, counts)
    _, found = db_llm.nearest(groups, scales)
    lost = ((found - groups).square() * counts).sum(-1).flatten().tolist()
    best = [best_by_digits(group[0], counts[0]) for group in groups]
    assert all(own >= 0.999 * least for own, least in zip(lost, best, strict=True))
    whole = float((groups.square() * counts).sum())
    assert sum(lost) - sum(best) < 0.03 * whole


def test_weights_of_four_such_values_are_held_as_they_are():
    """Any scales, not those of an even grid: 0, 0.75, -0.25 and their sum."""
    places = torch.randint(0, 4, (16, 128), generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([0.0, 0.75, -0.25, 0.5])[places]
    held = DbLlm(2.25).fit(weight, statistics_of(inputs_of(128)))
    assert torch.allclose(held.dense(), weight, atol=1e-6)


def test_groups_of_64_take_two_bits_and_two_scales():
    held = DbLlm(2.5).fit(normal(64, 128), statistics_of(inputs_of(128)))
    assert isinstance(held, formats.Sum)
    assert held.bits == 2 + 32 / 64
    assert set(held.parts()) == {
        f"{name}/{part}"
        for name in ("first", "second")
        for part in ("codes/plane1", "scales/values")
    }
    assert held.speed == "measured"


def test_a_budget_between_two_sizes_gives_smaller_groups_to_the_rows_that_lose_most():
    weight, statistics = normal(64, 128), statistics_of(inputs_of(128))
    weight[::4] *= 20
    held = DbLlm(2.35).fit(weight, statistics)
    chosen = held._order().argsort()[: held.fine.rows]
    assert held.bits <= 2.35
    assert set(range(0, 64, 4)) <= set(chosen.tolist())


@pytest.mark.parametrize("columns", [64, 40])
def test_setting_all_scales_together_pays(columns):
    weight, statistics = normal(32, columns), statistics_of(inputs_of(columns))
    lost = [
        error(weight, DbLlm(3.0, steps=steps).fit(weight, statistics), statistics)
        for steps in (0, 2, 12)
    ]
    assert all(after < before for before, after in itertools.pairwise(lost))
