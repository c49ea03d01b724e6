"""An entry so long that hashing it would hold the loop is hashed beside it, and is an entry like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from store_kit import KINDS

from actors.llm.scripted import ScriptedClient, say
from actors.sessions.answers import durable
from actors.sessions.chain import verified
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import LONG, SessionLog
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from protocol.entries import Head, StoredEntry
from protocol.errors import StoreError
from protocol.events import UserMessage
from protocol.items import UserItem
from protocol.manifest import PodManifest
from protocol.wire import decode_entry, encode

MANIFEST = PodManifest.of(name="p")
LONG_TEXT = "long " * (LONG // 5 + 1)


def new_log(store: SessionStore) -> SessionLog:
    log = SessionLog(store, "p", SessionHead(new_session_id()), lambda *_: None)
    log.open(Raw(encode(MANIFEST)))
    assert log.create() is None
    return log


def texts_in(store: SessionStore, session_id: str) -> list[str]:
    """The items that a store has, in order, once the chain is checked."""
    entries = [decode_entry(each.body) for each in verified(session_id, store.read(session_id))]
    return [each.item.text for each in entries if isinstance(each, UserMessage)]


async def commit(log: SessionLog) -> None:
    kept = log.commit()
    if kept is not None:
        await durable(kept)
        log.confirm()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.booleans(), max_size=4), max_size=4))
def test_batches_of_long_and_short_entries_make_one_chain(batches: list[list[bool]]):
    store = MemoryStore()

    async def play() -> None:
        log, wanted = new_log(store), list[str]()
        for batch in batches:
            for is_long in batch:
                wanted.append(LONG_TEXT if is_long else "short")
                log.record(UserMessage, item=UserItem.of(wanted[-1]))
            await commit(log)
        assert log.durable_hash == log.head.hash
        assert texts_in(store, log.head.session_id) == wanted

    asyncio.run(play())


def test_what_is_recorded_while_a_long_entry_is_hashed_goes_with_the_next_commit():
    store = MemoryStore()

    async def play() -> None:
        log = new_log(store)
        log.record(UserMessage, item=UserItem.of(LONG_TEXT))
        kept = log.commit()
        assert kept is not None
        for text in ("short", LONG_TEXT, "last"):
            log.record(UserMessage, item=UserItem.of(text))
        await durable(kept)
        log.confirm()
        await commit(log)
        assert texts_in(store, log.head.session_id) == [LONG_TEXT, "short", LONG_TEXT, "last"]

    asyncio.run(play())


def test_without_a_loop_it_is_hashed_at_once():
    store = MemoryStore()
    log = new_log(store)
    log.record(UserMessage, item=UserItem.of(LONG_TEXT))
    assert log.commit() is None
    assert texts_in(store, log.head.session_id) == [LONG_TEXT]


class Full(MemoryStore):
    """Has no room while ``full``."""

    full = False

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> None:
        if self.full:
            raise StoreError("the disk is full")
        super().append(session_id, after, batch)


def test_where_the_store_refuses_it_the_log_is_back_at_what_is_durable():
    store = Full()

    async def play() -> None:
        log = new_log(store)
        log.record(UserMessage, item=UserItem.of("first"))
        await commit(log)
        before = log.head.last
        log.record(UserMessage, item=UserItem.of(LONG_TEXT))
        store.full = True
        with pytest.raises(StoreError, match="full"):
            await commit(log)
        log.roll_back()
        store.full = False
        assert (log.head.last, [item.text for item in log.head.items]) == (before, ["first"])
        log.record(UserMessage, item=UserItem.of("second"))
        await commit(log)
        assert texts_in(store, log.head.session_id) == ["first", "second"]

    asyncio.run(play())


@pytest.mark.parametrize("kind", ["memory", *KINDS])
def test_a_pod_that_is_sent_something_long_has_it_in_its_session(kind: str, tmp_path: Path):
    store = MemoryStore() if kind == "memory" else KINDS[kind](tmp_path)

    async def main() -> None:
        async with PodSystem(store) as system:
            pod = await system.spawn(MANIFEST, client=ScriptedClient([say("yes"), say("again")]))
            pushed = pod.push_item(UserItem.of(LONG_TEXT))
            assert (await pod.run(LONG_TEXT)).text == "yes"
            await pushed
            assert (await pod.run("short")).text == "again"
            history = await pod.history()
        assert [item.text for item in history] == [LONG_TEXT, LONG_TEXT, "yes", "short", "again"]

    asyncio.run(main())
    store.close()


def test_a_refusal_of_something_long_fails_its_run_and_the_pod_lives_on():
    store = Full()

    async def main() -> None:
        async with PodSystem(store) as system:
            pod = await system.spawn(MANIFEST, client=ScriptedClient([say("yes")]))
            store.full = True
            with pytest.raises(StoreError, match="full"):
                await pod.push_item(UserItem.of(LONG_TEXT))
            store.full = False
            assert (await pod.run("short")).text == "yes"
            assert [item.text for item in await pod.history()] == ["short", "yes"]

    asyncio.run(main())
