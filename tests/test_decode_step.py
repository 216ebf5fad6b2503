"""Products that a decode step is made of, against float64."""

import ctypes
import subprocess
import sys

import pytest
import torch

from backend.formats.dense import Dense
from backend.formats.low_rank import LowRank
from backend.formats.rows import Rows
from backend.formats.sum import Sum
from kernels import extension, packed, products

SHAPES = [(1, 1), (3, 5), (37, 53), (64, 128), (130, 1000)]


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def near(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    assert (found.double() - wanted).norm() <= tolerance * wanted.norm().clamp(min=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_products(shape, dtype):
    weight, x, bias = random(*shape, dtype=dtype), random(shape[1], seed=1), random(shape[0])
    product = packed.dense(weight).product()
    near(product(x), weight.double() @ x.double())
    near(product.plus(bias)(x), weight.double() @ x.double() + bias.double())


def test_only_what_lies_in_memory_as_it_reads_is_multiplied():
    assert packed.dense(random(4, 6).T) is None
    assert packed.dense(random(4, 6, dtype=torch.float16)) is None


def test_formats_in_parts_are_multiplied_in_parts():
    weight, x = random(40, 24), random(24, seed=3)
    thin = LowRank.pack(random(40, 6, seed=1), random(6, 24, seed=2))
    mask = torch.arange(40) % 3 == 0
    rows = Rows.pack(mask, Dense.pack(weight[mask]), Dense.pack(weight[~mask], torch.float32))
    for held in (thin, rows, Sum.of(base=rows, repair=thin)):
        near(held.product()(x), held.dense().double() @ x.double())


def test_inputs_that_are_gathered_are_multiplied_alone():
    weight, x = random(20, 5), random(3, 9, seed=1)
    places = torch.tensor([8, 0, 3, 3, 5])
    product = products.gathered(places, 9, packed.dense(weight).product().plus(random(20, seed=2)))
    near(product(x), x.double()[:, places] @ weight.double().T + random(20, seed=2).double())
    assert products.gathered(places, 9, None) is None


def test_a_part_without_a_product_leaves_the_whole_without():
    held = Dense.pack(random(4, 4), torch.float16)
    assert Sum.of(first=Dense.pack(random(4, 4)), second=held).product() is None


def test_results_do_not_depend_on_the_number_of_threads():
    weight, x = random(600, 700), random(700, seed=1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(packed.dense(weight).product()(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_build_appears_whole_and_is_used_again(tmp_path, monkeypatch):
    """Of two small sources; what those of the folder become all products here are made by."""
    sources = tmp_path / "cpu"
    sources.mkdir()
    (sources / "one.cpp").write_text('extern "C" int one() { return 1; }')
    declared = 'extern "C" int one(); '
    (sources / "two.cpp").write_text(declared + 'extern "C" int two() { return one() + one(); }')
    monkeypatch.setattr(extension, "SOURCES", sources)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "new"))
    first = extension.built("c++")
    stamp = first.stat().st_mtime_ns
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    assert ctypes.CDLL(str(first)).two() == 2
    assert extension.built("c++") == first
    assert first.stat().st_mtime_ns == stamp
    (sources / "one.cpp").write_text('extern "C" int one() { return 2; }')
    assert ctypes.CDLL(str(extension.built("c++"))).two() == 4


@pytest.mark.parametrize(
    ("environment", "words"),
    [({"CXX": "no-such-compiler"}, "No C++ compiler"), ({"CXX": "false"}, "could not be built"),
     ({extension.OFF: "1"}, "is set")],
)  # fmt: skip
def test_without_a_compiler_there_is_a_reason_and_no_product(environment, words, tmp_path):
    code = (
        "import torch; from kernels import decode_step as d, extension, packed\n"
        "assert packed.dense(torch.ones(2, 2)) is None and not d.fits(8); print(extension.reason())"
    )
    everything = {"TORCH_EXTENSIONS_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], env=everything, capture_output=True, text=True, check=True
    )
    assert words in done.stdout
