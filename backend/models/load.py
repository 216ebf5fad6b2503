"""Load a model from the Hub, a folder or the embedded default: safetensors only, no remote code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
)

from backend import hub
from backend.errors import ModelError
from backend.models import config_gate
from backend.sources import ModelSource, check_folder, tensor_shapes


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer and where it came from."""

    model: nn.Module
    tokenizer: Any
    source: ModelSource
    folder: Path
    parameters: int

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without special ones."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def open(self, text: str) -> list[int]:
        """Tokens of a text behind the one that opens it, if the model has one."""
        opening = self.tokenizer.bos_token_id
        return ([] if opening is None else [opening]) + self.encode(text)

    def decode(self, tokens: list[int]) -> str:
        """Text of tokens, without special ones."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def fetch(source: ModelSource) -> Path:
    """The folder that holds a model's files; downloads them if they are on the Hub.

    Raises:
        ModelError: says what is missing, and what to do.
    """
    if source.folder is not None:
        return _sound(source.folder)
    return _sound(hub.fetch(source))


def load(source: ModelSource, dtype: torch.dtype = torch.bfloat16) -> LoadedModel:
    """Load a model and its tokenizer, weights checked to be finite.

    Raises:
        ModelError: not there, not safetensors, of unknown architecture or not finite.
    """
    folder = fetch(source)
    config = read_config(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention(config),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{source.name} cannot be loaded: {_first_line(error)}") from error
    _check_complete(report, source.name)
    model.eval().requires_grad_(requires_grad=False)
    check_finite(model, source.name)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return LoadedModel(model, tokenizer, source, folder, parameters)


def read_config(folder: Path) -> Any:
    """The configuration in a folder, free of anything that runs code.

    Raises:
        ModelError: unreadable, wants remote code, already quantised, or no decoder.
    """
    raw = config_gate.read(folder / "config.json")
    try:
        return CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    except Exception as error:  # the library checks values by errors of many kinds
        raise ModelError(
            f"{folder}/config.json has values that its architecture ({raw['model_type']}) does not "
            f"take: {_first_line(error)}"
        ) from error


def attention(config: Any) -> str:
    """The name of the attention to ask for: torch's own where the model has it, never the Hub's.

    Raises:
        ModelError: not a model that writes text.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"A model of type {config.model_type!r} writes no text; take a causal language model."
        )
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"


def check_finite(model: nn.Module, name: str) -> None:
    """Refuse weights that are not finite.

    Raises:
        ModelError: names the first such tensor.
    """
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"{name} has values that are not finite in {key}; a compressed copy would be "
                "broken too. Download the model again, or take another revision."
            )


def _check_complete(report: dict[str, Any], name: str) -> None:
    """Refuse weights that transformers would have made up."""
    for keys, what in (
        ([entry[0] for entry in report["mismatched_keys"]], "of another shape"),
        (list(report["missing_keys"]), "missing"),
    ):
        if keys:
            raise ModelError(
                f"{name} has {len(keys)} tensors {what}, by what its config.json says; "
                f"{min(keys)} is one. Download the model again."
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _sound(folder: Path) -> Path:
    tensor_shapes(check_folder(folder))  # before anything larger reads the headers
    return folder
