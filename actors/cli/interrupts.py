"""Signal handling of the command: what Ctrl-C, SIGTERM and SIGHUP do while it works and until it has ended.

The first one is the command's to follow; the second ends the process at once, with the exit code that is
documented and with the words that say how to go on. A terminal that is closed sends SIGHUP, and often the
shell in it once more: that is not a second one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures.thread import _threads_queues
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

from actors.cli.streams import let_go_of_lost_terminal
from actors.runtime.lasting_loop import run_on_own_loop

T = TypeVar("T")

#: The signals by which people and their systems end a command.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: The first thread that does what ``atexit`` calls keeps it: another waits there until the process ends.
_first = threading.RLock()

#: How long the threads of event loops have to end, in seconds.
_MOMENT = 0.5
#: How long others are waited for without a word, in seconds, and how many are named then.
_PATIENCE, _NAMED = 2.0, 5


class Interrupted(Exception):  # noqa: N818 - an end, not an error
    """A signal of that number ended what was done, and the command is to leave."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


#: What the process does and says first where a second signal ends it.
_farewells: list[tuple[Callable[[], None], Callable[[], str]]] = []


@contextmanager
def farewell(tidy: Callable[[], None], words: Callable[[], str] = str) -> Iterator[None]:
    """Call ``tidy`` and print what ``words`` gives if a second signal ends the process during the body."""
    _farewells.append((tidy, words))
    try:
        yield
    finally:
        _farewells.pop()


def _end_at_once(number: int, _frame: object = None) -> None:
    """End the process: all that it had to persist is persisted already."""
    _ignore()
    for tidy, words in reversed(_farewells):
        with suppress(Exception):
            tidy()
        with suppress(Exception):
            if said := words():
                os.write(2, f"{said}\n".encode())  # the stream may be in the middle of a write
    os._exit(128 + number)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _signals_to_follow() -> list[signal.Signals]:
    """The signals to follow: a command that was started with nohup goes on where its terminal is closed."""
    return [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Have a signal end the process during the body, without a word."""
    before = {number: signal.signal(number, _end_at_once) for number in _signals_to_follow()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals_at_the_end() -> None:
    """Ignore signals once what is registered with ``atexit`` from now on has been called: one that comes so
    late would replace the exit code.
    """
    atexit.register(_ignore)


def leave(code: int) -> NoReturn:
    """Leave with that exit code. Threads of event loops are not waited for: a tool that was left to itself
    may hold one for ever. Others are, as Python does, and what ``atexit`` calls: until a signal ends that.
    """
    let_go_of_lost_terminal()  # what is left to be written to it would replace the exit code
    _end_on_signals()
    atexit.register(_first.acquire)
    if _threads(of_loops=True):
        _begin(_leave_threads_of_loops, code)
    if _threads(of_loops=False):
        _begin(_name_threads_at_work)
    sys.exit(code)


def _begin(work: Callable[..., object], *args: object) -> None:
    with suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=work, args=args, daemon=True).start()


def _end_on_signals() -> None:
    """Have a signal end the process at once, also where the main thread waits for another, in which it may
    call no handler.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in _signals_to_follow():
        signal.signal(number, _end_at_once)
    signal.set_wakeup_fd(writer)
    os.register_at_fork(after_in_child=_follow_no_signals)
    _begin(_end_on_signal, reader)


def _end_on_signal(reader: int) -> None:
    while (number := os.read(reader, 1)[0]) not in SIGNALS:
        pass
    os._exit(128 + number)


def _follow_no_signals() -> None:
    """Have signals do in a process that a tool has forked what they do in any: its pipe is its parent's."""
    signal.set_wakeup_fd(-1)
    for number in _signals_to_follow():
        signal.signal(number, signal.SIG_DFL)


def _threads(*, of_loops: bool) -> list[threading.Thread]:
    """The threads that the interpreter waits for at its exit: daemons too, where they are an executor's."""
    others = [each for each in threading.enumerate() if each is not threading.main_thread()]
    held = [each for each in others if not each.daemon or each in _threads_queues]
    return [each for each in held if each.is_alive() and each.name.startswith("asyncio_") is of_loops]


def _name_threads_at_work() -> None:
    time.sleep(_PATIENCE)
    if held := _threads(of_loops=False):
        names = ", ".join(ascii(each.name) for each in held[:_NAMED])
        words = f"waiting for threads that tools left running: {names}; Ctrl-C ends them"
        with suppress(OSError):
            os.write(2, f"{words}\n".encode())


def _leave_threads_of_loops(code: int) -> None:
    while others := _threads(of_loops=False):  # each may have started another
        with suppress(RuntimeError):  # it is just being started
            others[0].join()
    time.sleep(_MOMENT)  # in which they end that have nothing to do
    if _threads(of_loops=True):  # else the interpreter ends by itself
        _first.acquire()
        atexit.unregister(_ignore)  # which only the main thread can do
        atexit._run_exitfuncs()  # noqa: SLF001 - what tools have registered: folders to delete, say
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


@contextmanager
def catching(
    catch: Callable[[int], object], *, leaves: Callable[[int], bool] = lambda _: True
) -> Iterator[list[int]]:
    """Call ``catch`` on the running loop with the number of the first signal; a second one ends the process.

    What is given has that number too. ``catch`` is not called where the signal comes as the body ends: who
    goes on after it looks there.

    If ``leaves`` is true of the first signal, the handlers stay after the body: the command ends then.
    """
    loop, process = asyncio.get_running_loop(), os.getpid()
    caught: list[int] = []
    at_work = True

    def call(number: int) -> None:
        if at_work:
            catch(number)

    def handle(number: int, _frame: object) -> None:
        if os.getpid() != process:  # that of a tool which has forked it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if number == signal.SIGHUP:
            let_go_of_lost_terminal()
        if caught == [number] == [signal.SIGHUP]:
            return
        if caught:
            _end_at_once(number)
        caught.append(number)
        loop.call_soon_threadsafe(call, number)

    before = {number: signal.signal(number, handle) for number in _signals_to_follow()}
    try:
        yield caught
    finally:
        at_work = False
        left = bool(caught) and leaves(caught[0])
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                again = signal.SIG_IGN if caught == [number] == [signal.SIGHUP] else _end_at_once
                signal.signal(number, again if left else handler)


def run_interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on an event loop of its own; a signal cancels it and raises Interrupted."""
    return run_on_own_loop(_interruptible(work))


async def _interruptible(work: Coroutine[Any, Any, T]) -> T:
    with cancel_on_signal():
        return await work


@contextmanager
def cancel_on_signal() -> Iterator[None]:
    """Cancel the running task at the first signal during the body, and raise Interrupted."""
    me = asyncio.current_task()
    assert me is not None
    with catching(lambda _: me.cancel()) as caught:
        try:
            yield
        except asyncio.CancelledError:
            if not caught:
                raise
            me.uncancel()
            raise Interrupted(caught[0]) from None
