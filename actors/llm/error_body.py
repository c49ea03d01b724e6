"""Reads the body of a refused request, in any of the forms in which servers word errors; pure."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.lenient import UNREADABLE, decode_any
from actors.llm.overflow import Overflow, overflow_of
from protocol.text import encodable, encodable_json

#: How deep errors are looked for within errors.
_DEPTH = 4
#: Where a body keeps its error; the last is MiniMax's.
_PLACES = ("error", "detail", "errors", "base_resp")
#: What an error calls its words.
_MESSAGES = ("message", "msg", "detail", "error_msg", "error_message", "status_msg")
#: Where gateways keep the error of the server behind them.
_WRAPPED = ("raw", "error", "innererror", "inner_error", "upstream_error", "provider_error", "cause", "body")
#: What a gateway says where it only passes an error on.
_SAYS_NOTHING = frozenset({"", "provider returned error", "upstream error", "bad request", "error"})


class Complaint(Struct, frozen=True):
    """What a body says, whatever its form: words, ``type``, ``code``, and numbers."""

    words: str = ""
    type: str = ""
    code: str = ""
    prompt_tokens: int | None = None
    context_window: int | None = None

    @property
    def identifiers(self) -> str:
        """The server's own names for the error, in lower case."""
        return f"{self.type} {self.code}".lower()

    @property
    def text(self) -> str:
        """All searchable text of it, in lower case."""
        return f"{self.identifiers} {self.words}".lower()

    @property
    def overflow(self) -> Overflow | None:
        """The token counts of a prompt that does not fit, as the body states them; None if it is about
        something else.
        """
        found = overflow_of(self.identifiers, self.words)
        if found is None:
            return None
        return Overflow(
            self.prompt_tokens if self.prompt_tokens is not None else found.used,
            self.context_window if self.context_window is not None else found.room,
        )


def complaint_of(body: bytes | object) -> Complaint:
    """What ``body`` says: an ``error``, a ``detail``, a bare message, text, or any of them in another."""
    if isinstance(body, bytes):
        try:
            body = decode_any(body)
        except UNREADABLE:
            body = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return _read(encodable_json(body), _DEPTH)


def is_complaint(body: bytes) -> bool:
    """Whether ``body``, which is no answer, is an error; Z.ai and MiniMax send theirs with status 200."""
    try:
        data = decode_any(body)
    except UNREADABLE:
        return False
    if not isinstance(data, dict):
        return False
    says = any(isinstance(data.get(name), str) for name in _MESSAGES)
    return says or any(data.get(name) for name in _PLACES)


def _read(data: Any, depth: int) -> Complaint:
    while isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, str):
        return _unwrapped(Complaint(_without_markup(data)), data, depth)
    if not isinstance(data, dict):
        return Complaint()
    inner = next((found for name in _PLACES if (found := data.get(name))), data)
    if isinstance(inner, list):
        return Complaint("; ".join(_words(each) for each in inner[:20]))
    if not isinstance(inner, dict):
        kind = _word(data.get("type") or data.get("error_type"))
        said = Complaint(_title_and_message(inner, data.get("message")), kind, _word(data.get("code")))
        return _unwrapped(said, {}, depth)
    said = Complaint(
        _words(inner),
        _word(inner.get("type")),
        _word(inner.get("code") or inner.get("status") or inner.get("status_code") or data.get("code")),
        _whole(inner.get("n_prompt_tokens")),
        _whole(inner.get("n_ctx")),
    )
    return _unwrapped(said, inner, depth)


def _unwrapped(said: Complaint, raw: Any, depth: int) -> Complaint:
    """``said``, or the error of a server behind it that it only passes on."""
    if depth <= 0:
        return said
    for wrapped in _wrapped_in(raw, said.words):
        inner = _read(wrapped, depth - 1)
        if inner != Complaint():
            return _joined(said, inner, raw)
    return said


def _wrapped_in(raw: Any, words: str) -> list[Any]:
    found: list[Any] = []
    if isinstance(raw, dict):
        metadata = raw.get("metadata")
        places = [metadata, raw] if isinstance(metadata, dict) else [raw]
        found += [
            place[name] for place in places for name in _WRAPPED if _may_say_more(place.get(name), words)
        ]
    begin, end = words.find("{"), words.rfind("}")
    if 0 <= begin < end:  # an error as JSON in the words of another
        with contextlib.suppress(*UNREADABLE):
            found.append(decode_any(words[begin : end + 1]))
    return found


def _may_say_more(value: Any, words: str) -> bool:
    return (isinstance(value, dict | list) and bool(value)) or (
        isinstance(value, str) and bool(value.strip()) and value != words
    )


def _joined(outer: Complaint, inner: Complaint, raw: Any) -> Complaint:
    """The words of an inner error, with those of the outer one where these say anything."""
    begin = outer.words.partition("{")[0].strip(" -:b'\"")
    words = inner.words if not begin or begin.lower().rstrip(".") in _SAYS_NOTHING else begin
    if inner.words and inner.words not in words:
        words = f"{words}: {inner.words}"
    metadata = raw.get("metadata") if isinstance(raw, dict) else None
    provider = _word(metadata.get("provider_name")) if isinstance(metadata, dict) else ""
    return Complaint(
        f"{provider}: {words}" if provider and words else words or outer.words,
        inner.type or outer.type,
        inner.code or outer.code,
        inner.prompt_tokens if inner.prompt_tokens is not None else outer.prompt_tokens,
        inner.context_window if inner.context_window is not None else outer.context_window,
    )


def _words(raw: Any) -> str:
    """The words of an error object: its message, or where it has none the object itself."""
    if not isinstance(raw, dict):
        return str(raw)
    for key in _MESSAGES:
        if isinstance(raw.get(key), str):
            place = raw.get("loc") if key == "msg" else None
            at = ".".join(str(each) for each in place) if isinstance(place, list) else ""
            return f"{at}: {raw[key]}" if at else str(raw[key])
    return encodable(msgspec.json.encode(raw).decode())


def _title_and_message(title: Any, message: Any) -> str:
    """Words of a body whose ``error`` is a bare word, or only a flag."""
    if not isinstance(message, str) or message == title:
        return str(title)
    says_nothing = not isinstance(title, str) or title.lower().rstrip(".") in _SAYS_NOTHING
    return message if says_nothing else f"{title}: {message}"


def _word(value: Any) -> str:
    return str(value)[:200] if isinstance(value, str | int) else ""


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _without_markup(text: str) -> str:
    """An HTML page (of a proxy, say) as its title and words."""
    if "<" not in text:
        return text.strip()
    text = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", text[:8192])
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())
