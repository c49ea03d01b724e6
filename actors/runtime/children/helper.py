"""The launcher's helper process: forks a warden for each child, and kills what a lost warden leaves behind.

A request for a child is one byte with a descriptor: the warden's end of the socket over which polypod and the
warden talk. The helper ends when it is asked to, or when polypod ends, and in both cases after all its
wardens. That polypod has ended shows by a pidfd as well as by the socket, which another fork of polypod may
hold open. What the helper is asked to hold, such as a lock of polypod's, stays open until then.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from collections import Counter
from importlib import import_module

from actors.runtime.children.descendants import kill_all
from actors.runtime.children.frames import END, HOLD, KILL, framed, receive
from actors.runtime.children.kernel import go_on_at_end_of_parent, take_in_orphans
from actors.runtime.children.program import have_programs_begin_as_usual
from actors.runtime.children.waiting import Waiting, notice_children, reap
from actors.runtime.children.warden import own_children

#: Descriptors sent with a byte.
DESCRIPTORS = 1
#: Seconds between two looks for what a dead warden has left.
_AGAIN = 0.05
#: The most looks: a process that survives SIGKILL for so long hangs in the kernel.
_LOOKS = 100
#: How often a warden may be stopped, perhaps by its child, before it is killed and the helper takes what it
#: owned.
_STOPS = 100


class Helper:
    """Forks wardens, and ends with polypod."""

    def __init__(self, asked: socket.socket, polypod: int) -> None:
        """``asked`` receives the requests; ``polypod`` is a pidfd of polypod, or -1 if there is none."""
        self._asked = asked
        self._polypod = polypod
        self._lifeline, self._lifeline_held = os.pipe()
        self._waiting = Waiting()
        self._waiting.watch(asked.fileno(), self._receive)
        if polypod >= 0:
            self._waiting.watch(polypod, self._end)
        #: The control sockets of living wardens. Our copies keep them open until what a killed warden left
        #: has ended.
        self._wardens: dict[int, int] = {}
        #: The control sockets of killed wardens.
        self._lost: list[int] = []
        #: What is held open, by wardens too, until the last child has ended.
        self._held: list[int] = []
        self._looks = 0
        self._stops: Counter[int] = Counter()
        self._ending = False

    def run(self) -> None:
        """Serve until polypod and then all wardens have ended."""
        take_in_orphans()
        go_on_at_end_of_parent()  # a child may have stopped it by then, and its warden
        while not (self._ending and not self._wardens and not self._lost):
            self._waiting.wait(_AGAIN if self._lost else None)
            self._reap()

    def _receive(self) -> None:
        try:
            data, descriptors = receive(self._asked, 1, DESCRIPTORS)
        except ConnectionError:
            data, descriptors = b"", []
        if not data:
            self._waiting.forget(self._asked.fileno())
            self._end()
        elif data == END:
            self._end()
        elif data == KILL:
            self._kill_wardens()
        elif data == HOLD and descriptors:
            self._held += descriptors
        elif len(descriptors) == DESCRIPTORS and not self._ending:
            self._fork(*descriptors)
        else:  # out of descriptors: the caller sees that its socket has closed
            _close(*descriptors)

    def _fork(self, control: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(control, framed(("failed", "process", error.errno or 0)))
            os.close(control)
            return
        if pid == 0:
            self._become_warden(control)
        self._wardens[pid] = control

    def _become_warden(self, control: int) -> None:
        """Become a warden. Never returns."""
        code = 1
        try:
            self._waiting.close()
            _close(self._asked.detach(), self._lifeline_held, *self._wardens.values(), *self._lost)
            if self._polypod >= 0:
                _close(self._polypod)
            own_children(control, self._lifeline)
            code = 0
        finally:
            os._exit(code)

    def _end(self) -> None:
        """Have every warden run its ladder, since polypod has ended or wants no more children."""
        if self._ending:
            return
        self._ending = True
        self._waiting.forget(self._polypod)
        os.close(self._lifeline_held)

    def _kill_wardens(self) -> None:
        """Kill the wardens that are left after their time; this process inherits what they own."""
        for pid in self._wardens:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        for pid, code in reap(self._have_go_on)[0]:
            del self._stops[pid]
            control = self._wardens.pop(pid, None)
            if control is None:
                continue
            if code == 0:
                os.close(control)
            else:
                self._lost.append(control)
                self._looks = 0
        if self._lost:
            self._kill_what_is_nobodys()

    def _have_go_on(self, pid: int) -> None:
        """Continue a stopped warden: it would end nothing, not even when polypod has ended."""
        if pid in self._wardens:
            self._stops[pid] += 1
            os.kill(pid, signal.SIGCONT if self._stops[pid] < _STOPS else signal.SIGKILL)

    def _kill_what_is_nobodys(self) -> None:
        """Kill what this process has inherited from killed wardens."""
        self._looks += 1
        if kill_all(but=self._wardens) and self._looks < _LOOKS:
            return
        _close(*self._lost)
        self._lost.clear()


def _close(*descriptors: int) -> None:
    for each in descriptors:
        os.close(each)


def main(arguments: list[str]) -> None:
    """Run the helper process. Its arguments are the numbers of the socket and of the pidfd, and, if it is to
    fork functions, the ``module:name`` that provides them.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    have_programs_begin_as_usual()
    notice_children()
    gc.disable()  # wardens are forks of this process, and share memory that nobody writes
    gc.freeze()  # even when they collect their own garbage
    asked, polypod = map(int, arguments[:2])
    for each in (asked, polypod):
        if each >= 0:
            os.set_inheritable(each, False)
    for prepare in arguments[2:]:
        module, _, name = prepare.partition(":")
        getattr(import_module(module), name)()
    Helper(socket.socket(fileno=asked), polypod).run()
