"""``EncodedEvent``: an event with its bytes, which are made at most once however many want them."""

from __future__ import annotations

from protocol.events import Event
from protocol.wire import encode_recordable


class EncodedEvent:
    """An event that waits for subscribers who forward it; ``body`` is what the log keeps of it,
    if anything.
    """

    __slots__ = ("_body", "event")

    def __init__(self, event: Event, body: bytes | None = None) -> None:
        self.event = event
        self._body = body

    @property
    def body(self) -> bytes:
        """The event's bytes; they are made when first asked for, unless the log has them."""
        body = self._body
        if body is None:
            body = self._body = encode_recordable(self.event)
        return body

    @property
    def pod(self) -> str:
        return self.event.pod

    @property
    def seq(self) -> int:
        return self.event.seq

    @property
    def durable(self) -> bool:
        return self.event.durable
