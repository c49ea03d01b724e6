"""Event loops that actors live on: one mail room per loop, and a loop in a thread where none runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Protocol

import pykka

from actors.runtime.fork import let_be
from actors.runtime.lasting_loop import LastingLoop
from actors.runtime.tasks import beginning, enter_task, leave_task, of_actors, raise_on, task_on
from protocol.errors import SystemOfParent

#: Messages handled before the loop gets its turn for sockets and timers.
BURST = 128
#: Answers that a task may get without the loop having had its turn.
IN_A_ROW = 16
#: How often a thread yields the processor before it sleeps, and for how many seconds at most.
_YIELDS = 5
_PATIENCE = 50e-6

_yield: Callable[[], None] = getattr(os, "sched_yield", partial(time.sleep, 0))


def comes_soon(there: Callable[[], object]) -> bool:
    """Whether what ``there`` checks for arrives while this thread yields the processor a few times.

    Two threads that answer each other in turn can hand the interpreter over that way, without the kernel
    putting either to sleep: 6 us a round instead of 20 (on one core) or 60 (on two).
    """
    until = time.monotonic() + _PATIENCE
    for _ in range(_YIELDS):
        if there():
            return True
        _yield()
        if time.monotonic() > until:
            break
    return bool(there())


class Receiver(Protocol):
    """A receiver of mail."""

    def _arrive(self, message: Any, reply_to: Any) -> None:
        """Take a message; called on the loop."""


class _Errands:
    """Receives work for the loop that belongs to no actor: a function and its argument."""

    def _arrive(self, work: Callable[[Any], object], argument: Any) -> None:
        work(argument)


_ERRANDS = _Errands()


class Mailroom:
    """All the mail of one loop's actors, in order of arrival.

    One queue per loop instead of one per actor keeps idle actors small, and wakes the loop once for any
    number of messages. A piece of mail is one tuple, since the garbage collector walks over everything that
    waits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Whether it is a forked child's copy of one of its parent.
        self.of_parent = False
        self._delivering = False
        #: Whether the message that is being handled came alone, so that what it begins overtakes nothing.
        self.alone = False
        #: Tasks of actors that wait for their first step.
        self.to_begin = 0
        #: What actors do is done in nobody's context: mail of many callers is delivered together.
        self._context = Context()
        self._is_closed = loop.is_closed
        self._mail: deque[tuple[Receiver, Any, Any]] = deque()
        self._awake = False
        self._from_afar = False
        self._in_a_row = 0

    def has_mail(self) -> bool:
        """Whether any mail waits for its turn."""
        return bool(self._mail)

    def here(self) -> bool:
        """Whether the caller is on the loop."""
        return asyncio._get_running_loop() is self.loop

    def post(self, work: Callable[[Any], object], argument: Any = None) -> None:
        """Have ``work(argument)`` called on the loop, in its turn among the mail; from any thread.

        Raises pykka.ActorDeadError if the loop is closed.
        """
        self.send(_ERRANDS, work, argument)

    def send(self, receiver: Receiver, message: Any, reply_to: Any) -> None:
        """Deliver a message to ``receiver`` on the loop; from any thread. Raises pykka.ActorDeadError if the
        loop is closed, SystemOfParent in a forked child.
        """
        self._mail.append((receiver, message, reply_to))
        # A loop that was closed before its turn came never lets the flag fall.
        if not self._awake or self._is_closed():
            self._wake()

    def at_work(self) -> bool:
        """Whether the calling thread is the loop's, in the middle of a task or of its mail: the loop then
        sees what is ready before it sleeps. A signal handler may be called while it already sleeps.
        """
        return self.here() and self.is_busy()

    def is_busy(self) -> bool:
        """Whether the loop is in the middle of a task or of its mail; for callers on its thread."""
        return self._delivering or task_on(self.loop) is not None

    def deliver_now(self) -> bool:
        """Deliver what waits, for a task of the loop that is about to wait for an answer: that saves a turn
        of the loop, and one more if the answer arrives with it. Returns whether the loop can do without that
        second one.

        What a delivery raises is not raised here.
        """
        if not self._mail or self._delivering:
            return False
        loop = self.loop
        task = task_on(loop)
        if task is None or task in of_actors or loop in beginning:
            return False
        self._delivering = True
        leave_task(loop, task)  # what handles a message is in no task
        try:
            self._context.run(self._hand_out)
        except BaseException as error:  # noqa: BLE001 - raised on the loop, as where it delivers by itself
            raise_on(loop, error)
            return False
        finally:
            enter_task(loop, task)
            self._delivering = False
        self._in_a_row = (self._in_a_row + 1) % IN_A_ROW
        return self._in_a_row > 0

    def _wake(self) -> None:
        if self.of_parent:
            self._mail.clear()
            raise SystemOfParent
        self._awake = True
        loop = self.loop
        here = asyncio._get_running_loop() is loop
        try:
            if here and (self._delivering or task_on(loop) is not None):  # as ``at_work`` says
                loop.call_soon(self._deliver, context=self._context)
            else:
                self._from_afar = self._from_afar or not here
                loop.call_soon_threadsafe(self._deliver, context=self._context)
        except RuntimeError as error:
            self._awake = False
            self._mail.clear()  # who waits for an answer learns that the loop is closed
            raise pykka.ActorDeadError("the event loop of the actor is closed") from error

    def _deliver(self) -> None:
        self._delivering = True
        try:
            self._hand_out()
        finally:
            self._awake = False
            # Looked at after the flag fell: who posted before saw it up and did not wake the loop.
            if self._mail:
                self._wake()
            self._delivering = False

    def _hand_out(self) -> None:
        mail = self._mail
        count = len(mail)
        if count != 1:
            for _ in range(min(count, BURST)):
                receiver, message, reply_to = mail.popleft()
                receiver._arrive(message, reply_to)
            return
        receiver, message, reply_to = mail.popleft()
        self.alone = not self.to_begin
        try:
            receiver._arrive(message, reply_to)
        finally:
            self.alone = False

    def spin_before_sleep(self) -> bool:
        """For a loop that has nothing to do: whether the thread that last sent mail sends more within
        moments. Nobody has to wake the loop for such mail.
        """
        if not self._from_afar:
            return False
        self._awake = True
        if comes_soon(lambda: self._mail):
            self.loop.call_soon(self._deliver, context=self._context)
            return True
        self._from_afar = False
        self._awake = False
        if self._mail:  # posted between the last look and the flag's fall
            self._wake()
            return True
        return False


