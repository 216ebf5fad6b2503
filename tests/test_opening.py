"""A program that is told to end hears it, at whatever moment, and as often as it is told."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from backend.errors import ResourceError
from backend.opening import check_port

WAITING = """
import os
from queue import Empty
from backend.opening import ending
told, heard = ending(), 0
print("ready", flush=True)
while heard < 2000:
    try:
        told.get(timeout=1e-5)
        heard += 1
    except Empty:
        pass
os._exit(0)  # an interpreter that ends in order gives signals up before
"""


def test_signals_meet_a_thread_that_waits_for_them_at_any_moment():
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE) as program:
        assert program.stdout.readline() == b"ready\n"
        last = time.monotonic() + 20
        while program.poll() is None and time.monotonic() < last:
            os.kill(program.pid, signal.SIGTERM)
        if program.poll() is None:
            program.kill()
    assert program.returncode == 0


def test_a_program_that_waits_without_end_is_woken_by_ctrl_c():
    waiting = (
        "from backend.opening import ending; told = ending(); print(1, flush=True); told.get()"
    )
    with subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE) as program:
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
        try:
            assert program.wait(30) == 0
        finally:
            program.kill()


def test_a_port_that_another_program_listens_on_is_refused_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ResourceError, match=rf"127\.0\.0\.1:{port} cannot be listened on"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", None)
    with pytest.raises(ResourceError, match="name another with --port"):
        check_port("127.0.0.1", 99_999)
