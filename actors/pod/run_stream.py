"""``RunStream``: one run as an iterator of its events, in an event loop or on any other thread."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import pykka

from actors.runtime.circles import ThreadWait, Wait, work_here
from actors.runtime.events.subscription import Closed, Subscription
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.errors import PodStopped, RunFailed, WouldDeadlock
from protocol.events import Event, Lagged, RunEnd, TextDelta, TurnStart
from protocol.results import RunResult

if TYPE_CHECKING:
    from actors.pod.handle import Pod
    from actors.pod.runs.run_state import RunHere

T = TypeVar("T")

#: What a run raises that was cancelled, or whose pod has ended.
_ENDED = (RunFailed, PodStopped)


class RunStream(Generic[T]):
    """One run as an iterator of its events, which starts the run and ends after its ``RunEnd``: by
    ``async for`` in any event loop, by ``for`` on any thread without one. ``result`` is the future of its
    RunResult.

    Breaking out detaches: the run goes on. Leaving its ``async with`` (or ``with``) before the end cancels
    the run, also one that still waits for its turn. A run that could not start raises what ``run`` would. A
    reader that is too slow gets a ``Lagged`` that says how many events it missed.
    """

    def __init__(self, pod: Pod, command: RunHere) -> None:
        """``command`` contains the id for its run."""
        self._pod = pod
        self._run_id = command.run_id
        self._events = pod.subscribe()
        self._ended = False
        self._refused: WouldDeadlock | None = None
        self.result: AsyncFuture[RunResult[T]] = pod.address.ask(pod, command)
        events = weakref.ref(self._events)  # whoever drops the stream drops what is queued for it
        self.result.when_done(lambda: _close(events()))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._ended:
            try:
                event = await self._next()
            except StopAsyncIteration:
                self._ended = True
                if self._refused is not None:
                    raise self._refused from None
                await self.result  # no end was published: the run was refused or lost its store
                break
            if self._is_mine(event):
                return event
        self._events.close()
        raise StopAsyncIteration

    async def _next(self) -> Event:
        if self.result.place is None or (work := work_here.get()) is None or work.task is None:
            return await self._events.__anext__()
        with Wait(work, self.result, self._fail):
            return await self._events.__anext__()

    def _next_in_thread(self) -> Event:
        with ThreadWait(self.result, self._fail) as wait:
            while True:
                try:
                    return self._events.get(wait.next_look)
                except pykka.Timeout:
                    wait.look()

    def _fail(self, error: WouldDeadlock) -> None:
        """End the stream with an error: the run would never come to anything while the reader
        waits for it.
        """
        self._refused = error
        self._events.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._ended:
            try:
                event = self._next_in_thread()
            except Closed:
                self._ended = True
                if self._refused is not None:
                    raise self._refused from None
                self.result.get()  # the same
                break
            if self._is_mine(event):
                return event
        self._events.close()
        raise StopIteration

    def _is_mine(self, event: Event) -> bool:
        if event.run_id != self._run_id and type(event) is not Lagged:
            return False
        self._ended = type(event) is RunEnd
        return True

    def text(self) -> TextStream:
        """Only the pieces of text, by ``async for`` or ``for``. Raises RunFailed where the run fails."""
        return TextStream(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if (cancelled := self._cancel()) is not None:
            with contextlib.suppress(*_ENDED):
                await cancelled
                await self.result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if (cancelled := self._cancel()) is not None:
            with contextlib.suppress(*_ENDED):
                cancelled.get()
                self.result.get()

    def _cancel(self) -> AsyncFuture[Any] | None:
        """Have the run cancelled, unless it has ended."""
        self._events.close()
        if self._ended or self.result.done():
            return None
        return self._pod.address.ask(self._pod, commands.Cancel(self._run_id))


class TextStream:
    """The text of a run in pieces, as its model gives them; what it says after tool calls begins a new
    paragraph.
    """

    def __init__(self, events: RunStream[Any]) -> None:
        self._events = events
        self._has_text = self._parted = False

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        async for event in self._events:
            if (piece := self._piece(event)) is not None:
                return piece
        await self._events.result
        raise StopAsyncIteration

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for event in self._events:
            if (piece := self._piece(event)) is not None:
                return piece
        self._events.result.get()
        raise StopIteration

    def _piece(self, event: Event) -> str | None:
        """The text of an event, None where it has none."""
        if isinstance(event, TurnStart):
            self._parted = self._has_text
        if not isinstance(event, TextDelta):
            return None
        piece = f"\n\n{event.text}" if self._parted else event.text
        self._has_text, self._parted = True, False
        return piece


def _close(events: Subscription | None) -> None:
    if events is not None:
        events.close()
