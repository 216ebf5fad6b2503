"""A text is cut into pieces that are it to the letter, marked from the first difference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ui.differences import Span, spans

TEXTS = st.text(alphabet="ab \n.", max_size=40)


def test_the_first_word_that_differs_is_marked_apart():
    assert spans(" a b c d", " a b x d e") == [
        Span(" a b", "same"),
        Span(" x", "first"),
        Span(" d", "same"),
        Span(" e", "changed"),
    ]


def test_equal_texts_have_no_difference():
    assert spans("a b", "a b") == [Span("a b", "same")]


def test_a_text_that_stops_early_parts_at_its_end():
    assert spans("a b c", "a b") == [Span("a b", "same"), Span("", "first")]


def test_the_common_beginning_is_never_given_up_for_a_longer_match_later():
    assert spans("a b c b c d", "a b c d b c d")[0] == Span("a b c", "same")


@given(TEXTS, TEXTS)
def test_the_pieces_are_the_text(reference, text):
    found = spans(reference, text)
    assert "".join(span.text for span in found) == text
    assert sum(span.kind == "first" for span in found) == (reference != text)
