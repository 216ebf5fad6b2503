"""What a worker may not do: be silent, take all memory or disk, reach the network, shout."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from backend.jobs.confinement import FILES_LIMIT, NICENESS, leave_network, shortage
from backend.jobs.states import State
from tests.test_jobs_attempts import FORK, Bench, gone, until


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    opened = Bench(tmp_path_factory.mktemp("limits"), FORK)
    assert opened.launcher.fork_server.ping(20)
    yield opened
    opened.close()


def worker_of(bench, job_id):
    until(lambda: bench.said(job_id, "worker"))
    return bench.said(job_id, "worker")[0]["process"]


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["stop", "hold the turn"])
def test_a_worker_without_a_sign_of_life_is_stopped(warm, mode):
    job_id = warm.submit(mode, silence_seconds=1.5)
    number = worker_of(warm, job_id)
    job = warm.finish(job_id)
    assert job.state is State.TIMEOUT
    assert job.reason == "Stopped: its process gave no sign of life for too long."
    assert gone(number)
    assert warm.finish(warm.submit()).state is State.DONE


@pytest.mark.faults
def test_signs_of_life_keep_a_slow_worker_going(warm):
    assert warm.finish(warm.submit(pause=0.8, silence_seconds=1.5)).state is State.DONE


@pytest.mark.faults
def test_a_worker_that_wants_more_memory_than_there_is_says_what_helps(warm):
    job = warm.finish(warm.submit("allocate", data_limit_bytes=2**30))
    assert job.state is State.FAILED
    assert job.reason.startswith("out_of_memory: ")
    assert "smaller model" in job.reason
    assert warm.finish(warm.submit()).state is State.DONE


@pytest.mark.faults
def test_a_file_beyond_what_the_disk_holds_fails_its_job_alone(warm):
    job = warm.finish(warm.submit("fill", file_limit_bytes=2**19))
    assert job.state is State.FAILED
    assert job.reason.startswith("disk_full: ")
    assert warm.finish(warm.submit()).state is State.DONE


@pytest.mark.security
def test_a_worker_is_bounded_by_the_system(warm):
    job_id = warm.submit("limits", data_limit_bytes=2**31, file_limit_bytes=2**30)
    assert warm.finish(job_id).state is State.DONE
    (found,) = [one["limits"] for one in warm.said(job_id, "log")]
    assert found["niceness"] == os.nice(0) + NICENESS
    assert found["CORE"] == [0, 0]
    assert found["NOFILE"][1] <= FILES_LIMIT
    assert (found["FSIZE"], found["DATA"]) == ([2**30] * 2, [2**31] * 2)


@pytest.mark.security
def test_a_worker_that_reads_models_reaches_nobody(warm):
    if not _may_leave_network():
        pytest.skip("this system does not let a process leave its network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        job = warm.finish(warm.submit("reach out", port=server.getsockname()[1]))
    assert job.state is State.FAILED
    assert job.reason.startswith("OSError: ")
    assert "unreachable" in job.reason


@pytest.mark.security
def test_a_user_without_rights_leaves_the_network_too():
    if not _exits_well(_leave_as_nobody, lambda: True):
        pytest.skip("this system does not let its users make spaces of their own")
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        Path(folder).chmod(0o777)
        port = server.getsockname()[1]

        def cut_off():
            Path(folder, "written").write_text("as before")
            with socket.socket() as asks:  # nothing imported: the libraries may be root's alone
                return asks.connect_ex(("127.0.0.1", port)) == errno.ENETUNREACH

        assert _exits_well(_leave_as_nobody, cut_off)
        assert Path(folder, "written").read_text() == "as before"


def _leave_as_nobody():
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(1000)
        os.setuid(1000)
    return leave_network()


def _exits_well(*steps):
    """Whether all steps come true in a process of its own."""
    number = os.fork()
    if number == 0:
        done = False
        with contextlib.suppress(BaseException):
            done = all(step() for step in steps)
        os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 0


def _may_leave_network():
    return _exits_well(leave_network)


@pytest.mark.faults
def test_a_message_without_an_end_is_not_kept(warm):
    runner_bytes = psutil.Process().memory_info().rss
    job = warm.finish(warm.submit("shout"))
    assert (job.state, job.reason) == (State.FAILED, "protocol: an event is too long")
    assert (warm.folder(job.job_id) / "out.jsonl").stat().st_size < 10_000
    assert psutil.Process().memory_info().rss - runner_bytes < 50e6


@pytest.mark.faults
def test_cancelling_takes_less_than_two_seconds_at_any_moment(warm):
    chance = random.Random(17)
    for _ in range(20):
        job_id = warm.submit("hang")
        time.sleep(chance.uniform(0, 0.25))
        began = time.monotonic()
        warm.ledger.cancel(job_id)
        assert warm.finish(job_id).state is State.CANCELLED
        assert time.monotonic() - began < 2
        for said in warm.said(job_id, "worker"):
            assert gone(said["process"])


@pytest.mark.faults
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk_full"),
        (OSError(errno.ENOENT, "No such file"), ""),
        (ValueError("3"), ""),
    ],
)
def test_only_a_shortage_is_called_one(error, told):
    assert shortage(error).startswith(told)
    assert bool(shortage(error)) is bool(told)
