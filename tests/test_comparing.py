"""Live texts and blind questions over a service: what is asked, refused, counted."""

from __future__ import annotations

import pytest

from backend.comparing import NoArtefactError
from backend.errors import ParetoscopeError, SettingError, UnknownNameError
from backend.service import Service
from tests.page_results import DENSE, MIDDLE, SMALL, TEXT, fill


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(fill(tmp_path_factory.mktemp("home")), run_jobs=False) as opened:
        yield opened


def ask(service, run_id, voter="me"):
    return service.comparing.question(run_id, voter)


def test_a_run_without_its_model_is_refused_by_name(service):
    with pytest.raises(NoArtefactError, match="gptq@4 is not on this machine"):
        service.comparing.generate([MIDDLE], "Once")


@pytest.mark.parametrize(
    ("wish", "part"),
    [
        ({"run_ids": [], "prompt": "Once"}, "1 to 3 runs"),
        ({"run_ids": [MIDDLE], "prompt": " "}, "characters"),
        ({"run_ids": [MIDDLE], "prompt": "x" * 5000}, "characters"),
        ({"run_ids": [MIDDLE], "prompt": "a", "new_tokens": 0}, "tokens"),
        ({"run_ids": [MIDDLE], "prompt": "a", "temperature": 3.0}, "temperature"),
        ({"run_ids": ["zz"], "prompt": "a"}, "zz"),
    ],
)
def test_a_wish_beyond_the_limits_is_refused_in_a_sentence(service, wish, part):
    with pytest.raises(ParetoscopeError, match=part):
        service.comparing.generate(**wish)


def test_a_run_is_made_again_where_its_model_is_missing(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as service:
        planned = service.submit("gptq@4")
        assert service.comparing.remake(MIDDLE) == type(planned)(
            planned.run_id, planned.job_id, "joined"
        )


def test_a_question_shows_both_texts_and_tells_no_side(service):
    question = ask(service, MIDDLE)
    assert {question.left, question.right} == {TEXT, " she walked away and slept ill."}
    assert question.remaining == 1
    assert "run" not in vars(question)


def test_the_order_of_the_texts_is_random(service):
    assert len({ask(service, SMALL, "looking").left for _ in range(40)}) == 2


def test_an_answer_is_judged_and_counted_once(service):
    for number, (voter, right) in enumerate([("a", True), ("b", True), ("c", False)]):
        question = ask(service, MIDDLE, voter)
        compressed = "left" if question.left != TEXT else "right"
        other = "right" if compressed == "left" else "left"
        verdict = service.comparing.vote(
            question.question_id, compressed if right else other, voter
        )
        assert verdict.answer == ("right" if right else "wrong")
        assert (verdict.compressed, verdict.run_id, verdict.counted) == (compressed, MIDDLE, True)
        found = next(one for one in service.comparing.votes() if one["run_id"] == MIDDLE)
        assert found["right"] + found["wrong"] == number + 1
    assert (found["right"], found["wrong"]) == (2, 1)
    assert found["share"] == pytest.approx(200 / 3)
    assert found["low"] < found["share"] < found["high"]


def test_a_voter_judges_each_text_once(service):
    for remaining in (1, 0):
        question = ask(service, SMALL, "twice")
        assert question.remaining == remaining
        service.comparing.vote(question.question_id, "unsure", "twice")
    with pytest.raises(UnknownNameError, match="judged all 2"):
        ask(service, SMALL, "twice")


def test_a_question_is_answered_once(service):
    question = ask(service, SMALL, "once")
    service.comparing.vote(question.question_id, "left", "once")
    with pytest.raises(UnknownNameError, match="not open"):
        service.comparing.vote(question.question_id, "right", "once")


def test_there_is_no_third_side(service):
    with pytest.raises(SettingError, match="left, right or unsure"):
        service.comparing.vote("0" * 16, "middle", "me")


def test_nothing_is_asked_where_nothing_differs(service):
    with pytest.raises(UnknownNameError, match="nothing to tell apart"):
        ask(service, DENSE)


def test_votes_outlive_the_program(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as service:
        service.comparing.vote(ask(service, MIDDLE).question_id, "unsure", "me")
    with Service(tmp_path, run_jobs=False) as service:
        assert service.comparing.votes() == [
            {"run_id": MIDDLE, "right": 0, "wrong": 0, "unsure": 1,
             "share": None, "low": None, "high": None}
        ]  # fmt: skip
