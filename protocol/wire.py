"""Wire: the one way from protocol types to bytes and back, as JSON and as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Generic, TypeVar, Union

import msgspec

from protocol.commands import COMMANDS, Command
from protocol.entries import ENTRIES, Entry, OtherEntry
from protocol.errors import NewerVersion, WireError
from protocol.events import EVENTS, Event
from protocol.items import AssistantItem, Item, SystemItem, ToolResult, UserItem

#: Raised when a type on the wire changes its meaning; added fields and types do not count.
VERSION = 1

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
#: Any protocol type as compact JSON bytes.
encode = _encoder.encode


class LazyDecoder(Generic[T]):
    """A decoder of JSON that is made at its first use: one of forty kinds of entries takes milliseconds."""

    def __init__(self, *kinds: type) -> None:
        self._kinds = kinds

    @cached_property
    def decode(self) -> Callable[[bytes | str], T]:
        """As of ``msgspec.json.Decoder``."""
        return msgspec.json.Decoder(Union[self._kinds]).decode  # noqa: UP007


_items: LazyDecoder[Item] = LazyDecoder(UserItem, AssistantItem, SystemItem, ToolResult)
_events: LazyDecoder[Event] = LazyDecoder(*EVENTS)
_commands: LazyDecoder[Command] = LazyDecoder(*COMMANDS)
_entries: LazyDecoder[Entry] = LazyDecoder(*ENTRIES)


def _decode(decoder: LazyDecoder[T], data: bytes, what: str) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not {what}: {error}") from error


def decode_item(data: bytes) -> Item:
    """An item from its bytes; raises WireError."""
    return _decode(_items, data, "an item")


def decode_event(data: bytes) -> Event:
    """An event from its bytes; raises WireError."""
    return _decode(_events, data, "an event")


def decode_command(data: bytes) -> Command:
    """A command from its bytes; raises WireError."""
    return _decode(_commands, data, "a command")


def decode_entry(data: bytes) -> Entry | OtherEntry:
    """An entry of a session log from its bytes.

    One of an unknown kind is an OtherEntry, if it brings no items. Raises NewerVersion where a newer version
    has put something into the history that this one does not know, WireError for what is no entry.
    """
    try:
        return _entries.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return other_entry(data, error)


class _Other(msgspec.Struct):
    """What tells an entry of a later version from bytes that are none."""

    type: str
    seq: int
    at: float
    item: Any = None
    items: Any = None


_others = msgspec.json.Decoder(_Other)
_KINDS = frozenset(kind.__name__ for kind in ENTRIES)


def other_entry(data: bytes, error: Exception) -> OtherEntry:
    """An entry that could not be decoded for ``error``, where it may be passed over. Raises as
    ``decode_entry`` does.
    """
    try:
        other = _others.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise WireError(f"not an entry: {error}") from error
    if other.type in _KINDS or other.item is not None or other.items is not None:
        raise NewerVersion(f"an entry of the kind {other.type}", str(error)) from error
    return OtherEntry(other.type, other.seq, other.at)


def encode_line(value: Any) -> bytes:
    """A protocol type as one line of JSON, newline included."""
    return encode(value) + b"\n"


class LineSplitter:
    """Bytes in as they come, whole lines out; splits on ``\\n`` alone, since JSON strings may hold
    U+2028 and its like.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that ``data`` completes, without their ends; blank ones are left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return (line for line in (line.rstrip(b"\r") for line in lines) if line.strip())

    def end(self) -> bytes | None:
        """What is left when no more bytes come: an unterminated last line, or None."""
        rest, self._rest = self._rest.strip(), b""
        return rest or None


def schema() -> dict[str, Any]:
    """The JSON Schema of events, commands, entries and items, for programs in other languages."""
    roots: dict[str, Any] = {
        "event": Union[EVENTS],  # noqa: UP007
        "command": Union[COMMANDS],  # noqa: UP007
        "entry": Union[ENTRIES],  # noqa: UP007
        "item": UserItem | AssistantItem | SystemItem | ToolResult,
    }
    shapes, definitions = msgspec.json.schema_components(roots.values(), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "polypod protocol",
        "version": VERSION,
        "properties": dict(zip(roots, shapes, strict=True)),
        "$defs": definitions,
    }
