"""The only door: the page, REST and the command line ask here; imports no torch.

Holds the store and the queue of one home folder; returns plain dataclasses, values, data frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from backend import methods, shelf
from backend.advice import Advice
from backend.comparing import Comparing
from backend.errors import ModelError, OutOfReachError, UnknownNameError
from backend.estimate import Estimate, check_room
from backend.extras import Extras
from backend.home import home_folder, keep_results
from backend.jobs.dispatcher import Dispatcher
from backend.jobs.launchers import Launcher, LocalLauncher
from backend.jobs.ledger import Ledger
from backend.jobs.records import Event, Job, Submission
from backend.live.desk import Desk
from backend.measure.reading import METRICS, is_axis, known_metric
from backend.plan import plan
from backend.recipes import Recipe
from backend.store import exchange
from backend.store.documents import RUN_ID
from backend.store.frontier import axes
from backend.store.results import EVERYTHING, Filter, Run
from backend.store.shipped import take_shipped
from backend.store.store import Store
from backend.sweeps import Refusal, Sweep, points
from backend.texts import Texts

SLOTS = 2  # jobs at a time; whoever times something, or needs much memory, is alone
FIRST_RESULTS = Path(__file__).parents[1] / "data" / "results"


class Service:
    """One home folder, open; a context manager.

    Args:
        home: folder of all state.
        slots: jobs that run at a time.
        run_jobs: start the queue; without it, only what is stored can be asked.
        launcher: makes what runs the jobs of a home; on this machine unless told otherwise.
        bounds: of every job, such as `timeout_seconds`, as an assignment names them.
        notice: a sentence for the page, before any of the store's own.
        folders: whether a model may be a folder of this machine.

    Attributes:
        advice: what is answered from what is known, before or instead of running anything.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        slots: int = SLOTS,
        run_jobs: bool = True,
        launcher: Callable[[Path], Launcher] = LocalLauncher,
        bounds: Mapping[str, float] | None = None,
        notice: str = "",
        folders: bool = True,
    ) -> None:
        self.home = home or home_folder()
        elsewhere = keep_results(self.home)
        self.store = Store(self.home)
        self.advice = Advice(self.store, folders=folders)
        self._bounds, self._notice = dict(bounds or {}), notice
        try:
            take_shipped(self.store, FIRST_RESULTS, always=elsewhere)
            self._launcher = launcher(self.home)
            self.comparing = Comparing(self, Desk(self.home, self._launcher.fork_server))
            self._ledger = Ledger(self.store, self._launcher, slots=slots)
            self._dispatcher = Dispatcher(self._ledger) if run_jobs else None
            if self._dispatcher is not None:
                self._dispatcher.start()
        except BaseException:
            self.store.close()
            raise

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the home folder; jobs under way carry on and are found again."""
        if self._dispatcher is not None:
            self._dispatcher.stop()
        self.comparing.close()
        self._launcher.close()
        self.store.close()

    def stop_jobs(self) -> None:
        """End what runs, as `close` alone does not; for a home that goes with the program."""
        if self._dispatcher is not None:
            self._dispatcher.stop()
            self._ledger.interrupt()

    def warm_up(self) -> None:
        """Begin the imports that the first job and the first text will need; never waits."""
        self._launcher.warm_up()
        self.comparing.warm_up()

    # What there is

    def methods(self) -> list[dict[str, Any]]:
        """Every method: key, family, summary, text, paper, claim, limits, settings."""
        return [methods.describe(cls) for cls in methods.catalogue().values()]

    def metrics(self) -> list[dict[str, Any]]:
        """Every metric: name, title, unit, direction, help, group, axis, log."""
        return [asdict(one) for one in METRICS.values()]

    def metric(self, name: str) -> dict[str, Any]:
        """What a number means, members of families such as abilities too.

        Raises:
            UnknownNameError: no metric of that name.
        """
        return asdict(known_metric(name))

    def axes(self) -> pd.DataFrame:
        """Readings that can be an axis of a chart, with the number of runs that have each."""
        found = axes(self.store.database)
        wanted = [position for position, name in enumerate(found["name"]) if is_axis(name)]
        return found.iloc[wanted].reset_index(drop=True)

    @property
    def notice(self) -> str:
        """A sentence for the page when something had to be repaired, else empty."""
        return f"{self._notice} {self.store.notice}".strip()

    # Asking for runs

    def estimate(self, recipe: str, model: str = "default") -> Estimate | None:
        """What a run will take; None for a model whose files are not here yet.

        Raises:
            ParetoscopeError: recipe or model cannot be.
        """
        return self.advice.estimate(Recipe.parse(recipe), self.advice.source(model))

    def submit(
        self,
        recipe: str,
        model: str = "default",
        *,
        tier: str = "quick",
        speed: str = "sweep",
        walk: str = "sequential",
        texts: Texts | None = None,
        extras: Extras | None = None,
        budget: Mapping[str, float] | None = None,
        owner: str = "",
        again: bool = False,
    ) -> Submission:
        """Queue a run; a finished one is answered at once, one under way is joined.

        With `again` a finished one is carried out once more, to have its artefact back.

        Raises:
            ParetoscopeError: recipe, model, memory or disk do not allow it.
        """
        wanted, source = Recipe.parse(recipe), self.advice.source(model)
        found = self.advice.estimate(wanted, source)
        if found is not None:
            check_room(found, self.home)
        settings: dict[str, Any] = {
            "tier": tier,
            "speed": speed,
            "walk": walk,
            "texts": texts,
            "extras": extras,
            "budget": dict(budget or {}),
        }
        settings["heavy"] = found is None or found.heavy
        settings["predicted"] = None if found is None else found.readings()
        job = plan(wanted, source, **settings)
        self._launcher.asked(job.run_id)
        return self._ledger.submit(
            job.run_id,
            job.spec | self._bounds,
            owner=owner,
            model=job.model,
            recipe=wanted.text(),
            family=wanted.family,
            again=again,
        )

    def sweep(
        self,
        keys: Sequence[str],
        budgets: Sequence[float],
        model: str = "default",
        *,
        tier: str = "quick",
        speed: str = "sweep",
        walk: str = "sequential",
        texts: Texts | None = None,
        extras: Extras | None = None,
        owner: str = "",
    ) -> Sweep:
        """Queue every method at every budget, the dense model first, and say what cannot be.

        Raises:
            ParetoscopeError: a method or the model does not exist, or nothing at all can be run.
        """
        source = self.advice.source(model)
        wanted, refusals = points(keys, budgets)
        settings: dict[str, Any] = {"tier": tier, "speed": speed, "walk": walk}
        settings |= {"texts": texts, "extras": extras, "owner": owner}
        name = str(source.folder) if source.folder and source.name != "default" else model
        submissions: dict[str, Submission] = {}
        for recipe, budget in wanted.items():
            try:
                submissions[recipe] = self.submit(recipe, name, budget=budget, **settings)
            except (OutOfReachError, ModelError) as error:
                if not submissions:  # not even the dense model, which comes first
                    raise
                refusals.append(Refusal(recipe, str(error)))
        return Sweep(tuple(submissions.values()), tuple(submissions), tuple(refusals))

    # Jobs

    def jobs(self, owner: str | None = None, since: int | None = None) -> list[Job]:
        """All jobs, newest first; of one owner, or changed after a revision."""
        return self._ledger.jobs(owner, since)

    def job(self, job_id: str) -> Job:
        """One job as it stands."""
        return self._ledger.job(job_id)

    def revision(self) -> int:
        """A number that rises with every change of any job."""
        return self._ledger.revision()

    def load(self, owner: str) -> tuple[int, int]:
        """How many jobs wait or run, altogether and of one owner."""
        return self._ledger.load(owner)

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """What a job reported after an event's number."""
        return self._ledger.events(job_id, after)

    def log_tail(self, job_id: str) -> str:
        """The last lines that a job printed."""
        return self._ledger.log_tail(job_id)

    def cancel(self, job_id: str) -> Job:
        """Stop a job that waits or runs."""
        return self._ledger.cancel(job_id)

    def retry(self, job_id: str) -> Submission:
        """Queue a failed, timed-out or cancelled job again."""
        self._launcher.asked(self.job(job_id).run_id)
        return self._ledger.retry(job_id)

    def wait(self, job_id: str, timeout: float) -> Job:
        """Block until a job is over, or for `timeout` seconds."""
        return self._ledger.wait(job_id, timeout)

    # Results

    def runs(
        self, chosen: Filter = EVERYTHING, metrics: Sequence[str] = (), failed: bool = False
    ) -> pd.DataFrame:
        """One row a run, newest first, with a column for each metric named."""
        for name in metrics:
            known_metric(name)
        return self.store.results.runs(chosen, metrics, failed)

    def run(self, run_id: str) -> Run:
        """One run whole; the first digits of its id suffice.

        Raises:
            UnknownNameError: no such run, or several.
        """
        found = self.store.results.run(self._complete(run_id))
        if found is None:
            raise UnknownNameError(f"The result of run {run_id} is not here any more.")
        return found

    def frontier(
        self, x: str = "resident_bytes", y: str = "kld_mean", chosen: Filter = EVERYTHING
    ) -> pd.DataFrame:
        """Runs that have both readings, with `on_frontier` for those that none dominates.

        Raises:
            UnknownNameError: no metric of that name.
        """
        known_metric(x)
        known_metric(y)
        return self.store.frontier(x, y, chosen)

    def choices(self) -> pd.DataFrame:
        """Every model, protocol, hardware and family that occurs."""
        return self.store.results.choices()

    def artefact_folder(self, run_id: str, *, use: bool = False) -> Path | None:
        """Where the compressed model of a run lies, if it was made here; to `use` it is noted."""
        key = str(self.run(run_id).artefact.get("key", ""))
        folder = self.home / "artefacts" / key
        made = RUN_ID.fullmatch(key) and (folder / "recipe.json").is_file()
        if made and use:
            shelf.used(folder)  # or it might make room for others
        return folder if made else None

    # Sharing

    def share(self, view: Mapping[str, Any]) -> str:
        """A short name that opens this view on every copy that has it."""
        return self.store.shares.keep(view)

    def shared(self, slug: str) -> dict[str, Any] | None:
        """The view behind a short name, or None."""
        return self.store.shares.find(slug)

    def export(self, folder: Path, run_ids: Sequence[str] = ()) -> int:
        """Write results as JSON and Parquet; returns how many."""
        return exchange.export_results(self.store.results, self.store.shares, folder, run_ids)

    def import_results(self, folder: Path, called: str = "") -> exchange.Imported:
        """Take in what another copy exported, a folder or a zip, in messages `called` so."""
        return exchange.import_results(self.store.results, self.store.shares, folder, called)

    def _complete(self, run_id: str) -> str:
        if RUN_ID.fullmatch(run_id):
            return run_id
        ids = [one for one in self.store.results.runs()["run_id"] if one.startswith(run_id)]
        if not run_id or len(ids) != 1:
            told = "none" if not ids else ", ".join(ids[:4])
            raise UnknownNameError(f"A run is named by its id; {run_id!r} fits {told}.")
        return ids[0]


__all__ = ["Filter", "Refusal", "Run", "Service", "Sweep", "Texts", "home_folder"]
