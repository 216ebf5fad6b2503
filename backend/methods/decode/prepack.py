"""Prepacking: prompts of different lengths share rows, so that none is padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import PrefillMethod, Stage, setting

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Prepack(PrefillMethod):
    """Read prompts of different lengths together, several in a row, without padding.

    A batch of prompts is usually filled up to the longest, and what fills it is computed for
    nothing. Here rows are as long as the longest prompt, and the others, the longest first, each
    go into the fullest row that still has room. Positions begin anew with each prompt, and each
    sees itself alone, so that logits, keys and values are those of prompts read one by one. Then
    every prompt is written on by itself.
    """

    stage = Stage.PREFILL
    paper = "arXiv 2404.09529"
    claim = "Up to six times faster to the first token than padding, at up to 16 times the batch."
    limits = (
        "Gains nothing for one prompt, or for prompts of one length; live texts read one at a "
        "time. Keys and values are dense meanwhile, so that no cache method goes with it. Reading "
        "goes through transformers, as padding does."
    )
    models = (
        "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3",
        "gpt2", "opt", "gpt_neox", "mixtral", "qwen3_moe",
    )  # fmt: skip

    row: int = setting(
        0, "Tokens of a row at least; no less than the longest prompt has.", low=0, high=1 << 16
    )

    def rows(self, lengths: Sequence[int]) -> list[list[int]]:
        """The longest first, each into the fullest row that has room; ties as they come."""
        room = max([self.row, *lengths])
        found: list[list[int]] = []
        left: list[int] = []
        for place in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
            fitting = [index for index, free in enumerate(left) if free >= lengths[place]]
            if not fitting:
                fitting = [len(found)]
                found.append([])
                left.append(room)
            best = min(fitting, key=left.__getitem__)
            found[best].append(place)
            left[best] -= lengths[place]
        return found
