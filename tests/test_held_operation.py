"""Layers with held weights are compiled and exported whole; their products stay what they are."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from backend.formats import operation
from backend.formats.integer import IntegerGroups
from backend.formats.linear import HeldLinear
from backend.formats.torch_packed import Int4Tiles
from kernels import extension
from tests.format_examples import NAMES, example


def layer(name, biased=True):
    held = example(name)
    bias = torch.randn(held.rows, generator=torch.Generator().manual_seed(1)) if biased else None
    return HeldLinear(held, bias)


def activations(columns, *shape):
    return torch.randn(*shape, columns, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("biased", [False, True])
def test_every_format_gives_the_same_numbers_compiled_whole_and_exported(name, biased):
    module = layer(name, biased)
    x = activations(module.in_features, 2, 3)
    wanted = module(x)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(x), wanted)
        exported = torch.export.export(module, (x,))
    assert torch.equal(exported.module()(x), wanted)
    targets = [node.target for node in exported.graph.nodes]
    assert targets.count(operation.product) == 1


@pytest.mark.parametrize("name", ["int3 with zero points", "dense", "sum"])
def test_torch_finds_schema_shapes_and_tracing_consistent(name):
    module = layer(name)
    held = module.held
    given = (
        activations(held.columns, 3), list(held.buffers()), module.bias,
        operation._header(held), held.rows,
    )  # fmt: skip
    results = torch.library.opcheck(operation.product, given)
    assert set(results.values()) == {"SUCCESS"}
    with FakeTensorMode() as mode:
        x, *rest = (
            mode.from_tensor(one) if isinstance(one, torch.Tensor) else one for one in given
        )
        parts = [mode.from_tensor(one) for one in given[1]]
        found = operation.product(x, parts, *rest[1:])
    assert found.shape == (3, held.rows)


def test_torchs_own_layout_is_traced_through(monkeypatch):
    monkeypatch.setattr(extension, "_found", lambda: (None, "left out by the test"))
    codes = torch.randint(0, 16, (64, 64), generator=torch.Generator().manual_seed(3))
    scales, offsets = torch.rand(2, 64, 2, generator=torch.Generator().manual_seed(4))
    held = IntegerGroups.pack(codes, scales, offsets, bits=4, group_size=32).packed()
    assert isinstance(held, Int4Tiles)
    module, x = HeldLinear(held), activations(64, 20)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(x), module(x))


def test_a_model_of_several_layers_is_one_graph():
    module = torch.nn.Sequential(layer("int4 with offsets"), torch.nn.ReLU())
    model = torch.nn.Sequential(module, torch.nn.Linear(module[0].out_features, 5))
    x = activations(module[0].in_features, 4)
    with torch.no_grad():
        wanted = model(x)
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
        for count in (4, 2, 3):
            assert torch.allclose(compiled(x[:count]), wanted[:count], atol=1e-5)


def test_what_is_kept_between_calls_holds_no_weight():
    module = layer("int4 with offsets")
    x = activations(module.in_features, 2)
    held = module.held
    given = x, list(held.buffers()), None, operation._header(held), held.rows
    assert torch.equal(operation.product(*given), held.multiply(x))
    empty, _ = operation._empty(given[3])
    assert all(one.device.type == "meta" for one in empty.buffers())
