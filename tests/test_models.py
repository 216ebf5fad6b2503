"""Views, artefacts and sessions over small random models of every family."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from backend import formats, methods
from backend.compress import compress
from backend.errors import ModelError
from backend.methods.base import LayerMethod, ModelMethod
from backend.models import artefact, load
from backend.models.experts import unstack
from backend.models.language_model import TransformersModel
from backend.models.view import View
from backend.recipes import Recipe
from backend.sources import ModelSource
from tests import tiny_transformers as tiny
from tests.compressed import assert_within

ROOT = Path(__file__).parents[1]
LAYER = [key for key, cls in methods.catalogue().items() if issubclass(cls, LayerMethod)]
MODEL = [key for key, cls in methods.catalogue().items() if issubclass(cls, ModelMethod)]
SEPARATE = ["query", "key", "value", "attention-output"]
GATED = ["gate", "up", "down"]
PLAIN = ["up", "down"]
FUSED = ["query-key-value", "attention-output"]
ROLES = {
    "llama": SEPARATE + GATED,
    "qwen2": SEPARATE + GATED,
    "qwen3": SEPARATE + GATED,
    "mistral": SEPARATE + GATED,
    "gemma": SEPARATE + GATED,
    "gemma2": SEPARATE + GATED,
    "gemma3": SEPARATE + GATED,
    "phi": SEPARATE + PLAIN,
    "phi3": [*FUSED, "gate-up", "down"],
    "gpt2": FUSED + PLAIN,
    "opt": SEPARATE + PLAIN,
    "neox": FUSED + PLAIN,
    "mixtral": SEPARATE + 4 * GATED,
    "qwen3moe": SEPARATE + 4 * GATED,
}
FAMILIES = list(ROLES)


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny.build(request.param)


@pytest.fixture
def family(model, request):
    return request.node.callspec.params["model"]


def test_a_view_finds_blocks_linears_and_what_they_are_for(model, family):
    view = View(model)
    assert len(view.blocks) == 2
    for block in range(2):
        assert sorted(site.role for site in view.sites(block)) == sorted(ROLES[family])
    for site in view.all_sites():
        rows, columns = view.weight(site).shape
        module = view.module(site)
        assert (rows, columns) == (
            (module.nf, module.nx) if hasattr(module, "nf") else module.weight.shape
        )
    assert view.embedding.weight.shape[0] == tiny.VOCABULARY
    assert view.head is not None
    assert view.final_norm() is not None


def test_running_block_by_block_gives_what_the_model_gives(model):
    view, tokens = View(model), tiny.tokens()
    view.check(tokens)
    expected = model(input_ids=tokens, use_cache=False, output_hidden_states=True).hidden_states
    hidden, blocks = view.enter(tokens)
    assert torch.equal(view.embed(tokens), hidden)
    assert torch.allclose(blocks[0](hidden), expected[1], atol=1e-5)


@pytest.mark.parametrize("family", ["mixtral", "qwen3moe"])
def test_experts_held_one_by_one_give_the_same_logits(family):
    model, tokens = tiny.build(family), tiny.tokens()
    expected = model(input_ids=tokens).logits
    assert unstack(model) == 2
    assert not any(parameter.dim() == 3 for parameter in model.parameters())
    assert torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-5)


def test_a_held_weight_takes_a_layers_place_with_its_bias_and_orientation(model):
    view, tokens = View(model), tiny.tokens()
    expected = model(input_ids=tokens).logits
    for site in view.all_sites():
        view.hold(site, formats.Dense.pack(view.weight(site), dtype=torch.float32))
        assert view.held(site).shape == view.weight(site).shape
    assert torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-5)


def test_decoding_with_a_cache_equals_one_full_pass(model):
    language_model, tokens = TransformersModel(model), tiny.tokens(length=40)
    expected = language_model.logits(tokens)
    session = language_model.session(2, 40)
    parts = [session.feed(part) for part in tokens.split([20, 1, 1, 5, 13], dim=1)]
    assert session.length == 40
    assert session.cache_bytes() > 0
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-4)


def test_a_cropped_session_goes_on_as_if_the_rest_had_never_been(model):
    language_model, tokens = TransformersModel(model), tiny.tokens(length=12)
    session = language_model.session(2, 40)
    session.feed(tokens[:, :9])
    session.feed(tiny.tokens(length=3, seed=5))
    session.crop(9)
    found = session.feed(tokens[:, 9:])
    assert torch.allclose(found, language_model.logits(tokens)[:, 9:], atol=1e-4)


RECIPES = ["rtn(bits=5, group_size=32)", "wanda@9 + rtn@5", "lord@12 + gptq(bits=6, group_size=32)"]


@pytest.mark.parametrize("text", RECIPES)
def test_an_artefact_gives_the_same_logits_and_holds_what_its_formats_count(
    model, family, text, tmp_path
):
    windows, tokens = tiny.tokens(4, 16), tiny.tokens()
    source = tiny.loaded(model, tmp_path / "dense")
    result = compress(source, Recipe.parse(text), windows)
    expected = model(input_ids=tokens, use_cache=False).logits
    assert torch.isfinite(expected).all()
    recipe = Recipe.parse(text)
    artefact.save(result.view, source, recipe, result.structure, tmp_path / "artefact")
    found = artefact.load(tmp_path / "artefact", packed=False)
    assert found.recipe == recipe
    again = found.loaded.model(input_ids=tokens, use_cache=False).logits
    assert torch.equal(again, expected)
    check_bytes(found, result.view)


def check_bytes(found, view):
    storages = {}
    for site in found.view.all_sites():
        held, original = found.view.held(site), view.held(site)
        for buffer in held.buffers():
            storages[buffer.untyped_storage().data_ptr()] = buffer.untyped_storage().nbytes()
        assert held.parts() == original.parts()
    counted = sum(view.held(site).nbytes for site in view.all_sites())
    assert sum(storages.values()) == counted


@pytest.mark.parametrize("key", LAYER)
def test_every_method_treats_a_llama_from_end_to_end(key, tmp_path):
    wide = key in ("lq-lora", "ptq161")  # which hold too much beside each row of narrow ones
    model, tokens = tiny.build("llama", **tiny.WIDE if wide else {}), tiny.tokens()
    source = tiny.loaded(model, tmp_path / "dense")
    recipe = Recipe((methods.find(key)(),))
    result = compress(source, recipe, tiny.tokens(4, 16))
    sites = list(result.view.all_sites())
    assert len(sites) == 14
    assert_within(result.view, recipe, recipe.stages[0].settings()[recipe.stages[0].level])
    expected = model(input_ids=tokens).logits
    artefact.save(result.view, source, recipe, [], tmp_path / "artefact")
    found = artefact.load(tmp_path / "artefact", packed=False)
    assert torch.equal(found.loaded.model(input_ids=tokens).logits, expected)
    check_bytes(found, result.view)


def test_an_artefact_keeps_its_precision_and_its_ties(tmp_path):
    for tied in (False, True):
        model = tiny.build("llama", dtype=torch.bfloat16, tie_word_embeddings=tied)
        source = tiny.loaded(model, tmp_path / f"dense{tied}")
        recipe = Recipe.parse("rtn(bits=5, group_size=32)")
        result = compress(source, recipe, tiny.tokens(4, 16))
        artefact.save(result.view, source, recipe, [], tmp_path / f"artefact{tied}")
        found = artefact.load(tmp_path / f"artefact{tied}")
        assert (found.view.head.weight is found.view.embedding.weight) is tied
        assert found.view.embedding.weight.dtype == torch.bfloat16
        names = {name for name, _ in found.loaded.model.named_parameters()}
        assert ("lm_head.weight" in names) is not tied
        assert not any(parameter.is_meta for parameter in found.loaded.model.parameters())


def test_an_artefact_appears_whole_or_not_at_all_and_a_broken_one_is_refused(tmp_path):
    model = tiny.build("llama")
    source = tiny.loaded(model, tmp_path / "dense")
    recipe = Recipe.parse("rtn(bits=5, group_size=32)")
    result = compress(source, recipe, tiny.tokens(4, 16))
    whole = tmp_path / "artefact"
    artefact.save(result.view, source, recipe, [], whole)
    assert not whole.with_name("artefact.partial").exists()

    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        change(folder)
        with pytest.raises(ModelError, match=name):
            artefact.load(folder)

    broken("no-record", lambda folder: (folder / "recipe.json").unlink())
    broken("no-json", lambda folder: (folder / "recipe.json").write_text("{"))
    broken("no-shard", lambda folder: next(folder.glob("*.safetensors")).unlink())
    broken("cut-shard", lambda folder: cut(next(folder.glob("*.safetensors"))))
    broken("empty-record", lambda folder: (folder / "recipe.json").write_text("{}"))
    broken("fewer-held", lambda folder: forget_one(folder / "recipe.json"))
    broken("no-config", lambda folder: (folder / "config.json").unlink())
    broken("other-type", lambda folder: as_bytes(next(folder.glob("*.safetensors"))))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def as_bytes(path):
    """Scales of as many bytes as there were numbers: half of what is read of them."""
    held = load_file(path)
    name = next(name for name in held if name.endswith("scales.values"))
    save_file(held | {name: held[name].to(torch.uint8)}, path)


def forget_one(path):
    record = json.loads(path.read_text())
    record["held"].popitem()
    path.write_text(json.dumps(record))


class Strange(nn.Module):
    """A causal model whose linears have names that no family uses."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.words = nn.Embedding(tiny.VOCABULARY, 32)
        self.steps = nn.ModuleList(Step() for _ in range(3))
        self.read = nn.Linear(32, tiny.VOCABULARY, bias=False)
        for parameter in self.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        self.eval().requires_grad_(requires_grad=False)

    def get_input_embeddings(self):
        return self.words

    def get_output_embeddings(self):
        return self.read

    def forward(self, input_ids, use_cache=False):
        hidden = self.words(input_ids)
        for step in self.steps:
            hidden = step(hidden)
        return self.read(hidden)


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.widen, self.mix = nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, hidden):
        return hidden + self.mix(torch.tanh(self.widen(hidden)))


