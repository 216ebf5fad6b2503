"""Text of unknown origin stays text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from tests.page_results import PAYLOADS
from ui import safe


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, attrs))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markup_has_no_elements_and_reads_as_given(payload):
    parser = Elements()
    parser.feed(f"<p title='{safe.markup(payload)}'>{safe.markup(payload)}</p>")
    assert [tag for tag, _ in parser.found] == ["p"]
    assert [name for name, _ in parser.found[0][1]] == ["title"]
    assert parser.text == safe.plain(payload)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_label_has_neither_tag_nor_formula(payload):
    label = safe.label(payload)
    assert "<" not in label
    assert "$" not in label


@pytest.mark.security
def test_marks_that_turn_writing_and_control_characters_go():
    assert safe.plain("a\u202eb\u2066c\x00d\x1b[31me\nf\tg") == "abcd[31me\nf\tg"


def test_letters_of_all_scripts_stay():
    assert safe.plain("Ünlike 模型 मॉडल 🦜") == "Ünlike 模型 मॉडल 🦜"


def test_text_has_an_end():
    assert len(safe.plain("x" * 100_000)) == safe.LIMIT


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x"])
def test_a_cell_is_no_formula(text):
    assert safe.cell(text) == f"'{text}"
