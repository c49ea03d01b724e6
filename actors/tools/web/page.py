"""What came over the web, as text, pure: unpacked and decoded."""

from __future__ import annotations

import codecs
import re

from msgspec import Struct

from actors.net.encodings import Unpacker, can_unpack
from protocol.errors import ToolError

#: The most that is taken of an answer, in bytes, as it is sent and once more unpacked.
MOST_BYTES = 5 * 1024 * 1024
#: Where the encoding of HTML and XML is declared within them, by their standards.
_HEAD = 2048

_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXTS = frozenset(
    {
        *("application/json", "application/xml", "application/javascript", "application/ecmascript"),
        *("application/yaml", "application/x-yaml", "application/toml", "application/x-ndjson"),
        *("application/x-javascript", "application/x-sh", "application/sql", "application/graphql"),
        *("application/rtf", "application/x-www-form-urlencoded", "application/json-seq"),
    }
)
#: Encodings of the web (the WHATWG's Encoding Standard) by Python's names: never its codecs that are none.
_ENCODINGS = frozenset(
    {
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp866", "koi8-r", "koi8-u", "mac-roman"),
        *(f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
        *(f"cp{number}" for number in (874, *range(1250, 1259))),
        *("gbk", "gb18030", "big5", "euc_jp", "iso2022_jp", "shift_jis", "euc_kr"),
    }
)
#: What browsers take in the place of what is declared.
_READ_AS = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}


class Answer(Struct, frozen=True):
    """What came of a request in the end: at most ``MOST_BYTES``, packed as ``coding`` says."""

    url: str
    content_type: str
    coding: str
    body: bytes
    #: Whether there was more.
    cut: bool
    redirected: bool


def media_type(content_type: str) -> str:
    """The type of a ``Content-Type``, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def refuse_unreadable(url: str, kind: str) -> None:
    """Raise ToolError for a type that is not text."""
    is_text = kind.startswith("text/") or kind in _HTML | _TEXTS or kind.endswith(("+json", "+xml", "+yaml"))
    if kind and not is_text:
        raise ToolError(f"{url} is {kind[:100]}, which is not text", hint="only text can be fetched")


class Page(Struct, frozen=True):
    """The text of an answer, whether it is HTML, and whether it was cut."""

    text: str
    is_html: bool
    cut: bool


def page_of(answer: Answer) -> Page:
    """The body of an answer as text. Raises ToolError for what is none."""
    url = answer.url
    body, cut = _unpacked(url, answer.coding, answer.body)
    kind = media_type(answer.content_type)
    is_html = kind in _HTML or (not kind and bool(re.match(rb"(?i)\s*<(!doctype html|html)\b", body[:_HEAD])))
    text = _decoded(body, answer.content_type)
    if text is None:
        raise ToolError(f"{url} is not text", hint="only text can be fetched")
    return Page(text, is_html, cut or answer.cut)


def _unpacked(url: str, coding: str, body: bytes) -> tuple[bytes, bool]:
    if not coding:
        return body, False
    if not can_unpack(coding):
        raise ToolError(f"{url} is compressed with {coding[:40]!r}, which is not supported")
    unpacker, out = Unpacker(coding), bytearray()
    try:
        piece = unpacker.feed(body)
        while (piece or unpacker.pending) and len(out) <= MOST_BYTES:
            out += piece
            piece = unpacker.feed(b"")
    except ValueError as error:
        raise ToolError(
            f"{url} claims to be compressed with {coding}, but cannot be unpacked: {error}"
        ) from error
    return bytes(out[:MOST_BYTES]), len(out) > MOST_BYTES


def _decoded(body: bytes, content_type: str) -> str | None:
    """The text that the bytes are; None where they are none."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body.decode(encoding, "replace")
    declared = _encoding(_declared(content_type, body))
    if declared is not None:
        return body.decode(declared, "replace")
    if b"\0" in body[:8192]:
        return None
    try:
        # the last character may be cut
        return codecs.getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        return body.decode("cp1252", "replace")


_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def _declared(content_type: str, body: bytes) -> str | None:
    """The encoding that the header names, else the beginning of HTML or XML."""
    found = re.search(r"(?i)\bcharset\s*=\s*[\"']?([\w.:-]+)", content_type)
    if found is not None:
        return found[1]
    head = body[:_HEAD]
    within = re.search(rb"(?i)<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", head) or re.match(
        rb"(?i)<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]+)", head
    )
    if within is None:
        return None
    declared = within[1].decode()
    # who could be read this far is in no encoding of two bytes a character, whatever it says
    return "utf-8" if declared.lower().startswith("utf-16") else declared


def _encoding(label: str | None) -> str | None:
    """Python's name of an encoding of the web; None for any other."""
    try:
        name = "" if label is None else codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    return _READ_AS.get(name) or (name if name in _ENCODINGS else None)
