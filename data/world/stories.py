"""Stories told from `plots.txt`: a cast, an opening, one or two plots and a closing."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from data.world import words
from data.world.arithmetic import held_out

Beat = tuple[str, ...]

LEXICON: Mapping[str, tuple[str, ...]] = {
    "thing": words.THINGS,
    "animal": words.ANIMALS,
    "place": words.PLACES,
    "food": words.FOODS,
    "adjective": words.ADJECTIVES,
    "colour": words.COLOURS,
    "job": words.JOBS,
    "weather": words.WEATHERS,
    "time": words.TIMES,
    "number": words.NUMBERS[2:],
}
PLURALS = {"things": "thing", "tools": "tool", "animals": "animal", "beasts": "beast"}


class Cast(dict):
    """The words that fill the braces of one story; a missing one is derived or drawn."""

    def __init__(self, random: Random):
        self.random = random
        super().__init__(_roles(random))

    def __missing__(self, slot: str) -> str:
        """Return `slot` capitalised, with an article, in the plural, or drawn afresh."""
        if slot[0].isupper():
            return capital(self[slot.lower()])
        if slot.startswith("a_"):
            return words.with_article(self[slot[2:]])
        if slot in PLURALS:
            return words.plural(self[PLURALS[slot]])
        name = slot.removeprefix("new_")
        if name in PLURALS:
            return words.plural(words.skewed(self.random, LEXICON[PLURALS[name]]))
        return words.skewed(self.random, LEXICON[name])


@dataclass(frozen=True)
class Telling:
    """A story as its sentences, and the cast it was told with."""

    sentences: tuple[str, ...]
    cast: Cast


def tell(random: Random, plots: int | None = None) -> Telling:
    """Tell a story of `plots` plots, or of one or two."""
    cast = Cast(random)
    count = plots or random.choices((1, 2), (1, 2))[0]
    sentences = _part(cast, "opening")
    for number, plot in enumerate(random.sample(plot_names(), count)):
        if number:
            sentences += _one(cast, "bridge")
        sentences += _part(cast, plot)
        if random.random() < 0.6:
            place = random.randrange(3, len(sentences))
            sentences[place:place] = _one(cast, "interlude")
    return Telling(tuple(sentences + _one(cast, "closing")), cast)


def beginning(random: Random, plot: str) -> str:
    """Return the opening of a story and the first sentence of the named `plot`."""
    cast = Cast(random)
    return " ".join([*_part(cast, "opening"), *_sentence(cast, parts()[plot][0])])


def plot_names() -> tuple[str, ...]:
    """Return the names of all plots."""
    return tuple(name for name in parts() if name.startswith("the "))


@cache
def parts() -> dict[str, tuple[Beat, ...]]:
    """Return every part of `plots.txt`: its beats, each with the sentences to choose from."""
    found: dict[str, list[Beat]] = {}
    for line in Path(__file__).with_name("plots.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            beats = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            beats.append(tuple(line.split(" | ")))
    return {name: tuple(beats) for name, beats in found.items()}


def capital(sentence: str) -> str:
    """Return `sentence` with its first letter large, behind a quotation mark if there is one."""
    start = 1 if sentence.startswith('"') else 0
    return sentence[:start] + sentence[start].upper() + sentence[start + 1 :]


def _roles(random: Random) -> dict[str, str]:
    """Draw who and what one story is about."""
    hero, friend = random.sample(words.PEOPLE, 2)
    thing, tool = random.sample(words.THINGS, 2)
    animal, beast = random.sample(words.ANIMALS, 2)
    food, treat = random.sample(words.FOODS, 2)
    place, far = random.sample(words.PLACES, 2)
    job, craft = random.sample(words.JOBS, 2)
    few, rest = random.randint(2, 6), random.randint(2, 6)
    while held_out(few, rest) or held_out(few + rest, few):
        few, rest = random.randint(2, 6), random.randint(2, 6)
    return {
        "hero": hero,
        "friend": friend,
        "thing": thing,
        "tool": tool,
        "animal": animal,
        "beast": beast,
        "food": food,
        "treat": treat,
        "place": place,
        "far": far,
        "job": job,
        "craft": craft,
        "few": words.NUMBERS[few],
        "rest": words.NUMBERS[rest],
        "many": words.NUMBERS[few + rest],
        "trait": words.skewed(random, words.ADJECTIVES),
        "look": words.skewed(random, words.ADJECTIVES),
        "colour": random.choice(words.COLOURS),
        "weather": random.choice(words.WEATHERS),
        "time": random.choice(words.TIMES),
        "season": random.choice(words.SEASONS),
        "feeling": random.choice(words.FEELINGS),
        "mood": random.choice(words.MOODS),
        "relative": random.choice(words.RELATIVES),
        "barrier": random.choice(words.BARRIERS),
        "moral": random.choice(words.MORALS),
        **_pronouns(hero),
        **{f"f{word}": pronoun for word, pronoun in _pronouns(friend).items()},
    }


def _pronouns(name: str) -> dict[str, str]:
    boy = ("he", "him", "his", "himself")
    girl = ("she", "her", "her", "herself")
    return dict(zip(boy, boy if name in words.BOYS else girl, strict=True))


def _part(cast: Cast, name: str) -> list[str]:
    return [text for beat in parts()[name] for text in _sentence(cast, beat)]


def _one(cast: Cast, name: str) -> list[str]:
    return _sentence(cast, cast.random.choice(parts()[name]))


def _sentence(cast: Cast, beat: Beat) -> list[str]:
    template = cast.random.choice(beat)
    return [] if template == "-" else [capital(template.format_map(cast))]
