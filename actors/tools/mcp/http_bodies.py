"""Bodies of an MCP server's answers over HTTP, mended as they are read: the SDK refuses all of one for an odd
text in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from actors.tools.mcp.readable import readable, readable_event
from actors.tools.mcp.streams import LONGEST_MESSAGE

_JSON, _EVENTS = "application/json", "text/event-stream"
#: Bytes of a line of events that are kept until its end comes; a longer one passes as it is.
_LONGEST_LINE = 1 << 21


async def mend_body(response: httpx2.Response) -> None:
    """Have the body of a response be mended as it is read: a hook of httpx2."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {_JSON, _EVENTS}:
        return
    as_sent = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)
    response.headers.pop("content-encoding", None)  # what is read of it is decoded
    response.stream = _Mended(as_sent, by_line=kind == _EVENTS)


class _Mended(httpx2.AsyncByteStream):
    """The body of a response: all of it at once, or the lines of events as they come."""

    def __init__(self, as_sent: httpx2.Response, *, by_line: bool) -> None:
        self._as_sent = as_sent
        self._by_line = by_line

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self._by_line:
            yield readable(await self._read_all())
            return
        begun, passes = b"", False
        async for chunk in self._as_sent.aiter_bytes():
            *lines, begun = _lines(begun + chunk)
            if lines:
                first = lines[0] if passes else readable_event(lines[0])
                yield first + b"".join(map(readable_event, lines[1:]))
                passes = False
            if passes or len(begun) > _LONGEST_LINE:
                yield begun
                begun, passes = b"", True
        yield begun if passes else readable_event(begun)

    async def _read_all(self) -> bytes:
        body = bytearray()
        async for chunk in self._as_sent.aiter_bytes():
            body += chunk
            if len(body) > LONGEST_MESSAGE:
                raise httpx2.StreamError(f"it has more than {LONGEST_MESSAGE:,} bytes")
        return bytes(body)

    async def aclose(self) -> None:
        """Read no more."""
        await self._as_sent.aclose()


def _lines(data: bytes) -> list[bytes]:
    """The lines that are whole, each with its end, and what has begun behind them."""
    lines = data.splitlines(keepends=True)
    return lines if lines and lines[-1][-1:] not in {b"\r", b"\n"} else [*lines, b""]
