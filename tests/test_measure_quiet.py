"""Whoever times something has the machine alone."""

import threading
import time

from backend.measure.quiet import Quiet


def test_two_may_share(tmp_path):
    inside = threading.Event()

    def beside():
        with Quiet(tmp_path).shared():
            inside.set()

    with Quiet(tmp_path).shared():
        thread = threading.Thread(target=beside)
        thread.start()
        assert inside.wait(5)
    thread.join(5)


def test_who_is_alone_waits_for_shares_and_holds_up_new_ones(tmp_path):
    order = []
    entered, asked = threading.Event(), threading.Event()

    def alone():
        asked.set()
        with Quiet(tmp_path).alone():
            order.append("alone")
            entered.set()

    def late():
        asked.wait()
        time.sleep(0.1)  # until the gate is shut
        with Quiet(tmp_path).shared():
            order.append("late")

    threads = [threading.Thread(target=work) for work in (alone, late)]
    with Quiet(tmp_path).shared():
        for thread in threads:
            thread.start()
        asked.wait()
        time.sleep(0.3)
        order.append("first share ends")
        assert not entered.is_set()
    for thread in threads:
        thread.join(5)
    assert order == ["first share ends", "alone", "late"]
