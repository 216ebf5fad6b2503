"""Questions with right answers, asked without sampling: what perplexity hides.

An item is answered by teacher forcing or by comparing endings; nothing is generated.
"""

from __future__ import annotations

import random
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from backend.measure import statistics
from backend.measure.axes import ABILITIES
from backend.measure.passes import continuations
from backend.measure.reading import Reading, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from backend.decoding.model import LanguageModel
    from backend.measure.passes import Continuation


@dataclass(frozen=True)
class Item:
    """A question of one ability.

    Attributes:
        ability: its name, a word.
        prompt: what stands before the answer.
        answer: the right ending, with the space that separates it, if any.
        alternatives: wrong endings; without any, each token of the answer must be the first
            choice; with some, the answer must be likelier than all of them.
        per_byte: compare log-probabilities per byte, for endings of unequal length.
    """

    ability: str
    prompt: str
    answer: str
    alternatives: tuple[str, ...] = ()
    per_byte: bool = False


@dataclass(frozen=True)
class Outcomes:
    """What one model made of a list of items, in their order.

    Attributes:
        abilities: ability of each item.
        correct: whether it was answered right.
        choices: which ending won, 0 being the answer; 1 for a miss without alternatives.
    """

    abilities: tuple[str, ...]
    correct: tuple[bool, ...]
    choices: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, to be kept for the dense model."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Outcomes:
        """Return the outcomes `to_json` wrote."""
        return cls(*(tuple(fields[name]) for name in ("abilities", "correct", "choices")))


def answer(
    model: LanguageModel,
    items: Sequence[Item],
    encode: Callable[[str], Sequence[int]],
    *,
    bos: int | None,
) -> Outcomes:
    """Return the outcomes of `items`.

    Args:
        model: who is asked.
        items: the questions.
        encode: text to ids without special tokens.
        bos: id that opens each prompt, if there is one.
    """
    heads, endings, owners = [], [], []
    opening = [] if bos is None else [bos]
    for index, item in enumerate(items):
        for ending in (item.answer, *item.alternatives):
            head, tail = _split(item.prompt, ending, encode)
            heads.append([*opening, *head] or tail[:1])
            endings.append(tail)
            owners.append(index)
    scores: list[list[Continuation]] = [[] for _ in items]
    for owner, score in zip(owners, continuations(model, heads, endings), strict=True):
        scores[owner].append(score)
    choices = [_choice(item, found) for item, found in zip(items, scores, strict=True)]
    return Outcomes(
        tuple(item.ability for item in items),
        tuple(choice == 0 for choice in choices),
        tuple(choices),
    )


def readings(outcomes: Outcomes, dense: Outcomes | None = None) -> list[Reading]:
    """Return the accuracy of each ability and group of them, and the flips against `dense`.

    Intervals are Wilson's. A group counts all questions of its abilities alike.
    """
    if dense is not None and dense.abilities != outcomes.abilities:
        raise ValueError("Flips are counted over the same items in the same order; these differ.")
    found: list[Reading] = []
    for group, own in ABILITIES.items():
        found += _accuracy(f"kick_{group}", outcomes, dense, own)
    for ability in dict.fromkeys(outcomes.abilities):
        found += _accuracy(f"ability_{ability}", outcomes, dense, (ability,))
    if dense is not None and outcomes.correct:
        everything = list(range(len(outcomes.correct)))
        flipped, note = _change(outcomes, dense, everything)
        share = statistics.wilson(flipped, len(everything))
        found += take("flips", **(statistics.as_fields(share, 100) | {"note": note}))
    return found


def choice_items(
    documents: Iterable[tuple[str, str, str]], count: int = 256, seed: int = 0
) -> list[Item]:
    """Return multiple-choice items from held-out text, named `choice`.

    The context is two sentences, the answer the one that follows; three sentences of other
    documents, nearest in length, stand against it. Chance is 25 %.

    Args:
        documents: (name, kind, text).
        count: most items.
        seed: of the choice of places.
    """
    order = random.Random(seed)
    places: list[tuple[int, str, str]] = []
    for number, (_, _, text) in enumerate(documents):
        sentences = re.findall(r"[^.!?]+[.!?][\"'”’]?", " ".join(text.split()))
        for start in range(0, len(sentences) - 2, 3):
            context = "".join(sentences[start : start + 2]).strip()
            ending = sentences[start + 2].strip()
            if len(ending) >= 20:
                places.append((number, context, ending))
    order.shuffle(places)
    pool = sorted(((len(ending), ending, number) for number, _, ending in places), key=lambda x: x)
    items = []
    for number, context, ending in places[:count]:
        others = [each for each in pool if each[2] != number and each[1] != ending]
        others.sort(key=lambda each: (abs(each[0] - len(ending)), each[1]))
        wrong = list(dict.fromkeys(text for _, text, _ in others[:12]))[:3]
        if len(wrong) == 3:
            endings = tuple(f" {text}" for text in wrong)
            items.append(Item("choice", context, f" {ending}", endings, per_byte=True))
    return items


def _split(
    prompt: str, ending: str, encode: Callable[[str], Sequence[int]]
) -> tuple[list[int], list[int]]:
    """Return ids of prompt and ending, cut where the prompt alone would end if that is possible."""
    head, whole = list(encode(prompt)), list(encode(prompt + ending))
    if whole[: len(head)] == head and len(whole) > len(head):
        return head, whole[len(head) :]
    return head, list(encode(ending))


def _choice(item: Item, scores: Sequence[Continuation]) -> int:
    """Return the ending a model prefers; a broken or undecided one is never the answer."""
    if not item.alternatives:
        return 0 if scores[0].exact and scores[0].finite else 1
    values = []
    for ending, score in zip((item.answer, *item.alternatives), scores, strict=True):
        weight = len(ending.encode()) if item.per_byte else 1
        values.append(score.log_probability / weight if score.finite else float("-inf"))
    best = max(range(1, len(values)), key=lambda index: values[index])
    return 0 if values[0] > values[best] else best


def _accuracy(
    name: str, outcomes: Outcomes, dense: Outcomes | None, abilities: Sequence[str]
) -> list[Reading]:
    """Return the share of right answers to these abilities; nothing where none was asked."""
    members = [index for index, each in enumerate(outcomes.abilities) if each in abilities]
    if not members:
        return []
    share = statistics.wilson(sum(outcomes.correct[index] for index in members), len(members))
    note = ""
    if dense is not None:
        before = sum(dense.correct[index] for index in members)
        note = f"dense {100 * before / len(members):.0f} %; {_change(outcomes, dense, members)[1]}"
    return take(name, **(statistics.as_fields(share, 100) | {"note": note}))


def _change(outcomes: Outcomes, dense: Outcomes, members: Sequence[int]) -> tuple[int, str]:
    """Return the flips among `members` and a sentence about them."""
    lost = sum(dense.correct[index] and not outcomes.correct[index] for index in members)
    gained = sum(outcomes.correct[index] and not dense.correct[index] for index in members)
    chance = statistics.mcnemar(lost, gained)
    return lost + gained, f"{lost} lost, {gained} gained; McNemar p = {chance:.3g}"
