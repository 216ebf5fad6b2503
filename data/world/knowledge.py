"""What is true in the invented world: 2,880 facts about 360 towns and 360 people.

An entity's rank says how often training text speaks of it: the first ones thousands of times, the
last ones a few dozen times, so that compression can be seen to lose rare facts first.
"""

from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from random import Random

from data.world import words
from data.world.items import Item
from data.world.names import invent

TOWNS = 360
PERSONS = 360
BANDS = {"head": range(60), "middle": range(60, 280), "tail": range(280, TOWNS + PERSONS)}
RANK_OFFSET = 8


@dataclass(frozen=True)
class Attribute:
    """One thing to know about an entity, how it is asked and how it is told."""

    question: str
    statements: tuple[str, ...]


ATTRIBUTES = {
    "land": Attribute(
        "In which land is {name}?", ("{name} is a town in {it}.", "The town of {name} is in {it}.")
    ),
    "river": Attribute(
        "Which river runs through {name}?",
        ("The river {it} runs through {name}.", "{name} stands on the river {it}."),
    ),
    "craft": Attribute(
        "What is {name} known for?",
        ("{name} is known for {it}.", "People visit {name} to buy {it}."),
    ),
    "flag": Attribute(
        "Which animal is on the flag of {name}?",
        ("The flag of {name} shows {a_it}.", "On the flag of {name} there is {a_it}."),
    ),
    "town": Attribute(
        "In which town was {name} born?",
        ("{name} was born in {it}.", "The home town of {name} is {it}."),
    ),
    "job": Attribute(
        "What is the work of {name}?", ("{name} works as {a_it}.", "{name} is {a_it} by trade.")
    ),
    "food": Attribute(
        "What does {name} like to eat?",
        ("{name} likes to eat {it}.", "The favourite food of {name} is {it}."),
    ),
    "pet": Attribute(
        "Which animal does {name} keep?", ("{name} keeps {a_it}.", "At home {name} has {a_it}.")
    ),
}


@dataclass(frozen=True)
class Entity:
    """A town or a person, with what is true of it by attribute."""

    name: str
    facts: dict[str, str]

    def ask(self, attribute: str) -> Item:
        """Return the question about one attribute, with its answer."""
        question = ATTRIBUTES[attribute].question.format(name=self.name)
        return Item(f"Question: {question}\nAnswer:", f" {self.facts[attribute]}")

    def tell(self, random: Random, attribute: str) -> str:
        """Return one attribute as a statement."""
        value = self.facts[attribute]
        statement = random.choice(ATTRIBUTES[attribute].statements)
        return statement.format(name=self.name, it=value, a_it=words.with_article(value))


@cache
def entities() -> tuple[Entity, ...]:
    """Return all entities by rank, the most spoken of first."""
    random = Random("knowledge")
    taken = set(words.PEOPLE)
    lands = invent(random, 24, ("ia", "land", "or", "mark", "esh"), taken)
    rivers = invent(random, 40, ("e", "en", "y", "ow", "ar"), taken)
    towns = invent(random, TOWNS, ("a", "ton", "by", "ford", "ica", "um", "wick"), taken)
    persons = invent(random, PERSONS, ("o", "in", "ak", "elle", "us", "ira", "ott"), taken)
    known = [
        Entity(
            town,
            {
                "land": random.choice(lands),
                "river": random.choice(rivers),
                "craft": random.choice(words.CRAFTS),
                "flag": random.choice(words.ANIMALS),
            },
        )
        for town in towns
    ]
    known += [
        Entity(
            person,
            {
                "town": random.choice(towns[:80]),
                "job": random.choice(words.JOBS),
                "food": random.choice(words.FOODS),
                "pet": random.choice(words.ANIMALS),
            },
        )
        for person in persons
    ]
    random.shuffle(known)
    return tuple(known)


def questions(band: str) -> tuple[Item, ...]:
    """Return every question about the entities of one band of `BANDS`."""
    return tuple(
        entities()[rank].ask(attribute)
        for rank in BANDS[band]
        for attribute in entities()[rank].facts
    )


def draw(random: Random) -> Entity:
    """Draw an entity, the first ones far more often (Zipf's law)."""
    return random.choices(entities(), cum_weights=_frequencies())[0]


def passage(random: Random) -> str:
    """Return statements or questions with answers about three or four entities."""
    blocks = []
    for _ in range(random.randint(3, 4)):
        entity = draw(random)
        attributes = random.sample(tuple(entity.facts), random.randint(2, 4))
        if random.random() < 0.5:
            blocks.append(" ".join(entity.tell(random, attribute) for attribute in attributes))
        else:
            blocks += [entity.ask(attribute).text for attribute in attributes]
    return "\n".join(blocks)


@cache
def _frequencies() -> tuple[float, ...]:
    return tuple(accumulate(1 / (rank + RANK_OFFSET) for rank in range(len(entities()))))
