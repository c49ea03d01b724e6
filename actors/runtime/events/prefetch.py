"""``Prefetch``: reads pages of past events ahead of their reader, in a task of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from actors.runtime.tasks import begin_task

#: Pages that may be there before they are asked for.
_AHEAD = 2


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Where past events come from; asked on the loop, one thing at a time."""

    async def begin(self) -> dict[str, int]:
        """Up to which number the events of each pod will be delivered."""

    async def page(self) -> Iterable[T_co] | None:
        """The next events, None at the end."""


class Prefetch(Generic[T]):
    """The events of a source. While it answers at once, each page but the first is fetched within the call
    that needs it; if a page had to be awaited, some are fetched ahead.
    """

    def __init__(
        self,
        source: Source[T],
        on_loop: Callable[[Callable[[], None]], None],
        begun: Callable[[dict[str, int]], None],
        wake: Callable[[], None],
    ) -> None:
        """``on_loop`` runs something on the loop and waits for it; there ``begun`` receives the numbers up to
        which events will come, and ``wake`` is called when there are some, or an end. Raises what the source
        raises as it begins, unless that comes later.
        """
        self._source = source
        self._on_loop = on_loop
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._wanted = 1
        self._pages: deque[Iterable[T]] = deque()
        self._hand: deque[T] = deque()
        #: Why there is no more, once what is there has been read.
        self._error: Exception | None = None
        self._over = False
        self._begun = False
        on_loop(partial(self._start, begun))
        if self._over and not self._begun:
            self._raise_error()

    @property
    def finished(self) -> bool:
        """Whether all has been read."""
        return self._over and not (self._pages or self._hand or self._error)

    @property
    def on_its_way(self) -> bool:
        """Whether there is nothing to read now, but will be."""
        return self._task is not None and not (self._over or self._pages)

    def next(self) -> T | None:
        """The next event, None if there is none yet, or no more. Raises what the source raised."""
        while not self._hand:
            over = self._over  # before the pages, which were there first
            if self._pages:
                self._hand.extend(self._pages.popleft())
                if self._wanted > 1:
                    self._on_loop(partial(self._fetch, _AHEAD))
            elif over:
                self._raise_error()
                return None
            elif self._task is not None:
                return None
            else:
                self._on_loop(partial(self._fetch, 1))
        return self._hand.popleft()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Fetch no more; from any thread."""
        task = self._task
        if task is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and it has ended with that
                task.get_loop().call_soon_threadsafe(task.cancel)

    # -- on the loop -------------------------------------------------------------------------------

    def _start(self, begun: Callable[[dict[str, int]], None]) -> None:
        self._begin(self._run(begun))

    def _fetch(self, wanted: int) -> None:
        self._wanted = max(self._wanted, wanted)
        if self._task is None and not self._over:
            self._begin(self._run(None))

    def _begin(self, run: Coroutine[Any, Any, None]) -> None:
        task = begin_task(run)
        if not task.done():
            self._task, self._wanted = task, _AHEAD

    async def _run(self, begun: Callable[[dict[str, int]], None] | None) -> None:
        try:
            if begun is not None:
                begun(await self._source.begin())
                self._begun = True
            while len(self._pages) < self._wanted:
                page = await self._source.page()
                if page is None:
                    self._over = True
                    return
                self._pages.append(page)
                self._wake()
        except Exception as error:  # noqa: BLE001 - goes to who reads
            self._error, self._over = error, True
        except BaseException:  # the loop ends, or nobody reads any more
            self._over = True
            raise
        finally:
            self._task = None
            self._wake()