_mailrooms: dict[asyncio.AbstractEventLoop, Mailroom] = {}


def deliver_now(loop: asyncio.AbstractEventLoop) -> bool:
    """As ``Mailroom.deliver_now`` of that loop's."""
    mailroom = _mailrooms.get(loop)
    return mailroom is not None and mailroom.deliver_now()


def mailroom_here() -> Mailroom:
    """The mail room of the running loop, or else of the one loop that serves the whole process."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return process_loop().mailroom
    return _mailrooms.get(loop) or _new_mailroom(loop)


def forget_closed_loops() -> None:
    """Drop the mail rooms of loops that are closed."""
    for known in list(_mailrooms):
        if known.is_closed():
            _mailrooms.pop(known, None)


def _new_mailroom(loop: asyncio.AbstractEventLoop) -> Mailroom:
    forget_closed_loops()
    return _mailrooms.setdefault(loop, Mailroom(loop))


class _PatientSelector(selectors.DefaultSelector):
    """The selector of a loop in a thread of its own, most of whose mail comes from other threads: before it
    sleeps in the kernel it waits a moment for more of that mail.
    """

    mailroom: Mailroom | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        mailroom = self.mailroom
        if mailroom is None or not mailroom._from_afar or (timeout is not None and timeout <= 0):
            return super().select(timeout)
        events = super().select(0)
        if events or mailroom.spin_before_sleep():
            return events
        return super().select(timeout)


class LoopThread:
    """An event loop in a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        selector = _PatientSelector()
        self._loop = LastingLoop(selector)
        self.mailroom = selector.mailroom = _new_mailroom(self._loop)
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name=name, daemon=True)
        self._thread.start()
        started.wait()

    @property
    def alive(self) -> bool:
        """Whether the loop runs; not so in a process that was forked off."""
        return self._thread.is_alive() and not self._loop.is_closed()

    def _run(self, started: threading.Event) -> None:
        # SystemExit out of a handler ends the loop like any thread: without a word.
        with contextlib.suppress(SystemExit), asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            loop = runner.get_loop()
            loop.call_soon(started.set)
            loop.run_forever()

    def stop(self, timeout: float | None = 10.0) -> None:
        """End the loop and its thread; waits at most ``timeout`` seconds, unless it is called on the
        loop itself. Idempotent.
        """
        with contextlib.suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)


_process_loop_lock = threading.Lock()
_process_loops: list[LoopThread] = []


def process_loop() -> LoopThread:
    """The loop in a thread that serves the whole process."""
    with _process_loop_lock:
        if not _process_loops or not _process_loops[0].alive:
            _process_loops[:] = [LoopThread("polypod")]
        return _process_loops[0]


def at_work(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the calling thread is that of ``loop``, which looks at what is ready before it sleeps."""
    mailroom = _mailrooms.get(loop)
    if mailroom is not None:
        return mailroom.at_work()
    return asyncio._get_running_loop() is loop and task_on(loop) is not None


#: In a forked child: the loops of its parent.
_loops_of_parent: set[asyncio.AbstractEventLoop] = set()


def of_parent(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether this process was forked from the one whose loop it is."""
    return loop in _loops_of_parent


class _ParentsSelector(selectors.SelectSelector):
    """The selector of a forked child's copy of a loop, which must not run: the kernel has one selector for
    both processes, so a child that closed its copy, as ``asyncio.run`` does in the end, would make the
    parent's loop deaf.
    """

    def select(self, _timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        raise SystemOfParent


def _part_from_parent(loop: asyncio.AbstractEventLoop) -> None:
    selector = getattr(loop, "_selector", None)
    if isinstance(selector, selectors.BaseSelector):  # loops that are not asyncio's own have none
        let_be(selector)
        loop._selector = _ParentsSelector()  # type: ignore[attr-defined]


def _take_signals_back() -> None:
    """Give a forked child its own signals back: its copies of a loop's handlers pass them to the parent's
    loop, which would end when somebody ends the child.
    """
    with contextlib.suppress(ValueError):  # within another interpreter than the first
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            handler = getattr(handler, "func", handler)  # asyncio.run has a partial of its own
            if getattr(handler, "__module__", None) in {"asyncio.unix_events", "asyncio.runners"}:
                is_interrupt = number == signal.SIGINT
                signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def _after_fork_in_child() -> None:
    global _process_loop_lock  # noqa: PLW0603 - another thread may have held it
    _process_loop_lock = threading.Lock()
    for mailroom in _mailrooms.values():
        mailroom.of_parent = True
        mailroom._awake = False
        mailroom._mail.clear()
        _loops_of_parent.add(mailroom.loop)
        _part_from_parent(mailroom.loop)
    if _mailrooms:
        _take_signals_back()
    let_be(*_mailrooms.values(), *_process_loops)
    _mailrooms.clear()
    _process_loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
