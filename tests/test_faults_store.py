"""Damage to files, clocks and folders is told in words and never becomes a number."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend import plan, sources
from backend import service as service_module
from backend.errors import ModelError
from backend.jobs.launchers import LocalLauncher
from backend.jobs.ledger import Ledger
from backend.limits import AT_HOME
from backend.opening import opened
from backend.sources import EMBEDDED, ModelSource
from backend.store.database import MIGRATIONS, Database
from backend.store.errors import StoreError
from backend.store.store import Store
from tests.result_documents import document
from tests.test_jobs_attempts import gone, until
from ui import views

ROOT = Path(__file__).parents[1]
RUNS = [f"{number:016x}" for number in range(6)]
pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    home = tmp_path_factory.mktemp("filled")
    with Store(home) as store:
        for run_id in RUNS:
            store.results.add(document(run_id))
    return home


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A home whose owner was killed, so that its newest commits lie in the log alone."""
    home = tmp_path_factory.mktemp("logged")
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from backend.store.store import Store; from tests.result_documents import document\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for run_id in sys.argv[2:]: store.results.add(document(run_id))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(home), *RUNS], cwd=ROOT, check=False)
    assert (home / "paretoscope.duckdb.wal").stat().st_size > 100
    return home


def holds_everything(home):
    """Every run is back from its own file, with the numbers of that file."""
    with Store(home) as store:
        frame = store.results.runs(metrics=["kld_mean"])
        assert sorted(frame["run_id"]) == RUNS
        for run_id in RUNS:
            assert store.results.run(run_id).recipe == document(run_id)["recipe"]
        return store.notice


def test_a_database_cut_or_flipped_anywhere_never_gives_wrong_numbers(filled, tmp_path):
    chance = random.Random(5)
    whole = (filled / "paretoscope.duckdb").read_bytes()
    cuts = [whole[: len(whole) * tenth // 10] for tenth in range(10)]
    flips = []
    for _ in range(30):
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        flips.append(bytes(changed))
    told = 0
    for number, content in enumerate(cuts + flips):
        home = tmp_path / str(number)
        home.mkdir()
        (home / "results").symlink_to(filled / "results")
        (home / "paretoscope.duckdb").write_bytes(content)
        told += bool(holds_everything(home))
        shutil.rmtree(home)
    assert told >= len(cuts) - 1  # an empty file is a new one; a flip may lie where nothing is


@pytest.mark.parametrize("damage", ["half", "flipped", "tail", "gone"])
def test_a_damaged_log_loses_no_result(logged, tmp_path, damage):
    home = tmp_path / "home"
    shutil.copytree(logged, home)
    log = home / "paretoscope.duckdb.wal"
    content = bytearray(log.read_bytes())
    if damage == "half":
        log.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        log.write_bytes(content)
    elif damage == "tail":
        log.write_bytes(content + random.Random(7).randbytes(500))
    else:
        log.unlink()
    holds_everything(home)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/home cannot be written .*PARETOSCOPE_HOME"):
        Database(tmp_path / "file" / "home")


def test_the_page_starts_without_a_folder_that_can_be_written_and_says_so(filled, tmp_path):
    """As a home on a read-only disk: what can be read is shown, and nothing is written there."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "results").symlink_to(filled / "results")
    (home / "app.owner").mkdir()  # cannot be written, whoever asks
    with opened(home, run_jobs=False) as service:
        assert set(RUNS) <= set(service.runs()["run_id"])
        shelf = service.home
        assert shelf != home
        service.store.results.add(document("f" * 16))
        told = views.start(service, AT_HOME)["notice"]
    for part in (str(home), "cannot be written", "PARETOSCOPE_HOME", "is gone when the program"):
        assert part in told
    assert not shelf.exists()
    assert sorted(path.stem for path in (filled / "results").glob("*.json")) == RUNS


def test_no_job_outlives_a_folder_that_goes(tmp_path, monkeypatch):
    def launcher(home):
        return LocalLauncher(home, run=["tests.fake_attempt:run"], preload=())

    monkeypatch.setattr(service_module, "FIRST_RESULTS", tmp_path / "none")
    (tmp_path / "file").write_text("")
    with opened(tmp_path / "file" / "home", launcher=launcher, bounds={"pause": 20.0}) as service:
        job = service.submit("rtn@6").job_id
        until(lambda: [one for one in service.events(job) if one.kind == "progress"])
        (number,) = [one.data["process"] for one in service.events(job) if one.kind == "worker"]
        assert not gone(number)
    until(lambda: gone(number))
    assert not service.home.exists()


def test_an_older_schema_is_kept_as_it_was_before_it_is_changed(tmp_path):
    Database(tmp_path).close()
    before = (tmp_path / "paretoscope.duckdb").read_bytes()

    def add(cursor):
        cursor.execute("ALTER TABLE jobs ADD COLUMN colour VARCHAR")

    Database(tmp_path, [*MIGRATIONS, add]).close()
    (kept,) = tmp_path.glob("paretoscope.duckdb.schema-*")
    assert kept.read_bytes() == before
    home = tmp_path / "again"
    home.mkdir()
    shutil.copy(kept, home / "paretoscope.duckdb")
    with Database(home) as database, database.reading() as cursor:
        assert "colour" not in cursor.execute("SELECT * FROM jobs").df().columns


def test_a_changed_embedded_model_is_refused(tmp_path, monkeypatch):
    shutil.copytree(EMBEDDED, tmp_path / "model")
    path = next((tmp_path / "model").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(sources, "EMBEDDED", tmp_path / "model")
    monkeypatch.setattr(plan, "EMBEDDED", tmp_path / "model")
    with pytest.raises(ModelError, match="not those that came with this copy"):
        plan.resolve(ModelSource("default", tmp_path / "model"))


def test_a_clock_that_jumps_changes_no_length_of_time(tmp_path, monkeypatch):
    class Idle:
        def alive(self, name):
            return False

        started = alive

    with Store(tmp_path) as store:
        ledger = Ledger(store, Idle())
        ids = []
        for now in (2e9, 1e9, 1.5e9):  # forward, back, and on
            monkeypatch.setattr(time, "time", lambda now=now: now)
            ids.append(ledger.submit(os.urandom(8).hex(), {}).job_id)
            began = time.monotonic()
            assert ledger.wait(ids[-1], 0.1).active
            assert 0.1 <= time.monotonic() - began < 5
        assert len(set(ids)) == 3
        assert {job.job_id for job in ledger.jobs()} == set(ids)


@pytest.mark.slow
def test_the_app_ends_in_order_when_it_is_told_to(tmp_path):
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "app.py", "--home", str(home), "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=os.environ | {"PARETOSCOPE_HOME": str(home)},
    ) as app:
        assert app.stdout.readline().startswith(b"Paretoscope is at http")
        time.sleep(1)
        began = time.monotonic()
        app.send_signal(signal.SIGTERM)
        assert app.wait(30) == 0
        assert time.monotonic() - began < 10
    assert not (home / "app.owner").exists()
    assert not (home / "paretoscope.duckdb.wal").exists(), "everything is in the file"
    until(lambda: not list(home.glob("fork-*.sock")))
