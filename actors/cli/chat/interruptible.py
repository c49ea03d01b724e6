"""Work of a chat that Ctrl-C ends without ending the chat."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from typing import TypeVar

from actors.cli.display.terminal import Terminal
from actors.cli.interrupts import Interrupted, catching

T = TypeVar("T")


async def interruptible(work: Awaitable[T], terminal: Terminal) -> T | None:
    """Wait for ``work``; None where Ctrl-C has cancelled it. Raises Interrupted where all is to end."""
    task = asyncio.ensure_future(work)
    caught: list[int] = []
    try:
        with catching(lambda _: task.cancel(), leaves=lambda number: number != signal.SIGINT) as caught:
            await task
    except asyncio.CancelledError:
        if not caught:
            raise
    except Exception:
        if not caught or caught[0] == signal.SIGINT:
            raise
    finally:
        terminal.idle()
    if caught and caught[0] != signal.SIGINT:  # also where it came as the work ended
        raise Interrupted(caught[0])
    if not task.cancelled():
        return task.result()
    terminal.note("cancelled", "note")
    return None
