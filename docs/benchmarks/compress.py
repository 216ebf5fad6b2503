"""What compressing takes, method by method: `python -m docs.benchmarks.compress`.

The embedded model whole, calibration and all, and two layers shaped as in a Llama of 7B
parameters, whose statistics are given, since all methods share them. What treats blocks or whole
models has no layers; it can be given one block of that shape, calibration and all, with
`--on "block 4096x11008"`. Each is done once in a process of its own and kept in `compress.json`,
so that a run that was broken off goes on where it stopped; `compress.md` is written from it.
Seconds are of all cores together, so that a neighbour's load does not count.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from backend.attempt import calibration_windows
from backend.calibrate import EACH
from backend.calibrate.statistics import InputStatistics
from backend.compress import compress
from backend.errors import OutOfReachError
from backend.measure.size import watch_peak
from backend.methods import catalogue, find
from backend.methods.base import (
    EncodeMethod,
    LayerMethod,
    ModelMethod,
    Needs,
    RepairMethod,
    RunMethod,
    TableMethod,
    TuneMethod,
)
from backend.models.load import LoadedModel, load
from backend.plan import CALIBRATION
from backend.recipes import Recipe
from backend.sources import ModelSource
from backend.texts import Texts

KEPT, PAGE = (Path(__file__).with_suffix(ending) for ending in (".json", ".md"))
BITS = {"quantise": 4.25, "prune": 9.0, "factorise": 8.0, "lossless": 16.0, "structure": 15.0}
WIDER = {"gqa-fold": 15.5}  # what takes more than its family's budget on the embedded model
LAYERS = ("4096x4096", "11008x4096")
WHOLE = "embedded"
BLOCK = "block 4096x11008"
NO_LAYER = {
    RunMethod: "learns over blocks",
    ModelMethod: "rewrites models",
    TuneMethod: "trains models",
    TableMethod: "holds tables",
}
"""Why the column of a layer does not apply to a method, by its kind."""
NO_BLOCK = "by layers"
ON_BLOCK = {"windows": 16, "length": 256, "vocabulary": 512, "head": 128}
LOUD = (0.002, 12.0)  # share of the input channels that are outliers, and how much louder

Found = dict[str, Any]


def main() -> None:
    """Measure what is not known yet, keep it and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="", help="joined by commas; all by default")
    parser.add_argument(
        "--on",
        default=",".join((WHOLE, *LAYERS)),
        help="embedded, rows x columns, block width x inner",
    )
    parser.add_argument("--kept", type=Path, default=KEPT, help="what is known already")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument(
        "--limit", type=float, default=1800.0, help="seconds by the clock for one, then given up"
    )
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(_measured(options.one, options.on)))
        return
    keys = options.methods.split(",") if options.methods else [*catalogue()]
    apart = functools.partial(_apart, limit=options.limit)
    fill(options.kept, keys, options.on.split(","), apart)
    options.page.write_text(page(json.loads(options.kept.read_text())))


def fill(
    kept: Path, keys: list[str], subjects: list[str], measure: Callable[[str, str], Found]
) -> None:
    """Measure what a file does not hold yet, and write each outcome into it at once.

    Args:
        kept: JSON, by `method on subject`.
        keys: of methods.
        subjects: `embedded`, rows x columns of a layer, or `block` and its width x inner.
        measure: from a method and a subject to what it takes.
    """
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    for subject in subjects:
        for key in keys:
            name = f"{key} on {subject}"
            if name in known or _left_out(key, subject):
                continue
            known[name] = measure(key, subject)
            partial = kept.with_suffix(".part")
            partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            partial.rename(kept)


def page(known: dict[str, Found]) -> str:
    """The page, from all that is known."""
    subjects = [WHOLE, *LAYERS]
    subjects += [BLOCK] if any(name.endswith(BLOCK) for name in known) else []
    lines = [
        "# What compressing takes\n",
        "Written by `python -m docs.benchmarks.compress`. CPU seconds, two cores together, and the "
        "highest memory above what was held before. The embedded model (0.853 M parameters) is "
        "calibrated on 16,384 tokens and compressed whole, in float32. The layers have random "
        "weights and inputs whose neighbours go together and of which one channel in 500 is twelve "
        "times as loud; their statistics are given. Of a Llama of 7B parameters every block has "
        "four of the first and three of the second. A block, where there is one, has random "
        f"weights and is calibrated on {ON_BLOCK['windows']} windows of {ON_BLOCK['length']} "
        "random tokens. Budgets: "
        + ", ".join(f"{bits:g} bits for {family}" for family, bits in (BITS | WIDER).items())
        + ".\n",
        "| method | " + " | ".join(subjects) + " |",
        "|---|" + "---|" * len(subjects),
    ]
    for key in catalogue():
        told = [known.get(f"{key} on {subject}") for subject in subjects]
        if any(told):
            cells = [
                _left_out(key, subject) if found is None else _cell(found)
                for subject, found in zip(subjects, told, strict=True)
            ]
            lines.append(f"| `{key}` | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(found: Found) -> str:
    if "failed" in found:
        return found["failed"]
    return f"{found['cpu_seconds']:.3g} s, {found['peak_bytes'] / 1e6:.0f} MB"


def _left_out(key: str, subject: str) -> str:
    """Why a method is not measured on a subject; empty where it is."""
    cls = find(key)
    kind = next((why for kind, why in NO_LAYER.items() if issubclass(cls, kind)), "")
    if not (kind or issubclass(cls, LayerMethod | RepairMethod | EncodeMethod)):
        return "no weights"
    if subject == WHOLE:
        return ""
    if subject.startswith("block"):
        return "" if kind else NO_BLOCK
    return kind


def _apart(key: str, subject: str, limit: float) -> Found:
    """Measured in a process of its own, so that peaks do not mix."""
    command = [sys.executable, "-m", "docs.benchmarks.compress", "--one", key, "--on", subject]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"over {limit:g} s"}
    sys.stderr.write(f"{key} on {subject}: {done.stdout}\n")
    return json.loads(done.stdout)


