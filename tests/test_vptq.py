"""VPTQ: codebooks against hand examples and the best there is, the sweep against plain rounding."""

import itertools

import pytest
import torch

from backend import formats
from backend.methods.quantise import _vectors, vptq
from backend.methods.quantise.vptq import Vptq
from tests.contract import error, inputs_of, normal, statistics_of


def planned(method, weight, statistics):
    order = statistics.order
    costs = statistics.inverse_factor(method.damping, ordered=True).diagonal().pow(-2)
    return method.plan(weight.shape[0], costs * weight[:, order].square().mean(0))


@pytest.mark.parametrize("text", [(1,), (2,), (4,), (8,)])
def test_what_a_codebook_of_single_numbers_is_said_to_lose_is_what_lloyd_and_max_found(text):
    """Max 1960, table 1: 2, 4, 16 and, by Panter and Dite, 256 levels for a normal curve."""
    known = {1: 0.3634, 2: 0.1175, 4: 0.009497, 8: 2.72 / 4**8}
    assert _vectors.Level(1, text).distortion == pytest.approx(known[text[0]], rel=0.06)


def test_entries_stand_in_the_weighted_middle_of_their_vectors():
    """By hand: (0, 0) and (2, 0) with weights 1 and 3 meet at (1.5, 0); (10, 10) stands alone."""
    vectors = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 10.0]])
    found = _vectors.codebook(vectors, torch.tensor([1.0, 3.0, 1.0]), 2)
    assert torch.allclose(found[found[:, 1].argsort()], torch.tensor([[1.5, 0.0], [10.0, 10.0]]))


def test_codebooks_are_nearly_the_best_that_any_partition_gives():
    vectors, weights = normal(9, 2), normal(9, seed=1).square()
    found = _vectors.codebook(vectors, weights, 2)
    own = float(
        (weights * (vectors - found[_vectors.nearest(vectors, found)]).square().sum(1)).sum()
    )
    least = float("inf")
    for sides in itertools.product([False, True], repeat=8):
        side = torch.tensor([True, *sides])
        total = 0.0
        for part in (side, ~side):
            if bool(part.any()):
                middle = (weights[part, None] * vectors[part]).sum(0) / weights[part].sum()
                total += float((weights[part] * (vectors[part] - middle).square().sum(1)).sum())
        least = min(least, total)
    assert least <= 1.001 * own <= 1.1 * least


def test_what_is_drawn_of_many_vectors_is_among_them_with_its_own_weight(monkeypatch):
    columns, counts = torch.arange(24.0).view(3, 8), torch.tensor([1.0, 2.0, 3.0])
    whole, weights = _vectors.drawn(columns, counts, 4)
    assert whole.tolist() == columns.view(6, 4).tolist()
    assert weights.tolist() == [1, 1, 2, 2, 3, 3]
    monkeypatch.setattr(_vectors, "SAMPLE", 5)
    some, own = _vectors.drawn(columns, counts, 4)
    assert some.shape == (5, 4)
    known = {tuple(one): weight for one, weight in zip(whole.tolist(), weights, strict=True)}
    assert all(known[tuple(one)] == weight for one, weight in zip(some.tolist(), own, strict=True))


def test_the_nearest_entry_is_that_of_every_distance():
    vectors, entries = normal(70, 4), normal(16, 4, seed=3)
    expected = torch.cdist(vectors.double(), entries.double()).argmin(1)
    assert torch.equal(_vectors.nearest(vectors, entries), expected)


def test_a_matrix_of_few_different_vectors_is_held_exactly():
    """Sixteen vectors of four outputs: 4 bits for 4 weights, and 16 * 4 numbers of 16 bits."""
    entries = normal(16, 4).bfloat16().float()
    weight = entries[torch.randint(16, (64, 128), generator=torch.Generator().manual_seed(1))]
    weight = weight.transpose(1, 2).reshape(256, 128)
    level = _vectors.Level(4, (4,))
    assert (level.row(256), level.codebooks) == (256 // 4 // 2, 16 * 4 * 2)
    part = vptq._Part(weight.T, torch.ones(128), level, 128)
    assert all(torch.equal(part.round(at, one), one) for at, one in enumerate(weight.T))
    held = part.held(torch.ones(128, dtype=torch.bool))
    assert torch.equal(held.dense().T, weight)
    assert held.nbytes == 128 * level.row(256) + level.codebooks


def test_vectors_lie_along_the_outputs_of_one_input():
    """So that a column's errors are mended by later columns, never by its own vector."""
    held = Vptq(2.2).fit(normal(64, 256), statistics_of(inputs_of(256)))
    assert isinstance(held, formats.Transposed)
    assert held.held.shape == (256, 64)


def test_mending_loses_less_than_the_nearest_entries_of_the_same_codebooks():
    weight, statistics = normal(128, 192), statistics_of(inputs_of(192))
    method = Vptq(2.1)
    plan = planned(method, weight, statistics)
    assert plan.apart == 0 or plan.fine.rate > plan.coarse.rate
    held = method.fit(weight, statistics)
    plain = torch.empty(192, 128)
    parts = [held.held] if not plan.apart else [held.held.coarse, held.held.fine]
    mask = torch.zeros(192, dtype=torch.bool)
    mask[statistics.order[: plan.apart]] = True
    for part, chosen in zip(parts, (~mask, mask), strict=False):
        left = weight.T[chosen].reshape(-1, (plan.coarse, plan.fine)[part is not parts[0]].length)
        total = torch.zeros_like(left)
        inner = part.inner().values() if isinstance(part, formats.Sum) else [part]
        for one in inner:
            entries = one.codebook.float()
            nearest = entries[_vectors.nearest(left, entries)]
            total, left = total + nearest, left - nearest
        plain[chosen] = total.view(-1, 128)
    rounded = formats.Dense.pack(plain.T.contiguous(), dtype=torch.float32)
    assert error(weight, held, statistics) < 0.8 * error(weight, rounded, statistics)


def test_the_columns_with_the_most_energy_have_the_finer_codebooks():
    weight, statistics = normal(64, 128), statistics_of(inputs_of(128))
    plan = planned(Vptq(2.5), weight, statistics)
    held = Vptq(2.5).fit(weight, statistics).held
    assert isinstance(held, formats.Rows)
    assert held.fine.rows == plan.apart > 0
    errors = (held.dense().T - weight).square().mean(0)
    loud = statistics.order[: plan.apart]
    quiet = statistics.order[plan.apart :]
    assert float(errors[loud].mean()) < 0.5 * float(errors[quiet].mean())
