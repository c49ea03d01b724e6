"""Ends a test that is past its time, whatever it waits in: pytest-timeout raises once, an error that hypothesis
takes for one of the property's, to try the examples again and wait anew, and its clean-up may wait for ever.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from types import FrameType
from typing import Any

import pytest

#: Seconds after which what still goes on is ended once more.
AGAIN = 30.0


class Overdue(BaseException):
    """A test takes too long: nobody who expects errors handles this one."""


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Generator[None, object, object]:
    """Have the alarm raise Overdue, and come again until the test is over."""
    done = yield
    fail = signal.getsignal(signal.SIGALRM)
    if settings.timeout > 0 and callable(fail):  # no other way was asked for

        def end(number: int, frame: FrameType | None) -> None:
            try:
                fail(number, frame)
            except pytest.fail.Exception as failed:
                raise Overdue(failed.msg) from None

        signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN)
    return done
