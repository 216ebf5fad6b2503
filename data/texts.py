"""The shipped texts: what methods calibrate on, and what every model is judged by.

`python -m data.texts` makes them anew; reading them needs neither torch nor the tokenizer.
Calibration and evaluation share no run of 13 words: the builder draws a document again until that
is so, and `overlap` lets anyone check a text of their own.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TypeVar

from data.tokenizer import END_TOKEN, shipped
from data.world import agreement, arithmetic, documents, knowledge, stories
from data.world.items import Item

FOLDER = Path(__file__).with_name("texts")
SHARED_WORDS = 13
CALIBRATION_DOCUMENTS = 160
CALIBRATION_TOKENS = 256
HELDOUT_DOCUMENTS = 360
HELDOUT_TOKENS = 200
ABILITY_ITEMS = 240
# One document in this many is a mixture of exercises, the others are stories.
MIXED_EVERY = {"calibration": 3, "heldout": 5}

Value = TypeVar("Value")


@dataclass(frozen=True)
class Document:
    """One text, whole, without the token that begins it."""

    id: str
    kind: str
    text: str


@dataclass(frozen=True)
class AbilityItem:
    """A prompt and the one right continuation; where there is a choice, also the wrong one."""

    ability: str
    prompt: str
    answer: str
    alternative: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A named beginning for a model to go on from."""

    name: str
    text: str


@cache
def calibration() -> tuple[Document, ...]:
    """Return the documents that methods may look at, each of at least 256 tokens."""
    return tuple(_read("calibration.jsonl", Document))


@cache
def heldout() -> tuple[Document, ...]:
    """Return the documents for perplexity and divergence, each of at least 200 tokens."""
    return tuple(_read("heldout.jsonl", Document))


@cache
def abilities() -> tuple[AbilityItem, ...]:
    """Return all ability items, ability by ability."""
    return tuple(_read("abilities.jsonl", AbilityItem))


@cache
def prompts() -> tuple[Prompt, ...]:
    """Return the 32 fixed prompts whose continuations are shown side by side."""
    entries = json.loads((FOLDER / "prompts.json").read_text("utf-8"))
    return tuple(Prompt(**entry) for entry in entries)


def overlap(texts: Iterable[str], others: Iterable[str], words: int = SHARED_WORDS) -> set[int]:
    """Return the indices of `texts` that share a run of `words` words with one of `others`.

    Words are what stands between spaces, in lower case; a text shorter than `words` shares none.
    """
    known = {run for other in others for run in _runs(other, words)}
    return {index for index, text in enumerate(texts) if not known.isdisjoint(_runs(text, words))}


def build(folder: Path = FOLDER) -> None:
    """Write all four files; the tokenizer of the embedded model must be there."""
    folder.mkdir(parents=True, exist_ok=True)
    questions, beginnings = _ability_items(), _prompts()
    judged = [item.prompt + item.answer for item in questions] + [p.text for p in beginnings]
    held = _documents("heldout", HELDOUT_DOCUMENTS, HELDOUT_TOKENS, ())
    judged += [document.text for document in held]
    seen = _documents("calibration", CALIBRATION_DOCUMENTS, CALIBRATION_TOKENS, judged)
    _write(folder / "heldout.jsonl", held)
    _write(folder / "calibration.jsonl", seen)
    _write(folder / "abilities.jsonl", questions)
    entries = json.dumps([asdict(prompt) for prompt in beginnings], indent=1)
    (folder / "prompts.json").write_text(entries + "\n", "utf-8")


def _documents(name: str, count: int, tokens: int, judged: Iterable[str]) -> list[Document]:
    """Return `count` documents of at least `tokens` tokens that share no run with `judged`."""
    known = {run for text in judged for run in _runs(text, SHARED_WORDS)}
    random = Random(name)
    found: list[Document] = []
    while len(found) < count:
        kind = "mixed" if len(found) % MIXED_EVERY[name] == 0 else "story"
        text = _mixture(random, tokens) if kind == "mixed" else documents.story(random)
        if _length(text) >= tokens and known.isdisjoint(_runs(text, SHARED_WORDS)):
            found.append(Document(f"{name}-{len(found):03d}", kind, text))
    return found


def _mixture(random: Random, tokens: int) -> str:
    """Return mixed exercises, as many as make up the wanted length."""
    parts = [documents.mixed(random)]
    while _length("\n".join(parts)) < tokens:
        parts.append(documents.mixed(random))
    return "\n".join(parts)


def _length(text: str) -> int:
    """Count the tokens of `text`, the one that begins it included."""
    return len([END_TOKEN, *shipped().encode(text).ids])


def _ability_items() -> list[AbilityItem]:
    """Return as many items of every ability, without repeating a prompt."""
    makers = {
        **documents.ABILITIES,
        "arithmetic-unseen": arithmetic.unseen,
        "agreement": agreement.agreement,
    }
    drawn = {name: _distinct(name, make) for name, make in makers.items()}
    for band in knowledge.BANDS:
        name = f"facts-{band}"
        drawn[name] = Random(name).sample(knowledge.questions(band), ABILITY_ITEMS)
    return [
        AbilityItem(ability, item.prompt, item.answer, item.alternative)
        for ability, items in drawn.items()
        for item in items
    ]


def _distinct(ability: str, make: Callable[[Random], Item]) -> list[Item]:
    random = Random(f"ability {ability}")
    items: dict[str, Item] = {}
    while len(items) < ABILITY_ITEMS:
        item = make(random)
        items.setdefault(item.prompt, item)
    return list(items.values())


def _prompts() -> list[Prompt]:
    """Return the beginning of a story for every plot, and one question of every kind."""
    random = Random("prompts")
    found = [Prompt(name, stories.beginning(random, name)) for name in stories.plot_names()]
    for ability, make in documents.ABILITIES.items():
        found.append(Prompt(f"a question of {ability}", make(random).prompt))
    for band in ("head", "tail"):
        question = random.choice(knowledge.questions(band))
        rarity = "a well-known fact" if band == "head" else "a rare fact"
        found.append(Prompt(rarity, question.prompt))
    return found


def _runs(text: str, words: int) -> Iterator[tuple[str, ...]]:
    folded = text.casefold().split()
    return (tuple(folded[start : start + words]) for start in range(len(folded) - words + 1))


def _read(name: str, kind: type[Value]) -> Iterator[Value]:
    with (FOLDER / name).open(encoding="utf-8") as lines:
        for line in lines:
            yield kind(**json.loads(line))


def _write(path: Path, values: Iterable[Document] | Iterable[AbilityItem]) -> None:
    """Write one value per line, without the fields that are not set."""
    with path.open("w", encoding="utf-8") as file:
        for value in values:
            fields = {name: entry for name, entry in asdict(value).items() if entry is not None}
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    build()
