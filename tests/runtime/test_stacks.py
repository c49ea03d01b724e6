"""What is read off the stacks of threads: a look at them keeps nothing alive that stands there."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from actors.runtime.stacks import count_waiting_for_others, threads_that_wait


@pytest.fixture(autouse=True)
def _without_collections() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def thread_that_waits(future: Future[None]) -> Iterator[int]:
    """The identifier of a thread that waits for ``future``, which is set in the end."""
    thread = threading.Thread(target=future.result)
    thread.start()
    try:
        while not threads_that_wait(future):
            thread.join(0.001)
        yield thread.ident or 0
    finally:
        future.set_result(None)
        thread.join()


class Local:
    """What stands on the stack of who looks."""


def test_who_counts_threads_that_wait_for_others_keeps_no_stack_alive() -> None:
    def look(local: Local) -> weakref.ref[Local]:
        assert count_waiting_for_others([thread, threading.get_ident()]) == 1
        return weakref.ref(local)

    with thread_that_waits(Future()) as thread:
        seen = look(Local())
    assert seen() is None


def test_who_looks_for_threads_that_wait_for_a_future_does_not_keep_that_alive() -> None:
    future: Future[None] = Future()
    is_alive = weakref.ref(future)
    with thread_that_waits(future):
        del future
    assert is_alive() is None
