"""What reading prompts together does: proof that it changes nothing, and its gain over padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from backend.decoding.greedy import choose, generate, write
from backend.measure import lossless, speed
from backend.measure.reading import Reading
from backend.methods.base import PrefillMethod
from backend.models import packing
from backend.models.language_model import TransformersModel

COUNT, SHORTEST, LONGEST = 16, 8, 128
"""Prompts whose reading is timed, and tokens of the shortest and the longest."""
LEAST_SECONDS = 10.0  # a padded batch takes long, and two rounds tell no interval


@dataclass(frozen=True)
class Prefilling:
    """A model and how its prompts are laid out.

    Attributes:
        method: of the recipe.
        variant: the artefact as it is deployed.
        prompts: ids that texts begin with.
    """

    method: PrefillMethod
    variant: TransformersModel
    prompts: Sequence[Sequence[int]]

    def proof(self, exact: Callable[[], TransformersModel], count: int) -> list[Reading]:
        """Proof that texts go on as if each prompt had been read alone.

        Args:
            exact: the artefact in float32.
            count: tokens of each text.
        """
        model = exact()
        alone = [generate(model, [prompt], count, ignore_end=True) for prompt in self.prompts]
        plain = [one.tokens for (one,) in alone]
        return lossless.prefill_readings(plain, self.written(model, count))

    @torch.inference_mode()
    def written(self, model: TransformersModel, count: int) -> list[tuple[int, ...]]:
        """Texts of so many tokens behind prompts that are read together."""
        logits, sessions = model.prefill(self.prompts, self._rows(self.prompts), count)
        found = []
        for first, session in zip(choose(logits).tolist(), sessions, strict=True):
            fed = torch.tensor([[first]], device=model.device)
            found.append((first, *write(session, fed, count - 1)[0]))
        return found

    def gain(self, stream: Sequence[int], longest: int, seconds: float) -> list[Reading]:
        """Tokens read a second, and how many times faster than the same prompts padded.

        Args:
            stream: recorded ids.
            longest: tokens that the model reads.
            seconds: of all rounds, if they are enough.
        """
        prompts = mixed(stream, min(LONGEST, longest))
        rows, model = self._rows(prompts), self.variant
        lengths = [len(prompt) for prompt in prompts]
        width = max(sum(lengths[place] for place in row) for row in rows)
        laid = (
            f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,}"
        )
        note = f"{laid} in all; rows hold {len(rows) * width:,}, padded {COUNT * max(lengths):,}"
        return speed.measure_prefill(
            lambda: choose(model.prefill(prompts, rows)[0]).tolist(),
            lambda: choose(packing.padded(model.model, prompts)).tolist(),
            tokens=sum(lengths),
            device=model.device,
            seconds=max(seconds, LEAST_SECONDS),
            note=note,
        ).readings

    def _rows(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        return self.method.rows([len(prompt) for prompt in prompts])


def mixed(stream: Sequence[int], longest: int) -> list[list[int]]:
    """Prompts from one stream of ids, each some part longer than the one before it.

    Args:
        stream: goes round where it ends.
        longest: tokens of the last.
    """
    ratio = longest / min(SHORTEST, longest)
    lengths = [round(longest / ratio ** (1 - step / (COUNT - 1))) for step in range(COUNT)]
    found, start = [], 0
    for length in lengths:
        found.append([stream[(start + step) % len(stream)] for step in range(length)])
        start += length
    return found
