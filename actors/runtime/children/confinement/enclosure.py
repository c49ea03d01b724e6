"""Starts a confined program by a thread of its warden.

What confines a program is each thread's own, and what a thread starts has it too. So a thread is confined
and starts the program: the memory of the warden is copied for it neither as a whole nor page by page. A
limit of resources is all of a process's, so a program that has any is started by a process in between.
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

#: What is said of a start that is not a step which failed: the number of the process.
BEGUN = "begun"


def begin_confined(request: Request, streams: Sequence[int], plan: Plan, init: Init) -> int:
    """Begin to start a program in the namespaces of ``init``, confined to a plan that has a view. Returns a
    pipe: it ends once the program runs, and frames come before: ``BEGUN`` and the number of its process, or
    the name of the step that failed, and how. Raises OSError.
    """
    started, writer = os.pipe()
    try:
        _thread.start_new_thread(_start, (request, streams, plan, init, writer))
    except RuntimeError:  # there may be no more of them
        os.close(started)
        os.close(writer)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    return started


def _start(request: Request, streams: Sequence[int], plan: Plan, init: Init, writer: int) -> None:
    """Start a program on a thread that does nothing else, before or after, and stays until that has ended: a
    program that asks to end with its parent ends with the thread that started it.
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
    except BaseException:  # noqa: BLE001 - whatever it is, the owner is to learn of it
        said = step, 0
    os.write(writer, framed(said))
    os.close(writer)
    if said[0] == BEGUN:
        with contextlib.suppress(ChildProcessError):  # it has been waited for by now
            os.waitid(os.P_PID, said[1], os.WEXITED | os.WNOWAIT)


def _can_be_spawned(request: Request, plan: Plan) -> bool:
    """Whether this thread can start it as it is: neither is it a function, nor has it limits."""
    argv = request[0]
    return bool(argv) and argv[0] not in FUNCTIONS and all(most is None for most in plan.limits)
