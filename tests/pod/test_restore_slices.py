"""A long history comes back, is looked through and is forked in slices that leave the loop its turn."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from actors.llm.scripted import ScriptedClient, say
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from protocol.items import AssistantItem, TextPart, UserItem
from protocol.manifest import PodManifest
from protocol.wire import encode

ITEMS = 9_000
KEPT_AT_ONCE = 900
MANIFEST = PodManifest.of(name="p", compact_threshold=10_000_000)


class Turns:
    """Counts the turns of the running loop."""

    def __init__(self):
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._next)
        self._counting = True

    def _next(self):
        self.count += 1
        if self._counting:
            self._loop.call_soon(self._next)

    def stop(self):
        self._counting = False
        return self.count


@pytest.fixture
def store():
    """Holds a session whose history stands in a few very long entries, as a fork's does."""
    store = MemoryStore()
    log = SessionLog(store, "p", SessionHead(new_session_id()), lambda *_: None)
    log.open(Raw(encode(MANIFEST)))
    log.create()
    pair = [UserItem((TextPart("q" * 300),)), AssistantItem((TextPart("a" * 300),))]
    for _ in range(0, ITEMS, KEPT_AT_ONCE):
        log.append_items(pair * (KEPT_AT_ONCE // 2))
        log.commit()
    store.session = log.head.session_id
    store.release(store.session)
    return store


def test_a_history_in_few_long_entries_comes_back_entry_by_entry(store):
    async def play():
        async with PodSystem(store) as system:
            turns = Turns()
            pod = await system.spawn(MANIFEST, client=ScriptedClient([]), resume=store.session)
            taken = turns.stop()
            assert len(await pod.history()) == ITEMS
            return taken

    assert asyncio.run(play()) >= ITEMS // KEPT_AT_ONCE


def test_a_fork_of_a_long_history_takes_it_over_in_parts_and_is_the_same(store):
    async def play():
        async with PodSystem(store) as system:
            pod = await system.spawn(MANIFEST, client=ScriptedClient([]), resume=store.session)
            turns = Turns()
            forked = await pod.fork()
            taken = turns.stop()
            other = await system.spawn(MANIFEST, client=ScriptedClient([say("hi")]), resume=forked)
            assert await other.history() == await pod.history()
            assert (await other.run("go on")).text == "hi"
            return taken

    assert asyncio.run(play()) >= 10


def test_what_was_looked_through_in_parts_weighs_what_it_weighs_at_once(store):
    async def occupancy(resume):
        async with PodSystem(store) as system:
            pod = await system.spawn(MANIFEST, client=ScriptedClient([]), resume=resume)
            return (await pod.describe()).occupancy, await pod.history()

    weighed, items = asyncio.run(occupancy(store.session))
    assert weighed == -(-sum(len(encode(item)) for item in items) // 4)
