"""``Child``: a handle for a running child process: its streams, how to stop it, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from actors.runtime.children.descendants import KILL_WAIT, Process, send
from actors.runtime.children.frames import Frames, framed
from actors.runtime.children.pipes import ChildInput, ChildOutput
from actors.runtime.children.spare import Connection
from protocol.errors import ChildError, ChildLost, ChildNotConfined, ChildNotStarted

#: What each step of a confinement does, for error messages.
_OF_CONFINEMENT = {
    "namespaces": "its own namespaces",
    "files": "the files that it may see",
    "limits": "its limits",
    "privileges": "giving up privileges",
    "landlock": "Landlock",
    "seccomp": "seccomp",
}

#: Seconds after which a child that has not started is checked: its warden may have been stopped.
_PATIENCE = 2.0
#: Seconds that a warden may take in addition to its ladder.
_GRACE = 2.0


class Ladder(Struct, frozen=True):
    """How a child is ended: first the signal ``request`` to its process group, after ``request_wait`` seconds
    TERM, and after ``term_wait`` more KILL. TERM and KILL go to all its descendants as well, and to what it
    leaves behind when it ends by itself.

    A runner that asks in another way, by a line or by closing the input, sets only ``request_wait``.
    """

    request: int | None = None
    request_wait: float = 0.0
    term_wait: float = 2.0

    @property
    def longest(self) -> float:
        """Seconds after which everything that can be killed has been."""
        return self.request_wait + self.term_wait + KILL_WAIT

    def plain(self) -> tuple[int, float, float]:
        """The ladder as sent to a warden."""
        return (int(self.request or 0), float(self.request_wait), float(self.term_wait))


class ChildEnd(Struct, frozen=True):
    """How a child ended: its exit code, or minus the number of the signal that ended it, and the pids of its
    processes that could not be killed (another user's, or hanging in the kernel).
    """

    code: int
    left: tuple[int, ...] = ()


class Child:
    """A running program. Used only on the loop that started it.

    ``stdin``, ``stdout`` and ``stderr`` exist if they were requested as pipes.
    """

    def __init__(
        self,
        program: str,
        connection: Connection,
        unsent: bytes,
        ladder: Ladder,
        stdin: ChildInput | None,
        stdout: ChildOutput | None,
        stderr: ChildOutput | None,
        over: Callable[[Child, Connection | None], object],
        rouse: Callable[[], object],
    ) -> None:
        """``unsent`` is the part of the start request that its warden has not received yet; ``ladder`` is the
        one in that request. ``over`` is called at its end, with the connection to its warden if that can own
        another child. ``rouse`` is called if the warden does not do what it is asked, because the helper may
        have been stopped.
        """
        self.program = program
        self.pid = 0
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._connection = connection
        control = connection.control
        self._control: socket.socket | None = control
        self._over, self._rouse_helper = over, rouse
        self._owned = False
        self._warden = connection.warden
        #: Whether the warden was asked to end it; the warden may read that only after everything has ended.
        self._is_stopped = False
        #: When the warden is checked next.
        self._timer: asyncio.TimerHandle | None = None
        self._frames = Frames()
        self._unsent = unsent
        self._ladder = ladder
        self._failed: tuple[str, int] | None = None
        self._loop = loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[ChildEnd] = loop.create_future()
        loop.add_reader(control.fileno(), self._receive)
        if unsent:
            self._send_rest()

    def __repr__(self) -> str:
        how = "ended" if self._ended.done() else f"pid {self.pid}"
        return f"<Child {self.program}, {how}>"

    @property
    def ended(self) -> bool:
        """Whether the last of its processes has ended."""
        return self._ended.done()

    @property
    def had_dead_warden(self) -> bool:
        """Whether its warden was a spare one that was killed before it read the request."""
        return self._connection.warden is not None and not self._owned

    @property
    def is_of_running_loop(self) -> bool:
        """Whether it may be awaited on the running loop."""
        return self._loop is asyncio.get_running_loop()

    async def wait(self) -> ChildEnd:
        """Wait until its last process has ended, and return how the child ended. Raises ChildLost."""
        return await asyncio.shield(self._ended)

    async def stop(self, ladder: Ladder | None = None) -> ChildEnd:
        """End it by ``ladder``, or by the one it was started with. If it is already being ended, a shorter
        ladder shortens the rest. Raises ChildLost.
        """
        self.ask_to_stop(ladder)
        return await self.wait()

    def ask_to_stop(self, ladder: Ladder | None = None) -> None:
        """Have its warden start the ladder."""
        if not self._ended.done():
            ladder = ladder or self._ladder
            self._is_stopped = True
            self._send(framed(("stop", ladder.plain())))
            self.rouse()
            self._look_after(ladder.longest + _GRACE, self._kill_warden)

    # -- for the launcher ------------------------------------------------------------------------

    async def wait_for_start(self) -> None:
        """Wait until it runs; if cancelled, until it has ended. Raises ChildNotStarted, ChildLost."""
        self._look_after(_PATIENCE, self._rouse_until_started)
        try:
            await self._started
        except asyncio.CancelledError:
            with contextlib.suppress(ChildError):
                await self.stop(Ladder())
            raise

    def drop(self) -> None:
        """Close what a forked process inherited: the child belongs to its parent."""
        if self._control is not None:
            self._control.close()
            self._control = None
        for each in (self.stdin, self.stdout, self.stderr):
            if each is not None:
                each.drop()

    # -- a warden that was stopped, by its child perhaps -----------------------------------------

    def _look_after(self, seconds: float, work: Callable[[], object]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, work)

    def _rouse_until_started(self) -> None:
        """Have its warden start it, even if other programs stop the helper again and again."""
        self.rouse()
        if not self._started.done():
            self._look_after(_PATIENCE, self._rouse_until_started)

    def rouse(self) -> None:
        """Continue helper and warden if somebody has stopped them. Thread-safe."""
        self._rouse_helper()
        if self._warden is not None and self._control is not None:
            send(self._warden, signal.SIGCONT)

    def _kill_warden(self) -> None:
        """Kill a warden that is stopped again and again; the helper inherits what it owned, and
        kills that.
        """
        self._rouse_helper()
        if self._warden is not None and self._control is not None:
            send(self._warden, signal.SIGKILL)
        self._look_after(KILL_WAIT + _GRACE, self._lose)

    # -- its warden ------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if self._control is None:
            return
        waiting = bool(self._unsent)
        self._unsent += data
        if not waiting:
            self._send_rest()

    def _send_rest(self) -> None:
        if self._control is None:
            return
        try:
            self._unsent = self._unsent[self._control.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""  # the warden is gone, and what it owned soon will be
        if self._unsent:
            self._loop.add_writer(self._control.fileno(), self._send_rest)
        else:
            self._loop.remove_writer(self._control.fileno())

    def _receive(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            data = control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for what, *rest in self._frames.feed(data):
            self._take(what, rest)
        if not data:
            self._lose()

    def _take(self, what: str, rest: list[Any]) -> None:
        if what == "owned":
            self._warden = Process(*rest) if rest else None
            self._owned = True
        elif what == "started":
            self.pid = rest[0]
            if not self._started.done():
                self._started.set_result(None)
        elif what == "failed":
            self._failed = (rest[0], rest[1])
        elif what == "gone":
            code, left, is_spare = rest
            self._finish(ChildEnd(code, left), is_spare=is_spare and not self._is_stopped)

    def _lose(self) -> None:
        """Give the child up, since its warden is gone and has not reported its end."""
        if not self._owned:
            text = (
                f"no warden process could be created for {self.program} (the helper may be "
                "out of file descriptors)"
            )
        else:
            text = f"the warden process of {self.program} was killed; how the program ended is unknown"
        self._finish(ChildLost(text))

    def _finish(self, end: ChildEnd | Exception, *, is_spare: bool = False) -> None:
        control, self._control = self._control, None
        if control is None:
            return
        self._loop.remove_reader(control.fileno())
        self._loop.remove_writer(control.fileno())
        if self._timer is not None:
            self._timer.cancel()
        if self._failed is not None:
            end = _not_started(self.program, *self._failed)
            is_spare = False
        self._end_streams()
        if is_spare:
            self._connection.warden = self._warden
        else:
            control.close()
        self._over(self, self._connection if is_spare else None)
        if isinstance(end, ChildEnd):
            self._ended.set_result(end)
            return
        for future in (self._started, self._ended):
            if not future.done():
                future.set_exception(end)
                future.exception()  # nobody has to wait for it

    def _end_streams(self) -> None:
        for each in (self.stdout, self.stderr):
            if each is not None:
                each.finish()
                if self._failed is not None:
                    each.close()
        if self.stdin is not None:
            self.stdin.close()


def _not_started(program: str, step: str, number: int) -> ChildNotStarted:
    """The error that says which step kept a program from starting."""
    words = os.strerror(number) if number else "unknown reason"
    if step in _OF_CONFINEMENT:
        why = f"it cannot be confined: {_OF_CONFINEMENT[step]}: {words}"
        return ChildNotConfined.of(program, why, hint="polypod doctor shows what this machine can confine")
    hint = None
    if step == "folder":
        words = f"its working folder: {words}"
    elif step == "process":
        words = f"no process can be created: {words}"
        hint = "stop some running processes, or raise their limit"
    return ChildNotStarted.of(program, words, hint=hint)
