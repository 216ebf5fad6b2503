"""Compressing beside other libraries: `python -m docs.benchmarks.compress_peers --peer PYTHON ...`.

The same model, the same calibration tokens, the same codes and groups: this project and each
library that its interpreter's path names take turns, each time in a process of its own, which
writes the weights that came out. CPU seconds of all cores count from a loaded model to finished
weights, calibration and all; so does the highest memory above that of the loaded model. What
came out is judged here, all by the same: the KL divergence from the dense model on held-out
text. Subjects are the embedded model; one block shaped as in a Llama of 7B parameters on 4,096
tokens; and one of half its width on 16,384, three for each of its widest inputs, as a Hessian
wants them. Weights and tokens of both blocks are random.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

RECIPES = {
    "rtn": "rtn@4.25",
    "gptq": "gptq@4.25",
    "sparsegpt": "sparsegpt(bits=9, pattern=2:4)",
    "wanda": "wanda(bits=9, pattern=2:4)",
}
GROUP, BITS = 128, 4
BLOCKS = {"block": (128, 16), "half": (64, 64)}
"""Size of a head, of which there are 32, and windows of 256 tokens."""
OURS = "paretoscope"
Weights = dict[str, Tensor]


def main() -> None:
    """Take turns, judge and print; or be one turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", action="append", default=[], help="an interpreter's path")
    parser.add_argument("--on", default="embedded,half,block")
    parser.add_argument("--methods", default=",".join(RECIPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn", nargs=3, metavar=("LIBRARY", "METHOD", "FOLDER"))
    options = parser.parse_args()
    if options.turn:
        _turn(*options.turn)
        return
    here = Path(__file__).absolute()
    sides = {OURS: (sys.executable, here)}
    for python in options.peer:
        sides |= dict.fromkeys(_libraries(python), (str(Path(python).absolute()), here))
    lines = ["| subject | method | by | CPU seconds | of ours | memory | KL divergence |"]
    lines.append("|" + "---|" * 7)
    for subject in options.on.split(","):
        with tempfile.TemporaryDirectory() as folder:
            _prepare(subject, Path(folder))
            for method in options.methods.split(","):
                lines += _rows(subject, method, sides, options.rounds, Path(folder))
    sys.stdout.write("\n".join([*lines, ""]))


def _libraries(python: str) -> list[str]:
    asked = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
    done = subprocess.run([python, "-c", asked, *PEERS], capture_output=True, text=True, check=True)
    return done.stdout.split()


def _rows(
    subject: str, method: str, sides: dict[str, tuple[str, Path]], rounds: int, folder: Path
) -> Iterator[str]:
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, (python, file) in sides.items():
            if name != OURS and method not in PEERS[name]:
                continue
            command = [python, str(file), "--turn", name, method, str(folder)]
            if name == OURS:
                command[1:2] = ["-m", "docs.benchmarks.compress_peers"]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False,
                cwd=None if name == OURS else folder,  # some write logs where they are started
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # threads that spin are no work
            )  # fmt: skip
            if done.returncode:
                sys.stderr.write(f"{name}, {method}: {done.stderr[-2000:]}\n")
                continue
            one = json.loads(done.stdout.splitlines()[-1])
            found.setdefault(name, []).append({**one, "kld": _divergence(folder)})
            sys.stderr.write(f"{subject} {method} {name} {found[name][-1]}\n")
    own = found[OURS]
    for name, turns in found.items():
        ratios = sorted(b["seconds"] / a["seconds"] for a, b in zip(own, turns, strict=False))
        middle = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        told = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        yield (
            f"| {subject} | {method} | {name} | {middle['seconds']:.3g} | {told} "
            f"| {middle['bytes'] / 1e6:.0f} MB | {middle['kld']:.4g} |"
        )


def _prepare(subject: str, folder: Path) -> None:
    """Write the model, its calibration tokens and its held-out tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from backend.attempt import calibration_windows
    from backend.models.load import load
    from backend.plan import CALIBRATION
    from backend.sources import ModelSource
    from backend.texts import Texts

    loaded = load(ModelSource.parse("default"), torch.float32)
    if subject == "embedded":
        model, texts = loaded.model, Texts()
        calibration = calibration_windows(loaded, texts.calibration, **CALIBRATION)
        held_out = calibration_windows(loaded, texts.heldout, 64, 256)
    else:
        torch.manual_seed(0)
        width, windows = BLOCKS[subject]
        vocabulary = loaded.model.config.vocab_size
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary, hidden_size=32 * width, intermediate_size=86 * width,
                num_hidden_layers=1, num_attention_heads=32, max_position_embeddings=512,
            )
        )  # fmt: skip
        calibration = torch.randint(0, vocabulary, (windows, 256))
        held_out = torch.randint(0, vocabulary, (16, 256))
    model.to(torch.bfloat16).save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    save_file({"calibration": calibration, "held_out": held_out}, folder / "tokens")


def _turn(library: str, method: str, folder: str) -> None:
    """Compress once by one library, and say what it took."""
    from transformers import AutoModelForCausalLM

    below = Path(folder)
    tokens = load_file(below / "tokens")["calibration"]
    run = _ours if library == OURS else PEERS[library][method]
    model = None
    if library != "gptqmodel":  # it loads models its own way
        dtype = torch.float32 if library == OURS else torch.bfloat16
        model = AutoModelForCausalLM.from_pretrained(below / "model", dtype=dtype).eval()
    work = run(method, model, tokens, below)
    next(work)  # what is not counted: imports and loading
    Path("/proc/self/clear_refs").write_text("5")
    before, began = _memory("VmRSS"), time.process_time()
    next(work)
    spent, peak = time.process_time() - began, _memory("VmHWM") - before
    weights = {name: weight.to(torch.float32).contiguous() for name, weight in next(work).items()}
    save_file(weights, below / "weights")
    sys.stdout.write("\n" + json.dumps({"seconds": spent, "bytes": peak}) + "\n")


def _memory(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024
    raise ValueError(which)


def _divergence(folder: Path) -> float:
    """Mean KL divergence from the dense model on held-out tokens, in nats a token."""
    from transformers import AutoModelForCausalLM

    dense, other = (
        AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
        for _ in range(2)
    )
    weights = load_file(folder / "weights")
    expected = {f"{name}.weight" for name, _ in _linears(dense)}
    if set(weights) != expected:
        raise ValueError(f"{sorted(expected ^ set(weights))} are not the weights of both.")
    other.load_state_dict(weights, strict=False)
    (folder / "weights").unlink()
    total, count = 0.0, 0
    with torch.inference_mode():
        for window in load_file(folder / "tokens")["held_out"].split(4):
            p, q = (model(window).logits.double().log_softmax(-1) for model in (dense, other))
            total += float((p.exp() * (p - q)).sum())
            count += window.numel()
    return total / count


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            yield name, module


def _ours(method: str, model: nn.Module, tokens: Tensor, folder: Path) -> Iterator[Any]:
    from backend import formats
    from backend.compress import compress
    from backend.models.load import LoadedModel
    from backend.recipes import Recipe
    from backend.sources import ModelSource

    source = ModelSource.parse(str(folder / "model"))
    parameters = sum(one.numel() for one in model.parameters())
    loaded = LoadedModel(model.requires_grad_(False), None, source, folder / "model", parameters)
    recipe = Recipe.parse(RECIPES[method])
    for name in formats.__all__:
        getattr(formats, name)  # read when asked for
    yield
    view = compress(loaded, recipe, tokens).view
    yield
    yield {f"{site.name}.weight": view.weight(site) for site in view.all_sites()}


def _llmcompressor(method: str, model: nn.Module, tokens: Tensor, folder: Path) -> Iterator[Any]:  # noqa: ARG001
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    codes = QuantizationArgs(num_bits=BITS, strategy="group", group_size=GROUP, symmetric=False)
    quantised = {
        "ignore": ["lm_head"],
        "config_groups": {"all": QuantizationScheme(targets=["Linear"], weights=codes)},
    }
    sparse = {
        "sparsity": 0.5,
        "mask_structure": "2:4",
        "ignore": ["lm_head"],
        "targets": ["Linear"],
    }
    modifier = {
        "rtn": lambda: QuantizationModifier(**quantised),
        "gptq": lambda: GPTQModifier(**quantised),
        "sparsegpt": lambda: SparseGPTModifier(**sparse),
        "wanda": lambda: WandaPruningModifier(**sparse),
    }[method]()
    rows = tokens.tolist()
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})
    yield
    oneshot(
        model=model, dataset=None if method == "rtn" else data, recipe=[modifier],
        max_seq_length=tokens.shape[1], num_calibration_samples=len(rows),
    )  # fmt: skip
    yield
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    weights = {}
    for name, module in _linears(model):
        weight = module.weight.data
        if method == "rtn":
            weight = fake_quantize(weight, module.weight_scale, module.weight_zero_point, codes)
        weights[f"{name}.weight"] = weight
    yield weights


def _gptqmodel(method: str, model: None, tokens: Tensor, folder: Path) -> Iterator[Any]:  # noqa: ARG001
    os.cpu_count = lambda: 4  # it wants more workers than two cores would give
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(
        bits=BITS, group_size=GROUP, sym=False, desc_act=True, offload_to_disk=False,
        format="gptq_v2",  # the earlier one holds zero points less one
    )  # fmt: skip
    loaded = GPTQModel.load(str(folder / "model"), config, device="cpu", dtype=torch.bfloat16)
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in tokens]
    yield
    loaded.quantize(rows, batch_size=4)
    yield
    yield {
        f"{name}.weight": module.dequantize_weight().T
        for name, module in loaded.model.named_modules()
        if hasattr(module, "dequantize_weight") and hasattr(module, "qweight")
    }


def _quanto(method: str, model: nn.Module, tokens: Tensor, folder: Path) -> Iterator[Any]:  # noqa: ARG001
    from optimum.quanto import freeze, qint4, quantize

    yield
    quantize(model, weights=qint4, exclude="lm_head")
    freeze(model)
    yield
    yield {f"{name}.weight": module.weight.dequantize() for name, module in _linears(model)}


PEERS: dict[str, dict[str, Any]] = {
    "llmcompressor": dict.fromkeys(RECIPES, _llmcompressor),
    "gptqmodel": {"gptq": _gptqmodel},
    "optimum": {"rtn": _quanto},
}

if __name__ == "__main__":
    main()
