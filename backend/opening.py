"""Opens the service for the page: over a home folder, or without one where none can be written."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from backend.cluster import placing
from backend.errors import ResourceError
from backend.home import home_folder
from backend.lent import LentLauncher, lends
from backend.limits import Limits
from backend.service import Service
from backend.store.errors import UnwritableError
from backend.store.shipped import RECORD

__all__ = ["check_port", "ending", "lends", "opened", "settings"]

WARNING = (
    "{error} Until then this page works in a temporary folder: the results that were there are "
    "shown, and what is measured now is gone when the program ends."
)


def ending() -> SimpleQueue[int]:
    """Holds the signal by which the program is told to end, SIGTERM or Ctrl-C; breaks nothing off.

    An event would not do: who waits for it holds its lock for moments, and a signal that comes then
    waits for that lock within the same thread, for ever.
    """
    told: SimpleQueue[int] = SimpleQueue()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda number, _: told.put(number))
    return told


def check_port(host: str, port: int | None) -> None:
    """Refuse a port that cannot be listened on; of none that is named a free one is found later.

    Raises:
        ResourceError: another program listens there, or the address is not this machine's.
    """
    if port is None:
        return
    try:
        with socket.socket(_family(host)) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just left is free
            trial.bind((host, port))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ResourceError(
            f"{host}:{port} cannot be listened on ({why}); name another with --port, or none."
        ) from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def settings(limits: Limits, cluster: str = "", gpus: float = 0, *, lent: bool = False) -> Any:
    """Keywords of a service: what its jobs may, and where they run.

    Args:
        limits: of this copy.
        cluster: address of a Ray cluster, or nothing.
        gpus: that a job of a cluster takes.
        lent: whether the Hub lends GPUs here.

    Raises:
        JobError: no cluster answers there.
    """
    found = {"slots": limits.running, "bounds": limits.job, "folders": not limits.public}
    found |= placing(cluster, gpus)
    return found | ({"launcher": LentLauncher} if lent else {})


@contextmanager
def opened(home: Path | None = None, **settings: Any) -> Iterator[Service]:
    """The service over a home; over a temporary one, which says so, where that is read-only.

    Args:
        home: folder of all state.
        settings: as `Service` takes them.

    Raises:
        ParetoscopeError: the folder is another program's, or no folder can be written.
    """
    with ExitStack() as stack:
        try:
            service = Service(home, **settings)
        except UnwritableError as error:
            shelf = stack.enter_context(_temporary())
            if shelf is None:
                raise
            _bring(home or home_folder(), shelf)
            service = Service(shelf, notice=WARNING.format(error=error), **settings)
            stack.enter_context(service)
            stack.callback(service.stop_jobs)  # no job outlives the folder that it works in
        else:
            stack.enter_context(service)
        yield service


@contextmanager
def _temporary() -> Iterator[Path | None]:
    """A folder that goes at the end; None where there is no place for one."""
    try:
        folder = tempfile.mkdtemp(prefix="paretoscope-")
    except OSError:
        yield None
        return
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bring(home: Path, shelf: Path) -> None:
    """Copy the results of a home that can still be read."""
    found = sorted((home / "results").glob("*.json"))
    (shelf / "results").mkdir()
    record = home / "results" / RECORD
    for path in [*found, *([record] if record.is_file() else [])]:
        shutil.copyfile(path, shelf / "results" / path.name)
