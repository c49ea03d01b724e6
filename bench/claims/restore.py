"""Claim: the cost of a restore: a session of 10,000 items read back from its file, its chain checked."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from actors.system import PodSystem
from bench.claim import Claim, at_most
from bench.filling import fill_session
from bench.histories import items
from bench.measure import Holds, Stopwatch
from bench.models import Parrot, manifest
from bench.results import Reading
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem

CLAIM = Claim("restore", "restore: 10,000 items from a SQLite file, every hash checked")


async def _restored(store: str, session_id: str, watch: Stopwatch | Holds) -> int:
    async with PodSystem(store) as system:
        with watch:
            pod = await system.spawn(manifest(), client=Parrot(), resume=session_id)
        return len(await pod.history())


def _restore(count: int, *, long_commits: bool) -> list[Reading]:
    watch, holds = Stopwatch(), Holds()
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        store = f"sqlite:{folder}/pods.db"
        session_id = fill_session(store, count, long_commits=long_commits)
        gc.collect()  # collecting the garbage of the filling is no part of a restore
        assert asyncio.run(_restored(store, session_id, watch)) == count
        asyncio.run(_restored(store, session_id, holds))
    return [watch.each("time to restore", 1), holds.reading()]


_TARGETS = {"time to restore": at_most(0.029), "longest hold of the loop": at_most(0.010)}


@CLAIM.case("10,000 items", full=10_000, quick=10_000, tiny=20, targets=_TARGETS)
def restore(count: int) -> list[Reading]:
    """Spawn a pod with ``resume=`` in a session that came from elsewhere: 10,000 entries, 500 in
    each commit.
    """
    return _restore(count, long_commits=True)


@CLAIM.case("10,000 items, committed by a pod", full=10_000, quick=10_000, tiny=20, targets=_TARGETS)
def restore_of_a_pod(count: int) -> list[Reading]:
    """Spawn a pod in a session that a pod has written: 15,000 entries, one or two in each commit."""
    return _restore(count, long_commits=False)


class _Row(msgspec.Struct):
    """The part of an entry that any reader needs."""

    item: UserItem | AssistantItem | SystemItem | ToolResult | None = None


_decode: Callable[[bytes], _Row] = msgspec.json.Decoder(_Row).decode


@CLAIM.case("10,000 items", by="SELECT, SHA-256, decode", kind="floor", full=10_000, quick=10_000, tiny=20)
def by_hand(count: int) -> list[Reading]:
    """Rows of a file of our own, hashed and decoded."""
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        db = sqlite3.connect(Path(folder, "bare.db"))
        _fill(db, count)
        gc.collect()
        with Stopwatch() as watch:
            last, history = bytes(32), []
            for stored, body in db.execute("SELECT hash, body FROM entries ORDER BY n"):
                last = hashlib.sha256(last + body).digest()
                assert last == stored
                history.append(_decode(body).item)
        db.close()
    assert len(history) == count
    return [watch.each("time to restore", 1)]


def _fill(db: sqlite3.Connection, count: int) -> None:
    db.execute("PRAGMA page_size = 2048")
    db.execute("CREATE TABLE entries (n INTEGER PRIMARY KEY, hash BLOB, body BLOB)")
    last, rows = bytes(32), list[Any]()
    for number, item in enumerate(items(count)):
        entry = {
            "type": "UserMessage",
            "pod": "bench",
            "session_id": "s",
            "seq": number,
            "at": 1.0,
            "item": item,
        }
        body = msgspec.json.encode(entry)
        last = hashlib.sha256(last + body).digest()
        rows.append((number, last, body))
    db.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
    db.commit()
