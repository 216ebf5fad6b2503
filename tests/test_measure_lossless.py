"""Proofs of losslessness, on things that are lossless and things that are nearly so."""

import numpy as np
import pytest
import torch

from backend.decoding.greedy import generate
from backend.decoding.sampling import chosen
from backend.measure import hardware, lossless, threads
from tests.tiny_model import TinyModel


def test_bits_are_compared_not_values():
    first = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([float("nan")])}
    same = {name: tensor.clone() for name, tensor in first.items()}
    found = lossless.compare_bits(first, same)
    assert (found.compared, found.different) == (2, ())
    assert found.digests[0] == found.digests[1]
    negative_zero = same | {"a": torch.tensor([-0.0, 1.0])}
    found = lossless.compare_bits(first, negative_zero)
    assert found.different == ("a",)
    assert found.digests[0] != found.digests[1]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"a": torch.zeros(2), "b": torch.zeros(1)},
        {"a": torch.zeros(1, 2)},
        {"a": torch.zeros(2, dtype=torch.float64)},
    ],
)
def test_missing_tensors_shapes_and_types_are_differences(other):
    found = lossless.compare_bits({"a": torch.zeros(2)}, other)
    assert len(found.different) == 1
    assert lossless.weight_readings(found)[0].value == 1


def test_types_without_numpy_and_scalars_have_a_digest():
    tensors = {"a": torch.tensor(1.5, dtype=torch.bfloat16), "b": torch.zeros(0)}
    assert not lossless.compare_bits(tensors, tensors).different


def test_identical_ids_bound_the_rate_by_the_rule_of_three():
    (found,) = lossless.token_readings([[1] * 128] * 32, [[1] * 128] * 32)
    assert (found.name, found.value, found.samples) == ("lossless_l1", 0, 4096)
    assert "0.0732 %" in found.note
    (found,) = lossless.token_readings([[1, 2, 3]], [[1, 9]])
    assert found.value == 2


@pytest.mark.parametrize(
    ("value", "dtype", "step"),
    [(1.0, torch.bfloat16, 2**-7), (7.9, torch.bfloat16, 2**-5), (-20.0, torch.float16, 2**-6)],
)
def test_unit_in_the_last_place_by_hand(value, dtype, step):
    assert float(lossless.last_place(torch.tensor(value), dtype)) == step
    near = torch.tensor(abs(value), dtype=dtype)
    following = torch.nextafter(near.float(), torch.tensor(1e9)).item()
    assert following < float(near) + step


def test_a_models_own_words_have_no_divergence():
    model, prompts = TinyModel(seed=3), [[1, 2], [3]]
    got = [each.tokens for each in generate(model, prompts, 12)]
    found = lossless.divergences(model, prompts, got)
    assert (found.tokens, found.ties, found.real) == (24, 0, 0)
    assert [each.value for each in lossless.divergence_readings(found)] == [0, 0]


class Stepped:
    """Gives two leading logits a planted gap, in a planted type."""

    has_cache_method, end_token, device, vocabulary_size = False, None, torch.device("cpu"), 4

    def __init__(self, gap, dtype):
        self.row = torch.tensor([4.0 + gap, 4.0, 0.0, 0.0]).to(dtype)

    def logits(self, tokens):
        return self.row.expand(*tokens.shape, 4)


@pytest.mark.parametrize(
    ("gap", "dtype", "ties", "real"),
    [
        (2**-4, torch.bfloat16, 3, 0),
        (2**-3, torch.bfloat16, 0, 3),
        (2**-4, torch.float32, 0, 3),
        (2**-20, torch.float32, 3, 0),
    ],
)
def test_a_lead_of_two_last_places_is_a_tie(gap, dtype, ties, real):
    found = lossless.divergences(Stepped(gap, dtype), [[0, 0]], [[1, 0, 1, 0, 1]])
    assert (found.tokens, found.ties, found.real) == (5, ties, real)
    assert found.largest_gap == pytest.approx(gap, rel=1e-3)


def random_pairs(count):
    generator = np.random.default_rng(6)
    for _ in range(count):
        size = int(generator.integers(2, 17))
        p, q = generator.dirichlet(np.full(size, 0.4), 2)
        yield p, q
        yield p, np.eye(size)[int(generator.integers(size))]


def test_enumeration_of_the_accept_rule_equals_p():
    (found,) = lossless.sampling_readings(random_pairs(200))
    assert (found.value, found.samples) == (0, 400)
    p, q = next(random_pairs(1))
    assert np.abs(lossless.emitted(p, q) - p).max() < 1e-12


def test_a_wrong_rule_is_caught(monkeypatch):
    monkeypatch.setattr(lossless, "residual", lambda p, q: np.asarray(p))
    (found,) = lossless.sampling_readings(random_pairs(20))
    assert found.value > 0


def test_samples_through_the_rule_pass_chi_squared_and_those_of_the_drafter_fail():
    generator = np.random.default_rng(8)
    p, q = np.array([0.5, 0.3, 0.15, 0.05, 0.0]), np.array([0.1, 0.3, 0.2, 0.2, 0.2])
    drafts = generator.choice(5, 20_000, p=q)
    uniforms = generator.random(20_000)
    out = [chosen(p, [(int(d), q)], float(u)) for d, u in zip(drafts, uniforms, strict=True)]
    assert lossless.chi_squared(np.bincount(out, minlength=5), p) > 0.001
    assert lossless.chi_squared(np.bincount(drafts, minlength=5), q) > 0.001
    assert lossless.chi_squared(np.bincount(drafts % 4, minlength=5), p) < 1e-9
    assert lossless.chi_squared([1, 0, 0, 0, 1], p) == 0


def test_the_badge_follows_from_the_readings():
    l1 = lossless.token_readings([[1, 2]], [[1, 2]])
    l3 = lossless.sampling_readings(random_pairs(3))
    assert lossless.badge([*l3, *l1]) == "L1 L3"
    assert lossless.badge([*l3, *lossless.token_readings([[1]], [[2]])]) == ""
    assert lossless.badge(lossless.token_readings([], [])) == ""


def test_a_machine_has_one_name_and_it_depends_on_what_it_is():
    about = hardware.hardware()
    assert hardware.hardware_id(about) == hardware.hardware_id() == hardware.hardware_id()
    assert hardware.hardware_id(about | {"cores": 4096}) != hardware.hardware_id(about)
    assert about["cores"] >= 1
    assert hardware.software()["torch"]


def test_a_quota_of_a_control_group_limits_the_cores(monkeypatch):
    files = {"/sys/fs/cgroup/cpu.max": ["150000 100000"]}
    monkeypatch.setattr(hardware, "_lines", lambda path: files.get(path, []))
    assert hardware._quota() == 1.5
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert hardware.usable_cores() == 2
    files["/sys/fs/cgroup/cpu.max"] = ["max 100000"]
    assert hardware.usable_cores() == 8


def test_threads_are_set_back():
    before = torch.get_num_threads()
    with threads.use_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert threads.quickest_threads(1) == 1
    assert threads.quickest_threads(2, seconds=0.01) in (1, 2)
    assert torch.get_num_threads() == before
