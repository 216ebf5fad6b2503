"""BitStack: blocks against the paper's recursion, one decomposition for every budget."""

import itertools
import json
import math

import pytest
import torch

from backend import formats, stacks
from backend.calibrate.modes import Parallel
from backend.calibrate.walk import Walk
from backend.compress import compress
from backend.errors import OutOfReachError
from backend.methods.quantise.bitstack import Bitstack
from backend.models.view import View
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.contract import inputs_of, normal, statistics_of

WINDOWS = tiny.tokens(4, 16)


def by_hand(weight, scale, rank, rounds):
    """Absolute value decomposition: signs times the best product for the sizes, again and again."""
    left_over, total = (weight * scale).double(), torch.zeros_like(weight).double()
    for _ in range(rounds):
        left, values, right = torch.linalg.svd(left_over.abs(), full_matrices=False)
        sizes = (left[:, :rank] * values[:rank]) @ right[:rank]
        part = torch.where(left_over >= 0, sizes, -sizes)
        total, left_over = total + part, left_over - part
    return total / scale


@pytest.mark.parametrize(("side", "rank"), [(64, 2), (128, 1)])
def test_blocks_are_those_of_the_papers_recursion(side, rank):
    weight, statistics = normal(128, 192), statistics_of(inputs_of(192))
    stack = Bitstack(side=side, blocks=4).stack(weight, statistics)
    assert [part.left.columns for part in stack] == [rank] * 4
    scale = statistics.mean_squares.sqrt()
    expected = by_hand(weight, scale / scale.mean(), rank, 4)
    own = sum(part.dense() for part in stack)
    lost, plain = (
        float((((one - weight) * scale).square()).sum()) for one in (own.double(), expected)
    )
    assert lost <= 1.01 * plain


def test_a_block_takes_a_bit_a_weight_and_its_factors():
    stack = Bitstack(blocks=2).stack(normal(256, 512), statistics_of(inputs_of(512)))
    assert stack[0].bits == pytest.approx(1 + 16 * (256 + 512) / (256 * 512))


def test_gaussian_weights_leave_a_third_of_their_energy_to_the_next_block():
    """The size of a normal number is best told by its mean: 1 - 2 / pi of the energy is left."""
    weight, statistics = normal(512, 512), statistics_of(torch.eye(512))
    (block,) = Bitstack(blocks=1).stack(weight, statistics)
    left = float((weight - block.dense()).square().mean() / weight.square().mean())
    assert left == pytest.approx(1 - 2 / math.pi, abs=0.02)


def test_a_smaller_budget_holds_the_first_blocks_of_a_larger_one():
    weight, statistics = normal(128, 128), statistics_of(inputs_of(128))
    large = Bitstack(6.0).fit(weight, statistics).inner()
    small = Bitstack(2.6).fit(weight, statistics).inner()
    assert (len(small), len(large)) == (2, 4)
    for name, part in small.items():
        assert torch.equal(part.dense(), large[name].dense())


def held_by(view):
    return {site.name: len(view.held(site).inner()) for site in view.all_sites()}


def test_a_second_budget_reads_the_same_decomposition_and_takes_nothing_apart(tmp_path):
    folder, steps = tmp_path / "statistics", []

    def run(text):
        steps.clear()
        source = tiny.loaded_here(tiny.build("llama"))
        view = compress(
            source,
            Recipe.parse(text),
            WINDOWS,
            lambda stage, *_: steps.append(stage),
            statistics=folder,
        ).view
        return view, set(steps)

    first, told = run("bitstack(bits=9, blocks=5)")
    assert {"take apart", "sort blocks", "load blocks"} <= told
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    second, told = run("bitstack(bits=4, blocks=5)")
    assert "load blocks" in told
    assert not {"take apart", "sort blocks"} & told
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert after == files
    for site in second.all_sites():
        few, many = second.held(site).inner(), first.held(site).inner()
        assert few.keys() <= many.keys()
        assert all(torch.equal(few[name].dense(), many[name].dense()) for name in few)
    heights = held_by(second).values()
    assert max(heights) - min(heights) <= 1, "no stack is more than a block ahead"
    numbers = sum(math.prod(second.held(site).shape) for site in second.all_sites())
    taken = 8 * sum(second.held(site).nbytes for site in second.all_sites())
    (order,) = folder.glob("stacks-*/order.json")
    listed = json.loads(order.read_text())
    following = listed[sum(heights)]
    assert taken <= 4 * numbers < taken + 8 * following[2]


def test_blocks_are_loaded_in_the_order_of_what_they_do_for_the_model(tmp_path):
    """At the first measured height, each next block's gain for its bytes is measured again."""
    source, folder = tiny.loaded_here(tiny.build("llama")), tmp_path / "statistics"
    dense = {name: one.clone() for name, one in source.model.state_dict().items()}
    expected = source.model(input_ids=WINDOWS).logits.log_softmax(-1)
    recipe = Recipe.parse("bitstack(bits=4, blocks=3)")
    view = compress(source, recipe, WINDOWS, statistics=folder).view
    (order,) = folder.glob("stacks-*/order.json")
    names = [name for name, place, _ in json.loads(order.read_text()) if place == 1]
    twin = tiny.build("llama")
    twin.load_state_dict(dense)
    blocks = stacks._Blocks(view, order.parent)

    def loss(second):
        for name in names:
            weight = blocks.read(name, 0).dense()
            weight = weight + blocks.read(name, 1).dense() if name == second else weight
            twin.get_submodule(name).weight.data.copy_(weight)
        found = twin(input_ids=WINDOWS).logits.log_softmax(-1)
        return float((expected.exp() * (expected - found)).sum(-1).mean())

    before = loss(None)
    gains = [(before - loss(name)) / blocks.read(name, 1).nbytes for name in names]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(gains))
    assert isinstance(view.held(next(view.all_sites())), formats.Sum)


def test_a_model_is_dense_again_once_blocks_are_sorted():
    model = tiny.build("llama")
    view = View(model)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    source = Parallel(lambda: Walk(view, WINDOWS), Bitstack.needs, 2)
    stacks.load(view, lambda: source, Bitstack(4.0), WINDOWS, kept=None, progress=lambda *_: None)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_a_budget_below_one_block_a_layer_is_refused():
    source = tiny.loaded_here(tiny.build("llama"))
    with pytest.raises(OutOfReachError, match=r"not 1\.20; ask for \d\.\d\d or more"):
        compress(source, Recipe.parse("bitstack(bits=1.2, blocks=2)"), WINDOWS)
