"""What is made of a format's parts is made once, and anew where a part is another."""

import copy

import pytest
import torch

from backend.formats import Dense, IntegerGroups, VectorCodebook
from backend.formats.remembered import forget, remembered
from backend.measure import size


def integers(scale=1.0):
    """Codes 0 to 7 around their middle 4, times a scale."""
    scales = torch.full((2, 1), scale)
    return IntegerGroups.pack(torch.arange(8).repeat(2, 1), scales, bits=3, group_size=8)


def vectors():
    codebook = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).to(torch.bfloat16)
    return VectorCodebook.pack(torch.tensor([[0, 1], [1, 1]]), codebook)


def measured(held):
    return size.resident(held).total


def product(held):
    return held.multiply(torch.eye(held.columns)).T


def test_it_is_made_once_while_nothing_changes(monkeypatch):
    held, made, make = integers(), [], IntegerGroups.matrix
    monkeypatch.setattr(IntegerGroups, "matrix", lambda self: made.append(1) or make(self))
    for _ in range(3):
        assert torch.allclose(product(held)[0], torch.arange(-4.0, 4.0), atol=1e-3)
    assert len(made) == 1


def test_numbers_beside_the_buffers_are_kept_by_none():
    """A codebook in bfloat16 is read in float32, a copy that nobody counts."""
    held, before = vectors(), measured(vectors())
    product(held)
    assert measured(held) == before
    held, before = integers(), measured(integers())
    product(held)
    assert "_remembered" in held.__dict__
    assert measured(held) == before


def test_another_buffer_inside_is_seen():
    held = integers()
    product(held)
    held.scales.values = torch.full((2, 1), 3.0)
    assert torch.allclose(product(held)[1], 3 * torch.arange(-4.0, 4.0), atol=1e-3)


def test_another_part_is_seen():
    held = integers()
    product(held)
    held.scales = Dense.pack(torch.full((2, 1), -1.0))
    assert torch.allclose(product(held)[0], -torch.arange(-4.0, 4.0), atol=1e-3)


@pytest.mark.parametrize("inference", [False, True])
def test_numbers_that_are_loaded_into_their_place_are_seen(inference):
    with torch.inference_mode(inference):
        held, other = vectors(), vectors()
        other.codebook.mul_(2)
        assert torch.equal(product(held), torch.tensor([[1.0, 2, 3, 4], [3, 4, 3, 4]]))
        held.load_state_dict(other.state_dict())
        assert torch.equal(product(held), torch.tensor([[2.0, 4, 6, 8], [6, 8, 6, 8]]))


def test_numbers_that_are_changed_where_they_lie_are_seen():
    held = vectors()
    product(held)
    held.codebook.add_(1)
    assert torch.equal(product(held)[0], torch.tensor([2.0, 3, 4, 5]))


class Sum(torch.nn.Module):
    """Its numbers' sum, which is no part of them."""

    def __init__(self):
        super().__init__()
        self.register_buffer("numbers", torch.ones(3))
        self.made = 0

    def total(self):
        self.made += 1
        return float(self.numbers.sum())


@pytest.mark.parametrize(("inference", "made"), [(False, 2), (True, 3)])
def test_what_follows_from_numbers_is_never_that_of_before(inference, made):
    """Tensors of inference mode count no changes, so that nothing made of them is kept."""
    with torch.inference_mode(inference):
        held = Sum()
        assert [remembered(held, held.total) for _ in range(2)] == [3, 3]
        held.numbers.add_(1)
        assert remembered(held, held.total) == 6
    assert held.made == made


def test_numbers_that_become_those_of_inference_mode_are_seen():
    held = Sum()
    remembered(held, held.total)
    with torch.inference_mode():
        held.numbers = 2 * held.numbers
        assert remembered(held, held.total) == 6
        held.numbers.add_(1)
        assert remembered(held, held.total) == 9


def test_a_copy_has_a_memory_of_its_own():
    held = integers()
    product(held)
    other = copy.deepcopy(held)
    other.scales.values.mul_(2)
    assert torch.allclose(product(other)[0], 2 * torch.arange(-4.0, 4.0), atol=1e-3)
    assert torch.allclose(product(held)[0], torch.arange(-4.0, 4.0), atol=1e-3)


def test_what_moves_lets_go_of_what_it_was():
    held = integers()
    product(held)
    held.to(torch.float64)
    assert "_remembered" not in held.__dict__
    product(held)
    forget(held)
    assert "_remembered" not in held.__dict__
