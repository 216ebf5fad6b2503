"""Sums, differences and products of small numbers, some pairs of which are never taught."""

from random import Random

from data.world import words
from data.world.items import Item

LARGEST = 20
LARGEST_FACTOR = 9


def held_out(first: int, second: int) -> bool:
    """Say whether training text never calculates with these two numbers, in any order.

    A fixed rule keeps about one pair in eight back, so that a correct answer for such a pair
    shows calculation rather than memory.
    """
    low, high = sorted((first, second))
    return low > 1 and (5 * low + 3 * high) % 7 == 0


def trained(random: Random) -> Item:
    """Return a question whose pair of numbers training text may contain."""
    return _question(random, kept_back=False)


def unseen(random: Random) -> Item:
    """Return a question whose pair of numbers training text never contains."""
    return _question(random, kept_back=True)


def _question(random: Random, *, kept_back: bool) -> Item:
    form = random.choice((_sum, _difference, _product, _gain, _loss))
    largest = LARGEST_FACTOR if form is _product else LARGEST
    first, second = random.randint(0, largest), random.randint(0, largest)
    while held_out(first, second) != kept_back:
        first, second = random.randint(0, largest), random.randint(0, largest)
    if form in (_difference, _loss):
        first, second = max(first, second), min(first, second)
    return form(random, first, second)


def _sum(_: Random, first: int, second: int) -> Item:
    return Item(f"{first} + {second} =", f" {first + second}")


def _difference(_: Random, first: int, second: int) -> Item:
    return Item(f"{first} - {second} =", f" {first - second}")


def _product(_: Random, first: int, second: int) -> Item:
    return Item(f"{first} * {second} =", f" {first * second}")


def _gain(random: Random, first: int, second: int) -> Item:
    owner, things = random.choice(words.PEOPLE), words.plural(words.skewed(random, words.THINGS))
    story = f"{owner} counts {first} {things} and then {second} more."
    return Item(f"{story}\nQuestion: How many {things} are there?\nAnswer:", f" {first + second}")


def _loss(random: Random, first: int, second: int) -> Item:
    owner, things = random.choice(words.PEOPLE), words.plural(words.skewed(random, words.THINGS))
    story = f"{owner} counts {first} {things} and gives {second} away."
    return Item(f"{story}\nQuestion: How many {things} are left?\nAnswer:", f" {first - second}")
