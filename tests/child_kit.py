"""Child processes of tests: forks that cannot come back, and children that never outlive their parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any


def fork() -> int:
    """``os.fork``, without the warning that there are threads: there are, in whatever runs the tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(check: Callable[[], Any]) -> int:
    """The exit code of a forked child: 0 if ``check`` holds there, 1 if not, 3 if it raises, -14 if it hangs."""
    pid = fork()
    if pid == 0:
        code = 3
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(90)
            code = 0 if check() else 1
        except BaseException as error:  # noqa: BLE001 - the child must not go on as the test
            sys.stderr.write(f"in the child: {error!r}\n")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def end_with_parent() -> None:
    """End this process when standard input ends: whoever started it holds the other end, and may be killed.

    A child that waits for a signal would else wait for ever.
    """
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are the main thread's
    descriptor = os.dup(0)  # what runs here may put another input in its place
    threading.Thread(target=_end_at_end_of_file, args=[descriptor], daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, kept)


def _end_at_end_of_file(descriptor: int) -> None:
    while os.read(descriptor, 1024):
        pass
    os._exit(70)
