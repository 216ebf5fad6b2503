"""The words of the invented world, most frequent first, and how English bends them."""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from random import Random


def listed(text: str) -> tuple[str, ...]:
    """Return the words of `text`."""
    return tuple(text.split())


BOYS = listed(
    "Tom Ben Max Sam Leo Finn Jack Otto Hugo Felix Noah Owen Theo Luke Oscar Ravi Amir Kofi Diego "
    "Ivan Pavel Milo Arlo Jasper Edwin Rufus Silas Bram"
)
GIRLS = listed(
    "Mia Anna Lily Rosa Ella Nora Ivy Clara Ada Zoe Ruby Maya Freya Tessa Wren Leila Amina Sonia "
    "Priya Ines Greta Hilda Olive Pearl Thea Una Vera Willa"
)
PEOPLE = BOYS + GIRLS
PLACES = listed(
    "garden kitchen barn mill forest market harbour tower library bakery stable cellar attic "
    "meadow bridge school orchard workshop castle cave beach hill village station theatre museum "
    "lighthouse quarry chapel courtyard dairy tavern"
)
THINGS = listed(
    "ball lamp key book coat cup rope box hat drum kite spoon map coin ring bell shoe basket "
    "ladder candle hammer blanket whistle mirror lantern saddle bucket needle violin compass "
    "feather pebble ribbon bottle wheel brush umbrella crown pillow button kettle anchor puzzle "
    "marble trumpet scarf"
)
ANIMALS = listed(
    "dog cat fox hen goat rabbit mouse horse owl bear frog duck wolf sheep crow donkey hedgehog "
    "otter badger swan turtle squirrel heron beetle mole raven pony lizard"
)
FOODS = listed(
    "bread soup honey cheese cake porridge milk tea jam pie butter rice stew cream pudding toast "
    "salad ginger barley pepper chocolate garlic cider spinach"
)
ADJECTIVES = listed(
    "little big old small happy quiet brave kind clever bright heavy strange golden lazy gentle "
    "proud soft noisy dusty wooden shy tiny tall curious patient broken warm cold rusty hollow "
    "crooked velvet round narrow famous plain"
)
COLOURS = listed("red blue green yellow white black brown pink grey purple")
FEELINGS = listed("happy calm proud cheerful grateful glad merry content")
MOODS = listed("sad tired angry afraid hungry lonely worried jealous bored thirsty")
JOBS = listed(
    "baker farmer teacher sailor painter tailor smith hunter singer miller potter weaver judge "
    "gardener fisher carpenter cobbler printer shepherd clockmaker barber brewer cook dancer "
    "guard glazier mason butcher"
)
WEATHERS = listed("sunny rainy windy cold snowy foggy warm stormy cloudy bright")
TIMES = listed("morning evening afternoon night day summer winter autumn spring")
SEASONS = listed("summer winter autumn spring")
RELATIVES = listed("mother father grandmother grandfather sister brother aunt uncle")
NUMBERS = listed("zero one two three four five six seven eight nine ten eleven twelve")
BARRIERS = (
    "the high hill",
    "the wide river",
    "the dark wood",
    "the long wall",
    "the narrow road",
    "the deep snow",
    "the iron gate",
    "the black lake",
    "the steep rocks",
)
MORALS = (
    "it is good to share",
    "a friend is worth more than gold",
    "small steps climb tall hills",
    "a promise should be kept",
    "it is better to ask than to guess",
    "kind words cost nothing",
    "haste makes more work",
    "everyone can learn",
    "the truth is easier to remember",
    "many hands make light work",
    "even the smallest can help",
    "patience opens many doors",
    "nobody is too old to play",
    "a closed door tells no stories",
    "whoever waits hears the birds",
    "a full basket is heavy to carry",
)
CRAFTS = tuple(
    f"{material} {product}"
    for product, materials in {
        "bells": "copper silver clay",
        "boats": "paper oak",
        "bread": "rye ginger",
        "carpets": "wool silk",
        "cheese": "white blue",
        "clocks": "brass water",
        "dolls": "wooden straw",
        "glass": "green red",
        "gloves": "lace leather",
        "hats": "straw felt",
        "kites": "silk paper",
        "lamps": "oil glass",
        "masks": "clay gold",
        "oil": "pine rose",
        "rings": "amber iron",
        "soap": "rose honey",
        "tea": "black mint",
        "wine": "plum apple",
    }.items()
    for material in materials.split()
)

IRREGULAR_PLURALS = {"mouse": "mice", "sheep": "sheep", "wolf": "wolves", "scarf": "scarves"}


def plural(noun: str) -> str:
    """Return the plural of `noun`: key, keys; box, boxes; pony, ponies; mouse, mice."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def with_article(words: str) -> str:
    """Return `words` behind "a" or "an"."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def skewed(random: Random, words: Sequence[str], steepness: float = 0.7) -> str:
    """Draw one of `words`, the first ones more often (Zipf's law with this `steepness`)."""
    return random.choices(words, cum_weights=_cumulative(len(words), steepness))[0]


@cache
def _cumulative(count: int, steepness: float) -> tuple[float, ...]:
    return tuple(accumulate((rank + 2) ** -steepness for rank in range(count)))