def _measured(key: str, subject: str) -> Found:
    sides = map(int, subject.removeprefix("block ").split("x")) if subject != WHOLE else ()
    making = _whole if subject == WHOLE else _block if subject.startswith("block") else _layer
    work = making(key, *sides)
    with watch_peak() as peak:
        began = time.process_time()
        try:
            work()
        except OutOfReachError:
            return {"failed": "takes more"}
        spent = time.process_time() - began
    return {"cpu_seconds": spent, "peak_bytes": peak.bytes or 0}


def _whole(key: str) -> Callable[[], object]:
    loaded = load(ModelSource.parse("default"), torch.float32)
    windows = calibration_windows(loaded, Texts().calibration, **CALIBRATION)
    return lambda: compress(loaded, _recipe(key), windows)


def _recipe(key: str) -> Recipe:
    """A method at its family's budget, behind another where it needs one."""
    cls = find(key)
    if issubclass(cls, RepairMethod):
        return Recipe.parse(f"rtn@4.25 + {key}")
    if issubclass(cls, TuneMethod):
        return Recipe.parse(f"wanda@{BITS['prune']:g} + {key}")
    return Recipe.parse(f"{key}@{WIDER.get(key, BITS[cls.family()]):g}")


def _block(key: str, width: int, inner: int) -> Callable[[], object]:
    """One block of a Llama, its weights and its text drawn."""
    torch.manual_seed(0)
    vocabulary, head = ON_BLOCK["vocabulary"], min(ON_BLOCK["head"], width // 2)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=1,
        num_attention_heads=width // head,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)
    windows = torch.randint(vocabulary, (ON_BLOCK["windows"], ON_BLOCK["length"]))
    loaded = LoadedModel(model, None, ModelSource(BLOCK), Path(), 0)
    return lambda: compress(loaded, _recipe(key), windows)


def _layer(key: str, rows: int, columns: int) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(64, 128, generator=generator)
    _work(
        key, small, _inputs(small, key, generator)
    )()  # libraries and caches of torch are there before
    weight = 0.02 * torch.randn(rows, columns, generator=generator)
    return _work(key, weight, _inputs(weight, key, generator))


def _inputs(weight: torch.Tensor, key: str, generator: torch.Generator) -> InputStatistics:
    """Statistics of a few more inputs than columns, a few channels of them much louder.

    With samples and with gradients of texts, drawn, for a method that wants to know them.
    """
    needs, (rows, columns), (share, louder) = find(key).needs, weight.shape, LOUD
    loud = torch.exp(0.5 * torch.randn(columns, generator=generator))
    loud[torch.rand(columns, generator=generator) < share] *= louder
    statistics = InputStatistics(columns, Needs.HESSIAN | (needs & Needs.SAMPLES))
    for _ in range(4):
        inputs = torch.randn(columns // 4 + 64, columns, generator=generator)
        inputs[:, 1:] += 0.5 * inputs[:, :-1]
        statistics.add(inputs * loud)
    if Needs.EACH_GRADIENT not in needs:
        return statistics
    shape = EACH, rows, columns
    return statistics.sloped(torch.randn(shape, generator=generator, dtype=torch.bfloat16))


def _work(key: str, weight: torch.Tensor, statistics: InputStatistics) -> Callable[[], object]:
    cls = find(key)
    if issubclass(cls, RepairMethod):
        held = find("rtn")(4.25).fit(weight, statistics)
        return lambda: cls().mend(weight, held, statistics)
    method = cls().at(BITS[cls.family()])
    if isinstance(method, EncodeMethod):
        values = weight.to(torch.bfloat16)
        return lambda: method.encode(values)
    return lambda: method.fit(weight, statistics)


if __name__ == "__main__":
    main()
