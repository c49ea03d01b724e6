"""Packed bodies: servers and proxies pack answers that nobody asked them to pack."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable

#: The most that comes out of one step, in bytes, so that a small packed body cannot fill the memory.
STEP = 256 * 1024

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def coding_of(header: str | None) -> str:
    """How a body is packed by its ``Content-Encoding``; empty where it is not."""
    if not header:
        return ""
    return ", ".join(each for each in header.lower().replace(" ", "").split(",") if each not in _PLAIN)


_PLAIN = frozenset({"", "identity", "utf-8", "none"})


def can_unpack(coding: str) -> bool:
    """Whether ``Unpacker`` knows this coding."""
    return coding in _WINDOWS


class Unpacker:
    """Bytes of a packed body in, those of the body out, in steps of at most ``STEP``."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inner = zlib.decompressobj(_WINDOWS[coding])
        self._begun = False
        #: What was fed and has not come out yet.
        self.pending = b""

    def feed(self, data: bytes) -> bytes:
        """What ``data`` (behind what is pending) gives. Raises ValueError for what is not packed so."""
        data = self.pending + data
        self.pending = b""
        try:
            out = self._inner.decompress(data, STEP)
        except zlib.error as error:
            if self._begun or self._coding != "deflate":
                raise ValueError(str(error)) from error
            out = self._without_header(data)
        self._begun = True
        self.pending = self._inner.unconsumed_tail
        if self._inner.eof and (rest := self._inner.unused_data):
            self._inner = zlib.decompressobj(_WINDOWS[self._coding])  # a packed body may have several parts
            if rest.strip(b"\0"):
                self.pending = rest
        return out

    def _without_header(self, data: bytes) -> bytes:
        """Some servers say ``deflate`` and leave out the two bytes that should come first."""
        self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            return self._inner.decompress(data, STEP)
        except zlib.error as error:
            raise ValueError(str(error)) from error


def unpacking(read: Callable[[], Awaitable[bytes]], coding: str) -> Callable[[], Awaitable[bytes]]:
    """What gives the next bytes of a body, unpacked, where ``read`` gives them packed."""
    if not coding:
        return read
    if not can_unpack(coding):

        async def refuse() -> bytes:
            raise ValueError(f"an answer in the encoding {coding[:40]!r}, which was not requested")

        return refuse
    unpacker = Unpacker(coding)

    async def unpacked() -> bytes:
        while True:
            data = b"" if unpacker.pending else await read()
            if not data and not unpacker.pending:
                return b""
            try:
                out = unpacker.feed(data)
            except ValueError as error:
                raise ValueError(
                    f"an answer that claims to be in {coding} but cannot be decoded: {error}"
                ) from error
            if out:
                return out

    return unpacked
