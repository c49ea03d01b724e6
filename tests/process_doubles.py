"""Clients and tools that pods in processes of their own import, and how a test has them play its script."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from child_kit import in_child
from process_kit import descriptors

from actors.llm.base import Block, Request
from actors.llm.scripted import Reply, ScriptedClient
from actors.tools.base import ToolContext, tool

_SCRIPT, _GATE = "POLYPOD_TEST_SCRIPT", "POLYPOD_TEST_GATE"


@contextmanager
def scripted(replies: Sequence[Reply | BaseException]) -> Iterator[str]:
    """The path of a client that plays these, in each process anew."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "script")
        file.write_bytes(pickle.dumps(list(replies)))
        os.environ[_SCRIPT] = str(file)
        try:
            yield "process_doubles:script"
        finally:
            del os.environ[_SCRIPT]


def script() -> ScriptedClient:
    """In the process: the client."""
    return ScriptedClient(pickle.loads(Path(os.environ[_SCRIPT]).read_bytes()))


class Gate:
    """In the test: sees each request of a process's client, and lets it be answered."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.gate = asyncio.Semaphore(0)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A request."""
        self.asked.release()
        gone = asyncio.create_task(reader.read())
        opened = asyncio.create_task(self.gate.acquire())
        await asyncio.wait({gone, opened}, return_when=asyncio.FIRST_COMPLETED)
        writer.write(b"go\n")
        for each in (gone, opened):
            each.cancel()
        await asyncio.gather(gone, opened, return_exceptions=True)
        writer.close()


@asynccontextmanager
async def gated(replies: Sequence[Reply]) -> AsyncIterator[tuple[str, Gate]]:
    """The path of a client whose answers wait, and their gate."""
    gate = Gate()
    with scripted(replies), tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/gate"
        server = await asyncio.start_unix_server(gate.meet, path)
        os.environ[_GATE] = path
        try:
            yield "process_doubles:GatedScript", gate
        finally:
            del os.environ[_GATE]
            server.close()
            await server.wait_closed()


class GatedScript:
    """In the process: a client that notifies the test of each request, and answers once it may."""

    model = "gated"

    def __init__(self) -> None:
        self._script = script()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        reader, writer = await asyncio.open_unix_connection(os.environ[_GATE])
        try:
            if not await reader.readline():
                await asyncio.Event().wait()  # the test is gone
        finally:
            writer.close()
        async for block in self._script.stream(request):
            yield block


@tool
async def where() -> str:
    """The number of the process that a tool is run in."""
    return str(os.getpid())


@tool
async def has_sdk() -> str:
    """Whether the process has imported what MCP servers are asked with."""
    return str("mcp" in sys.modules)


@tool
async def write_garbage() -> str:
    """Write into whatever sockets the process has what is not a frame."""
    for number in range(3, 64):
        try:
            socket.socket(fileno=os.dup(number)).sendall(b"\xff" * 64)
        except OSError:
            continue
    return "written"


@tool
@tool
async def holds_a_thread(ctx: ToolContext) -> None:
    """Hold a thread of the loop for ever."""
    held = threading.Lock()
    held.acquire()
    ctx.progress("held")
    await asyncio.to_thread(held.acquire)


async def what_it_was_forked_with() -> str:
    """What it has of the process that it was forked from and that only works there: threads, sockets."""
    own = set(map(id, gc.get_objects()))
    gc.unfreeze()
    kinds = (
        Executor,
        threading.Thread,
        asyncio.AbstractEventLoop,
        asyncio.Task,
        socket.socket,
        sqlite3.Connection,
    )
    found = [each for each in gc.get_objects() if isinstance(each, kinds) and id(each) not in own]
    return json.dumps([str(each) for each in found if each is not threading.main_thread()])


async def what_it_has() -> str:
    """What a process has of its own: descriptors, variables, handlers of signals, a number by chance."""
    standard = {str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)}
    handled = [int(each) for each in signal.valid_signals() if callable(signal.getsignal(each))]
    found = {
        "descriptors": sorted(descriptors() - standard),
        "variables": sorted(os.environ),
        "handled": handled,
        "chance": random.random(),
        "collects": gc.isenabled(),
        "children": in_child(lambda: True),
        "temporary": tempfile.gettempdir(),
        "zone": time.strftime("%z", time.localtime(0)),
    }
    return json.dumps(found)
