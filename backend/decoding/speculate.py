"""Verification of drafted tokens: the one place where speculative decoding is made lossless.

A drafter only guesses. What is kept is what the model itself would have written.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from backend.decoding.greedy import Generation, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.decoding.drafter import Drafter
    from backend.decoding.model import LanguageModel


@torch.inference_mode()
def speculate(
    model: LanguageModel,
    drafter: Drafter,
    prompt: Sequence[int],
    new_tokens: int,
    *,
    limit: int = 8,
    ignore_end: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Generation:
    """Return the greedy continuation of `prompt`, several tokens per call where the guess is good.

    Each call feeds the last token and the draft, keeps the longest part of the draft equal to the
    model's own choices and the model's choice after it, and crops the rest from the cache
    (Leviathan et al., arXiv 2211.17192, at temperature 0). A cache that rounds or drops what it
    holds is never fed a draft that would make it do so: the text stays that of its own decoding.
    """
    start = clock()
    session = model.session(1, len(prompt) + new_tokens)
    logits = session.feed(torch.tensor([list(prompt)], device=model.device))
    tokens = [int(choose(logits[0, -1]))]
    accepted: list[int] = []
    seconds = [clock() - start]
    end = None if ignore_end else model.end_token
    while len(tokens) < new_tokens and tokens[-1] != end:
        room = max(0, min(limit, new_tokens - len(tokens) - 1, session.croppable() - 1))
        draft = _usable(drafter.propose([*prompt, *tokens], room), room, model.vocabulary_size)
        before = session.length
        logits = session.feed(torch.tensor([[tokens[-1], *draft]], device=model.device))
        chosen = choose(logits[0]).tolist()
        kept = _agreement(draft, chosen)
        session.crop(before + 1 + kept)
        gained = chosen[: kept + 1]
        if end in gained:
            gained = gained[: gained.index(end) + 1]
        tokens += gained
        accepted.append(min(kept, len(gained) - 1))
        seconds += [clock() - start] * len(gained)
    return Generation(tuple(tokens), tuple(accepted), tuple(seconds))


def _usable(draft: Sequence[int], room: int, vocabulary_size: int) -> list[int]:
    """Cut a draft to the room left and before the first id that is no token."""
    kept: list[int] = []
    for token in list(draft)[:room]:
        if not 0 <= token < vocabulary_size:
            break
        kept.append(int(token))
    return kept


def _agreement(draft: Sequence[int], chosen: Sequence[int]) -> int:
    """Count the leading tokens that both sequences share."""
    for index, token in enumerate(draft):
        if token != chosen[index]:
            return index
    return len(draft)
