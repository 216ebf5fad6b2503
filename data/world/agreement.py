"""Subject and verb: the number of the subject decides, not that of the noun in between."""

from random import Random

from data.world import words
from data.world.items import Item

# A sheep and its plural are one word, so its verb could not be wrong.
NOUNS = tuple(noun for noun in words.ANIMALS + words.THINGS if noun != words.plural(noun))
PREPOSITIONS = ("near", "behind", "beside", "with", "under", "above")
VERBS = (
    (" runs", " run", "."),
    (" sings", " sing", "."),
    (" sleeps", " sleep", "."),
    (" waits", " wait", "."),
    (" looks", " look", " old."),
    (" is", " are", " quiet."),
    (" was", " were", " lost."),
    (" needs", " need", " help."),
    (" smells", " smell", " sweet."),
    (" has", " have", " a story."),
)


def agreement(random: Random) -> Item:
    """Return a sentence up to its verb, the verb form that agrees, and the one that does not."""
    return _clause(random)[0]


def sentence(random: Random) -> str:
    """Return a whole sentence in which subject and verb agree."""
    item, rest = _clause(random)
    return item.text + rest


def _clause(random: Random) -> tuple[Item, str]:
    one, many, rest = random.choice(VERBS)
    subject, other = words.skewed(random, NOUNS, 0.4), words.skewed(random, NOUNS, 0.4)
    singular, misleading = random.random() < 0.5, random.random() < 0.7
    other_is_plural = singular == misleading
    subject = subject if singular else words.plural(subject)
    other = words.plural(other) if other_is_plural else other
    prompt = f"The {subject} {random.choice(PREPOSITIONS)} the {other}"
    return (Item(prompt, one, many) if singular else Item(prompt, many, one)), rest
