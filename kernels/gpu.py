"""Check, tune and time the Triton kernels on this machine's GPU: `python -m kernels.gpu`.

Writes `kernels/configs/<gpu>.json` and `docs/benchmarks/gpu-<gpu>.md`. What is done is kept in
`.gpu/<gpu>.json`, so that a run that was cut off goes on where it stopped. Stops by itself after
ten minutes. This file itself has not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kernels import configs, gpu_cases
from kernels.configs import Blocks
from kernels.gpu_products import PRODUCTS, Tunable

ROOT = Path(__file__).parents[1]
SECONDS = 600
REPLAYS = 20
BEYOND_CACHE = 256 << 20  # bytes of weights that are gone through in turn, more than any L2 holds
SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))
ROWS = (1, 16, 64, 1024)


class Progress:
    """What is done already, by name; kept after each step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of a step, from before or from doing it now."""
        if name not in self.done:
            self.done[name] = work()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_suffix(".new")
            fresh.write_text(json.dumps(self.done))
            fresh.replace(self.path)
        return self.done[name]


def main(arguments: list[str] | None = None) -> int:
    """Run all steps; 0 if every kernel is right, 1 if one is not, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m kernels.gpu", description=__doc__)
    parser.add_argument("--again", action="store_true", help="forget what an earlier run did")
    parser.add_argument("--check", action="store_true", help="check the numbers and stop")
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("This machine has no GPU that torch can use, so nothing was run.", file=sys.stderr)
        return 2
    if asked.check:
        return 1 if _report(check()) else 0
    name = configs.gpu_name(torch.cuda.get_device_name())
    path = ROOT / ".gpu" / f"{name}.json"
    if asked.again:
        path.unlink(missing_ok=True)
    progress, end = Progress(path), time.monotonic() + SECONDS
    wrong = _report(progress.step("numbers", check))
    memory = progress.step("compute-sanitizer", sanitize)
    print(f"compute-sanitizer: {memory}")
    if wrong or memory.startswith("found"):
        path.unlink()  # what is wrong is checked again once it is mended
        return 1
    rows = measure(progress, end)
    choices = {row["key"]: Blocks(**row["blocks"]) for row in rows}
    print(configs.write(name, choices))
    page = ROOT / "docs/benchmarks" / f"gpu-{name}.md"
    copied = progress.step("copy", copy_rate)
    page.write_text(table(torch.cuda.get_device_name(), copied, rows))
    print(page)
    return 0


def check() -> dict[str, float]:
    """Difference from the reference by name of the case."""
    found = {}
    for name, operation, arguments in gpu_cases.cases():
        moved = [part.cuda() if isinstance(part, Tensor) else part for part in arguments]
        found[name] = gpu_cases.difference(operation(*moved), operation(*arguments))
    return found


def _report(errors: dict[str, float]) -> list[str]:
    wrong = [name for name, error in errors.items() if not error < gpu_cases.BOUND]
    for name in wrong:
        print(f"{name}: {errors[name]:.1e} from the reference, allowed {gpu_cases.BOUND:.1e}")
    print(f"{len(errors) - len(wrong)} of {len(errors)} cases agree with their reference")
    return wrong


def sanitize() -> str:
    """What NVIDIA's checker says of the small cases, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    command = [tool, "--error-exitcode", "9", sys.executable, "-m", "kernels.gpu", "--check"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
        )
    except subprocess.TimeoutExpired:
        return "not finished within three minutes"
    return "nothing found" if done.returncode == 0 else f"found: {done.stdout[-500:]}"


def measure(progress: Progress, end: float) -> list[dict[str, Any]]:
    """The best blocks of each product and shape and its time beside the dense one, until `end`."""
    rows = []
    for product, (outputs, inputs), count in itertools.product(PRODUCTS.values(), SHAPES, ROWS):
        if time.monotonic() > end:
            print("Ten minutes are over; the next run goes on from here.")
            break
        shape = count, outputs, inputs
        about = product.bits, product.group or inputs
        name = configs.key(product.operation, *shape, *about)
        dense = progress.step("dense/{}/{}/{}".format(*shape), partial(dense_time, *shape))
        best = progress.step(name, partial(tuned, product, *shape))
        rows.append({"key": name, "dense": dense, **best})
        print(f"{name}: {best['seconds'] * 1e6:.1f} us, dense {dense * 1e6:.1f} us", flush=True)
    return rows


def candidates(rows: int, outputs: int, inputs: int) -> list[Blocks]:
    """Blocks worth trying for a shape, the rule's own first."""
    rule = configs.by_rule(rows, outputs, inputs)
    splits = {rule.splits, max(1, rule.splits // 2), min(configs.SPLITS, rule.splits * 2)}
    tried = itertools.product(
        (64, 128), sorted(splits if rows <= configs.DECODE_ROWS else {1}), (4, 8), (1, 3)
    )
    others = (Blocks(rule.rows, *rest) for rest in tried)
    return [rule, *(blocks for blocks in others if blocks != rule)]


def tuned(product: Tunable, rows: int, outputs: int, inputs: int) -> dict[str, Any]:
    """The fastest blocks, their seconds a call and the bytes that a call must read."""
    case = product.make(rows, outputs, inputs, "cuda")
    weights = turns(case.held)
    best: tuple[float, Blocks] | None = None
    for blocks in candidates(rows, outputs, inputs):
        found = seconds(lambda held, blocks=blocks: case.call(held, blocks), weights)
        if best is None or found < best[0]:
            best = found, blocks
    assert best is not None
    read = case.held.nbytes + case.beside
    return {"seconds": best[0], "blocks": vars(best[1]), "bytes": read}


def dense_time(rows: int, outputs: int, inputs: int) -> float:
    """Seconds of torch's own product with the same matrix in bfloat16."""
    x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16)
    return seconds(lambda held: torch.nn.functional.linear(x, held), turns(weight))


def copy_rate() -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(target.copy_, [source])


def turns(weight: Tensor) -> list[Tensor]:
    """Copies of a weight that together do not fit a GPU's cache."""
    return [weight.clone() for _ in range(max(2, -(-BEYOND_CACHE // weight.nbytes)))]


def seconds(call: Callable[[Tensor], Any], weights: list[Tensor]) -> float:
    """Median seconds a call over replays of a CUDA graph that goes through all weights."""
    call(weights[0])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for weight in weights:
            call(weight)
    graph.replay()
    found = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1000 / len(weights))
    return statistics.median(found)


def table(name: str, copied: float, rows: list[dict[str, Any]]) -> str:
    """The page of a GPU's results."""
    lines = [
        f"# Products on {name}",
        "",
        f"Median of {REPLAYS} replays of a CUDA graph over weights that no cache holds; a copy",
        f"moves {copied / 1e9:,.0f} GB/s. Written by `python -m kernels.gpu`; torch",
        f"{torch.__version__}.",
        "",
        "| product/rows/outputs/inputs/bits/group | us | bf16 us | times | of the copy's rate |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        rate = row["bytes"] / row["seconds"] / copied
        lines.append(
            f"| {row['key']} | {row['seconds'] * 1e6:.1f} | {row['dense'] * 1e6:.1f} "
            f"| {row['dense'] / row['seconds']:.2f} | {rate:.0%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
