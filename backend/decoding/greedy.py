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

    from backend.decoding.model import LanguageModel, Session


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
def write(
    session: Session, tokens: torch.Tensor, count: int, end: int | None = None
) -> list[list[int]]:
    """Return the first choices [B][up to `count`] after `tokens`, each fed in turn but the last.

    One sequence is written by as few calls as the session can, and ends behind `end`.

    Args:
        session: of B sequences.
        tokens: [B, t], fed first.
        count: choices, 1 or more.
        end: the token that ends a single sequence.
    """
    written: list[list[int]] = [[] for _ in tokens]
    while len(written[0]) < count:
        chosen = choose(session.read(tokens))
        for row, token in zip(written, chosen.tolist(), strict=True):
            row.append(token)
        if len(written) == 1:
            text, new = written[0], [0]
            while len(text) < count and text[-1] != end and new:
                text += (new := session.ahead(text[-1], count - len(text), end))
            if text[-1] == end:
                break
            chosen = torch.tensor(text[-1:], device=tokens.device)
        tokens = chosen[:, None]
    return written


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
    if count == 1 and watch is None:
        end = None if ignore_end else model.end_token
        return [_alone(model, list(prompts[0]), new_tokens, end, start)]
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


def _alone(
    model: LanguageModel, prompt: list[int], count: int, end: int | None, start: float
) -> Generation:
    """The continuation of one prompt, after whose first token there is no look at the clock."""
    session = model.session(1, len(prompt) + count)
    (text,) = write(session, torch.tensor([prompt], device=model.device), 1)
    seconds = [time.perf_counter() - start]
    if len(text) < count and text[-1] != end:
        fed = torch.tensor([text], device=model.device)
        text += write(session, fed, count - 1, end)[0]
    seconds += [time.perf_counter() - start] * (len(text) - 1)
    return Generation(tuple(text), (), tuple(seconds))
