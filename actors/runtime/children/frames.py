"""What polypod and its helper processes say to each other: requests of one byte to the helper, and frames
with wardens: four bytes of length, then plain data. Descriptors come with the first byte.

The helpers have the standard library only and are to be up at once, so the data is marshal's: both ends are
one program on one interpreter, and nobody else has the socket.
"""

from __future__ import annotations

import marshal
import os
import socket
from array import array
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


def receive(end: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """What has come, and the descriptors that came with it, at most so many: no program inherits them.

    Fewer come than were sent where this process has no room for them. Raises OSError.
    """
    space = socket.CMSG_LEN(most * array("i").itemsize)
    data, rights, _, _ = end.recvmsg(size, space, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    descriptors = array("i")
    for _, _, packed in rights:
        descriptors.frombytes(packed[: len(packed) // descriptors.itemsize * descriptors.itemsize])
    for each in descriptors:
        os.set_inheritable(each, False)
    return data, list(descriptors)


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
