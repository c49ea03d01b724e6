"""The format of a cassette, pure: exchanges as lines of JSON, without secrets and without repetition.

The first line names the format. Each other line is one exchange: the request as it differs from the one
before (``same`` items of the history are the same), the blocks of the answer, and how it ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.base import (
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    Request,
    TextChunk,
    ThinkingChunk,
    TierEnded,
    TierStarted,
    UsageReport,
    VendorChunk,
)
from actors.runtime.redact import Redact, without_secrets
from protocol.errors import ModelError, ModelErrorKind, WireError
from protocol.text import UNDECODABLE, encodable_json

#: Raised when lines change their meaning.
VERSION = 1

_BLOCKS: dict[str, type[Block]] = {
    kind.__name__: kind
    for kind in (
        *(TextChunk, ThinkingChunk, CallStart, CallChunk, CallEnd, VendorChunk),
        *(TierStarted, TierEnded, UsageReport, End),
    )
}
#: The fields of a request that an answer depends on, beside its items.
_FIELDS = ("model", "system", "tools", "max_tokens", "temperature", "output_schema")

_encode = msgspec.json.Encoder().encode


class Header(Struct, frozen=True):
    """The first line of a cassette."""

    cassette: int
    model: str = ""


class TapedError(Struct, frozen=True, omit_defaults=True):
    """A ModelError as data."""

    message: str
    kind: ModelErrorKind
    retryable: bool
    hint: str | None = None
    status: int | None = None
    retry_after: float | None = None
    where: str | None = None
    prompt_tokens: int | None = None
    context_window: int | None = None

    @classmethod
    def of(cls, error: ModelError) -> TapedError:
        """The data of ``error``."""
        return cls(**{name: getattr(error, name) for name in cls.__struct_fields__})

    def error(self) -> ModelError:
        """The error again."""
        return ModelError(**msgspec.structs.asdict(self))


class Exchange(Struct, frozen=True):
    """A request as plain data, and what was answered: blocks, and an error or none. ``broken_off`` says that
    whoever asked stopped reading before the end.
    """

    fields: dict[str, Any]
    items: list[Any]
    blocks: list[Block]
    error: TapedError | None = None
    broken_off: bool = False

    def asked(self) -> dict[str, Any]:
        """The whole request as plain data."""
        return {**self.fields, "items": self.items}


class _Line(Struct, frozen=True, omit_defaults=True):
    request: dict[str, Any]
    items: list[Any]
    blocks: list[tuple[str, dict[str, Any]]]
    same: int = 0
    error: TapedError | None = None
    broken_off: bool = False


def plain(request: Request, redact: Redact) -> Exchange:
    """``request`` as plain data without secrets, and without an answer yet."""
    fields = {name: cleaned(msgspec.to_builtins(getattr(request, name)), redact) for name in _FIELDS}
    for tool in fields["tools"]:
        tool.pop("concurrency", None)  # which no model is shown, and older cassettes do not have
    items = [cleaned(msgspec.to_builtins(item), redact) for item in request.items]
    return Exchange(fields, items, [])


def cleaned(value: Any, redact: Redact) -> Any:
    """Data as JSON has it, without secrets."""
    return msgspec.json.decode(_encode(without_secrets(encodable_json(value), redact)))


def digest(exchange: Exchange) -> str:
    """What stands for a request: the same for the same question, whenever it is asked."""
    return hashlib.sha256(json.dumps(exchange.asked(), sort_keys=True).encode()).hexdigest()


def written(exchange: Exchange, before: Exchange | None) -> bytes:
    """The line of an exchange that is written behind ``before``."""
    fields, items, same = exchange.fields, exchange.items, 0
    if before is not None:
        fields = {name: value for name, value in fields.items() if value != before.fields.get(name, ...)}
        pairs = enumerate(zip(items, before.items, strict=False))
        same = next((n for n, (a, b) in pairs if a != b), min(len(items), len(before.items)))
    blocks = [(type(block).__name__, msgspec.to_builtins(block)) for block in exchange.blocks]
    line = _Line(fields, items[same:], blocks, same, exchange.error, exchange.broken_off)
    return _encode(line) + b"\n"


def read(lines: Iterable[bytes], where: str) -> tuple[Header, list[Exchange]]:
    """All of a cassette. Raises WireError, which names the line."""
    header: Header | None = None
    exchanges: list[Exchange] = []
    for number, line in enumerate(lines, 1):
        try:
            if header is None:
                header = msgspec.json.decode(line, type=Header)
            else:
                exchanges.append(_exchange(line, exchanges[-1] if exchanges else None))
        except (*UNDECODABLE, KeyError) as error:
            raise WireError(f"{where} line {number}: not an entry of a cassette: {error}") from error
    if header is None or header.cassette != VERSION:
        version = "empty" if header is None else f"of version {header.cassette}"
        raise WireError(
            f"{where}: the cassette is {version}, not of version {VERSION}", hint="record it again"
        )
    return header, exchanges


def _exchange(line: bytes, before: Exchange | None) -> Exchange:
    entry = msgspec.json.decode(line, type=_Line)
    fields, items = (before.fields, before.items) if before is not None else ({}, [])
    blocks = [msgspec.convert(data, _BLOCKS[kind]) for kind, data in entry.blocks]
    return Exchange(
        {**fields, **entry.request},
        [*items[: entry.same], *entry.items],
        blocks,
        entry.error,
        entry.broken_off,
    )


def cleaned_blocks(blocks: Sequence[Block], redact: Redact) -> list[Block]:
    """Blocks without secrets; where one was spread over pieces, the first piece now has all of the text."""
    whole: dict[tuple[type[Block], int], list[str]] = {}
    for block in blocks:
        if isinstance(block, TextChunk | ThinkingChunk | CallChunk):
            whole.setdefault((type(block), block.index), []).append(block.text)
    texts = {key: "".join(pieces) for key, pieces in whole.items()}
    clean = {
        key: _arguments(text, redact) if key[0] is CallChunk else cleaned(text, redact)
        for key, text in texts.items()
    }
    pending = {key: text for key, text in clean.items() if text != texts[key]}
    changed = set(pending)
    result: list[Block] = []
    for block in blocks:
        key = (type(block), getattr(block, "index", -1))
        if key in changed and isinstance(block, TextChunk | ThinkingChunk | CallChunk) and block.text:
            if key in pending:
                result.append(msgspec.structs.replace(block, text=pending.pop(key)))
        elif isinstance(block, VendorChunk):
            result.append(msgspec.structs.replace(block, data=cleaned(block.data, redact)))
        elif isinstance(block, TierEnded):
            result.append(msgspec.convert(cleaned(msgspec.to_builtins(block), redact), TierEnded))
        else:
            result.append(block)
    return result


def _arguments(text: str, redact: Redact) -> str:
    """The arguments of a call, which stay the JSON they are."""
    try:
        decoded = msgspec.json.decode(text)
    except UNDECODABLE:
        return str(cleaned(text, redact))
    clean = cleaned(decoded, redact)
    return text if clean == decoded else _encode(clean).decode()


class _Nothing:
    """What a request has where it has nothing."""

    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def difference(recorded: Any, asked: Any, path: str = "") -> str:
    """Where two requests that differ do so first, in words."""
    for inner, one, other in _inside(recorded, asked, path):
        if one != other:
            return difference(one, other, inner)
    if isinstance(recorded, list) and isinstance(asked, list):
        return f"{path}: {len(recorded)} recorded, {len(asked)} asked"
    return f"{path}: recorded {_shown(recorded, asked)}, asked {_shown(asked, recorded)}"


def _inside(recorded: Any, asked: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """What corresponds in two lists or two tables, with its path."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for key in dict.fromkeys([*recorded, *asked]):
            yield (
                f"{path}.{key}" if path else str(key),
                recorded.get(key, _NOTHING),
                asked.get(key, _NOTHING),
            )
    elif isinstance(recorded, list) and isinstance(asked, list):
        for number, (one, other) in enumerate(zip(recorded, asked, strict=False)):
            yield f"{path}[{number}]", one, other


#: How much of a text is shown around the place where it differs.
_AROUND = 30


def _shown(value: Any, other: Any) -> str:
    if not (isinstance(value, str) and isinstance(other, str)):
        text = repr(value)
        return text if len(text) <= 2 * _AROUND else f"{text[: 2 * _AROUND]}…"
    pairs = enumerate(zip(value, other, strict=False))
    at = next((n for n, (a, b) in pairs if a != b), min(len(value), len(other)))
    start, end = max(0, at - _AROUND), at + _AROUND
    return f"{'…' if start else ''}{value[start:end]!r}{'…' if end < len(value) else ''}"
