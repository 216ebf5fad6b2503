"""Facts hidden in long text and asked for afterwards: what a compressed cache forgets.

Scored by log-probability among eight candidates, less what each candidate would score without
the fact, so that even a weak model gives a signal. The tasks follow RULER (arXiv 2404.06654),
scaled to short contexts.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from backend.measure.passes import continuations
from backend.measure.reading import Reading, take
from backend.measure.statistics import as_fields, mcnemar, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.decoding.model import LanguageModel

    Encode = Callable[[str], Sequence[int]]

CANDIDATES = 8
TASKS = ("single", "multikey", "multivalue", "tracking")
KEYS = ("red", "blue", "green", "gold", "white", "black", "small", "big")
WORDS = (
    "apple", "river", "stone", "horse", "candle", "garden", "silver", "window", "mountain",
    "forest", "bread", "music", "winter", "summer", "table", "bird", "ship", "king", "cloud",
    "fire", "tree", "moon", "star", "cat", "dog", "fish", "gold", "sea", "wolf", "bear",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Which cells are asked: a task at a length of context and a depth of the fact.

    Attributes:
        lengths: tokens of context.
        depths: place of the fact as a share of the context.
        tasks: among `TASKS`.
        count: questions per cell.
        words: values to hide; those of one token are preferred.
        keys: what tells several facts apart.
        fact: sentence with {key} and {value}.
        question: what is asked after the text, with {key}; the value follows with a space.
    """

    lengths: tuple[int, ...] = (128, 256, 448)
    depths: tuple[float, ...] = (0.1, 0.5, 0.9)
    tasks: tuple[str, ...] = ("single",)
    count: int = 64
    words: tuple[str, ...] = WORDS
    keys: tuple[str, ...] = KEYS
    fact: str = " The {key} word is {value}."
    question: str = " The {key} word is"


@dataclass(frozen=True)
class Question:
    """One question, as token ids.

    Attributes:
        cell: task, length and depth, as in `single_256_50`.
        context: the text with the fact.
        without: a text of the same length without it.
        tail: the question.
        values: the candidates; the first is right.
    """

    cell: str
    context: tuple[int, ...]
    without: tuple[int, ...]
    tail: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Book:
    """What all questions share: opening ids, values with their ids, plan and tokenizer."""

    head: tuple[int, ...]
    values: list[tuple[str, tuple[int, ...]]]
    plan: Plan
    encode: Encode


@dataclass(frozen=True)
class Hits:
    """Whether the right value ranked first, by cell, in the order of the questions."""

    cells: dict[str, tuple[bool, ...]]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, to be kept for the dense model."""
        return {name: list(hits) for name, hits in asdict(self)["cells"].items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Hits:
        """Return the hits `to_json` wrote."""
        return cls({name: tuple(map(bool, hits)) for name, hits in fields.items()})


def questions(
    texts: Sequence[str], encode: Encode, plan: Plan, *, bos: int | None, seed: int = 0
) -> list[Question]:
    """Return the questions of every cell of `plan`, hidden in held-out `texts`."""
    hay: list[int] = []
    for text in texts:
        hay += encode(text)
    longest = max(plan.lengths)
    if len(hay) < 2 * longest:
        raise ValueError(
            f"Needles are hidden in at least {2 * longest} tokens of text; there are {len(hay)}."
        )
    order = random.Random(seed)
    book = _Book(() if bos is None else (bos,), _values(plan.words, encode), plan, encode)
    found = []
    for task, length, depth in product(plan.tasks, plan.lengths, plan.depths):
        cell = f"{task}_{length}_{round(100 * depth)}"
        for _ in range(plan.count):
            start = order.randrange(len(hay) - length)
            found.append(_question(cell, depth, hay[start : start + length], order, book))
    return found


def ask(model: LanguageModel, asked: Sequence[Question], batch: int = 256) -> Hits:
    """Return which questions `model` answers right.

    A cache method sees the text without the question, is then asked, and answers from what it
    kept.
    """
    cells: dict[str, list[bool]] = {}
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        scores = _scores(model, part)
        for question, row in zip(part, scores, strict=True):
            best = max(range(1, len(row)), key=lambda index: row[index])
            cells.setdefault(question.cell, []).append(row[0] > row[best])
    return Hits({name: tuple(hits) for name, hits in cells.items()})


def able_cells(dense: Hits, candidates: int = CANDIDATES) -> list[str]:
    """Return the cells where the dense model's 95 % lower bound is above chance."""
    return [
        name
        for name, hits in dense.cells.items()
        if (wilson(sum(hits), len(hits)).low or 0.0) > 1 / candidates
    ]


def readings(variant: Hits, dense: Hits) -> list[Reading]:
    """Return the share of hits in each cell that the dense model can do, and over all of them."""
    found: list[Reading] = []
    mine: list[bool] = []
    theirs: list[bool] = []
    for cell in able_cells(dense):
        if cell not in variant.cells:
            continue
        found += _share(f"needle_{cell}", variant.cells[cell], dense.cells[cell])
        mine += variant.cells[cell]
        theirs += dense.cells[cell]
    return _share("needle_all", mine, theirs) + found if mine else []


