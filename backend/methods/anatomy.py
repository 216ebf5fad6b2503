"""What a model is made of, read from names, shapes and configuration alone; imports no torch.

The same is said of a model's files before it is loaded and of the model in memory, so that what
a method refuses in the one it refuses in the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

Shape = tuple[int, ...]

BLOCK = re.compile(r"(?P<list>(^|.*?\.)(layers|h|blocks))\.(?P<place>\d+)\.(?P<inner>.*)")
TRANSPOSED = ("gpt2",)  # model types that hold matrices as [inputs, outputs]
ROLES = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "qkv_proj": "query-key-value",
    "query_key_value": "query-key-value",
    "c_attn": "query-key-value",
    "o_proj": "attention-output",
    "out_proj": "attention-output",
    "dense": "attention-output",
    "gate_proj": "gate",
    "w1": "gate",
    "up_proj": "up",
    "w3": "up",
    "gate_up_proj": "gate-up",
    "fc1": "up",
    "c_fc": "up",
    "dense_h_to_4h": "up",
    "down_proj": "down",
    "w2": "down",
    "fc2": "down",
    "dense_4h_to_h": "down",
}
"""What a linear is for, by the last part of its name."""


@dataclass(frozen=True)
class Units:
    """Heads or neurons that one linear reads.

    Attributes:
        count: how many there are.
        cost: numbers that go with one.
        bias: numbers that a bias of the reader adds, 0 where it has one.
        neurons: whether they are neurons, not heads.
        width: columns of the reader that go with one.
        outputs: of the reader.
    """

    count: int
    cost: int
    bias: int
    neurons: bool = False
    width: int = 1
    outputs: int = 0


@dataclass(frozen=True)
class Anatomy:
    """A dense model.

    Attributes:
        shapes: of every tensor that counts, by name; tied ones once.
        config: the model's configuration.
    """

    shapes: Mapping[str, Shape]
    config: Mapping[str, Any]

    @property
    def text(self) -> Mapping[str, Any]:
        """The configuration of the part that reads and writes text."""
        return self.config.get("text_config") or self.config

    @property
    def kind(self) -> str:
        """Type of the model, as transformers names it."""
        return str(self.config.get("model_type", ""))

    @cached_property
    def numbers(self) -> int:
        """Numbers in all tensors."""
        return sum(map(math.prod, self.shapes.values()))

    @cached_property
    def blocks(self) -> list[dict[str, Shape]]:
        """Tensors of each block in order, by their names inside it."""
        lists: dict[str, dict[int, dict[str, Shape]]] = {}
        for name, shape in self.shapes.items():
            if match := BLOCK.fullmatch(name):
                block = lists.setdefault(match["list"], {}).setdefault(int(match["place"]), {})
                block[match["inner"]] = shape
        if not lists:
            return []
        found = max(lists.values(), key=lambda one: sum(map(_numbers, one.values())))
        return [found[place] for place in sorted(found)]

    @cached_property
    def linear(self) -> int:
        """Numbers in the blocks' matrices, routers among them."""
        shapes = (shape for block in self.blocks for shape in block.values())
        return sum(math.prod(shape) for shape in shapes if len(shape) > 1)

    @property
    def block_numbers(self) -> list[int]:
        """Numbers in each block."""
        return [_numbers(block) for block in self.blocks]

    @cached_property
    def tables(self) -> list[Shape]:
        """Embedding and head, [vocabulary, width], the head only where it has its own."""
        vocabulary = self.text.get("vocab_size")
        found = [
            shape
            for name, shape in self.shapes.items()
            if len(shape) == 2
            and shape[0] == vocabulary
            and "position" not in name
            and not name.endswith("wpe.weight")
            and not BLOCK.fullmatch(name)
        ]
        return found[:1] if self.text.get("tie_word_embeddings") else found[:2]

    @cached_property
    def units(self) -> list[Units]:
        """Heads and neurons of every block, as far as they are known by name."""
        return [found for block in self.blocks for found in self._units(block)]

    def _units(self, block: dict[str, Shape]) -> Iterator[Units]:
        parents: dict[str, dict[str, str]] = {}
        for name, shape in block.items():
            if len(shape) == 3:
                yield from self._experts(name, block)
            elif len(shape) == 2 and name.endswith(".weight"):
                parent, _, child = f".{name.removesuffix('.weight')}".rpartition(".")
                parents.setdefault(parent, {})[role(child, parent)] = name
        for roles in parents.values():
            found = self._heads(roles, block), self._neurons(roles, block)
            yield from (units for units in found if units is not None)

    def _experts(self, name: str, block: dict[str, Shape]) -> Iterator[Units]:
        """Neurons of experts whose gate and up lie in one tensor, all experts in one."""
        down = block.get(name.replace("gate_up_proj", "down_proj"))
        if not name.endswith("gate_up_proj") or down is None:
            return
        experts, outputs, inner = down
        for _ in range(experts):
            cost = outputs + 2 * block[name][2]
            yield Units(inner, cost, outputs, neurons=True, outputs=outputs)

    def _heads(self, roles: dict[str, str], block: dict[str, Shape]) -> Units | None:
        """Groups of heads that share keys and values."""
        if "attention-output" not in roles:
            return None
        heads = self._told("num_attention_heads") or self._told("n_head") or 1
        shared = self._told("num_key_value_heads") or heads
        outputs, total = self._oriented(block[roles["attention-output"]])
        size, per = total // heads, heads // shared
        if "query-key-value" in roles:
            rows = {"query-key-value": (per + 2) * size}
        else:
            rows = {"query": per * size, "key": size, "value": size}
        if not rows.keys() <= roles.keys():
            return None
        writers = {roles[one]: each for one, each in rows.items()}
        units = Units(shared, outputs * per * size, 0, width=per * size, outputs=outputs)
        return self._group(roles["attention-output"], units, writers, block)

    def _neurons(self, roles: dict[str, str], block: dict[str, Shape]) -> Units | None:
        if "down" not in roles:
            return None
        outputs, inner = self._oriented(block[roles["down"]])
        each = {"gate": 1, "up": 1, "gate-up": 2}
        writers = {roles[one]: rows for one, rows in each.items() if one in roles}
        if not writers:
            return None
        units = Units(inner, outputs, 0, neurons=True, outputs=outputs)
        return self._group(roles["down"], units, writers, block)

    def _group(
        self, reader: str, read: Units, writers: dict[str, int], block: dict[str, Shape]
    ) -> Units | None:
        """Units as their reader knows them, and the rows of each in what writes them.

        None where those that write have rows of another number.
        """
        cost = read.cost
        for name, each in writers.items():
            outputs, inputs = self._oriented(block[name])
            if outputs != read.count * each:
                return None
            cost += each * (inputs + (_bias(name) in block))
        outputs, _ = self._oriented(block[reader])
        bias = 0 if _bias(reader) in block else outputs
        return replace(read, cost=cost, bias=bias)

    def _told(self, name: str) -> int:
        """A whole number of the configuration; 0 where it has none of this name."""
        value = self.text.get(name)
        return value if isinstance(value, int) else 0

    def _oriented(self, shape: Shape) -> tuple[int, int]:
        """Outputs and inputs of a linear."""
        first, second = shape
        return (second, first) if self.kind in TRANSPOSED else (first, second)


def role(child: str, parent: str) -> str:
    """What a linear is for, by its own name and that of what it lies in."""
    if child == "c_proj":
        return "down" if parent.rpartition(".")[2] == "mlp" else "attention-output"
    return ROLES.get(child, "linear")


def _numbers(block: dict[str, Shape]) -> int:
    return sum(map(math.prod, block.values()))


def _bias(weight: str) -> str:
    return f"{weight.removesuffix('weight')}bias"
