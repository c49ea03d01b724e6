"""The line format of a session's file: writes batches of entries, and reads them back, up to a torn end.

The first line is the header; each other one is an entry::

    {"seq":7,"hash":"5e88…","more":1,"entry":{"type":"RunStart",…}}

with the entry's bytes as they were hashed. ``more`` is the number of following lines of the same batch, and
is left out on the last one. A batch without its last line was cut off by a crash and is not part of the
session. A complete line that cannot be read is no result of a crash; it is returned as an entry that does not
verify.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from protocol.entries import Head, Parent, StoredEntry
from protocol.errors import NewerVersion
from protocol.text import UNDECODABLE

FORMAT = 1


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a file says of its session, once."""

    polypod: int
    session: str
    pod: str
    created_at: float
    parent: Parent | None = None


class _Line(msgspec.Struct):
    seq: int
    hash: str
    entry: msgspec.Raw
    more: int = 0


class _Number(msgspec.Struct):
    polypod: int


_decode_number = msgspec.json.Decoder(_Number).decode
_decode_header = msgspec.json.Decoder(Header).decode
_decode_line = msgspec.json.Decoder(_Line).decode


def header_line(session_id: str, pod: str, created_at: float, parent: Parent | None) -> bytes:
    """The first line of a session's file."""
    return msgspec.json.encode(Header(FORMAT, session_id, pod, created_at, parent)) + b"\n"


def parse_header(line: bytes, name: str) -> Header | None:
    """The header on a line of the file ``name``, None if it is not one. Raises NewerVersion."""
    try:
        number = _decode_number(line).polypod
    except UNDECODABLE:
        return None
    if number > FORMAT:
        raise NewerVersion(name, f"format {number}; this version supports {FORMAT}")
    try:
        return _decode_header(line)
    except UNDECODABLE:
        return None


def batch_lines(batch: Sequence[StoredEntry]) -> bytes:
    """The lines of a batch. Raises ValueError if an entry is not a single line."""
    lines = []
    more = len(batch)
    for entry in batch:
        body = entry.body
        if b"\n" in body:
            raise ValueError(f"entry {entry.seq} is not one line of JSON")
        more -= 1
        rest = b'"more":%d,"entry":%b}\n' % (more, body) if more else b'"entry":%b}\n' % body
        lines.append(b'{"seq":%d,"hash":"%b",%b' % (entry.seq, entry.hash.hex().encode(), rest))
    return b"".join(lines)


#: How our own lines begin. Of a long line no more is parsed, since the hash covers the rest.
_BEGINNING = re.compile(rb'\{"seq":(\d{1,18}),"hash":"([0-9a-f]{64})",(?:"more":(\d{1,18}),)?"entry":')
_LONG = 256 << 10


class LineReader:
    """Takes the bytes after a file's header as they come, and returns their entries.

    ``seen`` is the number of bytes up to the end of the last complete line, ``sound`` up to that of the last
    complete batch, ``head`` the last entry there, ``pending`` the number of bytes of an incomplete line. If
    no more bytes come, everything after ``sound`` is torn.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.sound = 0
        self.pending = 0
        self.head: Head | None = None
        self._parts: list[bytes] = []
        self._last = 0

    def feed(self, data: bytes) -> list[StoredEntry]:
        """The entries of the lines that ``data`` completes, including those of torn batches.

        Takes time in proportion to ``data`` alone, however long the line is that it belongs to.
        """
        first, newline, rest = data.partition(b"\n")
        self._parts.append(first)
        self.pending += len(first)
        if not newline:
            return []
        lines = [b"".join(self._parts), *rest.split(b"\n")]
        last = lines.pop()
        self._parts, self.pending = [last], len(last)
        return [self._entry(line) for line in lines]

    def _entry(self, line: bytes) -> StoredEntry:
        entry, more = _parsed(line) or (StoredEntry(self._last + 1, b"", line), 0)
        self.seen += len(line) + 1
        self._last = entry.seq
        if not more:
            self.sound = self.seen
            self.head = Head(entry.seq, entry.hash)
        return entry


class Beginning(NamedTuple):
    """The part of a line before its entry: which entry it is, and how many of its batch follow."""

    head: Head
    more: int
    length: int


def parse_beginning(line: bytes) -> Beginning | None:
    """The part before the entry on a line of ours, None if it is not one."""
    found = _BEGINNING.match(line)
    if found is None:
        return None
    seq, digest, more = found.groups(default=b"0")
    return Beginning(Head(int(seq), bytes.fromhex(digest.decode())), int(more), found.end())


def _parsed(line: bytes) -> tuple[StoredEntry, int] | None:
    """An entry, and how many of its batch follow; None if the line is not one."""
    if len(line) >= _LONG and line.endswith(b"}") and (begin := parse_beginning(line)) is not None:
        return StoredEntry(begin.head.seq, begin.head.hash, line[begin.length : -1]), begin.more
    try:
        parsed = _decode_line(line)
        return StoredEntry(parsed.seq, bytes.fromhex(parsed.hash), bytes(parsed.entry)), parsed.more
    except (*UNDECODABLE, ValueError):
        return None
