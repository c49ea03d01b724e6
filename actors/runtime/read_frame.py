"""``read_frame``: the next frame of ``protocol.channel`` from a stream."""

from __future__ import annotations

from asyncio import StreamReader

from protocol.channel import HEAD, frame_length


async def read_frame(reader: StreamReader) -> bytes:
    """The body of the next frame. Raises IncompleteReadError at the end, OSError, WireError."""
    return await reader.readexactly(frame_length(await reader.readexactly(HEAD)))
