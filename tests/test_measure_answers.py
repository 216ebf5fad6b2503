"""Abilities, writing and needles on models whose behaviour is written by hand."""

import pytest
import torch

from backend.measure import abilities, generations, needles
from backend.measure.abilities import Item, Outcomes
from backend.measure.axes import ABILITIES, AXES, READINGS
from backend.measure.catalogue import metric
from backend.measure.generations import Departure, Writing
from data import texts
from tests.tiny_model import TinyModel

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WORDS = ["<end>", *NUMBERS, *needles.WORDS]
WORDS += [*needles.KEYS, "The", "word", "is", "and", "same", "as", "the"]
WORDS = list(dict.fromkeys(WORDS))


def encode(text):
    return [WORDS.index(word.strip(".")) for word in text.split() if word.strip(".") in WORDS]


class Table:
    """Scores the next token by what `rule` says of all tokens so far; others get 0."""

    end_token, device = None, torch.device("cpu")

    def __init__(self, rule, cached=False):
        self.rule, self.vocabulary_size, self.has_cache_method = rule, len(WORDS), cached

    def logits(self, tokens):
        result = torch.zeros(*tokens.shape, self.vocabulary_size)
        for row, line in enumerate(tokens.tolist()):
            for place in range(len(line)):
                for token, value in self.rule(line[: place + 1]).items():
                    result[row, place, token] = value
        return result

    def session(self, batch, length):
        return TableSession(self, batch)


class TableSession:
    """Keeps all tokens and asks the table again."""

    def __init__(self, model, batch):
        self.model, self.tokens, self.length = model, torch.zeros(batch, 0, dtype=torch.int64), 0

    def feed(self, tokens):
        self.tokens = torch.cat([self.tokens, tokens], 1)
        self.length = self.tokens.shape[1]
        return self.model.logits(self.tokens)[:, -tokens.shape[1] :]

    def read(self, tokens):
        return self.feed(tokens)[:, -1]


def counting(line):
    return {line[-1] + 1: 5.0} if 1 <= line[-1] < 9 else {}


ITEMS = [
    Item("count", "one two", " three four"),
    Item("count", "one two", " three five"),
    Item("compare", "three", " four", (" nine",)),
    Item("compare", "three", " nine", (" four",)),
    Item("broken tie", "ten", " one", (" two",)),
]


@pytest.mark.parametrize("cached", [False, True])
def test_an_answer_is_right_if_every_token_is_the_first_choice(cached):
    found = abilities.answer(Table(counting, cached=cached), ITEMS, encode, bos=None)
    assert found.correct == (True, False, True, False, False)
    assert found.abilities == ("count", "count", "compare", "compare", "broken tie")


def test_endings_of_unequal_length_are_compared_per_byte():
    def rule(_):
        return {WORDS.index("two"): 1.0}

    long = Item("choice", "one", " two two two", (" ten",))
    fair = Item("choice", "one", " two two two", (" ten",), per_byte=True)
    assert abilities.answer(Table(rule), [long, fair], encode, bos=0).correct == (False, True)


def test_a_model_that_is_not_finite_is_right_about_nothing():
    def rule(_):
        return {3: float("nan")}

    assert not any(abilities.answer(Table(rule), ITEMS, encode, bos=0).correct)


def test_accuracy_and_flips_by_hand():
    dense = Outcomes(("a",) * 8 + ("b",) * 2, (True,) * 6 + (False,) * 4, (0,) * 6 + (1,) * 4)
    mine = Outcomes(dense.abilities, (False,) * 3 + (True,) * 4 + (False,) * 3, (0,) * 10)
    found = {each.name: each for each in abilities.readings(mine, dense)}
    assert found["ability_a"].value == 50
    assert found["ability_a"].low < 50 < found["ability_a"].high
    assert found["ability_b"].value == 0
    assert found["flips"].value == 40
    assert found["flips"].note == "3 lost, 1 gained; McNemar p = 0.625"
    assert "flips" not in {each.name for each in abilities.readings(mine)}


