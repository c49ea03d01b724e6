"""Who sends a server more than it reads waits until there is room, and no longer."""

import asyncio
import os

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification

from actors.runtime.children.pipes import ChildInput
from actors.tools.mcp.streams import ServerInput


def message(size: int) -> SessionMessage:
    return SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="m", params={"text": "x" * size}))


async def test_who_sends_waits_until_there_is_room() -> None:
    reads, writes = os.pipe()
    server = ServerInput(ChildInput(writes), lambda: None)
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
    server = ServerInput(ChildInput(writes), lambda: None)
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
