"""Names that no language has, made of syllables."""

from random import Random

from data.world.words import listed

STARTS = listed("b br c d dr f g gr h j k kl l m n p pr qu r s sk st t tr v w y z")
VOWELS = listed("a e i o u ai ei oa")
MIDDLES = listed("l r n m st nd rk v lm rn ss th d g")


def invent(random: Random, count: int, endings: tuple[str, ...], taken: set[str]) -> list[str]:
    """Return `count` new capitalised names of 4 to 9 letters, and add them to `taken`."""
    names: list[str] = []
    while len(names) < count:
        syllables = [random.choice(STARTS), random.choice(VOWELS), random.choice(MIDDLES)]
        if random.random() < 0.3:
            syllables += [random.choice(VOWELS), random.choice(MIDDLES)]
        name = "".join([*syllables, random.choice(endings)]).capitalize()
        if name not in taken and 4 <= len(name) <= 9:
            taken.add(name)
            names.append(name)
    return names
