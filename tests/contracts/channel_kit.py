"""The two places where a pod may live: here, and at the other end of a connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.pod.channel import connect
from actors.pod.handle import Pod
from actors.pod.service import serve_pod

Reached = Callable[[Pod], Any]


@asynccontextmanager
async def here(pod: Pod) -> AsyncIterator[Pod]:
    yield pod


@asynccontextmanager
async def at_the_other_end(pod: Pod) -> AsyncIterator[Pod]:
    near, far = socket.socketpair()
    serving = asyncio.create_task(serve_pod(pod, *await asyncio.open_connection(sock=far)))
    reached = await connect(*await asyncio.open_connection(sock=near))
    yield reached
    await reached.address.close()  # type: ignore[attr-defined]
    await serving


REACHES = [pytest.param(here, id="here"), pytest.param(at_the_other_end, id="elsewhere")]
