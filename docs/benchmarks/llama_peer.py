"""Writing and reading beside llama.cpp: `python -m docs.benchmarks.llama_peer --bench PATH ...`.

Token by token, or prompts of `--prompt` tokens that are read for what comes next. Takes the path
of its `llama-bench` and GGUF files of one model. `--shape FOLDER` saves a random model of a billion
parameters; under an interpreter that has `gguf` and numpy,
`python docs/benchmarks/llama_peer.py --write FOLDER FILE` writes a folder's model as GGUF in 16
bits, from which `llama-quantize` makes the others. Each turn of llama.cpp is a process of its
own; turns alternate with those of this project, dense and compressed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy

PROMPT, STEPS = 32, 64
SHAPE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 32000,
}  # fmt: skip
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def main() -> None:
    """Write what is asked for, or take turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", type=Path, help="the program llama-bench")
    parser.add_argument("--gguf", type=Path, nargs="*", default=[])
    parser.add_argument("--model", default="default", help="the same model, a folder")
    parser.add_argument("--recipes", default="rtn@4.25", help="joined by semicolons")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=0, help="tokens to read; 0: write instead")
    parser.add_argument("--shape", type=Path, metavar="FOLDER")
    parser.add_argument("--write", type=Path, nargs=2, metavar=("FOLDER", "FILE"))
    options = parser.parse_args()
    if options.shape:
        save_random(options.shape)
    elif options.write:
        write_gguf(*options.write)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Tokens a second of every arm, and their ratio to the quickest of llama.cpp."""
    arms = {
        f"llama.cpp, {path.stem}": lambda threads, path=path: peer(
            options.bench, path, threads, options.prompt
        )
        for path in options.gguf
    } | ours(options.model, options.recipes.split(";"), options.prompt)
    done = "read" if options.prompt else "written"
    sys.stdout.write(f"| threads | {done} by | tokens a second | best | against llama.cpp |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    for threads in options.threads:
        found: dict[str, list[float]] = {name: [] for name in arms}
        for turn in range(options.rounds + 1):
            for name in list(arms)[:: 1 if turn % 2 else -1]:
                rate = arms[name](threads)
                if turn:
                    found[name].append(rate)
        rates = {name: statistics.median(each) for name, each in found.items()}
        peers = [rate for name, rate in rates.items() if name.startswith("llama.cpp")]
        for name, rate in rates.items():
            beside = f"{rate / max(peers):.2f}" if peers else ""
            sys.stdout.write(
                f"| {threads} | {name} | {rate:,.1f} | {max(found[name]):,.1f} | {beside} |\n"
            )
        sys.stdout.flush()


def peer(program: Path, model: Path, threads: int, prompt: int) -> float:
    """Tokens a second that llama.cpp reads of a prompt, or writes after one."""
    numbers = {"-p": prompt, "-n": 0} if prompt else {"-p": 0, "-n": STEPS, "-d": PROMPT}
    numbers |= {"-t": threads, "-r": 1}
    command = [str(program), "-m", str(model), "-o", "json"]
    command += [str(part) for pair in numbers.items() for part in pair]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    return float(json.loads(done.stdout)[0]["avg_ts"])


def ours(model: str, recipes: list[str], prompt: int) -> dict[str, Callable[[int], float]]:
    """Arms of this project: the dense model in bfloat16, and compressed copies."""
    import torch

    from backend.compress import compress
    from backend.models.language_model import TransformersModel
    from backend.models.load import load
    from backend.recipes import Recipe
    from backend.sources import ModelSource

    source = ModelSource.parse(model)
    arms = {"dense, bfloat16": timed(TransformersModel(load(source).model), prompt)}
    for recipe in filter(None, recipes):
        loaded = load(source)
        vocabulary = loaded.model.config.vocab_size
        windows = torch.randint(0, vocabulary, (4, 64), generator=torch.Generator().manual_seed(0))
        compress(loaded, Recipe.parse(recipe), windows)
        arms[recipe] = timed(TransformersModel(loaded.model), prompt)
    return arms


def timed(model: object, prompt: int) -> Callable[[int], float]:
    """Tokens a second of a prompt, or of those written after one.

    Each is chosen here, by the highest logit; `llama-bench` feeds tokens that it drew before.
    """
    import time

    import torch

    from backend.decoding.greedy import write

    def run(threads: int) -> float:
        torch.set_num_threads(threads)
        if prompt:
            session, text = model.session(1, prompt), torch.randint(2000, (1, prompt))
            began = time.perf_counter()
            session.read(text)
            return prompt / (time.perf_counter() - began)
        session = model.session(1, PROMPT + STEPS)
        session.read(torch.full((1, PROMPT), 5))
        began = time.perf_counter()
        write(session, torch.full((1, 1), 5), STEPS)
        return STEPS / (time.perf_counter() - began)

    return run


def save_random(folder: Path) -> None:
    """A random model of a billion parameters in bfloat16; nothing is made of what it writes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from backend.models.load import fetch
    from backend.sources import ModelSource

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, max_position_embeddings=2048, tie_word_embeddings=False)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(1.0) if parameter.dim() == 1 else parameter.data.normal_(0, 0.02)
    model.save_pretrained(folder)
    embedded = fetch(ModelSource.parse("default"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((embedded / name).read_bytes())


def write_gguf(folder: Path, file: Path) -> None:
    """A Llama's matrices in float16 and norms in float32, with no vocabulary but its size."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    heads, kept = config["num_attention_heads"], config["num_key_value_heads"]
    rope = config.get("rope_parameters") or {}
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    writer.add_head_count(heads)
    writer.add_head_count_kv(kept)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("none")
    for name, numbers in tensors(folder):
        if "q_proj" in name or "k_proj" in name:
            numbers = paired(numbers, heads if "q_proj" in name else kept)
        precise = numbers.ndim == 1
        writer.add_tensor(known_as(name), numbers if precise else numbers.astype(numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(folder: Path) -> list[tuple[str, numpy.ndarray]]:
    """Names and numbers in float32 of a folder's safetensors in bfloat16."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        whole = path.read_bytes()
        start = 8 + int.from_bytes(whole[:8], "little")
        for name, about in json.loads(whole[8:start]).items():
            if name == "__metadata__":
                continue
            first, end = (start + place for place in about["data_offsets"])
            halves = numpy.frombuffer(whole[first:end], numpy.uint16).astype(numpy.uint32)
            found.append((name, (halves << 16).view(numpy.float32).reshape(about["shape"])))
    return found


def known_as(name: str) -> str:
    """What llama.cpp calls a tensor."""
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        index, inner = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{index}.{NAMES[inner]}.weight"
    return f"{NAMES[stem]}.weight"


def paired(numbers: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of each head in pairs, as llama.cpp turns them, not in halves."""
    halves = numbers.reshape(heads, 2, -1, numbers.shape[1])
    return numpy.ascontiguousarray(halves.swapaxes(1, 2)).reshape(numbers.shape)


if __name__ == "__main__":
    main()
