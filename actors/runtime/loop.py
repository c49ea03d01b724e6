"""Event loops that actors live on: one mail room a loop, and a loop in a thread where none runs."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pykka

if TYPE_CHECKING:
    from pykka._envelope import Envelope

#: Messages handled before the loop gets its turn for sockets and timers.
_BURST = 128


class Mailroom:
    """All the mail of one loop's actors, in order of arrival.

    One queue a loop instead of one an actor keeps idle actors small, and wakes the loop once for any
    number of messages.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int | None = None) -> None:
        self.loop = loop
        self.thread = threading.get_ident() if thread is None else thread
        self._mail: deque[tuple[Callable[[Envelope[Any]], None], Envelope[Any]]] = deque()
        self._awake = False

    def here(self) -> bool:
        """Whether the caller is on the loop's thread."""
        return threading.get_ident() == self.thread

    def post(self, receive: Callable[[Envelope[Any]], None], envelope: Envelope[Any]) -> None:
        """Have ``receive(envelope)`` called on the loop; from any thread.

        Raises pykka.ActorDeadError if the loop is closed.
        """
        self._mail.append((receive, envelope))
        if not self._awake:
            self._wake()

    def _wake(self) -> None:
        self._awake = True
        try:
            if threading.get_ident() == self.thread:
                self.loop.call_soon(self._deliver)
            else:
                self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError as error:
            self._awake = False
            self._mail.clear()
            raise pykka.ActorDeadError("the event loop of the actor is closed") from error

    def _deliver(self) -> None:
        mail = self._mail
        try:
            for _ in range(min(len(mail), _BURST)):
                receive, envelope = mail.popleft()
                receive(envelope)
        finally:
            self._awake = False
            # Looked at after the flag fell: who posted before saw it up and did not wake the loop.
            if mail:
                self._wake()


_mailrooms: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailroom] = weakref.WeakKeyDictionary()


def mailroom_here() -> Mailroom:
    """The mail room of the running loop, or else of the one loop that serves the whole process."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return _process_loop().mailroom
    mailroom = _mailrooms.get(loop)
    if mailroom is None:
        mailroom = _mailrooms[loop] = Mailroom(loop)
    return mailroom


class LoopThread:
    """An event loop in a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name=name, daemon=True)
        self._thread.start()
        started.wait()
        assert self._thread.ident is not None
        self.mailroom = Mailroom(self._loop, self._thread.ident)
        _mailrooms[self._loop] = self.mailroom

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(started.set)
        try:
            self._loop.run_forever()
        finally:
            self._finish()

    def _finish(self) -> None:
        """What asyncio.run does at its end: cancel what is left, then close."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def stop(self, timeout: float | None = 10.0) -> None:
        """End the loop and its thread; called from another thread, waits at most ``timeout`` seconds."""
        if self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout)


_process_loop_lock = threading.Lock()
_process_loops: list[LoopThread] = []


def _process_loop() -> LoopThread:
    with _process_loop_lock:
        if not _process_loops:
            _process_loops.append(LoopThread("polypod"))
        return _process_loops[0]
