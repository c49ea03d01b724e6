"""Answers in HTTP/1.1, pure: bytes in as they come, a head and the pieces of its body out, wherever the bytes
are split. What RFC 9112 allows and what servers are known to send is read; the rest is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from actors.net.encodings import coding_of
from actors.net.failures import MAX_HEADER_BYTES, MAX_HEADERS, TransportError, no_http, overlong_head

#: The most of a head that is held, in bytes.
MAX_HEAD_BYTES = 4 * MAX_HEADER_BYTES
#: The longest line of a chunk's size, with what some servers write behind it.
_MAX_SIZE_LINE = 4096
#: More than any body; a size with more digits is none.
_MAX_SIZE = 2**53

_SWITCHING = 101
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
#: Zeros may lead it; Python makes no number of thousands of digits.
_LENGTH = re.compile(r"[0-9]{1,100}")
_FIRST_LINE = re.compile(rb"HTTP/1\.(\d) +(\d{3})(?: .*)?")


class Headers(Mapping[str, str]):
    """The headers of an answer, by names in any case; repeated ones are joined with commas."""

    def __init__(self, lines: list[tuple[bytes, bytes]]) -> None:
        self._all: dict[str, str] = {}
        for name, value in lines:
            key, text = name.decode("latin-1").lower(), _text_of(value)
            self._all[key] = f"{self._all[key]}, {text}" if key in self._all else text

    def __getitem__(self, name: str) -> str:
        return self._all[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def _text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Framing(Protocol):
    """Finds where the body of an answer ends.

    ``over`` says that the body is complete, ``surplus`` that bytes followed it; ``open_ended`` that it ends
    with its connection.
    """

    over: bool
    surplus: bool
    open_ended: bool

    def feed(self, data: bytes) -> bytes:
        """What ``data`` holds of the body. Raises TransportError for what is not HTTP."""
        ...


class Head(NamedTuple):
    """The head of an answer: how its body is framed and packed, and whether its connection can be kept."""

    status: int
    headers: Headers
    framing: Framing
    coding: str
    keeps: bool


class HeadReader:
    """Takes bytes up to the end of a head; skips provisional answers (status 100 and so on)."""

    __slots__ = ("_held", "_seen", "begun")

    def __init__(self) -> None:
        #: Whether anything has come, if only a provisional answer.
        self.begun = False
        self._held = b""
        self._seen = 0  # bytes of what is held in which no head ends

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and what came behind it; None where more of it is to come. Raises TransportError."""
        held = self._held + data if self._held else data
        self.begun = True
        while True:
            held = held.lstrip(b"\r\n")
            if not held.startswith(b"HTTP/"[: len(held)]):
                raise TransportError(no_http(f"it begins with {held[:40]!r}"))
            end = _END_OF_HEAD.search(held, max(0, self._seen - 3))
            if end is None:
                if len(held) > MAX_HEAD_BYTES:
                    raise TransportError(overlong_head())
                self._held, self._seen = held, len(held)
                return None
            head = _head_of(held[: end.start()])
            held, self._seen = held[end.end() :], 0
            if head is not None:
                return head, held


def _head_of(data: bytes) -> Head | None:
    """The head that some lines are; None of a provisional answer. Raises TransportError."""
    first, *lines = data.replace(b"\r\n", b"\n").split(b"\n")
    found = _FIRST_LINE.fullmatch(first)
    if found is None:
        raise TransportError(no_http(f"it begins with {first[:40]!r}"))
    if len(lines) > MAX_HEADERS or max(map(len, lines), default=0) > MAX_HEADER_BYTES:
        raise TransportError(overlong_head())
    minor, status = int(found[1]), int(found[2])
    if 100 <= status < 200 and status != _SWITCHING:
        return None
    headers = Headers(_named(lines))
    packed = headers.get("content-encoding", "")
    transfer = [each.strip() for each in headers.get("transfer-encoding", "").lower().split(",")]
    transfer = [each for each in transfer if each not in {"", "identity"}]  # the latter is of RFC 2616
    framing = _framing(status, transfer, headers.get("content-length"))
    if transfer:  # a body may be packed for the way, too
        packed = ", ".join([packed, *(each for each in transfer if each != "chunked")])
    wishes = {each.strip() for each in headers.get("connection", "").lower().split(",")}
    keeps = "close" not in wishes if minor else "keep-alive" in wishes
    if status == _SWITCHING:
        keeps = False  # from here on it speaks something else
    if transfer and "content-length" in headers:
        keeps = False  # it has two ends, and a proxy may have taken the other one (RFC 9112, 6.3)
    return Head(status, headers, framing, coding_of(packed), keeps and not framing.open_ended)


