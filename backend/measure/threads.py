"""How many threads this host rewards right now: on shared cores two can be ten times slower."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads while the context is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def quickest_threads(most: int | None = None, seconds: float = 0.1) -> int:
    """Return the number of threads, one or `most`, that runs small layers quicker at present.

    Threads that wait for a busy neighbour at the end of every operation lose more than they win;
    only a trial tells.
    """
    most = most or torch.get_num_threads()
    if most <= 1:
        return 1
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    done = {}
    for count in (1, most):
        with use_threads(count):
            runs, end = 0, time.perf_counter() + seconds / 2
            while time.perf_counter() < end:
                (torch.nn.functional.silu(left @ right) * left).sum()
                runs += 1
            done[count] = runs
    return max(done, key=lambda count: done[count])
