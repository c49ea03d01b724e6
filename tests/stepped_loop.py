"""An event loop whose clock a test puts forward, so that nothing in a test waits for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test can put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead

    def step(self, seconds: float) -> None:
        """Let so much time have passed."""
        self.ahead += seconds
        self.call_soon(lambda: None)


async def idle() -> None:
    """Let everything go as far as it can without time passing: on loopback what is sent has arrived."""
    for _ in range(60):
        await asyncio.sleep(0)


def run_stepped(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a SteppedLoop."""
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        return runner.run(main)
