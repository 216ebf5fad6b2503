"""Documents of the invented world: stories, passages of facts, exercises, and mixtures of them."""

from collections.abc import Callable
from random import Random

from data.world import agreement, arithmetic, knowledge, language, stories, tasks
from data.world.items import Item

ABILITIES: dict[str, Callable[[Random], Item]] = {
    "recall": tasks.recall,
    "tracking": tasks.tracking,
    "order": tasks.order,
    "copy": tasks.copy,
    "arithmetic": arithmetic.trained,
    "language": language.translation,
}
# How many exercises of one ability a training document holds, at most.
EXERCISES = {"recall": 2, "tracking": 3, "order": 3, "copy": 3, "arithmetic": 6, "language": 5}


def story(random: Random) -> str:
    """Return a story; some have a sentence in them whose subject is far from its verb."""
    sentences = list(stories.tell(random).sentences)
    if random.random() < 0.4:
        sentences.insert(random.randrange(1, len(sentences)), agreement.sentence(random))
    return " ".join(sentences)


def facts(random: Random) -> str:
    """Return statements about a few entities, and questions with their answers."""
    return knowledge.passage(random)


def sentences(random: Random) -> str:
    """Return a few sentences in which subject and verb agree."""
    return " ".join(agreement.sentence(random) for _ in range(random.randint(3, 7)))


def exercises(ability: str) -> Callable[[Random], str]:
    """Return a maker of documents that exercise one ability of `ABILITIES`."""

    def make(random: Random) -> str:
        count = random.randint(1, EXERCISES[ability])
        return "\n".join(ABILITIES[ability](random).text for _ in range(count))

    return make


def mixed(random: Random) -> str:
    """Return four to seven exercises of any ability, among them questions about facts."""
    return "\n".join(_exercise(random).text for _ in range(random.randint(4, 7)))


def _exercise(random: Random) -> Item:
    ability = random.choice(("facts", *ABILITIES))
    if ability != "facts":
        return ABILITIES[ability](random)
    entity = knowledge.draw(random)
    return entity.ask(random.choice(tuple(entity.facts)))


KINDS: dict[str, Callable[[Random], str]] = {
    "story": story,
    "facts": facts,
    "mixed": mixed,
    "agreement": sentences,
    **{ability: exercises(ability) for ability in ABILITIES},
}
