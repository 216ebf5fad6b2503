"""Triton without a GPU: numbers in its interpreter, and what compilers for real ones say.

Each runs in a process of its own, because Triton reads at import whether it interprets.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has wheels for Linux alone")

ROOT = Path(__file__).parents[1]
BUDGETS = json.loads(Path(__file__).with_name("triton_budgets.json").read_text())
ALWAYS = ("sm_90", "gfx942")
OTHERS = ("sm_80", "sm_100", "sm_120")
EVERY = "PARETOSCOPE_EVERY_TARGET"
"""Set in the environment, it compiles for the other targets too."""
SLACK = 1.10


def output(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_products_match_their_formulas_and_touch_only_their_own():
    suites = ("triton_products", "triton_caches", "triton_further", "triton_planted")
    files = [f"tests/{name}.py" for name in suites]
    out = output("pytest", "-q", *files, TRITON_INTERPRET="1")
    counts = re.search(r"(\d+) passed in", out)
    print(out.splitlines()[-1])
    assert counts, out[-2000:]
    assert int(counts[1]) >= BUDGETS["tests"], "a part of the suite was not collected"
    assert not re.search(r"\d+ (skipped|xfailed|deselected)", out)


@pytest.mark.parametrize("target", [*ALWAYS, *OTHERS])
def test_kernels_compile_within_their_budgets(target):
    if target in OTHERS and not os.environ.get(EVERY):
        pytest.skip(f"set {EVERY} to compile for {target}")
    found = [json.loads(line) for line in output("tests.triton_targets", target).splitlines()]
    if target in OTHERS:
        assert not [kernel["launch"] for kernel in found if kernel["shared"] > kernel["limit"]]
        return
    budgets = BUDGETS[target]
    assert {f"{kernel['launch']}: {kernel['kernel']}" for kernel in found} == set(budgets)
    faults = []
    for kernel in found:
        name = f"{kernel['launch']}: {kernel['kernel']}"
        faults += [
            f"{name}: {what} {kernel[what]}, recorded {budgets[name][what]}"
            for what in ("shared", "instructions", "loop")
            if kernel[what] > SLACK * budgets[name][what]
        ]
        if kernel["spills"] > budgets[name]["spills"]:
            faults.append(f"{name}: {kernel['spills']} spills")
        if kernel["tensor_cores"] < budgets[name]["tensor_cores"]:
            faults.append(f"{name}: fewer tensor core instructions")
        if kernel["shared"] > kernel["limit"]:
            faults.append(f"{name}: {kernel['shared']} bytes shared, limit {kernel['limit']}")
    assert not faults


@pytest.mark.parametrize("way", ["absent", "without a driver"])
def test_the_app_loads_without_triton_and_without_a_driver(way):
    program = (
        ("import sys; sys.modules['triton'] = None\n" if way == "absent" else "")
        + "import torch, backend.service, backend.formats.integer, backend.caches.integer\n"
        + "from kernels import wna16_mm, lut_mm, outlier_mm, slots\n"
        + "words = slots.pack(torch.ones(2, 128, dtype=torch.int32), 4, 128)\n"
        + "out = wna16_mm.product(torch.ones(1, 128), words, torch.ones(1, 2), None, 4, 128)\n"
        + "assert out.tolist() == [[-896.0, -896.0]], out\n"
    )
    if way == "absent":
        program += (
            "from kernels.registry import _loaded_later\n"
            "try: _loaded_later('wna16_mm.wna16_mm')()\n"
            "except RuntimeError as error: assert 'Install the extra `gpu`' in str(error)\n"
            "else: raise AssertionError\n"
        )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
