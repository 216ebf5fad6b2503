"""The shipped texts: large enough, rebuilt exactly, and never both looked at and judged by."""

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from data import texts
from data.tokenizer import END, END_TOKEN, shipped
from data.world import arithmetic


def lengths(documents):
    return [1 + len(shipped().encode(document.text).ids) for document in documents]


def test_calibration_and_heldout_share_no_run_of_thirteen_words():
    seen = [document.text for document in texts.calibration()]
    judged = [document.text for document in texts.heldout()]
    assert texts.overlap(seen, judged) == set()
    assert texts.overlap(judged, seen) == set()


def test_calibration_shares_no_run_of_thirteen_words_with_items_and_prompts():
    seen = [document.text for document in texts.calibration()]
    judged = [item.prompt + item.answer for item in texts.abilities()]
    judged += [prompt.text for prompt in texts.prompts()]
    assert texts.overlap(seen, judged) == set()


def test_overlap_names_the_text_that_shares_a_run_whatever_its_case():
    run = "One two three four five six seven eight nine ten eleven twelve thirteen"
    others = [f"before {run.upper()} after"]
    assert texts.overlap(["short", f"x {run}", run.rsplit(" ", 1)[0]], others) == {1}
    assert texts.overlap([run.rsplit(" ", 1)[0]], others, words=12) == {0}


def test_heldout_holds_at_least_320_documents_of_at_least_200_tokens():
    found = lengths(texts.heldout())
    assert len(found) >= 320
    assert min(found) >= 200


def test_calibration_holds_128_windows_of_256_tokens():
    found = lengths(texts.calibration())
    assert min(found) >= 256
    assert len(found) >= 128


def test_most_heldout_documents_are_stories_and_some_are_exercises():
    kinds = Counter(document.kind for document in texts.heldout())
    assert set(kinds) == {"story", "mixed"}
    assert kinds["story"] > 3 * kinds["mixed"] > 100


def test_every_document_is_named_once_and_told_once():
    everything = texts.calibration() + texts.heldout()
    assert len({document.id for document in everything}) == len(everything)
    assert len({document.text for document in everything}) == len(everything)


def test_there_are_200_items_for_each_of_eleven_abilities():
    counts = Counter(item.ability for item in texts.abilities())
    assert len(counts) == 11
    assert min(counts.values()) >= 200


def test_no_prompt_is_asked_twice_within_an_ability():
    asked = [(item.ability, item.prompt) for item in texts.abilities()]
    assert len(set(asked)) == len(asked)


def test_only_agreement_offers_an_alternative():
    offering = {item.ability for item in texts.abilities() if item.alternative is not None}
    assert offering == {"agreement"}
    assert all(i.alternative for i in texts.abilities() if i.ability == "agreement")


def test_unseen_arithmetic_uses_only_pairs_kept_back():
    for item in texts.abilities():
        pair = [int(number) for number in re.findall(r"\d+", item.prompt)]
        if item.ability == "arithmetic-unseen":
            assert arithmetic.held_out(*pair)
        elif item.ability == "arithmetic":
            assert not arithmetic.held_out(*pair)


def test_answers_begin_with_a_space_so_that_their_tokens_follow_the_prompt():
    for item in texts.abilities():
        prompt, answer = shipped().encode(item.prompt).ids, shipped().encode(item.answer).ids
        assert prompt + answer == shipped().encode(item.prompt + item.answer).ids


def test_there_are_32_prompts_with_32_names():
    assert len(texts.prompts()) == 32
    assert len({prompt.name for prompt in texts.prompts()}) == 32
    assert len({prompt.text for prompt in texts.prompts()}) == 32


def test_building_again_gives_the_shipped_files(tmp_path):
    texts.build(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        assert path.read_bytes() == (texts.FOLDER / path.name).read_bytes()


def test_reading_the_texts_loads_neither_torch_nor_transformers():
    program = (
        "import sys; from data import texts; texts.heldout(); texts.abilities(); texts.prompts();"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "text", ["The fox ran.", " 12 + 7 = 19", "naïve café – „你好“ 🦊", "tab\tand\nline", "", "a  b"]
)
def test_the_tokenizer_gives_back_any_text(text):
    assert shipped().decode(shipped().encode(text).ids) == text


def test_the_tokenizer_gives_back_every_shipped_document():
    for document in texts.calibration() + texts.heldout():
        assert shipped().decode(shipped().encode(document.text).ids) == document.text


def test_every_digit_is_a_token_of_its_own():
    assert shipped().encode("407").tokens == ["4", "0", "7"]


def test_the_end_token_is_number_zero_and_written_as_one_token():
    assert shipped().token_to_id(END) == END_TOKEN == 0
    assert shipped().encode(END).ids == [0]


def test_a_line_of_the_files_holds_just_the_fields_that_are_set():
    lines = (texts.FOLDER / "abilities.jsonl").read_text("utf-8").splitlines()
    assert set(json.loads(lines[0])) == {"ability", "prompt", "answer"}
