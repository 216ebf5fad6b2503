"""The command line over the service: `python -m backend COMMAND`; machine output alone on stdout.

Exit codes: 0 done, 1 a run failed, 2 wrong usage or a wish that cannot be met, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend import methods
from backend.console import (
    cell,
    duration,
    failure,
    foretold,
    print_answer,
    print_columns,
    print_frame,
    print_run,
    records,
    size,
    write_json,
)
from backend.errors import ParetoscopeError, ResourceError
from backend.jobs.records import Job, Submission
from backend.measure.reading import metric
from backend.plan import SPEEDS, TIERS, WALKS
from backend.service import Extras, Filter, Service, Texts
from backend.solve import WIDTH, solve


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with Service(options.home, run_jobs=options.runs_jobs) as service:
            return options.command(service, options)
    except BrokenPipeError:  # the reader has seen enough
        sys.stdout = None
        return 0
    except ParetoscopeError as error:
        if options.json:
            write_json({"error": str(error), "type": type(error).__name__})
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; jobs under way carry on and are found again.", file=sys.stderr)
        return 130


def list_methods(service: Service, options: argparse.Namespace) -> int:
    """Print every method with its settings."""
    found = service.methods()
    if options.json:
        write_json(found)
        return 0
    for one in found:
        print(f"{one['key']:<14} {one['family']:<10} {one['summary']}")
        for setting in one["settings"]:
            print(f"    {setting['name']}={setting['default']}  {setting['help']}")
    return 0


def show_estimate(service: Service, options: argparse.Namespace) -> int:
    """Print what a run would take."""
    found = service.estimate(options.recipe, options.model)
    if options.json:
        write_json(None if found is None else asdict(found) | {"kind": "estimated"})
    elif found is None:
        print("The model's files are not here yet; nothing can be said before they are.")
    else:
        print(f"{options.recipe} on {options.model}, estimated:")
        print(f"  resident  {size(found.resident_bytes)} of {size(found.dense_bytes)} dense")
        print(f"  peak      {size(found.peak_bytes)}")
        print(f"  time      {duration(found.seconds)}, from {found.basis}")
    return 0


def run(service: Service, options: argparse.Namespace) -> int:
    """Compress, measure and print one recipe."""
    submission = service.submit(
        options.recipe,
        options.model,
        tier=options.tier,
        speed=options.speed,
        walk=options.walk,
        texts=Texts(options.calibration, options.heldout),
        extras=Extras(options.wikitext, tuple(options.tasks)),
    )
    failed = _follow(service, [submission])
    if failed:
        return _report_failures(failed, options.json)
    return print_run(service, submission.run_id, options.json)


def sweep(service: Service, options: argparse.Namespace) -> int:
    """Compress and measure every method at every budget, then print the frontier."""
    keys = list(methods.catalogue()) if options.methods == ["all"] else options.methods
    found = service.sweep(
        keys,
        options.budgets,
        options.model,
        tier=options.tier,
        speed=options.speed,
        walk=options.walk,
        texts=Texts(options.calibration, options.heldout),
        extras=Extras(options.wikitext, tuple(options.tasks)),
    )
    for refusal in found.refusals:
        print(f"left out {refusal.recipe}: {refusal.reason}", file=sys.stderr)
    failed = _follow(service, found.submissions)
    ids = {one.run_id for one in found.submissions}
    frame = service.frontier(options.x, options.y)
    frame = frame[frame["run_id"].isin(ids)]
    if options.json:
        write_json(
            {
                "runs": records(frame),
                "refused": [asdict(one) for one in found.refusals],
                "failed": [failure(job) for job in failed],
            }
        )
    else:
        print_frame(frame, options.x, options.y)
    return 1 if failed else 0


def show_frontier(service: Service, options: argparse.Namespace) -> int:
    """Print all runs with two readings, and which of them none dominates."""
    chosen = Filter(models=tuple(options.models or ()), families=tuple(options.families or ()))
    frame = service.frontier(options.x, options.y, chosen)
    if options.json:
        write_json(records(frame))
    else:
        print_frame(frame, options.x, options.y)
    return 0


def show(service: Service, options: argparse.Namespace) -> int:
    """Print one run whole."""
    return print_run(service, options.run, options.json)


def recommend(service: Service, options: argparse.Namespace) -> int:
    """Print the best measured runs within a budget, and what would change them."""
    answer = service.advice.recommend(options.budget, options.model)
    if options.json:
        write_json(answer)
    else:
        print_answer(answer)
    return 0 if answer.choices else 1


def search(service: Service, options: argparse.Namespace) -> int:
    """Explore recipes within a budget, then print the best."""
    found = solve(service, options.budget, options.model, width=options.width, watch=_tell)
    if options.json:
        write_json(found)
    else:
        print_answer(found.answer)
        print(f"{len(found.evaluations)} evaluations, {found.seconds:.0f} s of new runs")
    return 0 if found.answer.choices else 1


def show_grades(service: Service, options: argparse.Namespace) -> int:
    """Print what was expected of runs beside what was measured."""
    frame = service.advice.grades()
    if options.json:
        write_json(records(frame))
        return 0
    for name, rows in frame.groupby("quantity"):
        middle = 100 * rows["error"].abs().median()
        print(f"{name}: {len(rows)} runs, half of them within {middle:.1f} %")
    return 0


def compare(service: Service, options: argparse.Namespace) -> int:
    """Print the readings of several runs side by side."""
    runs = [service.run(one) for one in options.runs]
    names = list(dict.fromkeys(one.name for found in runs for one in found.readings))
    table = {
        name: [None if (one := found.reading(name)) is None else asdict(one) for found in runs]
        for name in names
    }
    if options.json:
        write_json({"runs": [found.run_id for found in runs], "readings": table})
        return 0
    head = [["", *(found.recipe for found in runs)]]
    if len({found.model["name"] for found in runs}) > 1:
        head.append(["of", *(found.model["name"] for found in runs)])
    print_columns(
        [*head, *([metric(name).title, *map(cell, cells)] for name, cells in table.items())]
    )
    return 0


def export(service: Service, options: argparse.Namespace) -> int:
    """Write results as JSON and Parquet into a folder."""
    try:
        count = service.export(options.folder, options.runs)
    except OSError as error:
        raise ResourceError(f"{options.folder} cannot be written ({error.strerror}).") from error
    if options.json:
        write_json({"runs": count, "folder": str(options.folder)})
    else:
        print(f"{count} results written to {options.folder}")
    return 0


def take_in(service: Service, options: argparse.Namespace) -> int:
    """Read results that another copy exported."""
    found = service.import_results(options.folder)
    if options.json:
        write_json(asdict(found))
    else:
        print(f"{len(found.added)} results added, {len(found.known)} known already")
        for run_id in found.conflicting:
            print(f"{run_id} differs from the one here, which stays", file=sys.stderr)
        for reason in found.refused:
            print(f"refused: {reason}", file=sys.stderr)
    return 0


def _follow(service: Service, submissions: Iterable[Submission]) -> list[Job]:
    """Wait for jobs, telling their stages on stderr; returns those that failed."""
    waiting = {one.job_id for one in submissions if one.job_id}
    told: dict[str, str] = {}
    failed = []
    revision = -1
    while waiting:
        for job in service.jobs(since=revision):
            revision = max(revision, job.revision)
            if job.job_id not in waiting:
                continue
            line = f"{job.state} {job.stage} {job.done:g}/{job.total:g}" if job.stage else job.state
            if job.job_id not in told and (long := foretold(job)):
                print(f"{job.recipe}: {long}", file=sys.stderr)
            if told.get(job.job_id) != line:
                told[job.job_id] = line
                print(f"{job.recipe}: {line}", file=sys.stderr)
            if not job.active:
                waiting.discard(job.job_id)
                if job.state != "done":
                    failed.append(job)
        if waiting:
            service.wait(next(iter(waiting)), 0.3)
    return failed


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _report_failures(failed: list[Job], as_json: bool) -> int:
    if as_json:
        write_json({"failed": [failure(job) for job in failed]})
    for job in failed:
        print(f"error: {job.recipe}: {job.reason}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description="Compress a language model for real and see what it costs.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    actions: dict[str, tuple[Action, tuple[tuple[tuple[str, ...], dict[str, Any]], ...]]] = {
        "methods": (list_methods, ()),
        "estimate": (show_estimate, (_RECIPE, _MODEL)),
        "run": (run, (_RECIPE, _MODEL, *_THOROUGHNESS)),
        "sweep": (sweep, (_METHODS, _BUDGETS, _MODEL, *_THOROUGHNESS, *_PLOT)),
        "frontier": (show_frontier, (*_PLOT, _MODELS, _FAMILIES)),
        "show": (show, (_RUN,)),
        "recommend": (recommend, (_BUDGET, _MODEL)),
        "solve": (search, (_BUDGET, _MODEL, _WIDTH)),
        "grades": (show_grades, ()),
        "compare": (compare, (_RUNS,)),
        "export": (export, (_FOLDER, _ONLY)),
        "import": (take_in, (_FOLDER,)),
    }
    for name, (action, options) in actions.items():
        text = (action.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=action, runs_jobs=action in (run, sweep, search))
        for names, about in (*options, *_EVERYWHERE):
            command.add_argument(*names, **about)
    return parser


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in _words(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 2,3,4") from None


Action = Callable[[Service, argparse.Namespace], int]

_EVERYWHERE = (
    (("--json",), {"action": "store_true", "help": "JSON alone on standard output"}),
    (("--home",), {"type": Path, "help": "folder of all state (PARETOSCOPE_HOME)"}),
)
_TASKS = "tasks of lm-evaluation-harness, where installed; it downloads their questions"
_RECIPE = ("recipe",), {"help": "such as gptq@4 or 'lord@8 + rtn@4 + kv-int@5'"}
_MODEL = ("--model",), {"default": "default", "help": "default, a folder or owner/name@revision"}
_THOROUGHNESS = (
    (("--tier",), {"choices": TIERS, "default": "quick", "help": "how much text is scored"}),
    (("--speed",), {"choices": SPEEDS[1:], "default": "sweep", "help": "how long is timed"}),
    (("--walk",), {"choices": WALKS, "default": WALKS[0], "help": "calibrate on which blocks"}),
    (("--calibration",), {"type": Path, "help": "text that methods may look at"}),
    (("--heldout",), {"type": Path, "help": "text that the model is judged by"}),
    (("--wikitext",), {"type": Path, "help": "wiki.test.raw, for perplexity by wt2-2048"}),
    (("--tasks",), {"type": _words, "default": [], "help": _TASKS}),
)
_PLOT = (
    (("--x",), {"default": "resident_bytes", "help": "metric across"}),
    (("--y",), {"default": "kld_mean", "help": "metric up"}),
)
_METHODS = ("--methods",), {"type": _words, "required": True, "help": "keys, or all"}
_BUDGETS = ("--budgets",), {"type": _numbers, "required": True, "help": "bits per number"}
_MODELS = ("--models",), {"type": _words, "help": "only these"}
_FAMILIES = ("--families",), {"type": _words, "help": "only these"}
_BUDGET = ("budget",), {"help": "such as '900 kB, 512 context x 8, >= 20 tok/s' or 'kld <= 0.05'"}
_WIDTH = ("--width",), {"type": int, "default": WIDTH, "help": "candidates of the first rung"}
_RUN = ("run",), {"help": "id of a run, or its first digits"}
_RUNS = ("runs",), {"nargs": "+", "help": "ids of runs"}
_FOLDER = ("folder",), {"type": Path, "help": "of exported results; an import takes its zip too"}
_ONLY = ("--runs",), {"nargs": "*", "default": [], "help": "ids; all if left out"}

if __name__ == "__main__":
    sys.exit(main())
