"""Helpers of a frozen application, whose executable is not Python: it is started once more to be one."""

from __future__ import annotations

import importlib
import os
import sys

from protocol.errors import ChildNotStarted

#: The first argument of an application that is started to be a helper, or another program of ours.
MARK, _PROGRAM = "--polypod-helper", "--polypod-program"
#: Whether this application knows what to do then.
_supported = False


def freeze_support() -> None:
    """In an application that is frozen into an executable (PyInstaller, cx_Freeze): call this first, under
    ``if __name__ == "__main__":``.

    If it was started as a helper that starts children or searches files, it becomes that helper and this does
    not return. Without it such an application cannot start child processes.
    """
    global _supported  # noqa: PLW0603 - of the application
    _supported = True
    if sys.argv[1:2] == [MARK]:
        from actors.runtime.children.helper import main  # noqa: PLC0415 - a helper alone pays for it

        main(sys.argv[2:])
        os._exit(0)
    if sys.argv[1:2] == [_PROGRAM]:
        importlib.import_module(sys.argv[2]).main(*sys.argv[3:])
        sys.exit()


def is_frozen() -> bool:
    """Whether the executable is an application rather than Python."""
    return bool(getattr(sys, "frozen", False))


def check_can_start(program: str) -> None:
    """Raise ChildNotStarted, of ``program``, where our own executable cannot be started to be a helper: it
    would be a whole application once more, or is not known.
    """
    if is_frozen() and not _supported:
        raise ChildNotStarted.of(
            program,
            "a frozen application has no Python to start children with",
            hint='call polypod.freeze_support() first, under if __name__ == "__main__":',
        )
    if not sys.executable:
        raise ChildNotStarted.of(
            program,
            "this Python does not know its own executable, for example because it is embedded in "
            "another program",
            hint="set sys.executable to a Python of the same version",
        )


def own_program(module: str, file: str, *arguments: str) -> list[str]:
    """The command that runs a program of ours, the function ``main`` of the ``module`` in that ``file``, with
    nothing but the standard library. Raises ChildNotStarted.
    """
    check_can_start(module.rpartition(".")[2])
    if is_frozen():
        return [sys.executable, _PROGRAM, module, *arguments]
    return [sys.executable, "-I", "-S", file, *arguments]
