"""Where models are computed: the whole path on a GPU that is none."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from backend import baseline, device, layers
from backend.compress import compress
from backend.decoding.speculate import speculate
from backend.errors import SettingError
from backend.measure import hardware, size
from backend.methods import catalogue
from backend.methods.base import (
    CacheMethod,
    DecodeMethod,
    EncodeMethod,
    ModelMethod,
    RepairMethod,
    TuneMethod,
)
from backend.models import artefact, observing
from backend.models.language_model import TransformersModel
from backend.models.place import HERE, Place, choose, put
from backend.plan import plan
from backend.recipes import Recipe
from backend.sources import ModelSource
from tests import tiny_transformers as tiny
from tests.compressed import brief
from tests.pretended_gpu import GPU, OnGpu, PlaceError, pretended

METHODS = catalogue()
CACHES = [key for key, cls in METHODS.items() if issubclass(cls, CacheMethod)]
DRAFTERS = [key for key, cls in METHODS.items() if issubclass(cls, DecodeMethod)]
WEIGHTS = [key for key in METHODS if key not in CACHES + DRAFTERS]
BITS = {EncodeMethod: 14, ModelMethod: 13.5}
ELSE = 8.4  # between two widths, where there are some


def recipe_of(key):
    bits = next((b for kind, b in BITS.items() if issubclass(METHODS[key], kind)), ELSE)
    level = (
        METHODS[key]().settings().get(METHODS[key].level, ELSE)
    )  # of a method that reaches less far
    method = METHODS[key]().at(max(bits, level) if bits == BITS[ModelMethod] else bits)
    before = (
        (METHODS["rtn"]().at(4),) if issubclass(METHODS[key], RepairMethod | TuneMethod) else ()
    )
    return Recipe((*before, brief(method)))


def tensors_of(model):
    return [*model.parameters(), *model.buffers()]


def treated(recipe, folder, place):
    """A model compressed at a place, saved, and loaded there again."""
    blocks = 2 if isinstance(recipe.stages[0], ModelMethod) else 1
    model = tiny.build("llama", num_hidden_layers=blocks, num_key_value_heads=4)
    loaded = tiny.loaded(model, folder / "model")
    place.put(model)
    windows = tiny.tokens(5, 16)  # more than are multiplied by codes with activations of 16 bits
    result = compress(loaded, recipe, windows)
    assert {one.device for one in tensors_of(result.view.model)} == {place.device}
    artefact.save(result.view, loaded, recipe, result.structure, folder / "artefact")
    return artefact.load(folder / "artefact", device=place.device)


@pytest.fixture
def folders(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name / "model").mkdir(parents=True)
    return tmp_path / "here", tmp_path / "there"


def far(found, expected):
    assert isinstance(found, OnGpu)
    return float((found.numbers - expected).norm() / expected.norm())


@pytest.mark.parametrize("key", WEIGHTS)
def test_a_method_makes_of_a_model_on_a_gpu_what_it_makes_on_the_processor(
    key, folders, monkeypatch
):
    recipe, tokens = recipe_of(key), tiny.tokens(2, 12)
    here = treated(recipe, folders[0], HERE)
    expected = TransformersModel(here.loaded.model).logits(tokens)
    with pretended(monkeypatch):
        place = choose("cuda", 1000)
        there = treated(recipe, folders[1], place)
        assert {one.device for one in tensors_of(there.loaded.model)} == {GPU}
        assert far(TransformersModel(there.loaded.model).logits(tokens.to(GPU)), expected) < 1e-3
        session = TransformersModel(there.loaded.model).session(2, 12)
        parts = [session.feed(part.to(GPU)) for part in tokens.split([9, 1, 2], dim=1)]
        assert far(torch.cat(parts, 1), expected) < 1e-3


@pytest.mark.parametrize("key", CACHES)
def test_a_cache_on_a_gpu_gives_what_it_gives_on_the_processor(key, monkeypatch):
    network, tokens = tiny.build("llama"), tiny.tokens(2, 70)
    recipe = Recipe((METHODS[key]().at(7),))

    def read(place):
        tables = observing.learned(recipe, put(network, place), tiny.tokens(4, 40, seed=1))
        codec = observing.codec_of(recipe, network, tables)
        session = TransformersModel(network, codec).session(2, 70)
        parts = [session.feed(part.to(place)) for part in tokens.split([60, *[1] * 10], dim=1)]
        return torch.cat(parts, 1), session.cache_bytes()

    expected, held = read(HERE.device)
    with pretended(monkeypatch):
        found, there = read(GPU)
        assert far(found, expected) < 1e-3
        assert there == held


@pytest.mark.parametrize("key", DRAFTERS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drafter_on_a_gpu_writes_what_it_writes_on_the_processor(key, temperature, monkeypatch):
    network, prompt = tiny.build("llama"), tiny.tokens(1, 8)[0].tolist()
    draft = tiny.build("llama", seed=1)

    def write(place):
        model = TransformersModel(put(network, place))
        beside = TransformersModel(put(draft, place))
        drafter = METHODS[key]().drafter(model, beside)
        if key == "smartspec":  # which drafts by what calls take
            drafter._clock = itertools.count().__next__
        written = speculate(model, drafter, prompt, 20, temperature=temperature, ignore_end=True)
        return written.tokens, written.accepted

    expected = write(HERE.device)
    with pretended(monkeypatch):
        assert write(GPU) == expected


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "neox"])
def test_a_model_that_transformers_decodes_does_so_on_a_gpu(family, monkeypatch):
    network, tokens = tiny.build(family), tiny.tokens(2, 20)
    expected = TransformersModel(network).logits(tokens)
    with pretended(monkeypatch):
        model = TransformersModel(put(network, GPU))
        session = model.session(2, 20)
        parts = [session.feed(part.to(GPU)) for part in tokens.split([17, 1, 2], dim=1)]
        assert far(torch.cat(parts, 1), expected) < 1e-3


def test_what_is_one_tensor_stays_one_where_it_goes(monkeypatch):
    model = tiny.build("llama", tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    before = size.resident(model).total
    with pretended(monkeypatch):
        put(model, GPU)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert isinstance(model.lm_head.weight, torch.nn.Parameter)
        assert {one.device for one in tensors_of(model)} == {GPU}
        assert size.resident(model).total == before


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(monkeypatch):
    with pretended(monkeypatch):
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        for wrong in (
            lambda: there + here,
            lambda: torch.cat([here, there]),
            lambda: here[torch.zeros(1, dtype=torch.int64, device=GPU)],
            there.numpy,
            lambda: torch.randn(2, device=GPU, generator=torch.Generator()),
            lambda: torch.randn(2, generator=torch.Generator(GPU)),
        ):
            with pytest.raises(PlaceError):
                wrong()
        assert (there[torch.tensor([0, 2])] * 2 + torch.tensor(1.0)).tolist() == [3, 3]
        there[1:] = here[:2] * 5
        assert there.cpu().numpy().tolist() == [1, 5, 5]


def test_a_gpu_is_taken_where_the_model_fits_and_the_choice_is_told(monkeypatch):
    # 1,000 million parameters in bfloat16, three times, and 2 GiB beside
    needed = 3 * 2 * 10**9 + (2 << 30)
    assert choose("auto", 10**9).reason == "Computed on the processor: torch can use no GPU here."
    with pretended(monkeypatch, memory=needed):
        place = choose("auto", 10**9)
        assert (place.device, place.told, place.dtype) == (GPU, "on Pretended", torch.bfloat16)
        assert place.computing_dtype(10**6) is torch.float32
        assert place.recast is None
    with pretended(monkeypatch, memory=needed - 1):
        assert choose("auto", 10**9).device.type == "cpu"
        assert "takes about 8.1 GB" in choose("auto", 10**9).reason
        assert choose("cuda", 10**9).device == GPU
    # a gradient of four bytes to each weight, and what is made of both, beside two of the weight
    kept = 10 * 10**9 + (2 << 30)
    with pretended(monkeypatch, memory=kept):
        assert choose("auto", 10**9, gradients=True).device == GPU
    with pretended(monkeypatch, memory=kept - 1):
        assert choose("auto", 10**9).device == GPU
        assert choose("auto", 10**9, gradients=True).device.type == "cpu"
    keeping = {key for key in WEIGHTS if recipe_of(key).keeps_gradients}
    assert {"squeezellm", "lq-lora", "mixllm"} <= keeping
    assert not {"rtn", "gptq"} & keeping
    with pretended(monkeypatch, capability=7):
        place = choose("auto", 10**9)
        assert place.dtype is place.recast is place.computing_dtype(10**9) is torch.float16
        with pytest.raises(SettingError, match="can use 1 GPUs"):
            choose("cuda:1", 10**9)


def test_a_job_carries_the_device_that_is_wished_for(monkeypatch):
    monkeypatch.setattr(device, "SIGNS", ())
    monkeypatch.delenv(device.VARIABLE, raising=False)
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert (device.wished(), device.promised()) == ("auto", "cpu")
    monkeypatch.setattr(device, "SIGNS", ("/",))
    assert device.promised() == "auto"
    monkeypatch.setenv(device.VARIABLE, " CUDA:1 ")
    assert device.promised() == "cuda:1"
    for name in ("cuda:0", "CUDA:00", "cuda"):
        monkeypatch.setenv(device.VARIABLE, name)
        assert device.promised() == "cuda", "one device has one key"
    monkeypatch.setenv(device.VARIABLE, "cuda:10")
    assert device.promised() == "cuda:10"
    monkeypatch.setenv(device.VARIABLE, "tpu")
    with pytest.raises(SettingError, match="not 'tpu'"):
        device.promised()


def test_runs_of_two_devices_have_no_key_in_common(monkeypatch):
    found = []
    for wish in ("cpu", "cuda"):
        monkeypatch.setenv(device.VARIABLE, wish)
        found.append(plan(Recipe.parse("rtn@4"), ModelSource.parse("default")).spec["keys"])
    assert not set(found[0].values()) & set(found[1].values())
    assert hardware.hardware_id() == hardware.hardware_id(device="cpu")
    assert hardware.hardware_id() != hardware.hardware_id(device="cuda")


@pytest.mark.parametrize(
    ("recipe", "operation"),
    [("gptq@6", "wna16_mm"), ("sparsegpt(bits=10, pattern=2:4)", "sp24_mm")],
)
def test_a_model_deployed_on_a_gpu_is_multiplied_by_operations(
    recipe, operation, folders, monkeypatch
):
    model = tiny.build("llama", dtype=torch.bfloat16)
    loaded, tokens = tiny.loaded(model, folders[0] / "model"), tiny.tokens(1, 9)
    result = compress(loaded, Recipe.parse(recipe), tiny.tokens(4, 16))
    artefact.save(result.view, loaded, Recipe.parse(recipe), [], folders[0] / "artefact")
    exact = artefact.load(folders[0] / "artefact", packed=False, dtype=torch.float32).loaded
    expected = TransformersModel(exact.model).logits(tokens)
    with pretended(monkeypatch) as called:
        there = artefact.load(folders[0] / "artefact", device=GPU)
        assert layers.speed(there.view) == "measured"
        session = TransformersModel(there.loaded.model).session(1, 9)
        parts = [session.feed(part.to(GPU)) for part in tokens.split([7, 1, 1], dim=1)]
        assert called.keys() == {operation}
        assert called.total() >= 3 * 7 * len(there.view.blocks)  # seven linears, some of two widths
        assert far(torch.cat(parts, 1), expected) < 0.03  # eight bits of bfloat16, two blocks


def test_a_large_model_on_a_gpu_is_not_copied_in_float32_to_be_timed(tmp_path, monkeypatch):
    place = Place(torch.device("cuda", 0), "", torch.float16, "a GPU")
    monkeypatch.setattr(baseline, "load", lambda *_: pytest.fail("nothing else is loaded"))
    dense = baseline.Baseline(ModelSource("large", tmp_path), tmp_path, "0", place)
    vars(dense).update(model="the model", _loaded=SimpleNamespace(parameters=10**9))
    assert dense.quickest() == ("the model", "float16")


def test_the_dense_model_is_not_loaded_again_in_the_type_in_which_it_is_here(tmp_path, monkeypatch):
    read = []

    def load(source, dtype):
        read.append(dtype)
        return SimpleNamespace(model=torch.nn.Linear(2, 2))

    monkeypatch.setattr(baseline, "load", load)
    monkeypatch.setattr(baseline, "TransformersModel", lambda model: model)
    monkeypatch.setattr(baseline.speed, "decode_seconds", lambda model: float(model != "here"))
    dense = baseline.Baseline(ModelSource("large", tmp_path), tmp_path, "0", HERE)
    vars(dense).update(model="here", _loaded=SimpleNamespace(parameters=10**9))
    monkeypatch.setattr(dense, "kept", lambda name, take, key: take())
    assert dense.quickest() == ("here", "bfloat16")
    assert read == [torch.float32]
