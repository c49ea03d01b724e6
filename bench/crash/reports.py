"""The report of a process under test, written line by line to a pipe until the process is killed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec
from msgspec import Struct

from protocol.events import Event
from protocol.wire import LineSplitter, encode

#: What a pod is doing; its process reports the start and end of each.
Phase = Literal["start", "stream", "tool", "compaction", "memory", "idle"]


class Seen(Struct, frozen=True, tag="seen", array_like=True):
    """A subscriber received this durable event: entry ``seq`` of the session, with bytes of that digest."""

    session_id: str
    seq: int
    digest: str


class Returned(Struct, frozen=True, tag="returned", array_like=True):
    """A run returned its result to its caller."""

    session_id: str
    run_id: str
    outcome: str


class Made(Struct, frozen=True, tag="made", array_like=True):
    """A fork or a compaction was answered with the id of a session."""

    session_id: str


class Doing(Struct, frozen=True, tag="doing", array_like=True):
    """A pod began (or with ``by`` -1 ended) something; an empty ``pod`` is the process itself."""

    phase: Phase
    by: int
    pod: str = ""


class Refused(Struct, frozen=True, tag="refused", array_like=True):
    """The store refused something with a typed error, as it should during a fault."""

    command: str
    message: str


class Spell(Struct, frozen=True, tag="spell", array_like=True):
    """A fault was on for a while; ``hits`` disk operations failed by it, if that can be counted."""

    fault: str
    hits: int


class Alive(Struct, frozen=True, tag="alive", array_like=True):
    """A pod was given a run after the faults; whether its result came."""

    pod: str
    well: bool


class Broke(Struct, frozen=True, tag="broke", array_like=True):
    """Something happened that must not happen."""

    what: str


Line = Seen | Returned | Made | Doing | Refused | Spell | Alive | Broke

_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def digest(body: bytes) -> str:
    """A digest of an entry's bytes."""
    return hashlib.sha256(body).hexdigest()[:24]


class Teller:
    """Writes lines to a pipe; a written line counts as reported, whatever happens afterwards. Without a pipe
    nobody receives them.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, line: Line) -> None:
        """Write a line; it is in the pipe as a whole or not at all."""
        if self._descriptor is not None:
            os.write(self._descriptor, encode(line) + b"\n")

    def report_event(self, event: Event) -> None:
        """Report a durable event, whose bytes are the entry's."""
        self.tell(Seen(event.session_id, event.seq, digest(encode(event))))

    @contextmanager
    def doing(self, phase: Phase, pod: str = "") -> Iterator[None]:
        """Report what is done within the context."""
        self.tell(Doing(phase, 1, pod))
        try:
            yield
        finally:
            self.tell(Doing(phase, -1, pod))


class Listener:
    """Reads the lines of a process, and knows what its pods are doing."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._doing: Counter[tuple[str, Phase]] = Counter()
        self.received: list[Line] = []

    def feed(self, data: bytes) -> list[Line]:
        """The lines that ``data`` completes; one that was cut by a kill was never reported."""
        lines = [_decoder.decode(line) for line in self._lines.feed(data)]
        for line in lines:
            if isinstance(line, Doing):
                self._doing[line.pod, line.phase] += line.by
            else:
                self.received.append(line)
        return lines

    @property
    def phases(self) -> set[Phase]:
        """What the pods are in the middle of; ``idle`` if one of them is between two things."""
        under_way = {doing for doing, count in self._doing.items() if count > 0}
        found = {phase for _, phase in under_way}
        idle = {pod for pod, _ in self._doing} - {pod for pod, _ in under_way} - {""}
        return {*found, "idle"} if idle or not found else found
