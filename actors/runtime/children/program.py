"""Starts a program in a process of its own, with its folder, streams and variables, and nothing
else of ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from actors.runtime.children.confinement.confine import Plan, confine
from actors.runtime.children.confinement.privileges import limit
from actors.runtime.children.frames import framed
from actors.runtime.children.kernel import end_with_parent

#: The pid of a parent in another PID namespace.
_OUTSIDE = 0
_NOT_THERE = FileNotFoundError, NotADirectoryError
#: Functions to run in a forked process instead of the program of that name.
FUNCTIONS: dict[bytes, Callable[[Sequence[bytes]], object]] = {}
#: ``(argv, folder, environment)``, all bytes; an empty ``argv`` only tries what comes before the program.
Request = tuple[tuple[bytes, ...], bytes, tuple[tuple[bytes, bytes], ...]]


def begin(request: Request, streams: Sequence[int], plan: Plan | None = None) -> tuple[int, int]:
    """Start a process that becomes the program, confined to a plan. Returns its pid, and a pipe that closes
    once the program runs, or carries a frame with the step that failed and the error number. Raises OSError
    if no process can be made.
    """
    reader, writer = os.pipe()
    try:
        return fork_program(request, streams, plan, writer), reader
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)


def fork_program(request: Request, streams: Sequence[int], plan: Plan | None, writer: int) -> int:
    """Fork a process that becomes the program, confined to a plan, and return its pid. If the plan has a
    view, this thread is already in it. The process reports to ``writer``, in a frame, which step failed, and
    the error number. Raises OSError.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(request, streams, plan, parent, writer)
    return pid


def spawn_program(request: Request, streams: Sequence[int]) -> int:
    """Start the program in a process confined as this thread is, and return its pid. Raises OSError."""
    argv, _, variables = request
    environment = dict(variables)
    actions = [(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)]
    failed: OSError | None = None
    for path in _paths(argv[0], environment):
        try:
            os.stat(path)  # cheaper than to find out in a process
            return os.posix_spawn(path, argv, environment, file_actions=actions, setsid=True)
        except OSError as error:
            if failed is None or not isinstance(error, _NOT_THERE):
                failed = error
    raise failed or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _paths(program: bytes, environment: Mapping[bytes, bytes]) -> list[bytes]:
    """The paths at which a program is looked for."""
    if b"/" in program:
        return [program]
    folders = environment.get(b"PATH", os.fsencode(os.defpath)).split(os.fsencode(os.pathsep))
    return [os.path.join(folder, program) for folder in folders]


def _become(request: Request, streams: Sequence[int], plan: Plan | None, parent: int, writer: int) -> None:
    """Execute the program in this process. Never returns."""
    argv, folder, environment = request
    step = "start"
    try:
        os.setsid()
        is_confined = plan is not None and plan.has_view
        if not is_confined:  # otherwise it ends with the first process of its namespace
            end_with_parent()
        if os.getppid() not in (parent, _OUTSIDE):
            return  # it ended before it could take this process along
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for step in () if plan is None or is_confined else confine(plan):  # noqa: B007 - which is sent where it fails
            pass
        if plan is not None:
            step = "limits"
            limit(plan.limits, is_bounded=is_confined)
        step = "folder"
        os.chdir(folder)
        step = "program"
        if not argv:
            os._exit(0)
        if (function := FUNCTIONS.get(argv[0])) is not None:
            _call(function, argv[1:], environment)
        os.execvpe(argv[0], argv, dict(environment))  # noqa: S606 - which is what this is for
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(writer, framed((step, error.errno or 0)))
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not run on as its parent
        with contextlib.suppress(OSError):
            os.write(writer, framed((step, 0)))
    finally:
        os._exit(127)


def _call(
    function: Callable[[Sequence[bytes]], object],
    arguments: Sequence[bytes],
    environment: Sequence[tuple[bytes, bytes]],
) -> NoReturn:
    """Call a function instead of executing a program, in the state of a freshly started interpreter."""
    try:
        os.environb.clear()
        os.environb.update(environment)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            if signal.getsignal(number) is _do_nothing:
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        function(arguments)
    finally:  # the descriptors that it has closed may belong to others by now
        os._exit(1)


def have_programs_begin_as_usual() -> None:
    """Restore the default action of every signal, which programs expect, for all that are started from this
    process.

    The system restores handled signals when a program starts, but not ignored ones, and Python ignores some.
    These get a handler that does nothing. Done once here, it need not be done in each process.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _do_nothing(number: int, frame: object) -> None:
    pass
