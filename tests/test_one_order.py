"""Products by rounded inputs, and what those come from, are the same whatever stands beside."""

import pytest
import torch

from backend.compress import compress
from backend.decoding.greedy import generate
from backend.decoding.speculate import speculate
from backend.formats import (
    BitmaskSparse,
    Dense,
    EntropyCoded,
    RoundedInputs,
    Rows,
    Sparse24,
    TableCodes,
    WindowCoded,
)
from backend.formats.scalar import ScalarCodebook
from backend.methods.decode.copyspec import Copyspec
from backend.models.language_model import TransformersModel
from backend.models.load import load
from backend.recipes import Recipe
from backend.sources import ModelSource
from tests import tiny_transformers as tiny
from tests.test_packed import random
from tests.test_rounded_inputs import codes_of, groups_of

COUNTS = [1, 2, 3, 4, 5, 8, 16, 33, 64]


def uneven(count, columns):
    """Activations of which some neighbours are alike in size, some not, and one is nothing."""
    x = random(count, columns, seed=4)
    x[1::2] *= random(x[1::2].shape[0], columns, seed=5).exp()
    x[2 % count, columns // 2 :] = 0
    return x


def same_alone_and_together(held, counts=COUNTS):
    x = uneven(max(counts), held.columns)
    for kind in (torch.float32, torch.bfloat16):
        alone = torch.cat([held.multiply(one[None]) for one in x.to(kind)])
        for count in counts:
            assert torch.equal(held.multiply(x[:count].to(kind)), alone[:count]), (kind, count)


@pytest.mark.parametrize("columns", [32, 96, 160, 300, 520, 1300])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.usefixtures("loops")
def test_codes_in_groups_have_one_order_for_any_number_of_rounded_inputs(bits, columns):
    for group_size in (16, 32, 64, 128, columns):
        held = groups_of(37, columns, bits, group_size, "zero-point" if bits % 2 else "float")
        for settings in (
            {"bits": 8},
            {"bits": 8, "odd": True},
            {"bits": 4, "block": 32, "wide": 32},
            {"bits": 4, "block": 16},
            {"bits": 5, "block": 128, "odd": True, "wide": 128 if columns > 128 else 0},
            {"bits": 6, "block": 24},
            {"bits": 12, "block": 64},
        ):
            same_alone_and_together(RoundedInputs.pack(held, **settings), [1, 2, 3, 5, 9])


@pytest.mark.parametrize("columns", [96, 300, 512])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.usefixtures("loops")
def test_so_have_short_rows_for_inputs_in_16_bits(bits, columns):
    """What a small model rounds later, such as keys, comes from these."""
    for group_size in (32, 64, 128, columns):
        same_alone_and_together(groups_of(37, columns, bits, group_size))


def held_as(kind, rows=37, columns=320):
    weight, kept = random(rows, columns), random(rows, columns, seed=1) > 0
    fours = torch.zeros(rows, columns // 4, 4, dtype=torch.bool)
    fours[..., [0, 3]] = True
    table = random(16, seed=2).sort().values
    return {
        "float32": lambda: Dense.pack(weight, torch.float32),
        "bfloat16": lambda: Dense.pack(weight),
        "bitmask": lambda: BitmaskSparse.pack(weight, kept),
        "2 of 4": lambda: Sparse24.pack(weight, fours.flatten(1)),
        "window": lambda: WindowCoded.pack(weight.to(torch.bfloat16)),
        "entropy": lambda: EntropyCoded.pack(weight.to(torch.bfloat16)),
        "tables": lambda: TableCodes.pack(
            codes_of(rows, columns, 4), table, random(rows, 5, seed=2), 64
        ),
        "tables of rows": lambda: ScalarCodebook.pack(
            codes_of(rows, columns, 3), random(rows, 8, seed=2)
        ),
        "two widths": lambda: Rows.pack(
            kept[:, 0],
            groups_of(int(kept[:, 0].sum()), columns, 5, 32),
            groups_of(int((~kept[:, 0]).sum()), columns, 4, 32),
        ),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        *("float32", "bfloat16", "bitmask", "2 of 4", "window", "entropy"),
        *("tables", "tables of rows", "two widths"),
    ],
)
@pytest.mark.usefixtures("loops")
def test_whatever_is_held_has_one_order_behind_rounded_inputs(kind):
    order, divisors = random(320, seed=9).argsort(), random(320, seed=2).abs() + 0.5
    turns = random(4, 4, seed=6), random(8, 8, seed=7)
    for more in ({}, {"order": order, "divisors": divisors}, {"turns": turns}):
        same_alone_and_together(RoundedInputs.pack(held_as(kind), bits=8, **more))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_order(threads):
    held = groups_of(600, 512, 4, 128)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        same_alone_and_together(RoundedInputs.pack(held, bits=8))
        same_alone_and_together(held)
    finally:
        torch.set_num_threads(before)


def embedded(recipe, dtype):
    loaded = load(ModelSource.parse("default"), dtype)
    compress(loaded, Recipe.parse(recipe), torch.arange(8 * 64).view(8, 64))
    return TransformersModel(loaded.model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recipe", ["ap-int@14", "comet@6"])
def test_a_text_drafted_behind_rounded_inputs_is_that_of_plain_writing(recipe, dtype):
    """Its logits are the same to the bit, at once and token by token."""
    model, accepted = embedded(recipe, dtype), 0
    words = torch.arange(3, 43)
    for seed in range(3):
        prompt = words[random(40, seed=seed).argsort()[:20]].tolist() * 2
        (plain,) = generate(model, [prompt], 60, ignore_end=True)
        drafter = Copyspec(match_length=1, draft_length=12).drafter()
        fast = speculate(model, drafter, prompt, 60, ignore_end=True)
        assert fast.tokens == plain.tokens
        accepted += sum(fast.accepted)
        rows = torch.tensor([[*prompt, *plain.tokens]])
        together, alone = model.session(1, 120), model.session(1, 120)
        for session in (together, alone):
            session.feed(rows[:, :40])
        at_once = torch.cat([together.feed(rows[:, k : k + 15])[0] for k in (40, 55, 70, 85)])
        one_by_one = torch.cat([alone.feed(rows[:, k : k + 1])[0] for k in range(40, 100)])
        assert torch.equal(at_once, one_by_one)
    assert accepted > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [32, 20])
@pytest.mark.parametrize("recipe", ["", "ap-int@4.5"])
@pytest.mark.usefixtures("loops")
def test_every_branch_of_a_tree_has_the_logits_of_its_tokens_one_by_one(recipe, head_dim, dtype):
    """Tokens of other branches lie among its own, and a piece of 32 may end anywhere."""
    model = tiny.build("llama", dtype=dtype, head_dim=head_dim, max_position_embeddings=128)
    if recipe:
        compress(tiny.loaded_here(model), Recipe.parse(recipe), tiny.tokens(2, 16))
    variant = TransformersModel(model)
    fed = tiny.tokens(1, 40, seed=1)
    parents = [-1, *((index * 7 % 11) % index for index in range(1, 40))]
    for length in (9, 30, 32, 61):
        prompt = tiny.tokens(1, length, seed=2)
        session = variant.session(1, length + 40)
        assert session._step is not None
        session.feed(prompt)
        found = session.feed(fed, parents)[0]
        for node in range(0, 40, 3):
            branch = [node]
            while parents[branch[0]] >= 0:
                branch.insert(0, parents[branch[0]])
            alone = variant.session(1, length + 40)
            alone.feed(prompt)
            for at in branch:
                expected = alone.feed(fed[:, [at]])[0, 0]
            assert torch.equal(found[node], expected), (length, node)