def test_groups_count_all_questions_of_their_abilities_by_hand():
    """Knowledge: 3 of 4 and 1 of 2 facts, 4 of 6; the dense model had 5, of which one is lost."""
    names = ("facts-head",) * 4 + ("facts-tail",) * 2 + ("recall",) * 2
    mine = Outcomes(names, (True, True, True, False, True, False, True, True), (0,) * 8)
    dense = Outcomes(names, (True, True, True, True, True, False, False, True), (0,) * 8)
    found = {each.name: each for each in abilities.readings(mine, dense)}
    assert found["kick_knowledge"].value == pytest.approx(100 * 4 / 6)
    assert found["kick_knowledge"].note == "dense 83 %; 1 lost, 0 gained; McNemar p = 1"
    assert found["kick_knowledge"].samples == 6
    assert found["kick_retrieval"].value == 100
    assert {"kick_reasoning", "kick_generation"}.isdisjoint(found)


def test_every_ability_asked_belongs_to_one_group():
    asked = {one.ability for one in texts.abilities()} | {"choice"}
    grouped = [name for names in ABILITIES.values() for name in names]
    assert asked == set(grouped)
    assert len(grouped) == len(set(grouped))


def test_every_axis_has_readings_and_no_reading_two_axes():
    assert set(READINGS) == set(AXES)
    named = [name for names in READINGS.values() for name in names]
    assert len(named) == len(set(named))
    for axis, names in READINGS.items():
        assert all(metric(name).evaluation == axis for name in names)


def test_flips_over_other_items_are_refused():
    with pytest.raises(ValueError, match="same items"):
        abilities.readings(Outcomes(("a",), (True,), (0,)), Outcomes(("b",), (True,), (0,)))


def test_outcomes_survive_json():
    found = abilities.answer(Table(counting), ITEMS, encode, bos=None)
    assert Outcomes.from_json(found.to_json()) == found


def test_choice_items_hold_the_true_ending_against_three_of_other_documents():
    texts = [
        (f"{n}", "k", " ".join(f"Sentence number {k} of the book {n} is here." for k in range(9)))
        for n in range(6)
    ]
    items = abilities.choice_items(texts, count=10)
    assert len(items) == 10
    for item in items:
        book = item.prompt.split("book ")[1][0]
        assert f"book {book}" in item.answer
        assert len(item.alternatives) == len(set(item.alternatives)) == 3
        assert all(f"book {book}" not in other for other in item.alternatives)
        assert item.prompt.count(".") == 2
    assert items == abilities.choice_items(texts, count=10)


def test_gaps_stand_beside_the_tokens_they_belong_to():
    model = TinyModel(seed=3)
    prompts = [[1, 2, 3], [4], [5, 6]]
    written = generations.write(model, prompts, 10)
    with torch.inference_mode():
        for prompt, tokens, gaps in zip(prompts, written.tokens, written.gaps, strict=True):
            row = torch.tensor([[*prompt, *tokens]])
            logits = model.logits(row)[0, len(prompt) - 1 : -1].topk(2).values
            assert gaps == pytest.approx((logits[:, 0] - logits[:, 1]).tolist(), abs=1e-4)
    assert Writing.from_json(written.to_json()) == written


def test_departure_is_the_first_difference_and_the_dense_lead_there():
    dense = Writing(((1, 2, 3), (1, 2, 3), (1, 2)), ((9.0, 8.0, 7.0),) * 2 + ((9.0, 8.0),))
    other = Writing(((1, 5, 3), (1, 2, 3), (1, 2, 3)), ((0.0,) * 3,) * 3)
    assert generations.departures(dense, other) == [
        Departure(1, 8.0),
        Departure(None, None),
        Departure(2, None),
    ]


