"""Verification of drafted tokens: the one place where speculative decoding is made lossless.

A drafter only guesses. What is kept is what the model itself would have written, or, with a
temperature, what it would have written with the same chance.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from backend.decoding.drafter import Draft, Writing
from backend.decoding.greedy import Generation
from backend.decoding.sampling import FirstChoice, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backend.decoding.drafter import Drafter
    from backend.decoding.model import LanguageModel, Session

WIDEST = 256  # tokens of a draft


@dataclass(frozen=True)
class Step:
    """What one call of the model gained.

    Attributes:
        tokens: new ids.
        logits: [len(tokens), V], from which each was chosen.
        accepted: how many of them were drafted.
    """

    tokens: tuple[int, ...]
    logits: torch.Tensor
    accepted: int


@torch.inference_mode()
def steps(
    model: LanguageModel,
    drafter: Drafter,
    prompt: Sequence[int],
    new_tokens: int,
    *,
    limit: int = WIDEST,
    ignore_end: bool = False,
    temperature: float = 0.0,
    seed: int = 0,
    session: Session | None = None,
) -> Iterator[Step]:
    """Yield what each call adds to `prompt`, several tokens where the guess is good.

    Each call feeds the last token and the draft, goes down the draft as long as the token that
    the model would write next is there, keeps that path and the model's token after it, and
    crops the rest from the cache (Leviathan et al., arXiv 2211.17192; trees: Miao et al., arXiv
    2305.09781). Without temperature the model's token is its first choice. With one it is drawn,
    and a drafted token that was drawn too is kept or replaced by the rule of `sampling`. A cache
    that rounds or drops what it holds is never fed a draft that would make it do so: the text
    stays that of its own decoding. One number is drawn for each token written, so that models
    that agree write the same text from the same seed.

    Args:
        model: who writes.
        drafter: who guesses; `Silent` gives the plain loop.
        prompt: ids, at least one.
        new_tokens: most ids to write.
        limit: most tokens of a draft.
        ignore_end: go on after the end token.
        temperature: 0 for the first choice always.
        seed: of what is drawn.
        session: a fresh one, for a caller that wants to look at its cache.
    """
    total = len(prompt) + new_tokens
    session = session or model.session(1, total + WIDEST)
    rule = Sampling(temperature, seed) if temperature > 0 else FirstChoice()
    logits = session.feed(torch.tensor([list(prompt)], device=model.device))[0]
    drafter.begin(Writing(session, total, temperature, seed))
    drafter.learn(prompt, logits)
    rule.read(logits[-1:])
    tokens = [rule.token(0, Draft(), ())]
    yield Step(tuple(tokens), logits[-1:], 0)
    end = None if ignore_end else model.end_token
    while len(tokens) < new_tokens and tokens[-1] != end:
        depth = new_tokens - len(tokens) - 1
        room = max(0, min(limit, WIDEST, session.croppable() - 1)) if depth else 0
        draft = drafter.propose([*prompt, *tokens], room)
        draft = draft.usable(room, depth, model.vocabulary_size, branches=session.branching)
        before, fed = session.length, [tokens[-1], *draft.tokens]
        parents = None if draft.is_chain else [-1, *(parent + 1 for parent in draft.parents)]
        logits = session.feed(torch.tensor([fed], device=model.device), parents)[0]
        drafter.learn(fed, logits, parents)
        rule.read(logits)
        path, gained = _verified(draft, rule)
        rows = [0, *(node + 1 for node in path)]
        session.pick(before, rows)
        if end in gained:
            gained = gained[: gained.index(end) + 1]
        tokens += gained
        yield Step(tuple(gained), logits[rows[: len(gained)]], min(len(path), len(gained) - 1))


def speculate(
    model: LanguageModel,
    drafter: Drafter,
    prompt: Sequence[int],
    new_tokens: int,
    *,
    limit: int = WIDEST,
    ignore_end: bool = False,
    temperature: float = 0.0,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Generation:
    """Return a continuation of `prompt` as `steps` writes it, with its times by `clock`."""
    start = clock()
    tokens: list[int] = []
    accepted: list[int] = []
    seconds: list[float] = []
    written = steps(
        model,
        drafter,
        prompt,
        new_tokens,
        limit=limit,
        ignore_end=ignore_end,
        temperature=temperature,
        seed=seed,
    )
    for step in written:
        if tokens:  # nothing is drafted before the prompt is read
            accepted.append(step.accepted)
        tokens += step.tokens
        seconds += [clock() - start] * len(step.tokens)
    return Generation(tuple(tokens), tuple(accepted), tuple(seconds))


def _verified(draft: Draft, rule: FirstChoice | Sampling) -> tuple[list[int], list[int]]:
    """The path of a draft that the model would have written, and what it writes along it."""
    children: dict[int, dict[int, int]] = {}
    for index, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True)):
        children.setdefault(parent, {}).setdefault(token, index)
    drafts = draft.drafts()
    path: list[int] = []
    written: list[int] = []
    node: int | None = -1
    while node is not None:
        written.append(rule.token(node + 1, draft, drafts.get(node, ())))
        node = children.get(node, {}).get(written[-1])
        if node is not None:
            path.append(node)
    return path, written
