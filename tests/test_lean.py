"""Decoding without transformers' machinery gives what transformers gives."""

import contextlib

import pytest
import torch

from backend.caches.condensed import CondensedCodec, CondensedLayerCache
from backend.compress import compress
from backend.methods import find
from backend.models.language_model import TransformersModel
from backend.models.lean import Lean
from backend.models.observing import Observed
from backend.models.sliced import narrow
from backend.models.view import View
from backend.recipes import Recipe
from kernels import extension
from kernels.decode_step import TOKENS
from tests import looking
from tests import tiny_transformers as tiny
from tests.lean_models import FAMILIES, both, branch, follow, near

OTHERS = sorted(set(tiny.CONFIGS) - set(FAMILIES))


@pytest.fixture(params=[True, False], ids=["whole steps", "by torch"])
def whole(request, monkeypatch):
    """With the extension, and without one."""
    if request.param:
        assert extension.library() is not None, extension.reason()
    else:
        monkeypatch.setattr(extension, "_found", lambda: (None, "left out by the test"))
    return request.param


@pytest.mark.parametrize("family", FAMILIES)
def test_every_known_architecture_gives_the_logits_of_transformers(family, whole):
    model = tiny.build(family, **FAMILIES[family])
    lean, plain = both(model)
    near(follow(lean), follow(plain))
    near(branch(lean), branch(plain))
    session = lean.session(1, 4)
    assert (session._step is not None) == whole
    assert lean.pace == ("" if whole else "each step runs module by module")
    assert plain.pace == plain.loop


def nodes(count):
    """Parents of a tree that is neither a chain nor flat."""
    return [-1, *((index * 7 % 11) % index for index in range(1, count))]


@pytest.mark.parametrize("count", [17, TOKENS, TOKENS + 1])
@pytest.mark.parametrize("recipe", ["", "rtn@4.5", "lut-gemm@3", "wanda@9"])
def test_a_large_tree_gives_the_logits_of_each_of_its_branches(recipe, count):
    model = tiny.build("llama", num_attention_heads=2, num_key_value_heads=1)
    compress(tiny.loaded_here(model), Recipe.parse(recipe), tiny.tokens(2, 16))
    lean = TransformersModel(model)
    prompt, fed = tiny.tokens(1, 9), tiny.tokens(1, count, seed=1)
    parents = nodes(count)
    session = lean.session(1, 9 + count)
    session.feed(prompt)
    with calls_counted(session) as calls:
        found = session.feed(fed, parents)
    assert len(calls) == (count <= TOKENS)
    for node in (0, 1, 5, count - 1):
        branch = [node]
        while parents[branch[0]] >= 0:
            branch.insert(0, parents[branch[0]])
        alone = lean.session(1, 9 + count)
        alone.feed(prompt)
        expected = [alone.feed(fed[:, [at]])[0, 0] for at in branch][-1]
        near(found[0, node], expected, 1e-3)


@pytest.mark.parametrize("recipe", ["comet@5", "flatquant(bits=5.5, inputs=8)", "ap-int@4.5"])
def test_models_whose_inputs_are_rounded_take_whole_steps(recipe):
    """Sums of another order may round an input the other way, hence the tolerance."""
    model = tiny.build("llama")
    compress(tiny.loaded_here(model), Recipe.parse(recipe), tiny.tokens(2, 16))
    lean, plain = both(model)
    assert lean.session(1, 4)._step is not None
    near(follow(lean), follow(plain), 0.03)


@contextlib.contextmanager
def calls_counted(session):
    """Inside, notes each step in one call."""
    calls, step = [], session._step

    def counted(*arguments):
        calls.append(arguments)
        return step(*arguments)

    counted.embeds, counted.ahead = step.embeds, step.ahead
    session._step = counted
    yield calls
    session._step = step


@pytest.mark.parametrize("family", FAMILIES)
def test_several_sequences_and_bfloat16_go_step_by_step(family):
    model = tiny.build(family, **FAMILIES[family])
    lean, plain = both(model)
    near(follow(lean, 3), follow(plain, 3))
    lean, plain = both(model.to(torch.bfloat16))
    near(follow(lean), follow(plain), 0.03)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_in_bfloat16_take_whole_steps_too(family, whole):
    model = tiny.build(family, **FAMILIES[family]).to(torch.bfloat16)
    lean = TransformersModel(model)
    found = follow(lean)
    assert found.dtype == torch.bfloat16
    session = lean.session(1, 4)
    session.feed(tiny.tokens(1, 1))
    assert (session._step is not None) == whole
    assert session.cache_bytes() == 2 * 2 * 2 * 8 * 4 * 2  # layers, K and V, heads, size, tokens
    near(found, follow(TransformersModel(model.float(), lean=False)), 0.03)


@pytest.mark.parametrize("family", OTHERS)
def test_other_architectures_say_that_transformers_decodes_them(family):
    model = TransformersModel(tiny.build(family))
    assert "by transformers" in model.loop
    assert model.session(1, 8).feed(tiny.tokens(1, 8)).isfinite().all()


