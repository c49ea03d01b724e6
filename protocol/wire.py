"""Wire: the one way from protocol types to bytes and back, as JSON and as JSON lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Generic, TypeVar, Union

import msgspec

from protocol.commands import COMMANDS, Command
from protocol.entries import ENTRIES, Entry, OtherEntry
from protocol.errors import NewerVersion, WireError
from protocol.events import DURABLE_EVENTS, EVENTS, DurableEvent, Event
from protocol.items import AssistantItem, Item, SystemItem, ToolResult, UserItem
from protocol.recordable import UNFIT, recordable
from protocol.text import UNDECODABLE

#: Raised when a type on the wire changes its meaning; added fields and types do not count.
VERSION = 1

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
#: Any protocol type as compact JSON bytes.
encode = _encoder.encode


def encode_recordable(value: msgspec.Struct) -> bytes:
    """A protocol type as JSON, or its ``recordable`` copy where it holds what no JSON can. Raises as that
    does.
    """
    try:
        return encode(value)
    except UNFIT:
        return encode(recordable(value))


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
    except (*UNDECODABLE, TypeError) as error:
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
    has put something into the history that this one does not know, WireError for what is not an entry.
    """
    try:
        return _entries.decode(data)
    except (*UNDECODABLE, TypeError) as error:
        return other_entry(data, error)


_KINDS = {str(kind.__struct_config__.tag): kind for kind in ENTRIES}
_EVENT_TAGS = {tag.encode(): kind for tag, kind in _KINDS.items() if kind in DURABLE_EVENTS}
_OTHER_TAGS = {tag.encode() for tag in _KINDS} - _EVENT_TAGS.keys()
#: How our encoder begins what has a kind.
_TAG = rb'\{"type":"(\w+)"'


class _Dated(msgspec.Struct):
    at: float = 0.0


_dated: LazyDecoder[_Dated] = LazyDecoder(_Dated)


def entry_time(data: bytes) -> float:
    """When an entry was made, 0 where it does not say; nothing else of it is looked at. Raises WireError."""
    return _decode(_dated, data, "an entry").at


def event_kind(data: bytes) -> type[DurableEvent] | None:
    """The kind of event that an entry is, known by how its bytes begin; None where it is not an event.
    Raises as ``decode_entry`` does, but not for what only decoding finds.
    """
    found = re.match(_TAG, data)
    tag = b"" if found is None else found[1]
    kind: type[DurableEvent] | None = _EVENT_TAGS.get(tag)
    if kind is None and tag not in _OTHER_TAGS:  # of a later version, or not written by our encoder
        entry = decode_entry(data)
        return type(entry) if isinstance(entry, DurableEvent) else None
    return kind


class _Other(msgspec.Struct):
    """The tag alone: an entry of a later version has one, other bytes do not."""

    type: str
    seq: int
    at: float
    item: Any = None
    items: Any = None


_others: LazyDecoder[_Other] = LazyDecoder(_Other)


def other_entry(data: bytes, error: Exception) -> OtherEntry:
    """An entry that could not be decoded for ``error``, where it may be passed over. Raises as
    ``decode_entry`` does.
    """
    try:
        other = _others.decode(data)
    except (*UNDECODABLE, TypeError):
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