def _share(name: str, mine: Sequence[bool], theirs: Sequence[bool]) -> list[Reading]:
    """Return a share of hits in percent with what the dense model has beside it."""
    lost = sum(a and not b for a, b in zip(theirs, mine, strict=True))
    gained = sum(b and not a for a, b in zip(theirs, mine, strict=True))
    share = wilson(sum(mine), len(mine))
    note = (
        f"dense {100 * sum(theirs) / len(theirs):.0f} %; {lost} lost, {gained} gained, "
        f"McNemar p = {mcnemar(lost, gained):.3g}"
    )
    return take(name, **(as_fields(share, 100) | {"note": note}))


def _values(words: Sequence[str], encode: Encode) -> list[tuple[str, tuple[int, ...]]]:
    """Return words with their ids after a space; only single tokens where there are enough."""
    pairs = [(word, tuple(encode(f" {word}"))) for word in dict.fromkeys(words)]
    single = [pair for pair in pairs if len(pair[1]) == 1]
    enough = single if len(single) >= CANDIDATES else pairs
    if len(enough) < CANDIDATES:
        raise ValueError(f"A needle needs {CANDIDATES} different words, not {len(enough)}.")
    return enough


def _question(
    cell: str, depth: float, filler: list[int], order: random.Random, book: _Book
) -> Question:
    """Return one question: facts of a task spread through filler text of a fixed length."""
    chosen = order.sample(book.values, CANDIDATES)
    keys = order.sample(book.plan.keys, 4)
    facts, tail = _facts(cell.split("_")[0], depth, chosen, keys, order, book.plan)
    if tail.endswith(" and"):
        # The value the question itself names stays a candidate, as the last.
        chosen = [chosen[0], *chosen[2:], chosen[1]]
    pieces = sorted(
        (place, index, list(book.encode(text))) for index, (place, text) in enumerate(facts)
    )
    room = len(filler) - len(book.head)
    space = room - sum(len(piece) for _, _, piece in pieces)
    context, used = list(book.head), 0
    for place, _, piece in pieces:
        cut = max(used, min(space, round(place * space)))
        context += filler[used:cut] + piece
        used = cut
    context += filler[used:space]
    return Question(
        cell,
        tuple(context),
        (*book.head, *filler[:room]),
        tuple(book.encode(tail)),
        tuple(ids for _, ids in chosen),
    )


def _facts(  # noqa: PLR0917
    task: str,
    depth: float,
    chosen: Sequence[tuple[str, tuple[int, ...]]],
    keys: Sequence[str],
    order: random.Random,
    plan: Plan,
) -> tuple[list[tuple[float, str]], str]:
    """Return the facts of a task with their places, and its question."""
    right, other = chosen[0][0], chosen[1][0]
    facts = [(depth, plan.fact.format(key=keys[0], value=right))]
    question = plan.question.format(key=keys[0])
    if task == "multikey":
        facts += [
            (order.random(), plan.fact.format(key=keys[place], value=chosen[place][0]))
            for place in (1, 2)
        ]
    elif task == "multivalue":
        # Two values under one key: asked for is the one that the question does not name.
        facts.append((order.random(), plan.fact.format(key=keys[0], value=other)))
        question = f"{question} {other} and"
    elif task == "tracking":
        same = f" The {keys[1]} word is the same as the {keys[0]} word."
        facts.append((min(1.0, depth + 0.05), same))
        question = plan.question.format(key=keys[1])
    return facts, question


def _scores(model: LanguageModel, asked: Sequence[Question]) -> list[list[float]]:
    """Return for each question the score of each candidate with the fact, less that without."""
    if all(len(ids) == 1 for question in asked for ids in question.values):
        told = _next(model, [each.context for each in asked], [each.tail for each in asked])
        blind = _next(model, [each.without for each in asked], [each.tail for each in asked])
        gain = told - blind
        return [
            [float(gain[row, ids[0]]) for ids in question.values]
            for row, question in enumerate(asked)
        ]
    return [
        [told - blind for told, blind in zip(with_fact, without, strict=True)]
        for with_fact, without in zip(
            _endings(model, asked, [each.context for each in asked]),
            _endings(model, asked, [each.without for each in asked]),
            strict=True,
        )
    ]


@torch.inference_mode()
def _next(
    model: LanguageModel, contexts: Sequence[tuple[int, ...]], tails: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """Return log-probabilities [n, V] of the token after context and tail, through a session."""
    result: list[torch.Tensor | None] = [None] * len(contexts)
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (context, tail) in enumerate(zip(contexts, tails, strict=True)):
        groups.setdefault((len(context), len(tail)), []).append(index)
    for (length, extra), members in groups.items():
        for start in range(0, len(members), max(1, 8192 // length)):
            rows = members[start : start + max(1, 8192 // length)]
            session = model.session(len(rows), length + extra)
            session.read(torch.tensor([contexts[row] for row in rows], device=model.device))
            logits = session.read(torch.tensor([tails[row] for row in rows], device=model.device))
            scores = logits.float().log_softmax(-1).cpu()
            for row, line in zip(rows, scores, strict=True):
                result[row] = line
    return torch.stack([line for line in result if line is not None])


def _endings(
    model: LanguageModel, asked: Sequence[Question], contexts: Sequence[tuple[int, ...]]
) -> list[list[float]]:
    """Return the log-probability of each candidate of several tokens."""
    heads, endings = [], []
    for question, context in zip(asked, contexts, strict=True):
        for ids in question.values:
            heads.append(context)
            endings.append((*question.tail, *ids))
    with_tail = continuations(model, heads, endings)
    width = CANDIDATES
    return [
        [each.log_probability for each in with_tail[start : start + width]]
        for start in range(0, len(with_tail), width)
    ]
