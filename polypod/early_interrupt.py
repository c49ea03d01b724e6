"""Ctrl-C while the command is still being imported, before anything of it could handle that.

What this imports itself is next to nothing: until it is there, Ctrl-C shows a traceback.
"""

import _signal as signal  # type: ignore[import-not-found]  # without signal's enumerations, for milliseconds
import sys


def is_command() -> bool:
    """Whether this process is ``polypod`` or ``python -m polypod``, not a program that uses us, nor a process
    that the command starts.
    """
    started_as = sys.argv[0] if sys.argv else ""
    if started_as.replace("\\", "/").rpartition("/")[2] == "polypod":
        return started_as in sys.orig_argv
    return ("-m", "polypod") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)


def end_at_ctrl_c() -> None:
    """Have Ctrl-C end the command at once and without a traceback, until it begins to work: nothing is open
    yet. Where Ctrl-C is ignored it stays so.
    """
    if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
