"""``EventQueue``: the bounded queue of one subscriber, which drops the oldest and counts what it dropped."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from actors.runtime.events.prefetch import Prefetch
from actors.runtime.future import AsyncFuture
from protocol.events import Event, Lagged


class Numbered(Protocol):
    """An event with its number, in whatever form it waits."""

    @property
    def pod(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def durable(self) -> bool: ...


Q = TypeVar("Q", bound=Numbered)


class EventQueue(Generic[Q]):
    """The events that wait for one subscriber. The bus puts from its loop; the subscriber takes on any
    thread.

    Putting takes no lock while there is room. Dropping and taking exclude each other, so that the gap is
    always before the oldest waiting event: that is where ``Lagged`` goes.
    """

    __slots__ = (
        "_drops_durable",
        "_events",
        "_lock",
        "_missed",
        "_since",
        "_size",
        "children",
        "closed",
        "kinds",
        "pod",
        "waiter",
    )

    def __init__(
        self,
        pod: str | None,
        kinds: frozenset[type[Event]],
        size: int,
        *,
        children: bool = False,
        drops_durable: bool = True,
    ) -> None:
        """``drops_durable`` is whether durable events are dropped too, or the queue grows by these."""
        self.pod = pod
        self.kinds = kinds
        #: The sub-agents whose events come here as well; None where they are not wanted.
        self.children: set[str] | None = set() if children else None
        self.closed = False
        self.waiter: AsyncFuture[None] | None = None
        self._size = size
        self._drops_durable = drops_durable
        self._events: deque[Q] = deque()
        self._lock = threading.Lock()
        self._missed = 0
        self._since: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._events)

    def renew_lock(self) -> None:
        """Make the queue usable in a forked child."""
        self._lock = threading.Lock()

    def put(self, event: Q) -> None:
        """Append ``event``; a full queue drops its oldest."""
        if len(self._events) >= self._size:
            self._drop()
        self._events.append(event)
        if self.waiter is not None:
            self.wake()

    def put_all(self, events: Sequence[Q]) -> None:
        """Append events, the first of them first."""
        if len(self._events) + len(events) > self._size:
            for event in events:
                self.put(event)
            return
        self._events.extend(events)
        if self.waiter is not None and events:
            self.wake()

    def _drop(self) -> None:
        with self._lock:
            if len(self._events) < self._size:  # the subscriber was quicker
                return
            if not self._drops_durable:
                kept = [event for event in self._events if event.durable]
                self._missed += len(self._events) - len(kept)
                self._events = deque(kept)
                self._size = max(self._size, 2 * len(kept))
                return
            lost = self._events.popleft()
            self._missed += 1
            # What a durable event's number says is the last thing before it that is surely known.
            self._since.setdefault(lost.pod, lost.seq - 1 if lost.durable else lost.seq)

    def take(self, limit: int = sys.maxsize) -> list[Q | Lagged]:
        """What is there now, oldest first: at most ``limit`` events, and what was missed before them."""
        with self._lock:
            taken: list[Q | Lagged] = [self._take_lagged()] if self._missed else []
            next_ = self._events.popleft
            taken += [next_() for _ in range(min(len(self._events), limit))]
        return taken

    def leave_out(self, through: dict[str, int]) -> None:
        """Remove what a replay of everything durable ``through`` these numbers covers, and transient events
        published before the last of those; "*" stands for the pods that are not named.
        """
        others = through.get("*", 0)
        with self._lock:
            waiting = [self._events.popleft() for _ in range(len(self._events))]
            left = [event for event in waiting if not _is_replayed(event, through.get(event.pod, others))]
            self._events.extendleft(reversed(left))

    def _take_lagged(self) -> Lagged:
        missed, since = self._missed, self._since
        self._missed, self._since = 0, {}
        pod, seq = self.pod, 0
        of_one = pod is not None and self.children is None
        if pod is not None:
            seq = since.get(pod, 0)
        return Lagged(
            pod=pod or "*",
            session_id="",
            seq=seq,
            at=time.time(),
            missed=missed,
            since=seq if of_one else since,
        )

    def wait(
        self, loop: asyncio.AbstractEventLoop | None, first: Prefetch[Any] | None = None
    ) -> AsyncFuture[None] | None:
        """A future that resolves when there is something to take, or to read of what comes ``first``; None
        if there is already.
        """
        with self._lock:
            waiter = self.waiter
            if waiter is None:
                waiter = AsyncFuture()
                waiter._loop = loop
                self.waiter = waiter
        # Looked at after the waiter stands: who put something before saw none.
        there = self._events or self._missed if first is None else not first.on_its_way
        return None if there or self.closed else waiter

    def wake(self) -> None:
        """Have a waiting reader look again."""
        with self._lock:
            waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.set(None)


def _is_replayed(event: Numbered, through: int) -> bool:
    return event.seq < through or (event.durable and event.seq == through)
