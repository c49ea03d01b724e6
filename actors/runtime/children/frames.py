"""What polypod and its helper processes say to each other: requests of one byte to the helper, and frames
with wardens: four bytes of length, then plain data.

The helpers have the standard library only and are to be up at once, so the data is marshal's: both ends are
one program on one interpreter, and nobody else has the socket.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from typing import Any

#: Requests to the helper: a child (with descriptors), one to keep open, the end by all ladders, and the end
#: of what is left.
START, HOLD, END, KILL = b"+", b"=", b"-", b"!"
_HEAD = 4


def framed(value: Any) -> bytes:
    """``value`` (None, numbers, bytes, texts, and tuples of these) as a frame."""
    data = marshal.dumps(value)
    return len(data).to_bytes(_HEAD, "big") + data


class Frames:
    """Takes bytes as they come, and gives whole frames."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """What has become whole with ``data``."""
        self._bytes += data
        while len(self._bytes) >= _HEAD:
            end = _HEAD + int.from_bytes(self._bytes[:_HEAD], "big")
            if len(self._bytes) < end:
                return
            value = marshal.loads(bytes(self._bytes[_HEAD:end]))  # noqa: S302 - of our own process
            del self._bytes[:end]
            yield value
