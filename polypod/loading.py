"""Ctrl-C while the command is still being imported, before anything of it could handle that.

What this imports itself is as little as can be: until it is there, Ctrl-C shows a traceback.
"""

import signal
import sys
from types import TracebackType


def is_command() -> bool:
    """Whether this process is ``polypod`` or ``python -m polypod``, not a program that uses us."""
    started_as = sys.argv[0].replace("\\", "/") if sys.argv else ""
    if started_as.rpartition("/")[2] == "polypod":
        return True
    return ("-m", "polypod") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)


class Loading:
    """Has Ctrl-C end the command at once and without a traceback, in the body alone. Nothing is open yet."""

    def __enter__(self) -> None:
        self._ours = is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._ours:  # and not ignored, as where it was started with nohup
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
