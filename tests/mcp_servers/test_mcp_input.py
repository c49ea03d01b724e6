"""Who sends a server more than it reads waits until there is room, and no longer."""

import asyncio
import os
from importlib import import_module
from typing import Any

import anyio
import pytest
from extras import skip_without

from actors.runtime.children.pipes import ChildInput

skip_without("mcp", "mcp")


def message(size: int) -> Any:
    """One of the SDK, which is imported by the worker that runs this alone, as what sends it is."""
    noted = import_module("mcp_types").JSONRPCNotification(
        jsonrpc="2.0", method="m", params={"text": "x" * size}
    )
    return import_module("mcp.shared.message").SessionMessage(noted)


def input_of(writes: int) -> Any:
    """The input of the server that reads what is written to this descriptor."""
    return import_module("actors.tools.mcp.streams").ServerInput(ChildInput(writes), lambda: None)


async def test_who_sends_waits_until_there_is_room() -> None:
    reads, writes = os.pipe()
    server = input_of(writes)
    large = message(400_000)
    sending = [asyncio.ensure_future(server.send(large)) for _ in range(3)]
    done, waiting = await asyncio.wait(sending, timeout=0)
    while waiting:
        assert len(await asyncio.to_thread(os.read, reads, 1 << 16))
        done, waiting = await asyncio.wait(sending, timeout=0)
    await server.send(message(1))  # nobody waits for what there is room for
    await server.aclose()
    assert not [each for each in done if each.exception()]
    os.close(reads)


@pytest.mark.parametrize("how", ["it ends", "it is closed", "it is closed at once"])
async def test_who_waits_for_room_goes_on_where_nothing_is_read_any_more(how: str) -> None:
    reads, writes = os.pipe()
    server = input_of(writes)
    sending = asyncio.ensure_future(server.send(message(1_000_000)))
    await asyncio.sleep(0)
    if how != "it is closed at once":
        await asyncio.sleep(0)
    if how == "it ends":
        os.close(reads)
    else:
        await server.aclose()
        os.close(reads)
    await sending
    with pytest.raises(anyio.BrokenResourceError):
        await server.send(message(1))
    await server.aclose()
