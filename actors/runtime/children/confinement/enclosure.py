"""Starts a confined program from a thread of its warden.

Confinement belongs to a thread, and what the thread starts inherits it. So a thread is confined and starts
the program, without a copy of the warden's memory. Resource limits belong to a process, so a program with
limits is started by a process in between.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
from collections.abc import Sequence

from actors.runtime.children.confinement.confine import Plan, confine
from actors.runtime.children.confinement.init import Init
from actors.runtime.children.confinement.privileges import leave_shared, limit
from actors.runtime.children.frames import framed
from actors.runtime.children.program import FUNCTIONS, Request, fork_program, spawn_program

#: The frame that is not a failed step: it carries the pid.
BEGUN = "begun"


def begin_confined(request: Request, streams: Sequence[int], plan: Plan, init: Init) -> int:
    """Begin to start a program in the namespaces of ``init``, confined to a plan with a view. Returns a pipe
    that closes once the program runs. Before that it carries frames: ``BEGUN`` and the pid, or the name of a
    step that failed, and its error number. Raises OSError.
    """
    started, writer = os.pipe()
    try:
        _thread.start_new_thread(_start, (request, streams, plan, init, writer))
    except RuntimeError:  # there may be too many threads
        os.close(started)
        os.close(writer)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    return started


def _start(request: Request, streams: Sequence[int], plan: Plan, init: Init, writer: int) -> None:
    """Start a program on a thread of its own, which stays until the program has ended: a program with a
    parent-death signal gets it when the thread that started it ends.
    """
    said: tuple[str, int]
    step = "namespaces"
    try:
        proc = init.enter(network=plan.network, most_processes=plan.limits[2])
        leave_shared()
        for step in confine(plan, proc):  # noqa: B007 - which is said where it fails
            pass
        if _can_be_spawned(request, plan):
            step = "limits"
            limit(plan.limits, is_bounded=True)
            step = "folder"
            os.chdir(request[1])
            step = "program"
            said = BEGUN, spawn_program(request, streams)
        else:
            step = "process"
            said = BEGUN, fork_program(request, streams, plan, writer)
    except OSError as error:
        said = step, error.errno or 0
    except BaseException:  # noqa: BLE001 - whatever it is, the warden must learn of it
        said = step, 0
    os.write(writer, framed(said))
    os.close(writer)
    if said[0] == BEGUN:
        with contextlib.suppress(ChildProcessError):  # it may have been reaped already
            os.waitid(os.P_PID, said[1], os.WEXITED | os.WNOWAIT)


def _can_be_spawned(request: Request, plan: Plan) -> bool:
    """Whether this thread can start it directly: it is no function and has no limits."""
    argv = request[0]
    return bool(argv) and argv[0] not in FUNCTIONS and all(most is None for most in plan.limits)
