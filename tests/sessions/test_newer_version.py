"""What a newer polypod has written: read where that is possible, else named as such, and never called damaged."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from store_kit import KINDS, wait_until_done

from actors.llm.scripted import ScriptedClient, say
from actors.sessions import repair
from actors.sessions.chain import chained
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.memory.store import MemoryStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from protocol.entries import OtherEntry, StoredEntry
from protocol.errors import NewerVersion, StoreError
from protocol.events import RunEnd
from protocol.manifest import PodManifest
from protocol.wire import decode_entry

MANIFEST = PodManifest.of(name="p")


def written(change: Callable[[dict], dict]) -> tuple[str, list[StoredEntry]]:
    """A session of two runs as a newer version might have written it: each entry changed, the chain sound."""

    async def work() -> tuple[str, list[StoredEntry]]:
        async with PodSystem(store) as system:
            pod = await system.spawn(MANIFEST, client=ScriptedClient([say("a"), say("b")]))
            await pod.run("one")
            await pod.run("two")
            session_id = (await pod.describe()).session_id
            await pod.stop()
            return session_id, store.read(session_id)

    store = MemoryStore()
    session_id, entries = asyncio.run(work())
    changed = [msgspec.json.encode(change(msgspec.json.decode(entry.body))) for entry in entries]
    return session_id, chained(changed)


def resumed(store: SessionStore, session_id: str) -> list[str]:
    async def work() -> list[str]:
        async with PodSystem(store) as system:
            pod = await system.spawn(MANIFEST, client=ScriptedClient([say("c")]), resume=session_id)
            await pod.run("three")
            return [item.text for item in await pod.history()]

    return asyncio.run(work())


def renamed(entry: dict) -> dict:
    return {**entry, "type": "RunFinishedNewly"} if entry["type"] == "RunEnd" else entry


def with_novelties(entry: dict) -> dict:
    return {**entry, "novelty": {"x": [1]}}


def with_a_new_part(entry: dict) -> dict:
    if entry["type"] == "AssistantMessage":
        entry["item"]["content"] = [{"type": "audio", "data": "zz"}]
    return entry


def with_a_new_item(entry: dict) -> dict:
    return {**entry, "type": "PictureMessage"} if entry["type"] == "AssistantMessage" else entry


@pytest.fixture(params=sorted(KINDS))
def store(request, tmp_path):
    opened = KINDS[request.param](tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("change", [renamed, with_novelties])
def test_unknown_kinds_without_items_and_unknown_members_are_passed_over(store, change):
    session_id, entries = written(change)
    wait_until_done(store.create(session_id, "p", None, entries, claim=False))
    assert resumed(store, session_id) == ["one", "a", "two", "b", "three", "c"]
    assert list(repair.check(store)) == []
    events = [decode_entry(entry.body) for entry in entries]
    assert any(isinstance(event, OtherEntry if change is renamed else RunEnd) for event in events)

    async def replayed() -> int:
        async with PodSystem(store) as system:
            return len(system.subscribe(pod="p", since=0).drain())

    assert asyncio.run(replayed()) > 0


@pytest.mark.parametrize("change", [with_a_new_part, with_a_new_item])
def test_an_item_that_only_a_newer_version_knows_is_named_and_not_called_damage(store, change):
    session_id, entries = written(change)
    wait_until_done(store.create(session_id, "p", None, entries, claim=False))
    with pytest.raises(NewerVersion, match=rf"entry \d of session {session_id}.*newer polypod") as caught:
        resumed(store, session_id)
    assert "damaged" not in caught.value.message
    assert "fork" not in str(caught.value)
    with pytest.raises(NewerVersion, match="newer polypod"):
        repair.fork(store, session_id, "t")
    assert list(repair.check(store)) == [], "its chain is sound"


def test_a_database_of_a_newer_format_is_left_alone(tmp_path):
    path = tmp_path / "pods.db"
    SQLiteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    before = path.read_bytes()
    with pytest.raises(NewerVersion, match="newer polypod: format 7") as caught:
        SQLiteStore(path)
    assert isinstance(caught.value, StoreError)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_format_is_named_and_the_others_go_on(tmp_path):
    store = JsonLinesStore(tmp_path)
    for name in ("old", "new"):
        wait_until_done(store.create(name, "p", None, chained([b"{}"])))
        store.release(name)
    path = tmp_path / "new.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"polypod":1,', b'{"polypod":2,"other":[],', 1))
    for ask in (store.read, store.info, store.torn, lambda each: store.claim(each, "p")):
        with pytest.raises(NewerVersion, match=r"new\.jsonl was written by a newer polypod: format 2"):
            ask("new")
    assert [info.session_id for info in store.sessions()] == ["old"]
    (problem,) = map(str, store.unreadable().values())
    assert "newer polypod" in problem
    store.close()


@pytest.mark.parametrize("header", [b'{"polypod":2,"session":"s"}', b'{"polypod":99}'])
def test_an_export_of_a_newer_format_is_refused_by_its_number(tmp_path: Path, header: bytes):
    store = MemoryStore()
    with pytest.raises(NewerVersion, match=r"x\.jsonl was written by a newer polypod: format \d+"):
        repair.import_session(store, [header + b"\n", b"what it may be\n"], name="x.jsonl")
    assert store.sessions() == []
