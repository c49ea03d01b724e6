"""``OpenSources``: the sources of tools of one system, each opened once for all pods that use it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from contextvars import Context
from typing import Any
from weakref import WeakValueDictionary

from actors.runtime.latest import Latest
from actors.tools.base import Tool
from actors.tools.source import ToolSource, name_of
from protocol.errors import ToolSourceError
from protocol.foreign import named_words
from protocol.text import encodable

_log = logging.getLogger("polypod.tools")


class OpenSources:
    """The sources of one system. Used on its loop alone."""

    def __init__(self, grace: float) -> None:
        """``grace`` is how many seconds a source has to close, and as many to end once that is cancelled."""
        self._grace = grace
        #: By the identity of the source: it may compare equal to others, or have no hash.
        self._shared: WeakValueDictionary[int, SharedSource] = WeakValueDictionary()
        #: The lives that go on; the loop itself does not hold on to its tasks.
        self._lives: set[_Life] = set()

    def shared(self, source: ToolSource) -> SharedSource:
        """The source as all pods share it."""
        found = self._shared.get(id(source))
        if found is None:
            found = self._shared[id(source)] = SharedSource(source, self)
        return found

    def begin(self, source: ToolSource, name: str) -> _Life:
        """Open a source, once it has ended where it is being closed."""
        before = [life.task for life in self._lives if life.source is source]
        life = _Life(source, name, self._grace, before)
        self._lives.add(life)
        life.task.add_done_callback(lambda _: self._lives.discard(life))
        return life

    async def aclose(self) -> None:
        """Close what is open. One that does not close though that was cancelled is left to itself."""
        lives = list(self._lives)
        for life in lives:
            life.end()
        if lives:
            await asyncio.wait([life.task for life in lives], timeout=2 * self._grace)
        for life in lives:
            if not life.task.done():
                _log.warning("tool source %r did not close in time and was abandoned", life.name)


class SharedSource:
    """A source, how many pods use it, and its life while they do."""

    __slots__ = ("__weakref__", "_as_tools", "_life", "_listed", "_of_system", "_source", "_users", "name")

    def __init__(self, source: ToolSource, of_system: OpenSources) -> None:
        self._source = source
        self.name = encodable(name_of(source))
        self._of_system = of_system
        self._users = 0
        self._life: _Life | None = None
        self._as_tools = Latest(_as_tools)
        #: The tools that it had when it last said so in this life.
        self._listed: tuple[Tool, ...] | None = None

    def hold(self) -> None:
        """Count one more pod that uses the source."""
        self._users += 1

    def release(self) -> None:
        """Count one pod less; with the last one the source is closed."""
        self._users -= 1
        if self._users == 0 and self._life is not None:
            self._life.end()

    @property
    def is_open(self) -> bool:
        """Whether it can be asked for its tools."""
        return self._life is not None and self._life.is_open

    @property
    def is_listed(self) -> bool:
        """Whether it has said in this life which tools it has."""
        return self._listed is not None

    @property
    def may_write(self) -> bool:
        """Whether it has a process of its own at work that could write."""
        return self.is_open and bool(getattr(self._source, "may_write", False))

    def begin_to_open(self) -> None:
        """Have it opened, unless it is, or is about to be."""
        if self._life is None or self._life.over:
            self._life, self._listed = self._of_system.begin(self._source, self.name), None

    async def wait_open(self) -> None:
        """Wait until it is open, where that has begun. Raises ToolSourceError."""
        life = self._life
        assert life is not None
        await asyncio.shield(life.opened)
        if life.error is not None:
            why = f"could not be opened: {named_words(life.error)}"
            raise ToolSourceError(self.name, why) from life.error

    def look(self) -> tuple[tuple[Tool, ...], str | None]:
        """The source's tools, the same tuple for as long as they are the same, and in words what keeps it
        from saying which they are. Raises ToolSourceError where it has never said so.
        """
        if self._listed is not None and not self.is_open:
            return self._listed, None  # what has ended is opened again before the next request
        try:
            self._listed = self._as_tools(tuple(self._source.tools()))
        except (Exception, SystemExit, GeneratorExit, asyncio.CancelledError) as error:
            why = f"cannot list its tools: {named_words(error)}"
            failed = ToolSourceError(self.name, why)
            if self._listed is None:
                raise failed from error
            return self._listed, f"{failed}; the tools that it had remain"
        return self._listed, getattr(self._source, "failure", None)


class _Life:
    """A source from its opening to its closing, in one task."""

    __slots__ = ("_grace", "_unneeded", "error", "name", "opened", "over", "source", "task")

    def __init__(
        self, source: ToolSource, name: str, grace: float, before: Collection[asyncio.Task[None]]
    ) -> None:
        """``before`` are lives of the source that come to their end."""
        loop = asyncio.get_running_loop()
        self.source, self.name = source, name
        self._grace = grace
        #: Resolved once it is open, or never will be; then ``error`` says why.
        self.opened: asyncio.Future[None] = loop.create_future()
        self.error: BaseException | None = None
        self._unneeded: asyncio.Future[None] = loop.create_future()
        #: Whether it is open no longer, or about to be so.
        self.over = False
        # Not ``create_task``, since a task that its loop's factory starts at once runs within this call.
        self.task = asyncio.Task(self._live(before), loop=loop, name=f"tool source {name}", context=Context())

    @property
    def is_open(self) -> bool:
        """Whether it is open, and to stay so."""
        return self.opened.done() and not self.over

    def end(self) -> None:
        """Close the source, since nobody needs it any more."""
        self.over = True
        if self.task.done() or self.task.get_loop().is_closed():
            return
        if not self.opened.done():
            self.task.cancel()  # it is being opened for nobody
        if not self._unneeded.done():
            self._unneeded.set_result(None)

    async def _live(self, before: Collection[asyncio.Task[None]]) -> None:
        try:
            await self._open(before)
        except BaseException as error:  # noqa: BLE001 - whatever it raises, only who needs it fails
            self.error, self.over = error, True
            return
        finally:
            self.opened.set_result(None)
        with contextlib.suppress(asyncio.CancelledError):  # of who closes the loop, or the source's own
            await self._unneeded
        self.over = True
        await self._close()

    async def _open(self, before: Collection[asyncio.Task[None]]) -> None:
        if before:
            _, still_there = await asyncio.wait(before, timeout=2 * self._grace)
            if still_there:
                raise RuntimeError("it is still being closed")
        await self.source.open()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(self._grace):
                await self.source.close()
        except BaseException as error:  # noqa: BLE001 - nobody waits for it
            _log.warning("tool source %r failed while closing", self.name, exc_info=error)


def _as_tools(given: tuple[Any, ...]) -> tuple[Tool, ...]:
    return tuple(each if isinstance(each, Tool) else Tool(each) for each in given)
