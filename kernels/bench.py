"""Times the products of this machine's processor: `python -m kernels.bench [--json]`.

One activation and sixteen times a matrix out of every cache: copies of it are gone through in
turn, and all products alternate within each round, so that what disturbs one disturbs all.
Before each, the cores are waited for until no thread of this process or of a peer's still spins,
and each is timed at its second copy of a turn, when its own threads are awake as between the
products of a model. With one thread it is the processor's time that counts, so that other work on
the machine disturbs less. Beside each ratio to torch's dense product stand its interval over
rounds and the share of the bandwidth at which this machine reads. `--peer PYTHON` names an
interpreter with another library (`kernels/peers.py`), whose products take part in every round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels import bitpack, packed, rounding, window, wna16_mm

ROTATED = 160 * 2**20  # bytes of copies that are gone through: more than caches hold
GROUP = 128
QUIET = 0.1  # of one core: what threads may still use when the next product begins
LOOK, PATIENCE = 0.004, 1.0  # seconds: between two looks at the cores, and of all of them
Timed = Callable[[Tensor], float]
"""Multiplies and returns its seconds."""


@dataclass(frozen=True)
class Measured:
    """One product at one number of activations.

    Attributes:
        product: its name.
        activations: multiplied at once.
        megabytes: of the matrix as it is held.
        milliseconds: median over rounds.
        ratio: of torch's dense product in float32 to it, the median.
        low: lower end of the ratio's 95 % interval.
        high: upper end.
        bandwidth: share of the machine's reading bandwidth, of one activation.
    """

    product: str
    activations: int
    megabytes: float
    milliseconds: float
    ratio: float
    low: float
    high: float
    bandwidth: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096, help="rows and columns")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", action="append", default=[], help="an interpreter's path")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    read = bandwidth()
    contenders, busy = products(options.size), [os.getpid()]
    for path in options.peer:
        process, offered = peer(path, options.size, options.threads)
        contenders += offered
        busy.append(process)
    found = [
        one
        for count in (1, 16)
        for one in measure(contenders, options.size, count, options.rounds, read, busy)
    ]
    if options.json:
        facts = {"bytes_per_second": read, "threads": options.threads, "size": options.size}
        sys.stdout.write(json.dumps(facts | {"products": [asdict(one) for one in found]}) + "\n")
        return
    sys.stdout.write(
        f"{options.size} x {options.size}, {options.threads} threads, "
        f"{read / 1e9:.1f} GB/s read\n\n"
        "| product | at once | MB | ms | against dense float32 | of the bandwidth |\n"
        "|---|---|---|---|---|---|\n"
    )
    for one in found:
        share = f"{100 * one.bandwidth:.0f} %" if one.activations == 1 else ""
        sys.stdout.write(
            f"| {one.product} | {one.activations} | {one.megabytes:.1f} | {one.milliseconds:.2f} "
            f"| {one.ratio:.2f} ({one.low:.2f} to {one.high:.2f}) | {share} |\n"
        )


@dataclass(frozen=True)
class Contender:
    """A way to hold a matrix and multiply by it; it goes through copies itself or they are made."""

    name: str
    nbytes: int
    make: Callable[[], Timed]
    rotated: bool = True


def peer(path: str, size: int, threads: int) -> tuple[int, list[Contender]]:
    """Another interpreter's process and products; it times them itself, when it is asked to."""
    process = subprocess.Popen(
        [path, "-P", Path(__file__).with_name("peers.py"), str(size), str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def ask(which: int, x: Tensor) -> float:
        process.stdin.write(json.dumps([which, len(x)]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    offers = json.loads(process.stdout.readline())
    return process.pid, [
        Contender(one["product"], one["nbytes"], lambda i=i: lambda x: ask(i, x), rotated=False)
        for i, one in enumerate(offers)
    ]


def products(size: int) -> list[Contender]:
    """Torch's own products and those of the extension, of a random matrix."""
    found = [
        _contender("torch, float32", lambda: _torch_dense(size, torch.float32), 4 * size**2),
        _contender("torch, bfloat16", lambda: _torch_dense(size, torch.bfloat16), 2 * size**2),
        _contender("torch, packed 4 bits, bfloat16", lambda: _torch_int4(size), size**2 // 2),
        _contender(
            "torch, unpack 4 bits and multiply", lambda: _torch_unpacked(size), size**2 // 2
        ),
    ]
    if packed.dense(torch.zeros(1, 1)) is None:
        return found
    kinds = {
        "bfloat16": lambda: packed.dense(torch.randn(size, size).to(torch.bfloat16)),
        "12 bits, lossless": lambda: window.encode(
            0.02 * torch.randn(size, size).to(torch.bfloat16)
        ).matrix(),
        "8 bits": lambda: _integers(size, 8),
        "4 bits": lambda: _integers(size, 4),
        "3 bits": lambda: _integers(size, 3),
        "2 bits": lambda: _integers(size, 2),
        "codebook of 16 a row": lambda: _codebook(size),
        "half behind a bitmask": lambda: _bitmask(size),
        "2 of 4": lambda: _two_of_four(size),
    }
    for name, make in kinds.items():
        found.append(_contender(name, _own(make), _held_bytes(make())))
    four = _held_bytes(_integers(size, 4))
    for name, block in (("4 bits, activations of 8", 32), ("the same, a step a row", size)):
        found.append(_contender(name, lambda block=block: _rounded(size, block), four))
    return found


def _contender(name: str, make: Callable[[], Callable[[Tensor], object]], size: int) -> Contender:
    def timed() -> Timed:
        product = make()

        def run(x: Tensor) -> float:
            began = _clock()
            product(x)
            return _clock() - began

        return run

    return Contender(name, size, timed)


def _own(make: Callable[[], packed.Matrix]) -> Callable[[], Callable[[Tensor], object]]:
    return lambda: make().multiply


def _torch_dense(size: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight = torch.randn(size, size).to(dtype)
    return lambda x: functional.linear(x.to(dtype), weight)


def _torch_int4(size: int) -> Callable[[Tensor], Tensor]:
    weight = wna16_mm.int4_pack(torch.randint(0, 16, (size, size)))
    scales = torch.rand(size, size // GROUP)
    scales = wna16_mm.int4_scales(scales, scales)
    return lambda x: wna16_mm.int4_matmul(x.to(torch.bfloat16), weight, GROUP, scales)


def _torch_unpacked(size: int) -> Callable[[Tensor], Tensor]:
    planes = {4: torch.randint(0, 256, (size, size // 2), dtype=torch.uint8)}
    scales = torch.rand(size, size // GROUP)

    def run(x: Tensor) -> Tensor:
        codes = bitpack.unpack(planes, size)
        return functional.linear(x, wna16_mm.dequantise(codes, scales, None, 4, GROUP))

    return run


def _integers(size: int, bits: int) -> packed.Matrix:
    planes = {
        width: torch.randint(0, 256, (size, size * width // 8), dtype=torch.uint8)
        for width in bitpack.plane_widths(bits)
    }
    scales, offsets = (packed.dense(one.bfloat16()) for one in torch.rand(2, size, size // GROUP))
    return _there(
        packed.integers(
            planes, size, scales, middle=float(1 << (bits - 1)), group_size=GROUP, offsets=offsets
        )
    )


def _rounded(size: int, block: int) -> Callable[[Tensor], Tensor]:
    held, how = _integers(size, 4), rounding.Rounding(8, block, 0, 1.0, 0)
    return _there(rounding.product(how, held, held.product()))


def _codebook(size: int) -> packed.Matrix:
    planes = {4: torch.randint(0, 256, (size, size // 2), dtype=torch.uint8)}
    return _there(packed.codebook(planes, size, torch.randn(size, 16).to(torch.bfloat16)))


def _bitmask(size: int) -> packed.Matrix:
    mask = torch.randint(0, 256, (size, size // 8), dtype=torch.uint8)
    kept = int(bitpack.unpack_plane(mask, 1, size).sum())
    return _there(packed.bitmask(mask, size, packed.dense(_numbers(1, kept))))


def _two_of_four(size: int) -> packed.Matrix:
    pairs = torch.tensor([0b0100, 0b1000, 0b1100, 0b1001, 0b1101, 0b1110], dtype=torch.uint8)
    low, high = (pairs[torch.randint(0, 6, (size, size // 8))] for _ in range(2))
    return _there(packed.two_of_four(low | high << 4, packed.dense(_numbers(size, size // 2))))


def _numbers(*shape: int) -> Tensor:
    return torch.randn(shape).to(torch.bfloat16)


def _there(found: Any) -> Any:
    if found is None:
        raise RuntimeError("There is no extension here.")
    return found


def _held_bytes(matrix: packed.Matrix) -> int:
    total = 0
    waiting: list[object] = [matrix.kept]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor):
            total += part.nbytes
        elif isinstance(part, packed.Matrix):
            waiting.append(part.kept)
        elif isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, tuple):
            waiting.extend(part)
    return total


def measure(
    contenders: list[Contender], size: int, count: int, rounds: int, read: float, busy: list[int]
) -> list[Measured]:
    """Times of all contenders, in alternating rounds; the first is what others are held against."""
    copies = [
        [one.make() for _ in range(max(2, min(64, ROTATED // one.nbytes)) if one.rotated else 1)]
        for one in contenders
    ]
    x = torch.randn(count, size)
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds + 2):
        order = range(len(contenders)) if turn % 2 else reversed(range(len(contenders)))
        for which in order:
            several = copies[which]
            settle(busy)
            if contenders[which].rotated:  # a peer does so itself
                several[2 * turn % len(several)](x)
            seconds = several[(2 * turn + 1) % len(several)](x)
            if turn > 1:
                times[which].append(seconds)
    return [
        _judged(one, own, times[0], count, read) for one, own in zip(contenders, times, strict=True)
    ]


def settle(processes: list[int]) -> None:
    """Wait until the threads of these processes rest; at most a second, and a moment elsewhere.

    Threads of OpenMP and of other pools spin for a while when their work is done.
    """
    began, before = time.perf_counter(), _nanoseconds(processes)
    while (now := time.perf_counter()) - began < PATIENCE:
        time.sleep(LOOK)
        used = _nanoseconds(processes)
        if used - before < 1e9 * QUIET * (time.perf_counter() - now):
            return
        before = used


def _nanoseconds(processes: list[int]) -> int:
    """Of processor time that the other threads of this process and all of others have used."""
    total = 0
    for process in processes:
        for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # it may have ended
                if thread.parent.name != str(os.getpid()):
                    total += int(thread.read_text().split()[0])
    return total


def _judged(
    one: Contender, own: list[float], base: list[float], count: int, read: float
) -> Measured:
    ratios = torch.tensor([b / o for b, o in zip(base, own, strict=True)])
    drawn = ratios[torch.randint(0, len(ratios), (2000, len(ratios)))].median(1).values
    low, high = drawn.quantile(0.025), drawn.quantile(0.975)
    median = statistics.median(own)
    return Measured(
        one.name, count, one.nbytes / 1e6, 1e3 * median, float(ratios.median()), float(low),
        float(high), one.nbytes / median / read,
    )  # fmt: skip


def _clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def bandwidth(size: int = 256 * 2**20, repeats: int = 5) -> float:
    """Bytes per second at which this machine sums numbers that lie in memory."""
    numbers = torch.ones(size // 4)
    best = float("inf")
    for _ in range(repeats):
        began = _clock()
        numbers.sum()
        best = min(best, _clock() - began)
    return numbers.nbytes / best


if __name__ == "__main__":
    main()