def test_a_model_with_linears_of_unknown_names_is_treated_all_the_same():
    model, windows = Strange(), tiny.tokens(4, 16)
    before = model(windows)
    source = load.LoadedModel(model, None, ModelSource("strange"), Path(), 0)
    result = compress(source, Recipe.parse("gptq(bits=8, group_size=32)"), windows)
    assert [site.role for site in result.view.all_sites()] == ["linear"] * 6
    assert all(result.view.held(site) is not None for site in result.view.all_sites())
    assert (model(windows) - before).norm() < 0.02 * before.norm()


class Flat(Strange):
    def __init__(self):
        super().__init__()
        self.steps = Step()

    def forward(self, input_ids, use_cache=False):
        raise AssertionError("No work may be done on it.")


def test_a_model_without_blocks_is_refused_before_any_work():
    source = load.LoadedModel(Flat(), None, ModelSource("flat"), Path(), 0)
    with pytest.raises(ModelError, match=r"has no list of blocks with linear layers.*Llama"):
        compress(source, Recipe.parse("rtn@5"), tiny.tokens(4, 16))


class Twice(Strange):
    def forward(self, input_ids, use_cache=False):
        hidden = self.words(input_ids)
        for step in [*self.steps, *self.steps]:
            hidden = step(hidden)
        return self.read(hidden)


