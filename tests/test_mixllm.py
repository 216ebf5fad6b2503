"""MixLLM: salience against autograd, one order over all matrices, the budget of the whole."""

import pytest
import torch
from torch.nn import functional

from backend import formats
from backend.calibrate.gradients import row_salience
from backend.compress import compress
from backend.errors import OutOfReachError
from backend.methods.quantise.mixllm import Mixllm
from backend.models.view import View
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.contract import inputs_of, normal, statistics_of


def changes_of(view, method):
    return {site.name: method.change(view.weight(site)) for site in view.all_sites()}


def test_salience_is_the_first_two_terms_of_taylors_series_by_autograd():
    model, windows = tiny.build("llama"), tiny.tokens(3, 10)
    view = View(model)
    changes = changes_of(view, Mixllm())
    found = row_salience(view, windows, changes)
    expected = {name: torch.zeros(len(one)) for name, one in changes.items()}
    model.requires_grad_(requires_grad=True)
    for window in windows:
        model.zero_grad()
        logits = model(input_ids=window[None]).logits[0, :-1]
        functional.cross_entropy(logits, window[1:]).backward()
        for name, change in changes.items():
            moved = (model.get_submodule(name).weight.grad * change).sum(1)
            expected[name] += (moved + 0.5 * moved**2).abs()
    for name, one in found.items():
        assert torch.allclose(one, expected[name], rtol=1e-3, atol=1e-6 * one.max()), name


def test_rows_of_all_matrices_stand_in_one_order_until_the_budget_is_spent():
    """By hand: 2 x 128 and 2 x 64 in one group a row take 4 * 384 + 4 * 32 bits, and two masks.

    A wide row costs 4 * 128 - 16 more in eight bits, a narrow one 4 * 64 - 16.
    """
    salience = {"wide": torch.tensor([3.0, 9.0]), "narrow": torch.tensor([5.0, 1.0])}
    columns = {"wide": 128, "narrow": 64}
    least = 4 * 384 + 4 * 32 + 16
    for spare, wide, narrow in (
        (495, [False, False], [False, False]),
        (496, [False, True], [False, False]),
        (496 + 240, [False, True], [True, False]),
        (496 + 240 + 495, [False, True], [True, False]),
        (496 + 240 + 496 + 240, [True, True], [True, True]),
    ):
        chosen = Mixllm((least + spare) / 384, group_size=0).fine_rows(salience, columns)
        assert chosen["wide"].tolist() == wide
        assert chosen["narrow"].tolist() == narrow
    with pytest.raises(OutOfReachError, match=r"2 x 64 in groups of 64 takes 4\.50 bits"):
        Mixllm(4.4).fine_rows(salience, columns)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_a_whole_model_keeps_the_budget_and_its_most_salient_rows(family):
    method, windows = Mixllm(6.0, group_size=32), tiny.tokens(4, 16)
    view = View(tiny.build(family))
    salience = row_salience(view, windows, changes_of(view, method))
    treated = compress(tiny.loaded_here(tiny.build(family)), Recipe((method,)), windows).view
    fine, coarse, bits, numbers, shares = [], [], 0, 0, set()
    for site in treated.all_sites():
        held = treated.held(site)
        whole = isinstance(held, formats.IntegerGroups)
        mask = torch.full((held.rows,), whole and held.code_bits == 8)
        if not whole:
            mask[held._order() < held.fine.rows] = True
            assert (held.fine.code_bits, held.coarse.code_bits) == (8, 4)
            assert (held.fine.offset, held.coarse.offset) == ("none", "float")
        fine.append(salience[site.name][mask])
        coarse.append(salience[site.name][~mask])
        bits, numbers = bits + 8 * held.nbytes, numbers + held.rows * held.columns
        shares.add(round(float(mask.float().mean()), 2))
    assert torch.cat(fine).min() >= torch.cat(coarse).max()
    assert 5.8 * numbers < bits <= 6.0 * numbers
    assert len(shares) > 3, "a matrix gets what its rows are worth, not what all get"


def test_alone_a_matrix_gives_the_wider_codes_to_the_rows_that_lose_most():
    weight, statistics = normal(64, 64), statistics_of(inputs_of(64))
    weight[::4] *= 20
    held = Mixllm(5.6, group_size=64).fit(weight, statistics)
    chosen = held._order().argsort()[: held.fine.rows]
    assert held.bits <= 5.6
    assert set(range(0, 64, 4)) <= set(chosen.tolist())
