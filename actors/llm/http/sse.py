"""Server-sent events, pure: bytes in as they come, whole events out, wherever the bytes are split."""

from __future__ import annotations

#: An event: its name (``message`` where the server gave none) and its data, not yet decoded.
SSEEvent = tuple[str, bytes]

#: More than any honest event, in bytes and in lines; one that never ends must not fill the memory.
MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_EVENT_LINES = 100_000

_BOM = b"\xef\xbb\xbf"


class SSEParser:
    """Takes the bytes of one stream in order and gives its events.

    Accepts LF, CRLF and CR, ``data:`` with and without a space, data of many lines, comments and a byte
    order mark. Events do not depend on how the bytes were split. Comments give no event; whoever feeds
    the parser sees from the bytes themselves that the server is alive.
    """

    __slots__ = ("_after_cr", "_held", "_started")

    def __init__(self) -> None:
        self._held = bytearray()  # what is not a whole event yet
        self._after_cr = False  # the last piece ended in CR; an LF now would belong to it
        self._started = False

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that ``data`` completes. Raises ValueError for an event beyond all measure."""
        if self._after_cr or b"\r" in data:
            data = self._plain_newlines(data)
        held = self._held
        if not held and data[:6] == b"data: " and data.find(b"\n") == len(data) - 2 and data[-1:] == b"\n":
            self._started = True
            return [("message", data[6:-2])]  # one event of one line, as most come
        if held:
            if self._started and not _ends_an_event(held, data):
                self._hold(data)
                return []
            data = bytes(held) + data
            held.clear()
        if not self._started:
            if data != _BOM and _BOM.startswith(data):  # perhaps the beginning of a mark
                self._hold(data)
                return []
            self._started = True
            data = data.removeprefix(_BOM)
        blocks = data.split(b"\n\n")
        if rest := blocks.pop():
            self._hold(rest)
        return _events(blocks)

    def end(self) -> list[SSEEvent]:
        """The event that the end of the stream left without its blank line, if there is one."""
        rest = bytes(self._held)
        self._held.clear()
        return _events([rest if self._started else rest.removeprefix(_BOM)])

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")

    def _plain_newlines(self, data: bytes) -> bytes:
        """``data`` with LF for every end of line, where CR and LF of one end may come apart."""
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _ends_an_event(held: bytearray, data: bytes) -> bool:
    """Whether a blank line comes with ``data``: what is held is looked at once, not with each piece."""
    return b"\n\n" in data or (data[:1] == b"\n" and held[-1:] == b"\n")


def _events(blocks: list[bytes]) -> list[SSEEvent]:
    """The events of blocks of lines; the usual one-line forms without looking at single lines."""
    events: list[SSEEvent] = []
    for block in blocks:
        if block[:6] == b"data: " and b"\n" not in block:
            events.append(("message", block[6:]))
        elif block[:7] == b"event: " and (at := block.find(b"\ndata: ")) > 7 and block.count(b"\n") == 1:
            events.append((block[7:at].decode("utf-8", "replace"), block[at + 7 :]))
        elif (event := _event_of_lines(block)) is not None:
            events.append(event)
    return events


def _event_of_lines(block: bytes) -> SSEEvent | None:
    """The event that a block of lines makes; None where it has no data (a comment, say)."""
    count = block.count(b"\n")
    if block[:6] == b"data: " and block.count(b"\ndata: ") == count:
        return "message", block[6:].replace(b"\ndata: ", b"\n")
    if count > MAX_EVENT_LINES:
        raise ValueError(f"an event of more than {MAX_EVENT_LINES} lines")
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    if not data:
        return None
    return name.decode("utf-8", "replace") or "message", b"\n".join(data)
