"""What of a model's config.json is let in: known keys, values within reason, nothing that runs.

An allow-list, because past holes of the library were keys nobody had thought of. What it does not
know is left out, so a new key cannot do anything; what asks for code is refused by name.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from backend.errors import ModelError

SIZE_LIMIT = 1 << 20  # bytes of config.json
DEPTH = 6  # of objects in each other
_CODE = frozenset({"auto_map", "trust_remote_code", "custom_code"})
_LEFT_OUT = frozenset({"_name_or_path", "name_or_path", "repo_id", "attn_implementation"})
_KEYS_OF_OLD = """
dtype first_k_dense_replace full_attention_interval global_head_dim global_rope_theta
head_dim heads hybrid_override_pattern id2label initializer_range is_causal label2id layers
linear_attn_config local_rope_theta model_type moe_layer_freq moe_layers_enum n_embed
no_rope_layer_interval num_experts num_global_key_value_heads num_heads num_labels
num_nextn_predict_layers pad_token_id partial_rotary_factor partial_rotary_factors
qk_rope_head_dim qkv_bias rope_local_base_freq rope_scaling rope_theta rotary_dim
rotary_emb_base rotary_pct sliding_window sliding_window_pattern sliding_window_size
swa_rope_theta tie_embedding tie_word_embeddings torch_dtype transformers_version use_bias
use_sliding_window
"""
_OF_OLD = frozenset(_KEYS_OF_OLD.split())
"""Keys of older files that the library still reads though no class lists them."""
_MOST = {
    "vocab_size": 2_000_000,
    "hidden_size": 65_536,
    "n_embd": 65_536,
    "intermediate_size": 1_000_000,
    "num_hidden_layers": 1_000,
    "n_layer": 1_000,
    "num_attention_heads": 2_048,
    "num_key_value_heads": 2_048,
    "num_experts": 2_048,
    "num_local_experts": 2_048,
    "n_routed_experts": 2_048,
}


def read(path: Path) -> dict[str, Any]:
    """The configuration of a file, without what is not known.

    Raises:
        ModelError: unreadable, too large, asking for code, quantised already, or out of reason.
    """
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise ModelError(
                f"{path} takes more than {SIZE_LIMIT:,} bytes; none that is real does."
            )
        raw = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} cannot be read: it is no JSON object.")
    _refuse_code(raw)
    if "quantization_config" in raw:
        raise ModelError(
            "This model is quantised already; start from its 16-bit original, so that what is "
            "measured is the method chosen here."
        )
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ModelError(
            f"{path} describes no architecture that transformers knows "
            f"(model_type {kind!r}); take a decoder such as Llama, Qwen, Mistral or Gemma."
        )
    known = _known(CONFIG_MAPPING[kind])
    kept = {key: value for key, value in raw.items() if key in known}
    _check_sizes(kept, path)
    return kept


def _known(config: Any) -> set[str]:
    named = set(inspect.signature(config.__init__).parameters) | set(config().to_dict())
    return (named | set(config.attribute_map) | _OF_OLD) - _LEFT_OUT


def _refuse_code(value: Any, depth: int = 0) -> None:
    if depth > DEPTH:
        raise ModelError(f"config.json nests more than {DEPTH} objects; none that is real does.")
    if isinstance(value, list):
        for one in value:
            _refuse_code(one, depth + 1)
    if not isinstance(value, dict):
        return
    bad = sorted(key for key in value if key in _CODE or key.endswith("_internal"))
    if bad:
        raise ModelError(
            f"config.json asks for code of its own ({', '.join(bad)}), which is never run; "
            "take a model of an architecture that transformers knows."
        )
    for one in value.values():
        _refuse_code(one, depth + 1)


def _check_sizes(found: dict[str, Any], path: Path) -> None:
    for name, most in _MOST.items():
        value = found.get(name)
        if value is None or isinstance(value, list):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise ModelError(f"{path} says {name} {value!r}; 0 to {most:,} can be.")
