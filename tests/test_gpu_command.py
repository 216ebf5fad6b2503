"""The command for a machine with a GPU: what of it needs none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import configs, gpu, gpu_cases, registry
from kernels.configs import Blocks
from kernels.gpu_products import PRODUCTS

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would run")
def test_without_a_gpu_it_says_so_in_one_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "kernels.gpu"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("This machine has no GPU")
    assert done.stdout == ""


def test_a_step_that_was_done_is_not_done_again(tmp_path):
    path = tmp_path / "state" / "gpu.json"
    done = []
    first = gpu.Progress(path)
    assert first.step("one", lambda: done.append("one") or 1.5) == 1.5
    with pytest.raises(ZeroDivisionError):
        first.step("two", lambda: 1 / 0)
    again = gpu.Progress(path)
    assert again.step("one", lambda: done.append("again")) == 1.5
    assert again.step("two", lambda: 2) == 2
    assert done == ["one"]
    assert json.loads(path.read_text()) == {"one": 1.5, "two": 2}


def test_the_page_tells_times_and_the_share_of_the_copy_rate():
    row = {"key": "wna16_mm/1/8/16/4/128", "seconds": 2e-5, "dense": 6e-5, "bytes": 20_000_000}
    page = gpu.table("A GPU", 2e12, [row])
    assert "2,000 GB/s" in page
    assert "| wna16_mm/1/8/16/4/128 | 20.0 | 60.0 | 3.00 | 50% |" in page


def test_what_is_measured_is_what_is_picked(tmp_path, monkeypatch):
    chosen = Blocks(16, 128, 8, 8, 1)
    name = configs.key("wna16_mm", 3, 4096, 4096, 4, 128)
    assert name == "wna16_mm/16/4096/4096/4/128"
    configs.write("some-gpu", {name: chosen}, tmp_path)
    monkeypatch.setattr(configs, "FOLDER", tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    device = torch.device("cuda")
    configs.measured.cache_clear()
    try:
        picked = configs.pick("wna16_mm", device, 9, 4096, 4096, bits=4, group=128)
        other = configs.pick("wna16_mm", device, 17, 4096, 4096, bits=4, group=128)
    finally:
        configs.measured.cache_clear()
    assert picked == chosen
    assert other == configs.by_rule(17, 4096, 4096)


@pytest.mark.parametrize(
    ("rows", "outputs", "inputs", "wanted"),
    [
        (1, 4096, 4096, Blocks(16, 64, 8)),  # 64 programs, times 8 are over 264
        (1, 65536, 4096, Blocks(16, 64, 1)),
        (1, 64, 512, Blocks(16, 64, 1)),  # half as many inputs each would be too few
        (1024, 64, 4096, Blocks(64, 64, 1)),
    ],
)
def test_the_rule_fills_a_gpu(rows, outputs, inputs, wanted):
    assert configs.by_rule(rows, outputs, inputs) == wanted


@pytest.mark.parametrize(
    ("rows", "end"), [(1, 1), (2, 16), (16, 16), (17, 32), (65, 256), (9999, 1024)]
)
def test_rows_fall_into_ranges(rows, end):
    assert configs.bucket(rows) == end


def test_candidates_begin_with_the_rule_and_never_repeat():
    for rows in (1, 1024):
        tried = gpu.candidates(rows, 4096, 4096)
        assert tried[0] == configs.by_rule(rows, 4096, 4096)
        assert len(set(tried)) == len(tried) > 4


def test_every_product_is_tuned_under_the_name_that_it_looks_up(monkeypatch):
    pytest.importorskip("triton")
    asked = []

    class LookedUpError(Exception):
        pass

    def pick(operation, device, rows, outputs, inputs, *, bits=16, group=128):
        asked.append(configs.key(operation, rows, outputs, inputs, bits, group))
        raise LookedUpError

    monkeypatch.setattr(configs, "pick", pick)
    for product in PRODUCTS.values():
        case = product.make(3, 24, 256, "cpu")
        with pytest.raises(LookedUpError):
            case.call(case.held, None)
        about = product.bits, product.group or 256
        assert asked[-1] == configs.key(product.operation, 3, 24, 256, *about)
    assert len(set(asked)) == len(PRODUCTS) == len(asked)


def test_cases_cover_every_operation_and_run():
    seen = set()
    for name, operation, arguments in gpu_cases.cases():
        out = operation(*arguments)
        assert gpu_cases.difference(out, out) == 0.0, name
        seen.add(operation.name().partition("::")[2])
    assert set(registry.OPERATIONS) - seen == {"kv_append"}  # `kv_quant` on a GPU calls it


def test_a_result_that_is_not_a_number_is_no_match():
    wanted = torch.ones(3)
    assert gpu_cases.difference(torch.tensor([1.0, float("nan"), 1.0]), wanted) == float("inf")
    assert gpu_cases.difference(torch.tensor([1.0, 1.0, 2.0]), wanted) == pytest.approx(3**-0.5)
