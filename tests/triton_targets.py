"""Compile what the host code launches for GPUs that are not there: `-m tests.triton_targets sm_90`.

A driver that only names its target stands in, and every launch compiles without running. Prints
one JSON object a kernel: registers, spills, shared memory and instructions. `--record` writes the
budgets that `test_triton.py` holds them to.
"""

import argparse
import contextlib
import functools
import json
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_80": (GPUTarget("cuda", 80, 32), 163 * 1024),
    "sm_90": (GPUTarget("cuda", 90, 32), 227 * 1024),
    "sm_100": (GPUTarget("cuda", 100, 32), 227 * 1024),
    "sm_120": (GPUTarget("cuda", 120, 32), 99 * 1024),
    "gfx942": (GPUTarget("hip", "gfx942", 64), 64 * 1024),
}
"""Each with the shared memory that a block may take."""

BUDGETS = Path(__file__).with_name("triton_budgets.json")
TENSOR = r"[HIQ]G?MMA|UTC\w+MMA|v_mfma"
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


class AbsentDriver:
    """Answers what Triton asks before it compiles."""

    def __init__(self, name):
        self.target = TARGETS[name][0]
        self.device = 1000 + list(TARGETS).index(name)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return self.device

    def get_current_stream(self, device=None):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")


@functools.cache
def read_nvidia(binary):
    """Registers, spills and instructions of a cubin, by NVIDIA's tools in Triton's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(binary)
        use = subprocess.run(
            [TOOLS / "cuobjdump", "-res-usage", path], capture_output=True, text=True, check=True
        )
        text = subprocess.run(
            [TOOLS / "nvdisasm", "-c", path], capture_output=True, text=True, check=True
        ).stdout
    names, loop = walk(text)
    real = [name for name in names if name != "NOP"]
    spills = sum(name.startswith(("LDL", "STL")) for name in real)
    registers = int(re.search(r"REG:(\d+)", use.stdout + use.stderr).group(1))
    return registers, spills, real, loop


def walk(text):
    """Names of all instructions, and how many the longest loop has."""
    names, labels, loop = [], {}, 0
    for line in text.splitlines():
        if label := re.match(r"^(\.L_x_\d+):", line):
            labels[label[1]] = len(names)
        found = re.match(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", line)
        if found is None:
            continue
        names.append(found[1])
        back = re.search(r"BRA.*?(\.L_x_\d+)", line)
        own = back and len(names) - labels.get(back[1], len(names))
        if own and own > 1:
            loop = max(loop, own)
    return names, loop


@functools.cache
def read_amd(assembly):
    """The same of AMD's assembly."""

    def number(name):
        return int(re.search(rf"\.{name}:\s*(\d+)", assembly).group(1))

    names = re.findall(r"^\s+([vsdbgf]\w*?_\w+)\s", assembly, re.M)
    return number("vgpr_count"), number("vgpr_spill_count"), names, 0


@contextlib.contextmanager
def compiled_alone(target):
    """Every launch inside compiles for `target` and does not run; yields the list of results."""
    driver = triton.runtime.driver
    launches, launch, old = [], JITFunction.run, driver._active
    driver.set_active(AbsentDriver(target))

    def run(self, *args, grid, warmup, **settings):
        kernel = launch(self, *args, grid=grid, warmup=True, **settings)
        nvidia = "cubin" in kernel.asm
        read = read_nvidia if nvidia else read_amd
        registers, spills, names, loop = read(kernel.asm["cubin" if nvidia else "amdgcn"])
        launches.append(
            {
                "kernel": self.__name__,
                "registers": registers,
                "spills": spills,
                "shared": kernel.metadata.shared,
                "limit": TARGETS[target][1],
                "instructions": len(names),
                "loop": loop,
                "tensor_cores": sum(bool(re.match(TENSOR, name)) for name in names),
            }
        )
        return kernel

    JITFunction.run = run
    try:
        yield launches
    finally:
        JITFunction.run = launch
        driver._active = old


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--record", action="store_true", help="make what is found the budget")
    asked = parser.parse_args()
    target, found = asked.target, {}
    from tests.triton_launches import LAUNCHES, UNSUPPORTED

    for name, launch in LAUNCHES.items():
        if name in UNSUPPORTED.get(target, ()):
            continue
        with compiled_alone(target) as kernels:
            launch()
        for kernel in kernels:
            print(json.dumps({"launch": name, **kernel}), flush=True)
            kept = ("shared", "instructions", "loop", "spills", "tensor_cores")
            found[f"{name}: {kernel['kernel']}"] = {key: kernel[key] for key in kept}
    if asked.record:
        budgets = json.loads(BUDGETS.read_text()) if BUDGETS.is_file() else {}
        BUDGETS.write_text(json.dumps({**budgets, target: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
