"""Operations as torch's compiler sees them, on a processor and without memory."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from kernels import bitplane_mm, gpu_cases, kv, lut_mm, outlier_mm, registry, slots, vq_mm, wna16_mm


def words(bits):
    codes = torch.randint(0, 1 << bits, (24, 128), generator=torch.Generator().manual_seed(bits))
    return slots.pack(codes, bits, 64)


def outliers():
    places = torch.arange(25, dtype=torch.int32)
    return places, torch.arange(24, dtype=torch.int32), torch.ones(24)


def states(group):
    return kv.quantise(torch.randn(2, 32, 16, generator=torch.Generator().manual_seed(0)), 4, group)


CASES = {
    "wna16_mm": lambda: (
        wna16_mm.product,
        (torch.randn(3, 128), words(3), torch.rand(2, 24), torch.randn(2, 24), 3, 64),
        (torch.randn(24), torch.randn(2, 128), torch.randn(24, 2)),
    ),
    "outlier_mm": lambda: (
        outlier_mm.product,
        (torch.randn(3, 128), words(4), torch.rand(2, 24), None, 4, 64, *outliers()),
        (torch.randn(24),),
    ),
    "lut_mm": lambda: (
        lut_mm.product,
        (torch.randn(3, 128), slots.pack(torch.ones(24, 128), 4, 64), torch.randn(1, 16), 4),
        (torch.randn(24), torch.rand(2, 24), 64, *outliers()),
    ),
    "bitplane_mm": lambda: (
        bitplane_mm.planes,
        (torch.randn(3, 128), words(1).expand(2, -1, -1).clone(), torch.rand(3, 2, 24), 64),
        (torch.randn(24),),
    ),
    "signs_mm": lambda: (
        bitplane_mm.sized,
        (torch.randn(3, 128), words(1), torch.randn(24, 4), torch.randn(4, 128)),
        (torch.randn(24),),
    ),
    "vq_mm": lambda: (
        vq_mm.product,
        (torch.randn(3, 16), torch.ones(16, 6, dtype=torch.uint8), torch.randn(256, 4), 24, True),
        (torch.randn(24),),
    ),
    "kv_quant": lambda: (kv.quantise, (torch.randn(2, 32, 16), 4, 16), ()),
    "kv_dequant": lambda: (kv.dequantise, (*states(16), 4, 16, torch.zeros(1)), ()),
    "kv_decode_attn": lambda: (
        kv.attention,
        (torch.randn(1, 4, 16), *states(16), *states(0), 30, 4, 4, 16, 0.25),
        (torch.ones(2, 32, dtype=torch.uint8),),
    ),
}

for _, operation, arguments in gpu_cases.cases():
    CASES.setdefault(
        operation.name().partition("::")[2], lambda one=(operation, tuple(arguments), ()): one
    )


def test_no_operation_is_left_out():
    assert {*CASES, "kv_append"} == set(registry.OPERATIONS)


@pytest.mark.parametrize("name", CASES)
def test_torch_finds_schema_shapes_and_tracing_consistent(name):
    operation, arguments, rest = CASES[name]()
    checks = ["test_schema", "test_faketensor", "test_autograd_registration"]
    if name == "fp8_mm":  # torch's check multiplies its arguments, which float8 cannot do
        checks.remove("test_schema")
    for given in (arguments, (*arguments, *rest)):
        results = torch.library.opcheck(operation, given, test_utils=checks)
        assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", CASES)
def test_compiling_whole_and_exporting_change_no_number(name):
    operation, arguments, _ = CASES[name]()

    class Module(torch.nn.Module):
        def forward(self, *given):
            found = operation(*given)
            return [part + 1 for part in (found if isinstance(found, tuple) else (found,))]

    torch._dynamo.reset()  # each operation is a graph of its own
    module = Module()
    wanted = module(*arguments)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert all(map(torch.equal, compiled(*arguments), wanted))
    exported = torch.export.export(module, arguments)
    assert all(map(torch.equal, exported.module()(*arguments), wanted))
    targets = [node.target for node in exported.graph.nodes]
    assert operation in targets, "the operation stays whole in the graph"


@pytest.mark.parametrize("name", CASES)
def test_shapes_on_a_gpu_are_told_without_one(name):
    operation, arguments, _ = CASES[name]()
    wanted = operation(*arguments)
    with FakeTensorMode():
        moved = [
            torch.empty(value.shape, dtype=value.dtype, device="cuda")
            if isinstance(value, torch.Tensor)
            else value
            for value in arguments
        ]
        out = operation(*moved)
    pairs = zip(out, wanted, strict=True) if isinstance(out, tuple) else [(out, wanted)]
    for found, real in pairs:
        assert found.device.type == "cuda"
        assert (found.shape, found.dtype) == (real.shape, real.dtype)


def test_appending_in_place_is_told_to_torch():
    room = [torch.zeros_like(part) for part in states(16)]
    arguments = torch.randn(2, 16, 16), *room, 16, 4, 16
    results = torch.library.opcheck(kv.append, arguments)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("columns", "tile"), [(256, 128), (40, 16), (130, 64)])
def test_words_give_back_their_codes_and_take_no_more_bits(bits, columns, tile):
    codes = torch.randint(0, 1 << bits, (3, columns))
    held = slots.pack(codes, bits, tile)
    assert torch.equal(slots.unpack(held, bits, tile, columns).to(torch.int64), codes)
    assert 8 * held.nbytes == 3 * slots.padded_columns(columns, tile) * bits


def test_where_a_code_lies_in_its_word():
    codes = torch.zeros(1, 64, dtype=torch.int64)
    codes[0, 37] = 5  # 4 bits: 16 words a tile of 64, so word 37 % 16 = 5, slot 37 // 16 = 2
    held = slots.pack(codes, 4, 64)[0]
    assert held.tolist() == [0] * 5 + [5 << 8] + [0] * 10


@pytest.mark.parametrize("group", [8, 48, 100])
def test_groups_that_fill_no_words_are_refused(group):
    with pytest.raises(ValueError, match="power of two"):
        slots.tile_of(group, 4096)
