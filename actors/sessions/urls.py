from actors.sessions.sqlite import SQLiteStore
from actors.sessions.store import MemoryStore


def open_store(url):
    if url == "memory:":
        return MemoryStore()
    from pathlib import Path

    p, _, q = url.removeprefix("sqlite:").partition("?")
    return SQLiteStore(Path(p), durability="power" if "power" in q else "process")
