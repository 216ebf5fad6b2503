"""Greedy decoding of many prompts in one batch.

Only the highest logit is ever taken; one prompt as a stream is `speculate.steps`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.decoding.model import LanguageModel


@dataclass(frozen=True)
class Generation:
    """Tokens a model wrote, without the prompt.

    Attributes:
        tokens: the new ids; the end token, where it came, is the last.
        accepted: drafted tokens accepted in each verification; empty without a drafter.
        seconds: time from the call until each token was known on the host.
    """

    tokens: tuple[int, ...]
    accepted: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()

    @property
    def tokens_per_call(self) -> float:
        """Mean tokens gained per verification: those accepted and the model's own."""
        return sum(self.accepted) / len(self.accepted) + 1.0 if self.accepted else 1.0


def choose(logits: torch.Tensor) -> torch.Tensor:
    """Return the id of the highest logit [..., V] in fp32; the lowest id wins a tie."""
    return logits.float().argmax(dim=-1)


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    *,
    ignore_end: bool = False,
    watch: Callable[[int, torch.Tensor], None] | None = None,
) -> list[Generation]:
    """Return the greedy continuation of every prompt, written in one batch.

    Prompts of different lengths need no padding: the part all have is fed at once, then each
    sequence is fed its own prompt until that ends and its own words from there.

    Args:
        model: the model.
        prompts: ids, none empty.
        new_tokens: most new ids per prompt.
        ignore_end: go on after the end token.
        watch: called with the number of tokens fed so far and the last logits [B, V].
    """
    count = len(prompts)
    if not count:
        return []
    start = time.perf_counter()
    lengths = [len(prompt) for prompt in prompts]
    total = max(lengths) + new_tokens
    session = model.session(count, total)
    written: list[list[int]] = [[] for _ in prompts]
    seconds: list[list[float]] = [[] for _ in prompts]
    done = [False] * count
    position = min(lengths)
    fed = torch.tensor([list(prompt[:position]) for prompt in prompts], device=model.device)
    while True:
        logits = session.read(fed)
        if watch is not None:
            watch(position, logits)
        chosen = choose(logits).tolist()
        elapsed = time.perf_counter() - start
        step = []
        for row, token in enumerate(chosen):
            if position < lengths[row]:
                step.append(prompts[row][position])
                continue
            step.append(token)
            if not done[row]:
                written[row].append(token)
                seconds[row].append(elapsed)
                ended = token == model.end_token and not ignore_end
                done[row] = ended or len(written[row]) == new_tokens
        if all(done):
            break
        fed = torch.tensor(step, device=model.device)[:, None]
        position += 1
    return [
        Generation(tuple(tokens), (), tuple(times))
        for tokens, times in zip(written, seconds, strict=True)
    ]
