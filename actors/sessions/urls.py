"""Opens the store that a URL names: ``memory:``, ``sqlite:FILE`` or ``jsonl:DIR``."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args
from urllib.parse import parse_qsl

from msgspec import Struct

from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import Durability, SessionStore
from protocol.errors import StoreError


def _sqlite(path: str, durability: Durability) -> SessionStore:
    from actors.sessions.sqlite.store import SQLiteStore  # noqa: PLC0415 - paid for by who uses it

    return SQLiteStore(path, durability)


def _jsonl(path: str, durability: Durability) -> SessionStore:
    from actors.sessions.jsonl.store import JsonLinesStore  # noqa: PLC0415

    return JsonLinesStore(path, durability)


_ON_DISK: dict[str, Callable[[str, Durability], SessionStore]] = {"sqlite": _sqlite, "jsonl": _jsonl}
_HINT = "use memory:, sqlite:FILE or jsonl:DIR; the last two with ?durability=process or ?durability=power"


class Place(Struct, frozen=True):
    """A parsed store URL: the kind of store, where it is, and its durability."""

    scheme: str
    path: str
    durability: Durability


def open_store(url: str) -> SessionStore:
    """Open the store that ``url`` names; its file or folder is created if it does not exist.

    Raises StoreError if the URL names no store, or the store cannot be opened.
    """
    place = place_of(url)
    return _ON_DISK[place.scheme](place.path, place.durability) if place.path else MemoryStore()


def place_of(url: str) -> Place:
    """Parse ``url``, and open nothing. Raises StoreError if it names no store."""
    scheme, colon, rest = url.partition(":")
    if not colon or not scheme.isalpha():
        raise StoreError(f"{url!r} is not a store", hint=_HINT)
    place, _, query = rest.partition("?")
    if scheme == "memory":
        if place or query:
            raise StoreError(f"{url!r}: memory: takes no path and no options", hint=_HINT)
        return Place(scheme, "", "process")
    if scheme in {"postgresql", "postgres"}:
        raise StoreError(
            "polypod has no store for PostgreSQL",
            hint=f"{_HINT}; or pass your own SessionStore to PodSystem",
        )
    if scheme not in _ON_DISK:
        raise StoreError(f"{url!r}: there is no store of type {scheme!r}", hint=_HINT)
    path = place.removeprefix("//")
    if not path:
        raise StoreError(f"{url!r} has no path", hint=_HINT)
    if path == ":memory:":  # SQLite's own name for it would be an ordinary file here
        raise StoreError(f"{url!r}: for sessions in memory, use memory:", hint=_HINT)
    return Place(scheme, path, _durability(url, query))


def _durability(url: str, query: str) -> Durability:
    options = dict(parse_qsl(query, keep_blank_values=True))
    value = options.pop("durability", "process")
    if options:
        raise StoreError(f"{url!r}: there is no option {next(iter(options))!r}", hint=_HINT)
    for known in get_args(Durability):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise StoreError(f"{url!r}: durability must be process or power, not {value!r}", hint=_HINT)
