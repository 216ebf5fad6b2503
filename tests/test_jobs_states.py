"""The table of states says everything about where a job may go."""

from __future__ import annotations

import itertools

import pytest

from backend.jobs.errors import IllegalMoveError
from backend.jobs.states import ACTIVE, TRANSITIONS, Move, State, after


def test_a_done_job_never_moves_again():
    assert not [state for state, _ in TRANSITIONS if state is State.DONE]


def test_only_a_running_job_can_finish():
    assert [state for state, move in TRANSITIONS if move is Move.FINISH] == [State.RUNNING]


def test_every_state_can_be_reached_from_the_queue():
    reached = {State.QUEUED}
    for _ in State:
        reached |= {to for (state, _), to in TRANSITIONS.items() if state in reached}
    assert reached == set(State)


def test_every_state_but_done_leads_on_and_the_ended_ones_only_by_retry():
    for state in set(State) - set(ACTIVE) - {State.DONE}:
        assert [move for one, move in TRANSITIONS if one is state] == [Move.RETRY]


def test_a_move_outside_the_table_is_refused_by_a_sentence():
    for pair in itertools.product(State, Move):
        if pair in TRANSITIONS:
            assert after(*pair) is TRANSITIONS[pair]
        else:
            with pytest.raises(IllegalMoveError, match=f"{pair[0]} cannot {pair[1]}"):
                after(*pair)
