"""The states of a job and every move between them; the one place that lists them."""

from __future__ import annotations

from enum import StrEnum

from backend.jobs.errors import IllegalMoveError


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class Move(StrEnum):
    """What can happen to a job."""

    START = "start"  # it is its turn
    FINISH = "finish"  # a sound result is there
    FAIL = "fail"  # its own fault: an exception, a signal, a limit on memory, too many losses
    EXPIRE = "expire"  # it took longer than it was given
    CANCEL = "cancel"  # a person stopped it
    LOSE = "lose"  # not its fault: the supervisor vanished, the machine went down
    RETRY = "retry"  # a person asks for another attempt


TRANSITIONS = {
    (State.QUEUED, Move.START): State.RUNNING,
    (State.QUEUED, Move.CANCEL): State.CANCELLED,
    (State.RUNNING, Move.FINISH): State.DONE,
    (State.RUNNING, Move.FAIL): State.FAILED,
    (State.RUNNING, Move.EXPIRE): State.TIMEOUT,
    (State.RUNNING, Move.CANCEL): State.CANCELLED,
    (State.RUNNING, Move.LOSE): State.QUEUED,
    (State.FAILED, Move.RETRY): State.QUEUED,
    (State.TIMEOUT, Move.RETRY): State.QUEUED,
    (State.CANCELLED, Move.RETRY): State.QUEUED,
}
ACTIVE = (State.QUEUED, State.RUNNING)


def after(state: State, move: Move) -> State:
    """The state that a move leads to.

    Raises:
        IllegalMoveError: The state does not allow the move.
    """
    try:
        return TRANSITIONS[state, move]
    except KeyError:
        raise IllegalMoveError(f"A job that is {state} cannot {move}.") from None
