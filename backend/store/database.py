"""The one owner of the database file of a home folder; knows nothing of what the tables mean.

One process holds `app.lock` and one read-write connection. Readers take a cursor each and never
wait; writers take turns. The live file must never be opened, copied or served by this process:
closing any handle on it would drop the lock that DuckDB holds.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from backend.faults import fault_point
from backend.store.errors import HomeBusyError, NewerSchemaError, StoreError, UnwritableError

LOGGER = logging.getLogger(__name__)
SCHEMA_FILE = Path(__file__).with_name("schema.sql")

Migration = Callable[[duckdb.DuckDBPyConnection], None]


def _add_votes(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS votes (run_id VARCHAR NOT NULL, prompt VARCHAR NOT NULL, "
        "voter VARCHAR NOT NULL, answer VARCHAR NOT NULL, created DOUBLE NOT NULL, "
        "PRIMARY KEY (run_id, prompt, voter))"
    )


MIGRATIONS: Sequence[Migration] = (_add_votes,)
"""Step n turns schema version n into n + 1, inside one transaction. Add to the end only."""

_SETTINGS = {
    "enable_external_access": "false",
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "memory_limit": "1GB",
    "checkpoint_threshold": "2MB",  # until then what is written stays in memory too
    "threads": "2",
    "max_execution_time": "30000",  # milliseconds of one statement, even on busy cores
}
_READ_THROUGH = (
    "SELECT (SELECT bit_xor(hash(one)) FROM results one), "
    "(SELECT bit_xor(hash(one)) FROM readings one), (SELECT bit_xor(hash(one)) FROM jobs one)"
)
"""Meets every block of what must not be damaged; blocks are otherwise read only when asked for."""
_SIGNS_OF_DAMAGE = (
    "Corrupt database file",
    "not a valid DuckDB database file",
    "Could not read enough bytes",
    "replaying WAL",
)


class Database:
    """Own `home/paretoscope.duckdb` until closed; a context manager.

    A file of an older schema is kept as `paretoscope.duckdb.schema-N` before it is changed. A
    file that cannot be read is set aside under a new name, an empty database takes its place,
    and `notice` says so; filling it again is the caller's work.

    Raises:
        HomeBusyError: Another process owns the folder; the message names it.
        UnwritableError: The folder cannot be written.
        StoreError: The folder or the file cannot be used.
        NewerSchemaError: The file was written by a newer version.
    """

    def __init__(self, home: Path, migrations: Sequence[Migration] = MIGRATIONS):
        self.home = home
        self.path = home / "paretoscope.duckdb"
        self.notice = ""
        self.commits = 0  # what was read at one count holds until the next
        self._migrations = migrations
        self._turn = threading.RLock()
        self._lock = FileLock(home / "app.lock", thread_local=False)
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._claim()
        except OSError as error:
            raise UnwritableError(
                f"{home} cannot be written ({error.strerror}); set PARETOSCOPE_HOME or --home to a "
                "folder that can."
            ) from error
        try:
            self._connection = self._open()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write everything into the file and let the folder go; may be called twice."""
        with self._turn:
            try:
                self._connection.close()
            finally:
                if self._lock.is_locked:
                    self._owner_file.unlink(missing_ok=True)
                    self._lock.release()

    @property
    def size(self) -> int:
        """Bytes on disk: of the file, and of the log whose changes are not in it yet."""
        found = self.path.stat().st_size
        with suppress(FileNotFoundError):  # there is none right after a checkpoint
            found += self._log.stat().st_size
        return found

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.wal")

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a cursor that sees the last committed state."""
        with self._lent(self._connection) as cursor:
            yield cursor

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a cursor inside a transaction: committed at the end, undone by an exception.

        Do not nest: an inner transaction would commit on its own.
        """
        with self._turn, self._lent(self._connection) as cursor:
            cursor.execute("BEGIN TRANSACTION")
            try:
                yield cursor
                fault_point("store.commit")
                cursor.execute("COMMIT")
                self.commits += 1
            except BaseException:
                with suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")
                raise

    @contextmanager
    def _lent(self, connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = connection.cursor()
        try:
            yield cursor
        except duckdb.FatalException:
            # After a failed checkpoint (a full disk) DuckDB refuses everything until reopened.
            self._replace(connection)
            raise
        finally:
            with suppress(duckdb.Error):
                cursor.close()

    @property
    def _owner_file(self) -> Path:
        return self.home / "app.owner"

    def _claim(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise HomeBusyError(f"{self.home} is in use by {self._owner()}.") from None
        self._owner_file.write_text(str(os.getpid()), encoding="ascii")

    def _owner(self) -> str:
        try:
            number = int(self._owner_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return "another process; close it, or set another home folder"
        return f"process {number}; close it, or set another home folder"

    def _open(self) -> duckdb.DuckDBPyConnection:
        try:
            return self._connect()
        except duckdb.Error as error:
            if not any(sign in str(error) for sign in _SIGNS_OF_DAMAGE):
                raise StoreError(f"The database {self.path} cannot be opened: {error}") from error
            self._set_aside(error)
            return self._connect()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(str(self.path), config=_SETTINGS)
        try:
            version = _schema_version(connection)
            if version is not None and version <= len(self._migrations):
                connection.close()  # first, for closing any handle would drop its lock
                _keep_copy(self.path, self.path.with_name(f"{self.path.name}.schema-{version}"))
                connection = duckdb.connect(str(self.path), config=_SETTINGS)
            connection.execute("SET max_execution_time = 0")  # for this alone, not for cursors
            self._bring_up_to_date(connection)
            # A result that is not fetched keeps its transaction open, and with it all later ones.
            connection.execute(_READ_THROUGH).fetchall()
            connection.execute("SET lock_configuration = true")
        except BaseException:
            connection.close()
            raise
        return connection

    def _replace(self, connection: duckdb.DuckDBPyConnection) -> None:
        with self._turn:
            if connection is self._connection:
                LOGGER.error("The database became unusable; opening it again.")
                with suppress(duckdb.Error):
                    connection.close()
                self._connection = self._connect()

    def _set_aside(self, error: duckdb.Error) -> None:
        suffix = f".corrupt-{time.time_ns() // 1_000_000}"
        for path in (self.path, self._log):
            if path.exists():
                path.replace(path.with_name(path.name + suffix))
        self.notice = (
            f"The database was damaged and set aside as {self.path.name}{suffix}; "
            "results were read again from their files, waiting jobs must be started again."
        )
        LOGGER.error("%s (%s)", self.notice, error)

    def _bring_up_to_date(self, connection: duckdb.DuckDBPyConnection) -> None:
        newest = 1 + len(self._migrations)
        connection.execute("BEGIN TRANSACTION")
        version = _schema_version(connection)
        if version is None:
            connection.execute(SCHEMA_FILE.read_text(encoding="utf-8"))
            connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", [str(newest)])
        elif version > newest:
            raise NewerSchemaError(
                f"{self.path} has schema version {version}; this program knows up to {newest}. "
                "Update the program, or set another home folder."
            )
        else:
            for migrate in self._migrations[version - 1 :]:
                migrate(connection)
            connection.execute(
                "UPDATE meta SET value = ? WHERE name = 'schema_version'", [str(newest)]
            )
        connection.execute("COMMIT")


def _keep_copy(source: Path, target: Path) -> None:
    """Copy a closed database durably; the copy appears whole or not at all."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _schema_version(cursor: duckdb.DuckDBPyConnection) -> int | None:
    row = cursor.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'meta'"
    ).fetchone()
    if row is None or not row[0]:
        return None
    row = cursor.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    return int(row[0]) if row else None
