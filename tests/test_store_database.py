"""One process owns a home folder, every commit is whole, and damage is survived."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import duckdb
import pytest

from backend.store import database
from backend.store.database import MIGRATIONS, Database
from backend.store.errors import HomeBusyError, NewerSchemaError, StoreError
from backend.store.store import Store
from tests.result_documents import document

RUN = "0123456789abcdef"


def test_a_second_owner_is_refused_by_a_message_with_the_pid(tmp_path):
    with (
        Database(tmp_path),
        pytest.raises(HomeBusyError, match=rf"in use by process {os.getpid()}\b"),
    ):
        Database(tmp_path)
    Database(tmp_path).close()


def test_an_owner_in_another_process_is_named(tmp_path):
    code = (
        "import sys, pathlib; from backend.store.database import Database\n"
        "kept = Database(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(HomeBusyError, match=rf"process {other.pid}\b"):
            Database(tmp_path)
        other.kill()
    Database(tmp_path).close()


def test_a_transaction_that_fails_leaves_no_trace(tmp_path):
    with Database(tmp_path) as database:

        def fail() -> None:
            with database.writing() as cursor:
                cursor.execute("INSERT INTO meta VALUES ('a', 'b')")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with database.reading() as cursor:
            assert cursor.execute("SELECT count(*) FROM meta").fetchone() == (1,)


@pytest.mark.faults
def test_a_database_that_has_given_up_is_opened_again(tmp_path):
    """As after a checkpoint on a full disk, when DuckDB refuses every further statement."""
    with Database(tmp_path) as database:

        def give_up(lend, word) -> None:
            with lend() as cursor:
                cursor.execute("SELECT 1")
                raise duckdb.FatalException(word)

        for lend in (database.reading, database.writing):
            with pytest.raises(duckdb.FatalException, match="full"):
                give_up(lend, "the disk is full")
            with database.writing() as cursor:
                cursor.execute("INSERT INTO meta VALUES (?, 'kept')", [str(lend)])
        with database.reading() as cursor:
            assert cursor.execute("SELECT count(*) FROM meta").fetchone() == (3,)


def test_readers_see_the_last_commit_while_a_writer_is_at_work(tmp_path):
    with Database(tmp_path) as database:
        seen = []

        def read() -> None:
            with database.reading() as cursor:
                seen.append(cursor.execute("SELECT count(*) FROM meta").fetchone()[0])

        with database.writing() as writer:
            writer.execute("INSERT INTO meta VALUES ('a', 'b')")
            reader = threading.Thread(target=read)
            reader.start()
            reader.join(10)
        read()
        assert seen == [1, 2]


@pytest.mark.security
def test_the_connection_reaches_no_other_file_and_cannot_be_reconfigured(tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with Database(tmp_path / "home") as database, database.reading() as cursor:
        with pytest.raises(duckdb.PermissionException):
            cursor.execute("SELECT * FROM read_csv(?)", [str(tmp_path / "secret.csv")])
        with pytest.raises(duckdb.Error, match="locked"):
            cursor.execute("SET enable_external_access = true")


@pytest.mark.security
def test_a_statement_without_end_is_stopped(tmp_path, monkeypatch):
    assert int(database._SETTINGS["max_execution_time"]) == 30_000
    monkeypatch.setitem(database._SETTINGS, "max_execution_time", "300")
    endless = "SELECT sum(a.i * b.i) FROM range(10_000_000) a(i), range(10_000_000) b(i)"
    with Database(tmp_path) as owner:
        with pytest.raises(duckdb.Error, match="execution time"), owner.reading() as cursor:
            cursor.execute(endless).fetchall()
        with owner.reading() as cursor:
            assert cursor.execute("SELECT count(*) FROM results").fetchone() == (0,)


@pytest.mark.faults
def test_a_newer_schema_is_refused_politely(tmp_path):
    with Database(tmp_path) as database, database.writing() as cursor:
        cursor.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(NewerSchemaError, match="version 99"):
        Database(tmp_path)
    with pytest.raises(NewerSchemaError, match="Update the program"):
        Database(tmp_path)  # and the folder was let go


def test_migrations_run_once_each_and_in_order(tmp_path):
    Database(tmp_path).close()
    calls = []

    def first(cursor):
        calls.append(1)
        cursor.execute("ALTER TABLE jobs ADD COLUMN colour VARCHAR DEFAULT 'red'")

    def second(cursor):
        calls.append(2)
        cursor.execute("UPDATE meta SET value = 'seen' WHERE name = 'schema_version'")

    Database(tmp_path, [*MIGRATIONS, first]).close()
    Database(tmp_path, [*MIGRATIONS, first, second]).close()
    with (
        Database(tmp_path, [*MIGRATIONS, first, second]) as database,
        database.reading() as cursor,
    ):
        assert calls == [1, 2]
        version = str(len(MIGRATIONS) + 3)
        assert cursor.execute("SELECT value FROM meta").fetchall() == [(version,)]


def test_a_migration_takes_the_time_it_needs(tmp_path):
    Database(tmp_path).close()
    found = []

    def ask(connection):
        found.append(connection.execute("SELECT current_setting('max_execution_time')").fetchone())

    with Database(tmp_path, [*MIGRATIONS, ask]):
        assert [int(one) for (one,) in found] == [0]


def test_a_migration_that_fails_changes_nothing(tmp_path):
    Database(tmp_path).close()

    def broken(cursor):
        cursor.execute("ALTER TABLE jobs ADD COLUMN colour VARCHAR")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Database(tmp_path, [*MIGRATIONS, broken])
    with Database(tmp_path) as database, database.reading() as cursor:
        assert "colour" not in cursor.execute("SELECT * FROM jobs").df().columns


def test_a_home_of_the_first_schema_takes_votes(tmp_path):
    with Database(tmp_path) as database, database.writing() as cursor:
        cursor.execute("DROP TABLE votes")
        cursor.execute("UPDATE meta SET value = '1' WHERE name = 'schema_version'")
    with Store(tmp_path) as store:
        assert store.votes.cast(RUN, "a tale", "right", "somebody")
        assert store.votes.counts().to_dict("records") == [
            {"run_id": RUN, "right": 1, "wrong": 0, "unsure": 0}
        ]


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["overwritten", "truncated", "emptied", "flipped"])
def test_a_damaged_database_is_set_aside_and_filled_from_the_files(tmp_path, damage):
    with Store(tmp_path) as store:
        store.results.add(document(RUN))
    path = tmp_path / "paretoscope.duckdb"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[9000] ^= 0xFF
    path.write_bytes(
        {
            "overwritten": b"hello" * 1000,
            "truncated": content[: len(content) // 2],
            "emptied": b"",
            "flipped": content,
        }[damage]
    )
    with Store(tmp_path) as store:
        assert store.results.known(RUN)
        assert "set aside" in store.notice
    assert list(tmp_path.glob("*.corrupt-*"))
    with Store(tmp_path) as store:
        assert store.notice == ""


def test_a_file_held_by_another_program_is_not_taken_for_damage(tmp_path):
    Database(tmp_path).close()
    code = (
        "import sys, duckdb; kept = duckdb.connect(sys.argv[1])\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "paretoscope.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match="cannot be opened"):
            Database(tmp_path)
        other.kill()
    assert not list(tmp_path.glob("*.corrupt-*"))


@pytest.mark.faults
def test_no_transaction_stays_open_after_opening(tmp_path):
    for opening in ("a new file", "one that was there"):
        with Database(tmp_path) as database:
            with database.writing() as cursor:
                cursor.execute("INSERT INTO meta VALUES (?, '')", [opening])
            for number in range(20):
                with database.writing() as cursor:
                    cursor.execute("UPDATE meta SET value = ? WHERE name = ?", [number, opening])
            with database.reading() as cursor:
                found = cursor.execute(
                    "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'TRANSACTION'"
                ).fetchone()
                assert found[0] < 2**20, "what was changed can be forgotten"
                cursor.execute("CHECKPOINT")  # refused while another transaction is open


def test_the_size_counts_the_log_as_well(tmp_path):
    with Database(tmp_path) as database:
        before = database.size
        with database.writing() as cursor:
            cursor.execute("INSERT INTO meta VALUES ('long', ?)", ["x" * 100_000])
        log = tmp_path / "paretoscope.duckdb.wal"
        assert log.stat().st_size > 100_000
        assert database.size == database.path.stat().st_size + log.stat().st_size
        assert database.size > before + 100_000


def test_what_is_written_does_not_stay_in_the_log_and_in_memory(tmp_path):
    """16 MB of it would, otherwise: a thousand jobs and what is told of them."""
    with Database(tmp_path) as opened:
        for number in range(60):
            with opened.writing() as cursor:
                cursor.execute("INSERT INTO meta VALUES (?, ?)", [f"{number}", "x" * 100_000])
        assert opened._log.stat().st_size < 3e6
        with opened.reading() as cursor:
            ((held,),) = cursor.execute(
                "SELECT sum(memory_usage_bytes) FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"
            ).fetchall()
        assert held < 3e6
