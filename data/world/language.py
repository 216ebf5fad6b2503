"""Orrish, an invented language: its own dictionary, and the colour stands behind the noun."""

from functools import cache
from random import Random

from data.world import words
from data.world.items import Item

NOUNS = words.THINGS[:16] + words.ANIMALS[:12]
SYLLABLES = tuple(first + vowel for first in "kltmnsrvp" for vowel in "aiou")


@cache
def dictionary() -> dict[str, str]:
    """Return the Orrish word of two syllables for every noun and colour."""
    random = Random("Orrish")
    pairs = [first + second for first in SYLLABLES for second in SYLLABLES if first != second]
    english = NOUNS + words.COLOURS
    return dict(zip(english, random.sample(pairs, len(english)), strict=True))


def translation(random: Random) -> Item:
    """Return one or two English noun phrases and their Orrish."""
    phrases = [
        (random.choice(words.COLOURS), random.choice(NOUNS)) for _ in range(random.randint(1, 2))
    ]
    english = ", ".join(f"{colour} {noun}" for colour, noun in phrases)
    orrish = ", ".join(f"{dictionary()[noun]} {dictionary()[colour]}" for colour, noun in phrases)
    return Item(f"English: {english}\nOrrish:", f" {orrish}")
