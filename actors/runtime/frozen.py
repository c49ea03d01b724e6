"""Helpers of a frozen application, whose executable is no Python: it is started once more to be one."""

from __future__ import annotations

import os
import sys

#: The first argument of an application that is started to be a helper.
MARK = "--polypod-helper"
#: Whether this application knows what to do then.
_supported = False


def freeze_support() -> None:
    """In an application that is frozen into an executable (PyInstaller, cx_Freeze): call this first, under
    ``if __name__ == "__main__":``. Where it was started to be a helper that starts children, it is one, and
    this does not return. Without it such an application cannot start child processes.
    """
    global _supported  # noqa: PLW0603 - of the application
    _supported = True
    if sys.argv[1:2] == [MARK]:
        from actors.runtime.children.helper import main  # noqa: PLC0415 - a helper alone pays for it

        main(sys.argv[2:])
        os._exit(0)


def is_frozen() -> bool:
    """Whether the executable is an application, and no Python."""
    return bool(getattr(sys, "frozen", False))


def can_help() -> bool:
    """Whether an application that is frozen can be started to be a helper."""
    return _supported
