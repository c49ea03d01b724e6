"""What the tests of hooks share: answers that fail, and a hook that waits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from protocol.hooks import Deny, Replace


def raises(*_: Any) -> Any:
    raise LookupError("no such rule")


def cancels(*_: Any) -> Any:
    raise asyncio.CancelledError


def exits(*_: Any) -> Any:
    raise SystemExit(3)


def stops(*_: Any) -> Any:
    raise StopIteration


async def cancels_itself(*_: Any) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


#: Whatever a hook is asked, this is not an answer.
FAILING: dict[str, Callable[..., Any]] = {
    "raises": raises,
    "raises a cancel": cancels,
    "exits": exits,
    "stops": stops,
    "cancels its task": cancels_itself,
    "answers nonsense": lambda *_: 7,
    "denies with a number": lambda *_: Deny(7),  # type: ignore[arg-type]
    "replaces by nonsense": lambda *_: Replace(7),  # type: ignore[arg-type]
}


def awaited(answer: Callable[..., Any], *about: Any) -> Any:
    """A plain function around an async one."""
    return answer(*about)


def asynchronous(answer: Callable[..., Any]) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(answer):
        return answer

    async def answered(*about: Any) -> Any:
        await asyncio.sleep(0)
        return answer(*about)

    return answered


def in_each_way(answer: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """The same answer by a plain function, an async one, or a plain one around an async one."""
    if kind == "plain":
        return answer
    answer = asynchronous(answer)
    return functools.partial(awaited, answer) if kind == "awaitable" else answer


class Waiting:
    """A hook that waits before or after the tool, until it is cancelled or released."""

    def __init__(self, where: str, *, stubborn: bool = False) -> None:
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = 0
        self.stubborn = stubborn
        setattr(self, where, self._wait)

    async def _wait(self, *_: Any) -> None:
        self.reached.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self.stubborn:
                    raise
