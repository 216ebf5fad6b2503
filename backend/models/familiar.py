"""Which models are decoded by their own modules: those of which every module is of a known kind."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from backend.models.sliced import SlicedBlock, SlicedEnd, WidthNorm

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings that turn a position by the same angle however long the text is."""


def refusal(model: nn.Module) -> str:
    """Why a model is decoded by transformers; empty where it is decoded here."""
    name = type(model).__name__.removesuffix("ForCausalLM")
    config = model.config
    if name not in FAMILIES:
        return f"{type(model).__name__} is decoded by transformers"
    windows = getattr(config, "layer_types", None) or ()
    sliding = "sliding_attention" in windows
    if sliding or (name == "Mistral" and config.sliding_window is not None):
        return "a sliding window of its own is kept by transformers"
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind not in ROTATIONS:
        return f"rotary embeddings of type {kind} are left to transformers"
    strange = [part for part in _parts(model) if not _known(part, name)]
    return f"{type(strange[0]).__name__} is run by transformers" if strange else ""


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    yield model.model.norm
    for block in model.model.layers:
        yield block
        yield from (block.self_attn, block.mlp)
        yield from (block.input_layernorm, block.post_attention_layernorm)


def _known(module: nn.Module, name: str) -> bool:
    if isinstance(module, SlicedBlock | SlicedEnd | WidthNorm):
        return True
    kind = type(module)
    kinds = {f"{name}{part}" for part in ("DecoderLayer", "Attention", "MLP", "RMSNorm")}
    hooked = module._forward_hooks or module._forward_pre_hooks
    return kind.__name__ in kinds and kind.__module__.startswith("transformers.") and not hooked