def test_windows_and_changing_rotations_are_left_to_transformers():
    assert "sliding window" in TransformersModel(tiny.build("mistral", sliding_window=8)).loop
    turned = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert "dynamic" in TransformersModel(tiny.build("llama", rope_parameters=turned)).loop


def test_a_module_that_is_not_known_is_left_to_transformers():
    model = tiny.build("llama")
    model.model.layers[1].mlp = torch.nn.Sequential(model.model.layers[1].mlp)
    assert TransformersModel(model).loop == "Sequential is run by transformers"


@pytest.mark.parametrize(
    "codec", ["kv-int", "zipcache", "mustafar", "window", "rotatekv", "cskv", "razor", "ems"]
)
def test_caches_hold_and_answer_the_same(codec, whole):
    model = tiny.build("llama", num_attention_heads=2, num_key_value_heads=1)
    settings = {} if codec in ("window", "razor") else {"window": 8}
    held = looking.fitted(find(codec)(**settings).codec(1, 16), Observed(model, tiny.tokens(2, 20)))
    lean, plain = both(model, held)
    near(follow(lean), follow(plain), 2e-3)
    assert (lean.session(1, 4)._step is not None) == whole


def test_halves_that_are_left_out_and_put_back(whole):
    model = tiny.build("llama", num_hidden_layers=3)
    lean, plain = both(model)
    found = {}
    for name, one in (("lean", lean), ("plain", plain)):
        session = one.session(1, 12)
        tokens = tiny.tokens(1, 12)
        session.feed(tokens[:, :6])
        with one.without(["attention 1", "network 2"]):
            parts = [session.feed(tokens[:, at : at + 1]) for at in (6, 7)]
        session.crop(6)
        parts += [session.feed(tokens[:, at : at + 1]) for at in (8, 9)]
        found[name] = torch.cat(parts, dim=1)
    near(found["lean"], found["plain"])


def test_sliced_models_keep_their_shortcuts(whole):
    model = tiny.build("llama")
    view = View(model)
    narrow(view, 24)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    lean, plain = both(model)
    near(follow(lean), follow(plain))
    assert (lean.session(1, 4)._step is not None) == whole


def test_bytes_of_the_cache_are_the_room_that_was_asked_for():
    lean, plain = both(tiny.build("llama"))
    sizes = []
    for model in (lean, plain):
        session = model.session(1, 12)
        session.feed(tiny.tokens(1, 12))
        sizes.append(session.cache_bytes())
    assert sizes[0] == sizes[1] == 2 * 2 * 2 * 8 * 12 * 4  # layers, K and V, heads, size, tokens


def test_what_fails_in_a_cache_fails_the_step(whole, monkeypatch):
    model = TransformersModel(tiny.build("llama"), CondensedCodec(4, 8, 0.5, 0.6, 64))
    session = model.session(1, 16)
    session.feed(tiny.tokens(1, 1))
    kept = CondensedLayerCache.attend
    monkeypatch.setattr(CondensedLayerCache, "attend", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.feed(tiny.tokens(1, 1))
    monkeypatch.setattr(CondensedLayerCache, "attend", kept)
    session = model.session(1, 16)
    assert session.feed(tiny.tokens(1, 2)).isfinite().all()


def test_ids_beyond_the_vocabulary_are_refused(whole):
    session = TransformersModel(tiny.build("llama")).session(1, 4)
    for strange in (-1, 10**6):
        with pytest.raises(IndexError):
            session.feed(torch.tensor([[strange]]))


def test_ids_may_be_of_any_whole_type(whole):
    model, tokens = TransformersModel(tiny.build("llama")), tiny.tokens(1, 5)
    expected = model.session(1, 5).feed(tokens)
    assert torch.equal(model.session(1, 5).feed(tokens.to(torch.int32)), expected)


def test_attention_divided_among_threads_gives_the_same_numbers():
    model = TransformersModel(tiny.build("llama"))
    tokens, before, found = tiny.tokens(1, 300 + TOKENS), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            session = model.session(1, 300 + TOKENS)
            torch.set_num_threads(1)
            session.feed(tokens[:, :300])
            torch.set_num_threads(threads)
            found.append(session.feed(tokens[:, 300:]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    near(found[0], model.logits(tokens)[:, 300:])


def test_a_text_that_is_partly_no_number_gives_none():
    model = TransformersModel(tiny.build("llama"))
    session = model.session(1, 70)
    session.feed(tiny.tokens(1, 69))
    with torch.inference_mode():
        for states in session._caches[0].tensors():
            states[..., :32, :] = float("nan")  # a whole piece of those that attention reads
    assert session.feed(tiny.tokens(1, 1)).isnan().all()


def test_another_embedding_or_head_makes_another_step():
    model = tiny.build("llama")
    lean, tokens = Lean(model), tiny.tokens(1, 4)
    before = lean.step(lean.blocks)
    assert lean.step(lean.blocks) is before
    model.lm_head = torch.nn.Linear(model.lm_head.in_features, 96, bias=False)
    assert TransformersModel(model).session(1, 4).feed(tokens).shape[-1] == 96
    assert lean.step(lean.blocks) is not before
