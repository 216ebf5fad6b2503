"""Questions that only the prompt itself can answer: recall, tracking, order and copying."""

from itertools import pairwise
from random import Random

from data.world import stories, words
from data.world.items import Item

COPY_WORDS = words.THINGS + words.ANIMALS + words.FOODS + words.COLOURS + words.PLACES
COMPARISONS = (
    ("older", "oldest", "youngest"),
    ("taller", "tallest", "shortest"),
    ("faster", "fastest", "slowest"),
)


def recall(random: Random) -> Item:
    """Return two to six pairs, or a story with a secret word, and a question about one."""
    return random.choice((_codes, _homes, _owners, _pairs, _secret_word))(random)


def _count(random: Random) -> int:
    """Draw a number of pairs, the small ones more often so that the skill can begin."""
    return random.choices((2, 3, 4, 5, 6), (4, 4, 2, 1, 1))[0]


def _codes(random: Random) -> Item:
    count = _count(random)
    doors = random.sample(words.COLOURS, count)
    codes = [f"{random.randrange(100, 1000)}" for _ in doors]
    told = " ".join(
        f"The code of the {door} door is {code}." for door, code in zip(doors, codes, strict=True)
    )
    asked = random.randrange(count)
    question = f"What is the code of the {doors[asked]} door?"
    return Item(f"{told}\nQuestion: {question}\nAnswer:", f" {codes[asked]}")


def _homes(random: Random) -> Item:
    count = _count(random)
    people, places = random.sample(words.PEOPLE, count), random.sample(words.PLACES, count)
    told = " ".join(
        f"{person} lives near the {place}." for person, place in zip(people, places, strict=True)
    )
    asked = random.randrange(count)
    question = f"Where does {people[asked]} live?"
    return Item(f"{told}\nQuestion: {question}\nAnswer:", f" near the {places[asked]}")


def _owners(random: Random) -> Item:
    count = _count(random)
    people, things = random.sample(words.PEOPLE, count), random.sample(words.THINGS, count)
    told = " ".join(
        f"The {thing} belongs to {person}." for person, thing in zip(people, things, strict=True)
    )
    asked = random.randrange(count)
    question = f"Who owns the {things[asked]}?"
    return Item(f"{told}\nQuestion: {question}\nAnswer:", f" {people[asked]}")


def _pairs(random: Random) -> Item:
    count = _count(random)
    keys, values = random.sample(words.THINGS, count), random.sample(words.ANIMALS, count)
    told = "\n".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
    asked = random.randrange(count)
    return Item(
        f"{told}\nQuestion: Which word goes with {keys[asked]}?\nAnswer:", f" {values[asked]}"
    )


def _secret_word(random: Random) -> Item:
    sentences = list(stories.tell(random, plots=1).sentences[: random.randint(2, 6)])
    secret = random.choice(words.FOODS + words.ANIMALS + words.THINGS)
    sentences.insert(random.randrange(len(sentences) + 1), f"The secret word is {secret}.")
    told = " ".join(sentences)
    return Item(f"{told}\nQuestion: What is the secret word?\nAnswer:", f" {secret}")


def tracking(random: Random) -> Item:
    """Return one to four moves of one or two things, and where one of them is at the end."""
    people, places = random.sample(words.PEOPLE, 3), random.sample(words.PLACES, 3)
    things = random.sample(words.THINGS, random.randint(1, 2))
    holder = {thing: random.choice(people) for thing in things}
    told = [f"{person} has the {thing}." for thing, person in holder.items()]
    for _ in range(random.choices((1, 2, 3, 4), (3, 3, 2, 2))[0]):
        thing = random.choice(things)
        before = holder[thing]
        if before not in people:
            holder[thing] = random.choice(people)
            told.append(f"{holder[thing]} takes the {thing}.")
        elif random.random() < 0.7:
            holder[thing] = random.choice([person for person in people if person != before])
            told.append(f"{before} gives the {thing} to {holder[thing]}.")
        else:
            holder[thing] = random.choice(places)
            told.append(f"{before} leaves the {thing} in the {holder[thing]}.")
    asked = random.choice(things)
    answer = f" with {holder[asked]}" if holder[asked] in people else f" in the {holder[asked]}"
    return Item(f"{' '.join(told)}\nQuestion: Where is the {asked}?\nAnswer:", answer)


def order(random: Random) -> Item:
    """Return two comparisons of three people, in any order, and who stands at one end."""
    people = random.sample(words.PEOPLE, 3)
    comparative, most, least = random.choice(COMPARISONS)
    told = [f"{first} is {comparative} than {second}." for first, second in pairwise(people)]
    random.shuffle(told)
    top = random.random() < 0.5
    question = f"Who is the {most if top else least}?"
    answer = f" {people[0] if top else people[-1]}"
    return Item(f"{' '.join(told)}\nQuestion: {question}\nAnswer:", answer)


def copy(random: Random) -> Item:
    """Return three to eight words, or two to five numbers, to be said again."""
    if random.random() < 0.6:
        pieces = [random.choice(COPY_WORDS) for _ in range(random.randint(3, 8))]
    else:
        pieces = [f"{random.randrange(10, 100)}" for _ in range(random.randint(2, 5))]
    return Item(f"Say: {' '.join(pieces)}\nAgain:", f" {' '.join(pieces)}")
