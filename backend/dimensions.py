"""What a model's files say of its size: matrices, keys and values, the rest; imports no torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from backend.methods.anatomy import BLOCK, TRANSPOSED, Anatomy
from backend.sources import ModelSource

ROUTER = re.compile(r"(^|\.)(gate|router)\.weight$")
CHUNK = 512  # tokens of a prompt that are read at a time, whose activations lie in memory

Shape = tuple[int, int]


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a dense model, all from its headers and its configuration.

    Attributes:
        parameters: numbers in all tensors.
        matrices: how many matrices [outputs, inputs] of each shape the blocks hold.
        anatomy: its tensors by name and shape.
        heads: key-value heads of a layer.
        head_dim: channels of each.
        kv_numbers: numbers in the keys and values of one token.
        hidden: width of the stream between blocks.
        vocabulary: tokens of the tokenizer.
        longest: context that the model allows, in tokens.
        frequencies: bytes of rotary frequencies, which are in memory though in no file.
    """

    parameters: int
    matrices: tuple[tuple[Shape, int], ...]
    anatomy: Anatomy
    heads: int
    head_dim: int
    kv_numbers: int
    hidden: int
    vocabulary: int
    longest: int
    frequencies: int = 0

    @classmethod
    def of(cls, source: ModelSource) -> Self | None:
        """Those of a model whose files are here; None for others."""
        shapes = source.shapes()
        if not shapes:
            return None
        config = source.config()
        text = config.get("text_config", config)
        heads = _first(text, "num_attention_heads", "n_head", default=1)
        hidden = _first(text, "hidden_size", "n_embd", default=0)
        kv_heads = _first(text, "num_key_value_heads", default=heads)
        head = _first(text, "head_dim", default=hidden // heads)
        layers = _first(text, "num_hidden_layers", "n_layer", default=0)
        return cls(
            parameters=sum(math.prod(shape) for shape in shapes.values()),
            matrices=_matrices(shapes, text),
            anatomy=Anatomy(shapes, config),
            heads=kv_heads,
            head_dim=head,
            kv_numbers=2 * layers * kv_heads * head,
            hidden=hidden,
            vocabulary=_first(text, "vocab_size", default=0),
            longest=_first(text, "max_position_embeddings", "n_positions", default=0),
            frequencies=_frequencies(text, head),
        )

    def of_what_is_left(self, anatomy: Anatomy) -> Self:
        """The same of a model that was made smaller, heads and vocabulary being as they were."""
        matrices = _matrices(anatomy.shapes, anatomy.text)
        return replace(self, parameters=anatomy.numbers, matrices=matrices, anatomy=anatomy)

    @property
    def linear(self) -> int:
        """Numbers in the matrices of the blocks."""
        return sum(rows * columns * count for (rows, columns), count in self.matrices)

    @property
    def dense_bytes(self) -> int:
        """The model in bfloat16."""
        return 2 * self.parameters + self.frequencies

    @property
    def rest_bytes(self) -> int:
        """What no method for matrices treats: embeddings, head, norms, biases, in bfloat16."""
        return self.dense_bytes - 2 * self.linear

    def kv_bytes(self, context: int, batch: int, bits: float = 16.0) -> int:
        """Keys and values of `batch` sequences of `context` tokens at so many bits a number."""
        return math.ceil(batch * context * self.kv_numbers * bits / 8)

    def buffer_bytes(self, batch: int) -> int:
        """Activations of a prompt read in chunks, and one row of float32 logits a sequence."""
        widest = max((max(shape) for shape, _ in self.matrices), default=0)
        return 4 * batch * self.vocabulary + 2 * CHUNK * (4 * self.hidden + 2 * widest)


def _matrices(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> tuple[tuple[Shape, int], ...]:
    found: Counter[Shape] = Counter()
    turned = config.get("model_type") in TRANSPOSED
    for name, shape in shapes.items():
        if not BLOCK.fullmatch(name) or ROUTER.search(name):
            continue
        if len(shape) == 2 and name.endswith("weight"):
            found[shape[::-1] if turned else shape] += 1
        elif len(shape) == 3:  # experts in one tensor; gate and up lie one above the other
            experts, rows, columns = shape
            halves = 2 if "gate_up" in name else 1
            found[rows // halves, columns] += halves * experts
    return tuple(sorted(found.items()))


def _frequencies(config: dict[str, Any], head: int) -> int:
    """Two float32 vectors of half a rotated head; none where positions are learned."""
    rope = config.get("rope_parameters") or {}
    if not (rope or "rope_theta" in config):
        return 0
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    return 2 * 4 * (int(head * share) // 2)


def _first(config: dict[str, Any], *names: str, default: int) -> int:
    """The first of several names that a configuration has a number for."""
    for name in names:
        if isinstance(value := config.get(name), int) and not isinstance(value, bool):
            return value
    return default
