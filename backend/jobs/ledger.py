"""The queue: accepts jobs, picks whose turn it is, and follows attempts to their end.

Every change is one committed transaction, and an attempt is on record before it is started, so
the program may be killed at any moment and carries on at its next start.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from backend.jobs import rows
from backend.jobs.errors import QueueFullError
from backend.jobs.journal import Journal
from backend.jobs.launchers import Launcher, is_attempt
from backend.jobs.records import Event, Job, Outcome, Submission
from backend.jobs.states import ACTIVE, Move, State, after
from backend.store.store import Store

LOGGER = logging.getLogger(__name__)

START_PATIENCE = 5.0  # seconds until an attempt that has not begun is started again
LOSS_PATIENCE = 0.3  # seconds of silence after which a dead runner's stream is taken as whole
LOOK_PERIOD = 0.5  # seconds after which who waits for a job looks, whether a step ended or not
KEEP_DAYS = 30
RUNNING = "SELECT * FROM jobs WHERE state = ?"
WAITING = "SELECT 1 FROM jobs WHERE state = ? LIMIT 1"
KEEP_FOLDERS = 128  # of attempts: what they printed, to be read where something went wrong


class Ledger:
    """The jobs of one home folder.

    Args:
        store: The open store.
        launcher: Where attempts run.
        slots: How many run at a time.
        queue_limit: How many may wait altogether.
        owner_queue_limit: How many of one owner may wait.
        owner_slots: How many of one owner may run at a time; None leaves it to `slots`.
    """

    def __init__(
        self,
        store: Store,
        launcher: Launcher,
        *,
        slots: int = 1,
        queue_limit: int = 256,
        owner_queue_limit: int = 256,
        owner_slots: int | None = None,
    ):
        self.changed = threading.Event()
        self._stepped = threading.Condition()
        self._store = store
        self._database = store.database
        self._launcher = launcher
        self._journal = Journal(store)
        self._slots = slots
        self._queue_limit = queue_limit
        self._owner_queue_limit = owner_queue_limit
        self._owner_slots = owner_slots or slots
        self._paused = False
        self._launched: dict[str, float] = {}
        self._silent: dict[str, float] = {}

    def submit(
        self,
        run_id: str,
        spec: Mapping[str, Any],
        *,
        owner: str = "",
        model: str = "",
        recipe: str = "",
        family: str = "",
        priority: int = 0,
        max_attempts: int = 3,
        again: bool = False,
    ) -> Submission:
        """Accept a run: a finished one is answered at once, one under way is joined.

        With `again` a finished one is carried out once more: its result stays, its artefact comes
        back.

        Raises:
            QueueFullError: Too many wait, altogether or of this owner.
        """
        text = json.dumps(spec, allow_nan=False)
        with self._database.writing() as cursor:
            known = rows.known(cursor, run_id)
            if known and not (again and known.outcome is Outcome.CACHED):
                return known
            self._check_room(cursor, owner)
            job_id = rows.time_ordered_id()
            cursor.execute(
                "INSERT INTO jobs SELECT ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, NULL, NULL, '', "
                "false, 0, 0, '', 0, 0, coalesce(max(revision), 0) + 1 FROM jobs",
                [
                    *(job_id, run_id, owner, model, recipe, family, text, State.QUEUED),
                    *(max_attempts, priority, time.time()),
                ],
            )
        self.changed.set()
        return Submission(run_id, job_id, Outcome.QUEUED)

    def cancel(self, job_id: str) -> Job:
        """Stop a job that waits or runs; one that is over stays as it is.

        Raises:
            UnknownJobError: There is no such job.
        """
        with self._database.writing() as cursor:
            job = rows.find(cursor, job_id)
            if job.state is State.QUEUED:
                cursor.execute(
                    "UPDATE jobs SET state = ?, reason = 'cancelled before it began', ended = ?, "
                    "revision = (SELECT max(revision) + 1 FROM jobs) WHERE job_id = ?",
                    [after(job.state, Move.CANCEL), time.time(), job_id],
                )
            elif job.state is State.RUNNING:
                cursor.execute(
                    "UPDATE jobs SET cancel = true, "
                    "revision = (SELECT max(revision) + 1 FROM jobs) WHERE job_id = ?",
                    [job_id],
                )
        if job.state is State.RUNNING:
            self._launcher.kill(job.name)
        self.changed.set()
        return self.job(job_id)

    def retry(self, job_id: str) -> Submission:
        """Put a failed, timed-out or cancelled job into the queue again.

        Where the same run is finished or under way by now, that is the answer instead.

        Raises:
            UnknownJobError: There is no such job.
            IllegalMoveError: It waits, runs or is done.
            QueueFullError: Too many wait.
        """
        with self._database.writing() as cursor:
            job = rows.find(cursor, job_id)
            state = after(job.state, Move.RETRY)
            known = rows.known(cursor, job.run_id)
            if known:
                return known
            self._check_room(cursor, job.owner)
            cursor.execute(
                "UPDATE jobs SET state = ?, cancel = false, reason = '', ended = NULL, "
                "max_attempts = attempt + 3, stage = '', done = 0, total = 0, "
                "revision = (SELECT max(revision) + 1 FROM jobs) WHERE job_id = ?",
                [state, job_id],
            )
        self.changed.set()
        return Submission(job.run_id, job_id, Outcome.QUEUED)

    def job(self, job_id: str) -> Job:
        """One job as it stands.

        Raises:
            UnknownJobError: There is no such job.
        """
        with self._database.reading() as cursor:
            return rows.find(cursor, job_id)

    def jobs(self, owner: str | None = None, since: int | None = None) -> list[Job]:
        """All jobs, newest first; of one owner, or changed after a revision."""
        with self._database.reading() as cursor:
            cursor.execute(
                "SELECT * FROM jobs WHERE ($owner IS NULL OR owner = $owner) "
                "AND ($since IS NULL OR revision > $since) ORDER BY created DESC, job_id DESC",
                {"owner": owner, "since": since},
            )
            return rows.fetch(cursor)

    def revision(self) -> int:
        """A number that rises with every change of any job, 0 before the first."""
        with self._database.reading() as cursor:
            row = cursor.execute("SELECT coalesce(max(revision), 0) FROM jobs").fetchone()
        return row[0] if row else 0

    def load(self, owner: str) -> tuple[int, int]:
        """How many jobs wait or run, altogether and of one owner."""
        with self._database.reading() as cursor:
            return rows.counted(cursor, owner, ACTIVE)

    def counts(self) -> dict[State, int]:
        """How many jobs stand in each state."""
        with self._database.reading() as cursor:
            counted = cursor.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        found = dict(counted)
        return {state: found.get(state, 0) for state in State}

    def events(self, job_id: str, after_number: int = 0, limit: int = 1_000) -> list[Event]:
        """What a job reported after the event of that number, oldest first."""
        with self._database.reading() as cursor:
            found = cursor.execute(
                "SELECT number, attempt, seq, time, kind, data FROM events "
                "WHERE job_id = ? AND number > ? ORDER BY number LIMIT ?",
                [job_id, after_number, limit],
            ).fetchall()
        return [Event(*fields, json.loads(data)) for *fields, data in found]

    def log_tail(self, job_id: str, limit: int = 4_000) -> str:
        """The last characters that the current attempt printed.

        Raises:
            UnknownJobError: There is no such job.
        """
        job = self.job(job_id)
        path = self._attempts / job.name / "log.txt"
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 4 * limit))
                return file.read().decode(errors="replace")[-limit:]
        except FileNotFoundError:
            return self._journal.log_tail(job)[-limit:]

    def wait(self, job_id: str, timeout: float) -> Job:
        """Block until a job is over, or for `timeout` seconds, and return it as it stands.

        Somebody else must call `step` meanwhile, as a `Dispatcher` does.
        """
        deadline = time.monotonic() + timeout
        with self._stepped:  # no step ends between a look and the wait for the next
            while (job := self.job(job_id)).active and (left := deadline - time.monotonic()) > 0:
                self._stepped.wait(min(left, LOOK_PERIOD))
        return job

    def step(self) -> None:
        """Take in what running attempts reported, and start those whose turn it is."""
        with self._database.reading() as cursor:
            running = rows.fetch(cursor.execute(RUNNING, [State.RUNNING]))
            waiting = cursor.execute(WAITING, [State.QUEUED]).fetchone()
        moved = False
        for job in running:
            try:
                moved |= self._follow(job)
            except Exception:
                LOGGER.exception("Attempt %s could not be followed.", job.name)
        # Asking whose turn it is takes a third of a step. What failed may wait again.
        if moved or (waiting and len(running) < self._slots):
            while not self._paused and (job := self._take_next()):
                self._launch(job)
        with self._stepped:
            self._stepped.notify_all()

    def interrupt(self, patience: float = 3.0) -> None:
        """Start nothing any more and stop what runs; it begins again at the next start.

        For a program that ends and should leave no work behind; wait at most `patience` seconds.
        The dispatcher must have stopped.
        """
        self._paused = True
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            running = [job for job in self.jobs() if job.state is State.RUNNING]
            if not running:
                return
            for job in running:
                self._launcher.kill(job.name)
            self.step()
            time.sleep(0.02)

    def prune(self, days: float = KEEP_DAYS, folders: int = KEEP_FOLDERS) -> None:
        """Forget events of jobs that have been over for so many days, and folders of attempts.

        Folders stay of jobs that wait or run, and of the `folders` that ended last, where that is
        no more than so many days ago.
        """
        limit = time.time() - days * 86_400
        with self._database.writing() as cursor:
            cursor.execute(
                "DELETE FROM events WHERE job_id IN "
                "(SELECT job_id FROM jobs WHERE ended < ? AND state NOT IN (?, ?))",
                [limit, *ACTIVE],
            )
            kept = cursor.execute(
                "(SELECT job_id FROM jobs WHERE state IN ($1, $2)) UNION ALL (SELECT job_id FROM "
                "jobs WHERE state NOT IN ($1, $2) AND ended >= $3 ORDER BY ended DESC LIMIT $4)",
                [*ACTIVE, limit, folders],
            ).fetchall()
        known = {job_id for (job_id,) in kept}
        for folder in filter(is_attempt, self._attempts.glob("*-*")):
            forgotten = folder.name.partition("-")[0] not in known
            if forgotten and not self._launcher.alive(folder.name):
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _attempts(self) -> Path:
        return self._store.home / "attempts"

    def _check_room(self, cursor: duckdb.DuckDBPyConnection, owner: str) -> None:
        waiting, mine = rows.counted(cursor, owner, [State.QUEUED])
        if waiting >= self._queue_limit:
            raise QueueFullError(f"{waiting} jobs wait already; try again when some are done.")
        if mine >= self._owner_queue_limit:
            raise QueueFullError(f"{mine} of your jobs wait already; let some finish first.")

    def _follow(self, job: Job) -> bool:
        """Take in what an attempt said; whether it may be over by that."""
        # Liveness before the stream: what a runner wrote before it died is then seen whole.
        alive = self._launcher.alive(job.name)
        chunk = self._launcher.read(job.name, job.stream_offset)
        if chunk:
            self._silent.pop(job.name, None)
            self._journal.ingest(job, chunk)
        elif not self._launcher.started(job.name):
            if not alive and time.monotonic() - self._launched.get(job.name, 0) > START_PATIENCE:
                self._launch(job)
        elif not alive:
            since = self._silent.setdefault(job.name, time.monotonic())
            if time.monotonic() - since > LOSS_PATIENCE:
                self._silent.pop(job.name)
                LOGGER.warning("The runner of attempt %s is gone.", job.name)
                self._launcher.kill(job.name)  # its worker may have left children
                self._journal.lose(job)
        if job.cancel:
            self._launcher.kill(job.name)
        return bool(chunk) or not alive

    def _take_next(self) -> Job | None:
        # Most looks find every slot taken; a transaction that changes nothing would still have
        # everybody read again what rests on the count of commits.
        with self._database.reading() as cursor:
            if rows.next_in_turn(cursor, self._slots, self._owner_slots) is None:
                return None
        with self._database.writing() as cursor:
            job = rows.next_in_turn(cursor, self._slots, self._owner_slots)
            if job is None:
                return None
            cursor.execute(
                "UPDATE jobs SET state = ?, attempt = attempt + 1, started = ?, "
                "stream_offset = 0, stage = '', done = 0, total = 0, reason = '', "
                "revision = (SELECT max(revision) + 1 FROM jobs) WHERE job_id = ?",
                [after(job.state, Move.START), time.time(), job.job_id],
            )
            return rows.find(cursor, job.job_id)

    def _launch(self, job: Job) -> None:
        self._launched[job.name] = time.monotonic()
        self._launcher.start(job.name, job.spec)
