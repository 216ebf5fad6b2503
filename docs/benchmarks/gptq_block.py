"""How much longer GPTQ takes than the factorisations and products that it cannot do without.

One block shaped as in a Llama of 7B parameters: query, key and value read one input, gate and
up another, the attention's output a third. The floor is, for each input, the factor of its
inverse Hessian, and for each linear the products that mend it: every column's error times the
factor's row right of it, half of a full product. Both run interleaved; CPU time is compared.

    python docs/benchmarks/gptq_block.py --scale 4 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs
from backend.methods.quantise.gptq import Gptq

WIDTH, INNER = 4096, 11008
BLOCK = 128


def main() -> None:
    """Print the ratio with its spread as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=1, help="Divide both sides of all shapes.")
    parser.add_argument("--rounds", type=int, default=3, help="Pairs of runs.")
    parser.add_argument("--bits", type=float, default=4.0, help="Bits per weight.")
    arguments = parser.parse_args()
    width, inner = WIDTH // arguments.scale, INNER // arguments.scale
    groups = [[width, width, width], [width], [inner, inner]]
    moments = [_moments(width, seed) for seed in range(len(groups))]
    generator = torch.Generator().manual_seed(9)
    weights = [
        [torch.randn(rows, width, generator=generator) for rows in group] for group in groups
    ]
    method = Gptq(arguments.bits)
    _floor(moments[1:2], weights[1:2])
    _gptq(method, moments[1:2], weights[1:2])
    seconds: dict[str, list[float]] = {"floor": [], "gptq": []}
    for _ in range(arguments.rounds):
        seconds["floor"].append(_cpu_time(lambda: _floor(moments, weights)))
        seconds["gptq"].append(_cpu_time(lambda: _gptq(method, moments, weights)))
    ratios = [own / least for own, least in zip(seconds["gptq"], seconds["floor"], strict=True)]
    report = {
        "shape": {"width": width, "inner": inner, "linears": sum(map(len, groups))},
        "bits": arguments.bits,
        "threads": torch.get_num_threads(),
        "cpu_seconds": {
            name: round(statistics.median(taken), 3) for name, taken in seconds.items()
        },
        "ratio": round(statistics.median(ratios), 3),
        "ratio_lowest": round(min(ratios), 3),
        "ratio_highest": round(max(ratios), 3),
        "rounds": arguments.rounds,
    }
    print(json.dumps(report))  # noqa: T201


def _moments(columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(columns + 256, columns, generator=generator)
    inputs[:, 1:] += 0.5 * inputs[:, :-1]
    return inputs.T @ inputs


def _statistics(products: torch.Tensor) -> InputStatistics:
    """Statistics that nothing has been derived from yet."""
    found = InputStatistics(products.shape[0], Needs.HESSIAN)
    found.products, found.count = products, products.shape[0]
    return found


def _gptq(method: Gptq, moments: list[torch.Tensor], weights: list[list[torch.Tensor]]) -> None:
    for products, group in zip(moments, weights, strict=True):
        shared = _statistics(products)
        for weight in group:
            method.fit(weight, shared)


def _floor(moments: list[torch.Tensor], weights: list[list[torch.Tensor]]) -> None:
    for products, group in zip(moments, weights, strict=True):
        factor = _factor(products / products.shape[0])
        for weight in group:
            columns = weight.T.contiguous()
            for start in range(BLOCK, columns.shape[0], BLOCK):
                before = slice(start - BLOCK, start)
                columns[start:].addmm_(factor[before, start:].T, columns[before], alpha=-1e-9)


def _factor(hessian: torch.Tensor) -> torch.Tensor:
    """Upper factor of the inverse: one Cholesky and one triangular solve, nothing checked."""
    lower = torch.linalg.cholesky(hessian.flip(0, 1))
    identity = torch.eye(hessian.shape[0])
    return torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)


def _cpu_time(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