class Between(Strange):
    def forward(self, input_ids, use_cache=False):
        hidden = self.words(input_ids)
        for step in self.steps:
            hidden = step(3 * hidden + 1)
        return self.read(hidden)


@pytest.mark.parametrize(
    ("cls", "match"), [(Twice, "ran 6 times in one pass"), (Between, "more between its blocks")]
)
def test_a_model_that_blocks_alone_do_not_make_is_refused(cls, match):
    source = load.LoadedModel(cls(), None, ModelSource("strange"), Path(), 0)
    with pytest.raises(ModelError, match=match):
        compress(source, Recipe.parse("gptq@5"), tiny.tokens(4, 16))


@pytest.mark.parametrize("key", MODEL)
def test_a_method_treats_every_family_or_refuses_it_by_name(key, model, family, tmp_path):
    """What it treats keeps the budget, comes back from disk and decodes with a cache."""
    cls, windows, tokens = methods.find(key), tiny.tokens(4, 16), tiny.tokens()
    source = tiny.loaded(model, tmp_path / "dense")
    recipe = Recipe((cls(bits=15.3),))
    if cls.models and model.config.model_type not in cls.models:
        with pytest.raises(ModelError, match=f"{key} knows .*, not {model.config.model_type}"):
            compress(source, recipe, windows)
        return
    result = compress(source, recipe, windows)
    held = {id(part): part for part in [*model.parameters(), *result_buffers(result.view)]}
    assert sum(part.numel() for part in held.values()) <= 15.3 / 16 * source.parameters
    expected = model(input_ids=tokens).logits
    assert torch.isfinite(expected).all()
    artefact.save(result.view, source, recipe, result.structure, tmp_path / "artefact")
    found = artefact.load(tmp_path / "artefact", packed=False)
    again = found.loaded.model(input_ids=tokens).logits
    assert torch.allclose(again, expected, atol=1e-6)
    state, twin = model.state_dict(), found.loaded.model.state_dict()
    assert state.keys() == twin.keys()
    assert all(torch.equal(state[name], twin[name]) for name in state)
    session = TransformersModel(found.loaded.model).session(2, 12)
    parts = [session.feed(part) for part in tokens.split([7, 1, 4], dim=1)]
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-4)


def result_buffers(view):
    """What formats hold, bytes as numbers of four."""
    for module in (view.embedding, view.head):
        if isinstance(module, formats.HeldEmbedding | formats.HeldLinear):
            yield from (part for part in module.held.buffers() if part.is_floating_point())
