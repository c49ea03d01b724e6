"""What ``polypod agent`` prints, where nobody takes it."""

import asyncio
import os

import pytest

from actors.cli.agent import output as of_agents
from actors.cli.agent.output import LineOutput


async def test_a_reader_who_takes_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_agents, "_PATIENCE", 0.02)
    reader, writer = os.pipe()
    output = LineOutput(writer, None)
    adding = asyncio.create_task(output.put_all([{"type": "text", "text": "x" * 1000}] * 1000))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not adding.done()
    async with asyncio.timeout(30):
        output.take_all()
        await adding
        await output.close()
        os.close(reader)  # which ends the thread that writes
        await output._writing
    os.close(writer)


async def test_all_is_written_for_a_reader_who_takes_some_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(of_agents, "_PATIENCE", 0.05)
    reader, writer = os.pipe()
    output = LineOutput(writer, None)
    output.put("text", text="x" * 1_000_000)
    closing = asyncio.create_task(output.close())
    taken = 0
    while taken < 1_000_000:
        taken += len(await asyncio.to_thread(os.read, reader, 1 << 16))
    await closing
    assert output._writing.done()
    for each in (reader, writer):
        os.close(each)
