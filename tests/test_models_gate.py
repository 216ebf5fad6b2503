"""What a stranger's model may not do: run code, lie about sizes, or take memory unread."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from backend.compress import compress
from backend.errors import ModelError
from backend.formats import Dense
from backend.models import artefact, config_gate
from backend.models.load import load, read_config
from backend.models.placed import PlacedLinear
from backend.recipes import Recipe
from backend.sources import HEADER_LIMIT, TENSOR_LIMIT, ModelSource, tensor_shapes
from tests import tiny_transformers as tiny

pytestmark = pytest.mark.security
LLAMA = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def with_header(folder, header, numbers=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if size is None else size
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + text + numbers)


def tensor(**changes):
    return {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes}


HEADERS = {
    "longer than any": ({}, b"", HEADER_LIMIT + 1),
    "of no length": (b"", b"", 0),
    "cut off": (b'{"w": {"dtype"', b"", 400),
    "no JSON": (b"\xff\xfe{}", b"", None),
    "a list": ([1, 2], b"", None),
    "nested without end": (b"[" * 100_000, b"", None),
    "too many tensors": (
        {
            str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
            for i in range(TENSOR_LIMIT + 1)
        },
        b"",
        None,
    ),
    "a name that is a path": ({"../../etc/passwd": tensor()["w"]}, bytes(16), None),
    "a name without end": ({"w" * 201: tensor()["w"]}, bytes(16), None),
    "a negative size": (tensor(shape=[-2, -2]), bytes(16), None),
    "a size that is no whole number": (tensor(shape=[2.0, 2]), bytes(16), None),
    "a shape that lies": (tensor(shape=[2_000_000, 2_000_000]), bytes(16), None),
    "numbers beyond the file": (tensor(data_offsets=[1 << 40, (1 << 40) + 16]), bytes(16), None),
    "an unknown type": (tensor(dtype="PICKLE"), bytes(16), None),
    "no entry": ({"w": None}, bytes(16), None),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_malformed_header_is_refused_before_anything_is_loaded(tmp_path, name):
    header, numbers, size = HEADERS[name]
    with_header(tmp_path, header, numbers, size)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        tensor_shapes(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load(ModelSource("hostile", tmp_path))


def test_a_sound_header_passes(tmp_path):
    save_file({"a.w-1": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16)},
              tmp_path / "model.safetensors")  # fmt: skip
    assert tensor_shapes(tmp_path) == {"a.w-1": (3, 5), "b": (7,)}


def config(folder, **changes):
    (folder / "config.json").write_text(json.dumps(LLAMA | changes))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil.Model"}},
        {"_attn_implementation_internal": "evil/kernel"},
        {"trust_remote_code": True},
        {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}},
        {"rope_scaling": [{"_experts_implementation_internal": "evil/kernel"}]},
    ],
)
def test_a_key_that_asks_for_code_is_refused_however_deep(tmp_path, changes):
    with pytest.raises(ModelError, match="asks for code of its own"):
        read_config(config(tmp_path, **changes))


def test_unknown_keys_are_left_out_and_known_ones_kept(tmp_path):
    found = read_config(
        config(
            tmp_path,
            rope_theta=5e5,
            head_dim=8,
            _attn_implementation="evil/kernel",
            kernel_config={"repo_id": "evil/kernel"},
            _name_or_path="evil/model",
            anything="else",
        )
    )
    assert found.rope_parameters["rope_theta"] == 5e5
    assert found.head_dim == 8
    assert "evil" not in json.dumps(found.to_dict())
    assert not hasattr(found, "anything")
    assert not hasattr(found, "kernel_config")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 10**12),
        ("num_hidden_layers", 10**9),
        ("hidden_size", -16),
        ("num_attention_heads", "2"),
        ("intermediate_size", 1e309),
        ("hidden_size", True),
    ],
)
def test_a_size_out_of_reason_is_refused_before_a_model_is_made(tmp_path, name, value):
    with pytest.raises(ModelError, match=name):
        read_config(config(tmp_path, **{name: value}))


def test_a_configuration_too_large_or_too_deep_is_refused(tmp_path):
    with pytest.raises(ModelError, match="bytes"):
        read_config(config(tmp_path, x="y" * config_gate.SIZE_LIMIT))
    deep = []
    for _ in range(10):
        deep = [deep]
    with pytest.raises(ModelError, match="nests"):
        read_config(config(tmp_path, x=deep))
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(tmp_path)


def test_a_chat_template_is_never_rendered(tmp_path):
    """Prompts are plain text: nothing in the program calls what would render one."""
    from tests.test_layers import sources

    for path in sources():
        assert "apply_chat_template" not in path.read_text(), path


@pytest.mark.parametrize("name", ["model.embed_tokens", "lm_head", "model.layers.0.mlp.up_proj"])
@pytest.mark.parametrize("shape", [(1, 1), (64, 64)])
def test_what_an_artefact_holds_is_as_large_as_its_place(tmp_path, name, shape):
    """A matrix that is sound in itself, but smaller or larger than what a step reads of it."""
    model = tiny.build("llama", dtype=torch.bfloat16)
    source, recipe = tiny.loaded(model, tmp_path / "dense"), Recipe.parse("rtn@5 + embedding@6")
    result = compress(source, recipe, tiny.tokens(4, 16))
    folder = tmp_path / "artefact"
    artefact.save(result.view, source, recipe, [], folder)
    assert artefact.load(folder).loaded.parameters
    record = json.loads((folder / "recipe.json").read_text())
    held = Dense.pack(torch.ones(*shape))
    record["held"][name]["header"] = held.header()
    record["tied"] = {to: of for to, of in record["tied"].items() if not to.startswith(name)}
    (folder / "recipe.json").write_text(json.dumps(record))
    (shard,) = folder.glob("model-*.safetensors")
    kept = {key: one for key, one in load_file(shard).items() if not key.startswith(f"{name}.held")}
    save_file(kept | {f"{name}.held.values": held.values}, shard)
    with pytest.raises(ModelError, match=f"artefact is damaged at {name}: .* are needed"):
        artefact.load(folder)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_linear_among_more_channels_marks_as_many_as_it_has(tmp_path, side):
    stay = torch.arange(10) % 3 > 0
    shape = (5, 6) if side == "inputs" else (6, 5)
    placed = PlacedLinear.of(torch.ones(*shape), None, stay, side)
    placed.check()
    placed.mask[0, 0] ^= 2
    with pytest.raises(ModelError, match=r"is damaged at 0: A mask marks 5 channels; 6 are held"):
        artefact._check(nn.Sequential(placed), tmp_path)


@pytest.mark.parametrize(
    ("recipe", "ending"),
    [("rtn@5", "scales.values"), ("squeezellm@8", "tables"), ("embedding@6", "scales.values")],
)
def test_scales_and_codebooks_that_are_no_numbers_are_refused(tmp_path, recipe, ending):
    """Products of integers would make numbers of them."""
    model = tiny.build("llama", dtype=torch.bfloat16, hidden_size=128)
    source, recipe = tiny.loaded(model, tmp_path / "dense"), Recipe.parse(recipe)
    folder = tmp_path / "artefact"
    artefact.save(compress(source, recipe, tiny.tokens(4, 16)).view, source, recipe, [], folder)
    (shard,) = folder.glob("model-*.safetensors")
    parts = load_file(shard)
    name = [one for one in parts if ".held." in one and one.endswith(ending)][-1]
    for value in ("nan", "inf", "-inf"):
        parts[name].view(-1)[-1] = float(value)
        save_file(parts, shard)
        with pytest.raises(ModelError, match=f"artefact is damaged at {name}: not all .* finite"):
            artefact.load(folder)