def _named(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The names and values of a head's lines; a line that begins with a blank continues the one before."""
    named: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line[:1] in {b" ", b"\t"} and named:
            name, value = named[-1]
            named[-1] = name, value + b" " + line.strip()
            continue
        name, colon, value = line.partition(b":")
        if not colon or not name.strip():
            raise TransportError(no_http(f"the line {line[:40]!r} in its head is not a header"))
        named.append((name.strip(), value.strip()))
    return named


def _framing(status: int, transfer: list[str], length: str | None) -> Framing:
    if status < 200 or status in {204, 304}:
        return Sized(0)
    if transfer[-1:] == ["chunked"]:
        return Chunked()
    if transfer or length is None:
        return Unbounded()
    sizes = {each.strip() for each in length.split(",")}  # some proxies repeat it
    size = sizes.pop()
    if sizes or not _LENGTH.fullmatch(size) or int(size) > _MAX_SIZE:
        raise TransportError(no_http(f"{length[:40]!r} is not a valid content length"))
    return Sized(int(size))


class Sized:
    """A body of a stated length."""

    __slots__ = ("_left", "over", "surplus")

    open_ended = False

    def __init__(self, size: int) -> None:
        self._left = size
        self.over = size == 0
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        left = self._left = self._left - len(data)
        if left > 0:
            return data
        self.over = True
        if left < 0:
            self.surplus, self._left = True, 0
            return data[:left]
        return data


class Unbounded:
    """A body that ends with its connection."""

    __slots__ = ()

    over = False
    surplus = False
    open_ended = True

    def feed(self, data: bytes) -> bytes:
        return data


class Chunked:
    """A body in chunks, each behind a line with its size; those that come whole are what is quick."""

    __slots__ = ("_held", "_left", "_trailing", "over", "surplus")

    open_ended = False

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line
        self._left = 0  # of the chunk under way, and of the end of line behind it
        self._trailing = False  # the last chunk has come
        self.over = False
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        if self._left:
            return self._go_on(data)
        if self._held:
            data, self._held = self._held + data, b""
        if self._trailing:
            return self._trail(data, 0)
        end = data.find(b"\r\n") + 2
        size = len(data) - 2 - end
        if size > 0 and data[-2:] == b"\r\n" and data[:end].lower() == b"%x\r\n" % size:
            return data[end:-2]  # one whole chunk, as most come
        return self._pieces(data)

    def _pieces(self, data: bytes) -> bytes:
        """What stands in chunks from the beginning of a size line on."""
        pieces, at = [], 0
        while at < len(data):
            newline = data.find(b"\n", at)
            if newline < 0:
                self._hold(data[at:])
                break
            size = _size_of(data[at:newline])
            at = newline + 1
            if size == 0:
                self._trailing = True
                self._trail(data, at)
                break
            pieces.append(data[at : at + size])
            at += size
            _look_at_end(data[at : at + 2], b"\r\n")
            at += 2
        self._left = max(0, at - len(data))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _go_on(self, data: bytes) -> bytes:
        """More of a chunk that had come in part, and of the end of line behind it."""
        left = self._left
        inside = max(0, left - 2)
        _look_at_end(data[inside:left], b"\r\n"[-left:])
        self._left = max(0, left - len(data))
        piece = data[:inside]
        return piece + self.feed(data[left:]) if len(data) > left else piece

    def _trail(self, data: bytes, at: int) -> bytes:
        """What stands behind the last chunk: lines, up to a blank one."""
        while (newline := data.find(b"\n", at)) >= 0:
            blank = data[at:newline] in {b"", b"\r"}
            at = newline + 1
            if blank:
                self.over, self.surplus = True, at < len(data)
                return b""
        self._hold(data[at:])
        return b""

    def _hold(self, data: bytes) -> None:
        if len(data) > (MAX_HEADER_BYTES if self._trailing else _MAX_SIZE_LINE):
            raise TransportError(no_http("the line with a chunk's size has no end"))
        self._held = data


def _size_of(line: bytes) -> int:
    """The size of a chunk, without what may stand behind it."""
    if not line.isalnum():
        line = line.partition(b";")[0].strip()
    if line.isalnum() and len(line) < 14 and line[1:2] not in {b"x", b"X"}:  # Python would read 0x5
        try:
            return int(line, 16)
        except ValueError:
            pass  # raised below
    raise TransportError(no_http(f"{line[:40]!r} is not a chunk size"))


def _look_at_end(end: bytes, due: bytes) -> None:
    """Check that what comes behind a chunk is the end of its line, as far as it is there."""
    if not due.startswith(end):
        raise TransportError(no_http("a chunk is longer than it says"))
