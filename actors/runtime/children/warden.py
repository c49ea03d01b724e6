"""``Warden``: the process that owns one child and everything the child leaves behind, until all of it has
ended.

Over its control socket it is asked to start and to stop the child, and reports what became of it. It runs the
ladder when it is asked to, when the child has ended and left processes, and when the socket or the lifeline
closes, because polypod or the launcher is gone.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import time
from typing import Any

from actors.runtime.children.confinement.confine import Plan, plan_of
from actors.runtime.children.confinement.covers import Covers
from actors.runtime.children.confinement.enclosure import BEGUN, begin_confined
from actors.runtime.children.confinement.init import NONE, Init
from actors.runtime.children.confinement.planted import Planted
from actors.runtime.children.confinement.reserve import Reservations
from actors.runtime.children.descendants import (
    KILL_WAIT,
    Process,
    descendants,
    kill_all,
    send,
    this_process,
)
from actors.runtime.children.frames import Frames, framed, receive
from actors.runtime.children.kernel import go_on_at_end_of_parent, take_in_orphans
from actors.runtime.children.program import begin
from actors.runtime.children.waiting import Waiting, reap

#: Seconds between two rounds of killing what appears meanwhile.
_AGAIN = 0.05
_READ = 65536

#: A child's descriptors: standard input, output and error.
STREAMS = 3

_IDLE, _ASKED, _TERM, _KILL = range(4)


def own_children(control: int, lifeline: int) -> None:
    """Own a child, and further ones as long as each leaves this process as it was."""
    take_in_orphans()
    go_on_at_end_of_parent()
    end, waiting, this = socket.socket(fileno=control), Waiting(), this_process()
    init: Init | None = None
    while (warden := Warden(end, lifeline, waiting, this, init)).run():
        init = warden.init
        gc.enable()  # one child makes hardly any garbage


class Warden:
    """Owns one child. ``run`` returns once nothing of it is left."""

    def __init__(
        self,
        control: socket.socket,
        lifeline: int,
        waiting: Waiting,
        this: Process | None,
        init: Init | None,
    ) -> None:
        """``waiting`` watches ``control`` and ``lifeline``; ``this`` is this process, and ``init`` the first
        process of the namespace of the child before.
        """
        self._control = control
        self._lifeline = lifeline
        self._waiting = waiting
        self._this = this
        self._streams: list[int] = []
        self._frames = Frames()
        waiting.watch(control.fileno(), self._receive)
        waiting.watch(lifeline, self._lose)
        self._helper = os.getppid()
        self._pid: int | None = None
        self._exited = False
        self._code = 0
        #: A pipe that closes once the program runs, and carries what went wrong before that.
        self._started = -1
        self._said = Frames()
        self._has_failed = False
        #: The first process of a confined child's namespace.
        self.init = init
        #: Whether no other process is left in the namespace.
        self._is_empty = False
        self._reservations = Reservations()
        self._covers: Covers | None = None
        self._planted = Planted(())
        #: The signal that asks the child to end, or 0; the seconds it gets for that, and those after TERM.
        self._ladder: tuple[int, float, float] = (0, 0.0, 0.0)
        self._stage = _IDLE
        self._deadline: float | None = None
        #: When what could not be covered is tried again.
        self._renewal: float | None = None
        self._give_up = 0.0
        self._over = False
        #: Whether the namespace can be used for the next child.
        self._leaves_nothing = False
        #: Whether this process is as it was, and may own another child.
        self._is_spare = False

    def run(self) -> bool:
        """Own the child from its start to the end of its last process. Returns whether another child may be
        owned after it.
        """
        while not self._over:
            times = [each for each in (self._deadline, self._renewal) if each is not None]
            self._waiting.wait(min(times) - time.monotonic() if times else None)
            self._reap()
            if _is_past(self._renewal) and not self._over:
                self._renew()
            if _is_past(self._deadline) and not self._over:
                self._climb()
        self._reservations.release()
        return self._is_spare

    # -- what it receives ------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            data, descriptors = receive(self._control, _READ, STREAMS)
        except OSError:
            data, descriptors = b"", []
        self._streams += descriptors
        if not data:
            self._lose()
            return
        for command in self._frames.feed(data):
            self._obey(command)

    def _obey(self, command: Any) -> None:
        what, *rest = command
        if what == "start":
            request, self._ladder, plan = rest
            self._report("owned", *(self._this or ()))  # first, since the child could stop us
            self._begin(request, None if plan is None else plan_of(plan))
        elif what == "stop":
            self._ladder = rest[0]
            self._stop()

    def _lose(self) -> None:
        """End the child, since nobody is left for whom it would run."""
        self._waiting.forget(self._control.fileno())
        self._waiting.forget(self._lifeline)
        if os.getppid() == self._helper:  # its child may have stopped it
            with contextlib.suppress(OSError):
                os.kill(self._helper, signal.SIGCONT)
        if self._pid is None and self._started < 0:
            self._over = True
        else:
            self._stop()

    def _begin(self, request: Any, plan: Plan | None) -> None:
        if len(self._streams) < STREAMS:
            self._fail("process", errno.EMFILE)
            return
        step = "namespaces"
        try:
            if plan is not None and plan.has_view:
                plan = self._prepare(plan)
                self.init = self.init or Init()
                self._started = begin_confined(request, self._streams, plan, self.init)
                self._leaves_nothing = plan.limits[2] is None  # the next child would have the limit too
            else:
                step = "process"
                self._pid, self._started = begin(request, self._streams, plan)
        except OSError as error:
            self._fail(step, error.errno or 0)
            return
        self._waiting.watch(self._started, self._receive_start)

    def _fail(self, step: str, number: int) -> None:
        self._report("failed", step, number)
        self._over = True

    def _prepare(self, plan: Plan) -> Plan:
        """Reserve names, and return the plan with the placeholders. Raises OSError."""
        reservations, view = self._reservations, plan.view
        reservations.repositories = frozenset(view.repositories)
        reservations.reserve(view.reserved)
        view = view.with_reserved(reservations.paths, reservations.prepared)
        self._planted = Planted(view.writable)
        try:
            self._covers = Covers(view, reservations.reserve)
        except OSError:  # a user may have only so many watches; then it does without
            self._renewal = time.monotonic() + _AGAIN
        return plan._replace(view=view)

    def _receive_others(self) -> None:
        if self.init is None:
            return
        answer = self.init.receive()
        if not answer:  # it has ended, which shows there
            self._waiting.forget(self.init.answers)
        elif answer == NONE:
            self._is_empty = True
        elif self._stage < _TERM:
            self._term()

    def _receive_start(self) -> None:
        said = os.read(self._started, _READ)
        for what, number in self._said.feed(said):
            if what == BEGUN:
                self._pid = number
                if self._stage != _IDLE:
                    self._signal_group(signal.SIGKILL)  # it was to end before its pid was known
            else:
                self._has_failed = True
                self._report("failed", what, number)
        if said:
            return
        self._waiting.forget(self._started)
        os.close(self._started)
        self._started = -1
        for stream in self._streams:
            os.close(stream)  # otherwise their readers would never see the end
        if self._has_failed:
            self._over = self._pid is None
            return
        self._report("started", self._pid)
        if self._covers is not None and self._pid is not None and not self._exited:
            with contextlib.suppress(OSError):  # it has ended by now
                self._covers.begin(self._pid)
                self._waiting.watch(self._covers.changed, self._renew)

    def _renew(self) -> None:
        """Cover what was replaced, now or a moment later; end a child that plants a repository."""
        is_done = self._covers is not None and self._covers.renew()
        self._renewal = None if is_done else time.monotonic() + _AGAIN
        if self._planted.undo():
            self._kill()

    def _report(self, *words: Any) -> None:
        with contextlib.suppress(OSError):  # nobody is there any more
            self._control.sendall(framed(words))

    # -- ends ------------------------------------------------------------------------------------

    def _reap(self) -> None:
        if self._pid is None and (self.init is None or self._started >= 0):
            return  # nothing has been started yet, or its pid is not known yet
        ended, others = reap() if self._covers is None else reap(self._covers.have_go_on)
        for pid, code in ended:
            self._take_end(pid, code)
        if self.init is None:
            if not others:
                self._end(())
            elif self._exited and self._stage < _TERM:
                self._term()  # what the child left behind
        elif self._exited and self._is_empty and not (self._covers and self._covers.is_at_work):
            self._end(())
        elif self._pid is None and self._is_empty:
            self._over = True  # a spare warden that has lost what the next child needs

    def _take_end(self, pid: int, code: int) -> None:
        covers, init = self._covers, self.init
        if covers is not None and (is_covered := covers.take_end(pid, code)) is not None:
            self._renewal = time.monotonic() + (0 if is_covered else _AGAIN)
        elif init is not None and pid == init.pid:
            init.pid, self._is_empty = 0, True
        elif pid == self._pid:
            self._exited = True
            while self._started >= 0:
                self._receive_start()
            self._code = code
            if init is not None:  # there may be others left
                self._waiting.watch(init.answers, self._receive_others)
                init.ask_for_others()

    def _end(self, left: tuple[int, ...]) -> None:
        self._planted.undo()
        self._reservations.release()
        is_ready = self.init is not None and self.init.is_ready
        self._is_spare = is_ready and self._leaves_nothing and self._stage == _IDLE and not left
        if self._is_spare:
            self._close()
        self._report("gone", self._code, left, self._is_spare)
        self._over = True

    def _close(self) -> None:
        """Close everything that belongs to the child."""
        if self.init is not None:
            self._waiting.forget(self.init.answers)
        if self._covers is not None:
            self._waiting.forget(self._covers.changed)
            self._covers.close()

    # -- the ladder ------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Start the ladder. If it is under way already, continue no later than now asked for."""
        number, asked, term = self._ladder
        now = time.monotonic()
        if self._stage == _IDLE:
            self._stage = _ASKED
            if number:
                self._signal_group(number)
            self._deadline = now + asked
        elif self._stage == _ASKED:
            self._deadline = min(self._deadline or now, now + asked)
        elif self._stage == _TERM:
            self._deadline = min(self._deadline or now, now + term)

    def _climb(self) -> None:
        if self._stage == _ASKED:
            self._term()
        else:
            self._kill()

    def _term(self) -> None:
        self._stage = _TERM
        self._deadline = time.monotonic() + self._ladder[2]
        self._signal_group(signal.SIGTERM)
        for each in descendants():
            send(each, signal.SIGTERM)
            send(each, signal.SIGCONT)  # a stopped process would not receive it

    def _kill(self) -> None:
        now = time.monotonic()
        if self._stage != _KILL:
            self._stage, self._give_up = _KILL, now + KILL_WAIT
        if now >= self._give_up:
            self._end(tuple(each.pid for each in descendants()))
            return
        self._deadline = now + _AGAIN
        self._signal_group(signal.SIGKILL)
        if self.init is None:
            kill_all()
        elif self.init.pid:
            os.kill(self.init.pid, signal.SIGKILL)  # and the kernel all others of its namespace

    def _signal_group(self, number: int) -> None:
        if self._pid is None or self._exited:  # its pid may be another's by now
            return
        with contextlib.suppress(OSError):
            if self._started >= 0:  # until the program begins, its handler would catch the signal and go on
                number = signal.SIGKILL
                os.kill(self._pid, number)  # it may not lead a group of its own yet
            os.killpg(self._pid, number)


def _is_past(when: float | None) -> bool:
    return when is not None and time.monotonic() >= when
