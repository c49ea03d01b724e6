"""Ctrl-C while the command is still being imported, before anything of it could handle that."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path


def is_command() -> bool:
    """Whether this process is ``polypod`` or ``python -m polypod``, not a program that uses us."""
    started_as = sys.argv[0] if sys.argv else ""
    return Path(started_as).name == "polypod" or ("-m", "polypod") in pairwise(sys.orig_argv)


@contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C end the command at once and without a traceback, in the body alone. Nothing is open yet."""
    ours = is_command() and threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, say
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
