"""Models of every family that transformers knows and this project treats, small and random."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import backend.models  # noqa: F401 - settles the name `kernels` first

# isort: split
import torch
import transformers as t

from backend.models.load import LoadedModel, attention
from backend.sources import ModelSource

WIDTH, VOCABULARY = 32, 64
SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = SHAPE | {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 128}

CONFIGS = {
    "llama": lambda **k: t.LlamaConfig(**GROUPED | k),
    "qwen2": lambda **k: t.Qwen2Config(**GROUPED | k),
    "qwen3": lambda **k: t.Qwen3Config(**HEADS | k),
    "mistral": lambda **k: t.MistralConfig(**GROUPED | k),
    "gemma": lambda **k: t.GemmaConfig(**HEADS | k),
    "gemma2": lambda **k: t.Gemma2Config(**HEADS | k),
    "gemma3": lambda **k: t.Gemma3TextConfig(
        **HEADS | {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]} | k
    ),
    "phi": lambda **k: t.PhiConfig(**SHAPE | k),
    "phi3": lambda **k: t.Phi3Config(**GROUPED | k),
    "gpt2": lambda **k: t.GPT2Config(**GPT2 | {"bos_token_id": 1, "eos_token_id": 2} | k),
    "opt": lambda **k: t.OPTConfig(
        **SHAPE | {"ffn_dim": 64, "word_embed_proj_dim": WIDTH, "max_position_embeddings": 128} | k
    ),
    "neox": lambda **k: t.GPTNeoXConfig(**SHAPE | k),
    "mixtral": lambda **k: t.MixtralConfig(**GROUPED | {"num_local_experts": 4} | k),
    "qwen3moe": lambda **k: t.Qwen3MoeConfig(
        **HEADS
        | {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
        | {"mlp_only_layers": [], "decoder_sparse_step": 1}
        | k
    ),
}


WIDE = {"hidden_size": 192, "intermediate_size": 192}
"""Changes of a family, where a method holds too much beside each row of narrow matrices."""


def build(family, seed=0, dtype=torch.float32, **changes):
    """A random model in evaluation mode, every parameter away from zero, norms too."""
    torch.manual_seed(seed)
    config = CONFIGS[family](**changes)
    model = t.AutoModelForCausalLM.from_config(
        config, dtype=dtype, attn_implementation=attention(config)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            gain = 0.3 if parameter.dim() == 1 else 0.7 * parameter.shape[-1] ** -0.5
            centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(centre + gain * noise)
    return model.eval().requires_grad_(requires_grad=False)


def tokens(batch=2, length=12, seed=0):
    return torch.randint(
        3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed)
    )


def tokenizer_files(folder):
    """A tokenizer of whole words w0, w1, ..."""
    vocabulary = {f"w{index}": index for index in range(VOCABULARY)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": []}
    whole |= {"normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}}
    whole |= {"post_processor": None, "decoder": None, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def save(model, folder):
    """The folder of a model, as a person would have it."""
    with contextlib.redirect_stderr(None):
        model.save_pretrained(folder)
    tokenizer_files(folder)
    return ModelSource(folder.name, folder)


def loaded(model, folder):
    """A model with the files beside it that an artefact copies."""
    source = save(model, folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    return LoadedModel(model, None, source, folder, count)


def loaded_here(model):
    """A model without files."""
    return LoadedModel(model, None, ModelSource("tiny"), Path(), 0)
