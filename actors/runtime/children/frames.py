"""The format of what polypod and its helper processes send each other.

A request to the helper is one byte. Warden and polypod exchange frames: four bytes of length, then plain
data. Descriptors are sent along with the first byte.

The helpers use only the standard library and must start quickly, so the data is encoded with ``marshal``.
That is safe: both ends are one program on one interpreter, and nobody else has the socket.
"""

from __future__ import annotations

import marshal
import os
import socket
from array import array
from collections.abc import Iterator
from typing import Any

#: Requests to the helper: start a child (with a descriptor), keep a descriptor open, end everything by its
#: ladder, kill what is left.
START, HOLD, END, KILL = b"+", b"=", b"-", b"!"
_HEAD = 4


def framed(value: Any) -> bytes:
    """``value`` (None, numbers, bytes, strings, and tuples of these) as a frame."""
    data = marshal.dumps(value)
    return len(data).to_bytes(_HEAD, "big") + data


def receive(end: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive bytes, and at most ``most`` descriptors sent with them, which no program inherits.

    There may be fewer descriptors than were sent, if this process has no room for them. Raises OSError.
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
    """Splits a stream of bytes into frames."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take bytes, and yield the values of the frames that are complete."""
        self._bytes += data
        while len(self._bytes) >= _HEAD:
            end = _HEAD + int.from_bytes(self._bytes[:_HEAD], "big")
            if len(self._bytes) < end:
                return
            value = marshal.loads(bytes(self._bytes[_HEAD:end]))  # noqa: S302 - from our own process
            del self._bytes[:end]
            yield value
