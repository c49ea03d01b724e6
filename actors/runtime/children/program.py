"""Starts a program in a process of its own: in its folder, with its streams, and nothing else of ours."""

from __future__ import annotations

import contextlib
import os
import signal

from actors.runtime.children.frames import framed
from actors.runtime.children.kernel import end_with_parent

#: ``(argv, folder, environment)``, all of it bytes.
Request = tuple[tuple[bytes, ...], bytes, tuple[tuple[bytes, bytes], ...]]


def begin(request: Request, streams: tuple[int, ...]) -> tuple[int, int]:
    """The number of a new child that becomes the program, and a pipe: it ends once that runs, or says in a
    frame which step failed, and how. Raises OSError where no process can be made.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        _become(request, streams, parent, writer)
    os.close(writer)
    return pid, reader


def _become(request: Request, streams: tuple[int, ...], parent: int, writer: int) -> None:
    """Be the program; never returns."""
    argv, folder, environment = request
    step = "start"
    try:
        os.setsid()
        end_with_parent()
        if os.getppid() != parent:
            return  # it ended before it could take us with it
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        _restore_signals()
        step = "folder"
        os.chdir(folder)
        step = "program"
        os.execvpe(argv[0], argv, dict(environment))  # noqa: S606 - which is what this is for
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(writer, framed((step, error.errno or 0)))
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as its parent
        with contextlib.suppress(OSError):
            os.write(writer, framed((step, 0)))
    finally:
        os._exit(127)


def _restore_signals() -> None:
    """Have every signal do what a program expects that starts: Python ignores some, and so do helpers."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