def test_writing_readings_by_hand():
    dense = Writing(((1, 2, 3, 4),) * 4, ((1.0,) * 4,) * 4)
    other = Writing(((1, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (9, 2, 3)), ())
    found = {each.name: each for each in generations.readings(dense, other)}
    assert found["exact_len"].value == 1.5
    assert found["exact_len"].note == "Kaplan-Meier median 1"
    assert found["ident_rate"].value == 25
    assert found["len_ratio"].value == pytest.approx(15 / 16)
    assert found["len_ratio"].note == ""
    assert "self_nll" not in found


def test_the_dense_model_is_less_surprised_by_its_own_words():
    model, other = TinyModel(seed=3), TinyModel(seed=4)
    prompts = [[1, 2], [3], [4, 5]]
    own, theirs = (generations.write(each, prompts, 12) for each in (model, other))
    kinds = {"prompts": prompts, "judge": model}
    strange = {each.name: each for each in generations.readings(own, theirs, **kinds)}
    same = {each.name: each for each in generations.readings(own, own, **kinds)}
    assert strange["self_nll"].value > 0
    assert same["self_nll"].value == 0
    assert same["ident_rate"].value == 100
    assert same["exact_len"].note == "Kaplan-Meier median beyond the end"


def test_repetition_counts_4_grams_seen_before():
    assert generations.repetition([[1, 2, 3, 4, 1, 2, 3, 4]]) == pytest.approx(1 / 5)
    assert generations.repetition([[1, 2, 3]]) == 0


@pytest.mark.parametrize(("period", "loops"), [(1, True), (3, True), (8, True), (9, False)])
def test_a_loop_has_a_period_of_at_most_8(period, loops):
    text = list(range(50)) + [place % period for place in range(32)]
    assert generations.is_loop(text) is loops
    assert not generations.is_loop(text[-31:])


def finder(line):
    """Answers with the value said of the asked key; knows nothing else."""
    names = [WORDS[token] for token in line]
    if names[-1] != "is":
        return {}
    key = names[-3]
    for place in range(len(names) - 4):
        if names[place] == "The" and names[place + 1 : place + 4] == [key, "word", "is"]:
            return {line[place + 4]: 6.0}
    return {}


TEXT = [" ".join(WORDS[1 + (n * 7) % 10] for n in range(400))]
PLAN = needles.Plan((24, 40), (0.1, 0.9), ("single", "multikey"), 16)


def test_a_context_with_a_needle_has_the_length_promised():
    asked = needles.questions(TEXT, encode, PLAN, bos=0)
    assert len(asked) == 2 * 2 * 2 * 16
    for question in asked:
        length = int(question.cell.split("_")[1])
        assert len(question.context) == len(question.without) == length
        assert question.context[0] == 0
        assert len(set(question.values)) == 8
        (right,) = question.values[0]
        assert right in question.context
        assert right not in question.without


@pytest.mark.parametrize("words", [needles.WORDS, tuple(f"{w} {w}" for w in needles.WORDS)])
def test_a_model_that_looks_it_up_hits_and_a_blind_one_does_not(words):
    plan = needles.Plan((24,), (0.5,), ("single",), 16, words)
    asked = needles.questions(TEXT, encode, plan, bos=0)
    sees, blind = needles.ask(Table(finder), asked), needles.ask(Table(lambda _: {}), asked)
    assert sees.cells == {"single_24_50": (True,) * 16}
    assert blind.cells == {"single_24_50": (False,) * 16}
    assert needles.able_cells(sees) == ["single_24_50"]
    assert needles.able_cells(blind) == []
    found = {each.name: each for each in needles.readings(blind, sees)}
    assert found["needle_all"].value == found["needle_single_24_50"].value == 0
    assert "dense 100 %; 16 lost, 0 gained" in found["needle_all"].note
    assert needles.readings(sees, blind) == []
    assert needles.Hits.from_json(sees.to_json()) == sees


def test_a_value_that_is_likely_anyway_is_no_hit():
    # The same bonus for one word with and without the fact cancels.
    favourite = WORDS.index("moon")
    asked = needles.questions(TEXT, encode, needles.Plan((24,), (0.5,), count=16), bos=0)
    found = needles.ask(Table(lambda _: {favourite: 9.0}), asked)
    assert not any(found.cells["single_24_50"])


@pytest.mark.parametrize("task", needles.TASKS)
def test_every_task_can_be_built(task):
    plan = needles.Plan((40,), (0.5,), (task,), 8)
    asked = needles.questions(TEXT, encode, plan, bos=0)
    assert {len(question.context) for question in asked} == {40}
    assert all(len(question.tail) >= 4 for question in asked)


def test_too_little_text_is_refused():
    with pytest.raises(ValueError, match="at least 896 tokens"):
        needles.questions(TEXT, encode, needles.Plan(), bos=0)
