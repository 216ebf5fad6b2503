"""SmartSpec: the length that promises most, by hand and by a clock that is set."""

import pytest

from backend.decoding.goodput import AGAIN, GoodputDrafter
from backend.decoding.greedy import generate
from backend.decoding.speculate import speculate
from backend.errors import SettingError
from backend.methods.decode.smartspec import Smartspec
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny
from tests.tiny_model import TinyModel


class Clock:
    """Tells the time that models took, which the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def timed(model, clock, start, each):
    """The model, each call of which takes `start` and `each` for every token."""
    opened = model.session

    def session(batch, length):
        found = opened(batch, length)
        feed = found.feed

        def slow(tokens, parents=None):
            clock.now += start + each * tokens.shape[1]
            return feed(tokens, parents)

        found.feed = slow
        return found

    model.session = session
    return model


def test_goodput_by_hand():
    """Half accepted: 1.75 tokens for two drafted of a second each and a call of four seconds."""
    drafter = GoodputDrafter(TinyModel(), 4)
    drafter.accepted, drafter.drafting, drafter.verifying = 0.5, [1.0, 0.5, 9.0], {3: [4.0]}
    assert drafter.goodput()[2] == pytest.approx(1.75 / 6)
    assert drafter.goodput()[0] == pytest.approx(1 / 4)


def test_a_call_of_other_size_is_told_from_a_line():
    drafter = GoodputDrafter(TinyModel(), 4)
    drafter.accepted, drafter.drafting, drafter.verifying = 0.0, [0.0], {1: [2.0], 3: [4.0]}
    assert drafter.goodput()[3] == pytest.approx(1 / 5)  # four tokens: 1 + 4


@pytest.mark.parametrize(("draft_seconds", "length"), [(0.01, 8), (20.0, 0)])
def test_a_cheap_draft_grows_and_a_dear_one_rests(draft_seconds, length):
    """The model as its own draft is always right, so that only times decide."""
    clock = Clock()
    model = timed(TinyModel(seed=2).double(), clock, 1.0, 0.01)
    other = timed(TinyModel(seed=2).double(), clock, draft_seconds, 0.0)
    drafter, lengths = GoodputDrafter(other, 8, clock), []
    propose = drafter.propose

    def noted(tokens, limit):
        draft = propose(tokens, limit)
        lengths.append(len(draft.tokens))
        return draft

    drafter.propose = noted
    (plain,) = generate(TinyModel(seed=2).double(), [[5, 6]], 80, ignore_end=True)
    fast = speculate(model, drafter, [5, 6], 80, ignore_end=True)
    assert fast.tokens == plain.tokens
    assert lengths[:2] == [4, 0], "both choices are timed"
    later = lengths[2:-2]
    assert later.count(length) >= 0.7 * len(later)
    if not length:
        assert later.index(1) == AGAIN, "tried again"


def test_what_was_accepted_is_a_running_mean():
    """Two of four kept, then refused: three tries, two kept."""
    drafter = GoodputDrafter(TinyModel(), 4)
    drafter._last = type(drafter._last).chain([3, 1, 4, 1])
    drafter._fed = 2
    drafter._judge([9, 9, 3, 1, 5])
    assert drafter.accepted == pytest.approx(0.8 * 0.8 + 0.2 * 2 / 3)
    drafter._judge([9, 9, 3, 1, 4, 1, 7])
    assert drafter.accepted == pytest.approx(0.8 * (0.64 + 0.2 * 2 / 3) + 0.2)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_no_token_is_changed(family):
    model, other = (TransformersModel(tiny.build(family, seed=seed)) for seed in (0, 1))
    prompt = tiny.tokens(1, 8)[0].tolist()
    (plain,) = generate(model, [prompt], 20, ignore_end=True)
    drafter = Smartspec().drafter(model, other)
    assert speculate(model, drafter, prompt, 20, ignore_end=True).tokens == plain.tokens


def test_without_its_second_model_it_says_what_is_missing():
    with pytest.raises(SettingError, match="rtn@4"):
        Smartspec().drafter(TinyModel())
