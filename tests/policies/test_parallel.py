"""Work in threads: order, bounds, and the ways in which it ends early."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from prmkit.policies.parallel import in_threads


def test_results_come_in_order_whatever_takes_longest():
    def work(i):
        time.sleep(0.02 * (5 - i))
        return i * i

    assert in_threads(work, range(5), 5) == [0, 1, 4, 9, 16]
    assert in_threads(work, [], 5) == []


def test_items_are_begun_in_order_and_no_more_than_allowed_at_a_time():
    begun, now, most = [], 0, 0
    lock = threading.Lock()

    def work(i):
        nonlocal now, most
        with lock:
            begun.append(i)
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    in_threads(work, range(20), 3)
    assert begun == list(range(20))
    assert most == 3


def test_the_first_error_ends_it():
    done = []

    def work(i):
        if i == 3:
            raise KeyError("three")
        done.append(i)
        time.sleep(0.01)

    with pytest.raises(KeyError, match="three"):
        in_threads(work, range(1000), 2)
    assert len(done) < 20


def test_an_interrupt_does_not_wait_for_what_is_under_way():
    begun, cancelled, may_end = [], threading.Event(), threading.Event()

    def work(i):
        begun.append(i)
        if len(begun) == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        may_end.wait(30)

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_threads(work, range(100), 2, cancelled)
    assert time.monotonic() - start < 10
    assert cancelled.is_set()
    may_end.set()
    time.sleep(0.1)
    assert begun == [0, 1]
