"""``Translator``: what a program prints, as events. Pure: bytes in, events out, wherever they are cut."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from msgspec import Struct

from actors.llm.lenient import UNREADABLE, decode_any
from actors.runtime.cleaning import cleaned
from actors.swarm.runners.stream import Recorder
from protocol.errors import AgentFailed, Failure
from protocol.events import AgentOutput, AgentStream, Event, Retry
from protocol.usage import Usage

#: Bytes that a line may have; what is longer is passed over.
LONGEST_LINE = 1 << 24
#: Characters that are shown of a line that is none of the format's.
_SHOWN = 4000


class Ask(Struct, frozen=True):
    """What a program wants to be answered: the id of its question, and the question as it stands."""

    id: str
    question: dict[str, Any]


class Translator(Protocol):
    """Reads one format. All it knows of the program is what that prints."""

    #: By what the program knows the conversation, once it has said so.
    session: str | None
    #: Whether the program is up: it can be sent to, and ``session`` is what it will be.
    is_ready: bool

    def feed(self, data: bytes) -> list[Event]:
        """The events of what the program printed next."""

    def finish(self) -> list[Event]:
        """The events of what it left unfinished, since it prints no more."""

    def feed_errors(self, line: str) -> list[Event]:
        """The events of a line of its standard error."""

    def take_asked(self) -> list[Ask]:
        """What it has asked since the last call of this."""


class Lines:
    """Splits bytes at newlines only: JSON may contain the other characters that end lines elsewhere."""

    __slots__ = ("_limit", "_passing", "_rest")

    def __init__(self, limit: int = LONGEST_LINE) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._passing = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that are whole; None for one that was too long, of which nothing is kept."""
        first, *others = data.split(b"\n")
        if not others:
            self._keep(first)
            return
        self._keep(first)
        yield self._take()
        for each in others[:-1]:
            yield each if len(each) <= self._limit else None
        self._keep(others[-1])

    def finish(self) -> Iterator[bytes | None]:
        """The last line, where nothing ended it."""
        if self._rest or self._passing:
            yield self._take()

    def _keep(self, piece: bytes) -> None:
        if self._passing:
            return
        self._rest += piece
        if len(self._rest) > self._limit:
            self._passing = True
            self._rest.clear()

    def _take(self) -> bytes | None:
        line, passed = bytes(self._rest), self._passing
        self._rest.clear()
        self._passing = False
        return None if passed else line


class LineTranslator:
    """The base of formats that are a JSON object a line, each with a ``type``."""

    def __init__(self, recorder: Recorder, *, limit: int = LONGEST_LINE) -> None:
        self.recorder = recorder
        self.session: str | None = None
        self.is_ready = False
        self._lines = Lines(limit)
        self._limit = limit
        self._asked: list[Ask] = []

    def translate(self, kind: str, line: dict[str, Any]) -> Iterable[Event]:
        """The events of a line of that type; none for types that are not known."""
        del kind, line
        return ()

    def feed(self, data: bytes) -> list[Event]:
        """The events of whole lines; the rest waits for more."""
        return self._all(self._lines.feed(data))

    def finish(self) -> list[Event]:
        """The events of a last line without an end."""
        return self._all(self._lines.finish())

    def feed_errors(self, line: str) -> list[Event]:
        """A line of standard error is for people."""
        return [self.stray("stderr", line)] if line.strip() else []

    def take_asked(self) -> list[Ask]:
        """What it has asked since the last call of this."""
        asked, self._asked = self._asked, []
        return asked

    def stray(self, stream: AgentStream, text: str) -> Event:
        """A line that is none of the format's."""
        return self.recorder.make(AgentOutput, stream=stream, text=cleaned(text)[:_SHOWN])

    def retry(self, attempt: int, wait: float, failure: Failure) -> Event:
        """The program asks its model server once more."""
        return self.recorder.make(Retry, attempt=attempt, wait=wait, error=failure)

    def _all(self, lines: Iterable[bytes | None]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            events += self._events_of(line)
        return events

    def _events_of(self, line: bytes | None) -> Iterable[Event]:
        if line is None:
            return [self.stray("stdout", f"[a line of more than {self._limit:,} bytes was skipped]")]
        if not line.strip():
            return []
        found = object_of(line)
        kind = text_of(found, "type")
        if not kind:
            return [self.stray("stdout", line[: _SHOWN * 4].decode("utf-8", "replace"))]
        return self.translate(kind, found)


# -- reading what others wrote: nothing of it is where it should be ------------------------------------


def object_of(data: bytes | str) -> dict[str, Any]:
    """The JSON object in that text; an empty one if there is none."""
    try:
        found = decode_any(data)
    except UNREADABLE:
        return {}
    return found if isinstance(found, dict) else {}


def inner(found: dict[str, Any], *path: str) -> dict[str, Any]:
    """The object under a path, or an empty one."""
    value: Any = found
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def objects(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects in the list of that name."""
    value = found.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def text_of(found: dict[str, Any], *names: str) -> str:
    """The first non-empty text under one of these names; empty if there is none."""
    values = (found.get(name) for name in names)
    return next((value for value in values if isinstance(value, str) and value), "")


def number_of(found: dict[str, Any], *names: str) -> int | None:
    """The first whole number, 0 or more, under one of these names."""
    values = (found.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 <= value < 1 << 62), None)


def amount_of(found: dict[str, Any], name: str) -> float | None:
    """The number of that name, 0 or more."""
    value = found.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= sys.float_info.max else None


def texts_in(content: Any) -> str:
    """The text of content, which is a text or a list of blocks with texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (text_of(each, "text") if isinstance(each, dict) else each for each in content)
    return "".join(text for text in texts if isinstance(text, str))


def added(whole: Usage, before: Usage) -> Usage:
    """What came to a sum; the sum itself where it has begun anew."""
    grown = [
        (getattr(whole, name) or 0) >= (getattr(before, name) or 0)
        for name in ("input_tokens", "output_tokens")
    ]
    return whole.without(before) if all(grown) else whole


_KINDS = {400: "invalid_request", 401: "auth", 402: "billing", 403: "auth", 404: "not_found", 408: "timeout"}
_KINDS |= {413: "context_overflow", 429: "rate_limit", 503: "overloaded", 529: "overloaded"}
_OF_OVERFLOW = (
    "prompt is too long",
    "context window",
    "maximum context",
    "exceeds the maximum number of tokens",
)
#: What to do about each.
_HINTS = {
    "auth": "log in with that program, or pass the variable that holds its key to its runner",
    "rate_limit": "send the task again later",
    "overloaded": "send the task again later",
}


def failure_of(words: str, *, status: int = 0) -> Failure:
    """Why a task failed, in the words of the program, and of what kind that is where it is known."""
    lowered = words.lower()
    kind = _KINDS.get(status, "server" if status >= 500 else "")
    if any(each in lowered for each in _OF_OVERFLOW):
        kind = "context_overflow"
    words = cleaned(words).strip() or "it gave no reason"
    return Failure.of(AgentFailed(words, kind=kind, status=status, hint=_HINTS.get(kind)))
