"""``open_queue``: the queue that belongs to a session store."""

from __future__ import annotations

from actors.routing.pool.memory_queue import MemoryQueue
from actors.routing.pool.queue import TaskQueue
from actors.sessions.answers import wait
from actors.sessions.store import SessionStore
from actors.sessions.urls import open_store, place_of

#: The file of a queue beside a store that is no such file itself.
FILE = "pool.db"


def open_queue(store: SessionStore) -> TaskQueue:
    """The queue in a store's file, or in one beside its files, as durable as the store; one in memory where
    the store is in memory. Raises StoreError.
    """
    tables = store.tables()
    if tables is not None:
        from actors.routing.pool.sqlite_queue import SQLiteQueue  # noqa: PLC0415 - paid for by whoever has a file

        return SQLiteQueue(tables)
    if store.folder is None:
        return MemoryQueue()
    return _open_file(f"sqlite:{store.folder / FILE}?durability={place_of(store.url).durability}")


def _open_file(url: str) -> TaskQueue:
    from actors.routing.pool.sqlite_queue import SQLiteQueue  # noqa: PLC0415

    store = open_store(url)
    tables = store.tables()
    assert tables is not None
    return SQLiteQueue(tables, lambda: wait(store.close()))
