"""Bytes of real answers, broken in every way: the parts that the tests of both formats share.

The oracle: one answer or one typed error, in bounded time, and no call that no whole call on the wire asked for.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec
from llm_recordings import WHERE, assembled, recording, recordings
from responses_kit import CALL, MESSAGE, REASONING, event_bytes

from actors.llm.anthropic.answer import MessagesAnswer
from actors.llm.base import Answer, Block, CallChunk, CallStart, End
from actors.llm.http.answers import AnswerReader, whole_ones
from actors.llm.http.sse import SSEParser
from actors.llm.openai.answer import ChatAnswer
from actors.llm.responses.answer import ResponsesAnswer
from protocol.errors import MODEL_ERROR_KINDS, Failure, ModelError
from protocol.items import ToolCall
from protocol.text import encodable, encodable_json

Format = Literal["openai", "anthropic", "responses"]
READERS: dict[Format, Callable[[], AnswerReader]] = {
    "openai": lambda: ChatAnswer(WHERE),
    "anthropic": lambda: MessagesAnswer(WHERE),
    "responses": lambda: ResponsesAnswer(WHERE, origin="here", most=20),
}
#: No reading of a few kilobytes takes as long, in seconds of this thread's processor time.
SLOW = 1.0


class Seed(NamedTuple):
    """One real answer: its events, or the one object that it is."""

    name: str
    format: Format
    streamed: bool
    body: bytes


def seeds(longest: int = 20_000) -> list[Seed]:
    """The recorded answers, of both formats."""
    found = []
    for format_ in READERS:
        for streamed in (True, False):
            for name in recordings(status=200, streamed=streamed, kind=format_):
                body = recording(name).body
                if len(body) <= longest:
                    found.append(Seed(name, format_, streamed, body))
    documented = b"".join(event_bytes(REASONING, MESSAGE, CALL))
    return [*found, Seed("documented", "responses", streamed=True, body=documented)]


def read(reader: AnswerReader, pieces: list[bytes], *, streamed: bool) -> list[Block]:
    """The blocks of an answer that comes in these pieces, as the client reads it. Raises ModelError."""
    blocks: list[Block] = []
    if not streamed:
        blocks += reader.whole(b"".join(pieces))
    else:
        parser = SSEParser()
        for piece in pieces:
            blocks += reader.feed(parser.feed(piece))
            if reader.failure is not None or reader.done:
                break
        else:
            blocks += reader.feed(whole_ones(parser.end()))
    if reader.failure is not None:
        raise reader.failure
    return blocks + reader.close()


def check(seed: Seed, body: bytes, pieces: list[bytes] | None = None) -> Answer | ModelError:
    """What becomes of ``body``; asserts all that holds for any bytes whatever."""
    began = time.thread_time()
    outcome: Answer | ModelError
    try:
        blocks = read(READERS[seed.format](), pieces or [body], streamed=seed.streamed)
        outcome = assembled(blocks)
    except ModelError as error:
        check_error(error)
        outcome = error
    else:
        check_answer(seed, blocks, outcome, body)
    assert time.thread_time() - began < SLOW, "slow"
    return outcome


def check_error(error: ModelError) -> None:
    """A typed error has its place, words and kind, and can be kept."""
    assert error.kind in MODEL_ERROR_KINDS
    assert WHERE in error.message
    assert len(error.message) < 1_000
    msgspec.json.encode(Failure.of(error))
    assert error.retry_after is None or 0 <= error.retry_after < 1e9


def check_answer(seed: Seed, blocks: list[Block], answer: Answer, body: bytes) -> None:
    """An answer ends once, can be kept, and has only calls that stood on the wire whole."""
    assert [type(block) for block in blocks].count(End) == 1
    assert isinstance(blocks[-1], End)
    msgspec.json.encode([answer.item, answer.usage, answer.model])
    ids = [call.id for call in answer.item.calls]
    assert len(set(ids)) == len(ids)
    assert all(call.id and call.name for call in answer.item.calls)
    usage = answer.usage
    if usage is not None:
        counts = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
        assert all(count is None or 0 <= count < 2**60 for count in counts)
    if answer.item.calls:
        sent = calls_on_the_wire(body, seed.format)
        for call in answer.item.calls:
            if call.invalid is None and not any((call.name, call.arguments) == each for each in sent):
                assert_put_together(seed, blocks, call, body)


def assert_put_together(seed: Seed, blocks: list[Block], call: ToolCall, body: bytes) -> None:
    """Where events are missing from the middle of a call, what is left of it is still all from the wire."""
    index = next(block.index for block in blocks if isinstance(block, CallStart) and block.id == call.id)
    text = "".join(block.text for block in blocks if isinstance(block, CallChunk) and block.index == index)
    reached = {0}
    for _, sent in _pieces_of_calls(body, seed.format):
        piece = sent.get("arguments") or sent.get("partial_json")
        if isinstance(piece, str):
            reached |= {at + len(piece) for at in reached if text.startswith(encodable(piece), at)}
    assert len(text) in reached, call


def calls_on_the_wire(body: bytes, format_: Format) -> list[tuple[str, Any]]:
    """Every name of a call on the wire with every object that could be its arguments: written out, or put
    together from pieces of text that follow each other, in all or under one index.
    """
    names: list[str] = []
    objects: list[Any] = [{}]
    texts: dict[Any, list[str]] = {}
    for index, sent in _pieces_of_calls(body, format_):
        if isinstance(sent.get("name"), str):
            names.append(encodable(sent["name"]))
        for key in ("arguments", "partial_json", "input"):
            member = sent.get(key)
            if member is not None and key != "input" and not (key == "partial_json" and member in ({}, [])):
                member = member if isinstance(member, str) else _json(member)
                texts.setdefault("all", []).append(member)
                texts.setdefault(f"index {index}", []).append(member)
            if sent.get(key) is not None:
                objects.append(sent[key])
    for pieces in texts.values():
        objects += _objects_in(pieces)
    return [(name, encodable_json(each)) for name in names for each in objects if isinstance(each, dict)]


KNOWN = frozenset({"message", "message_start", "content_block_start", "content_block_delta"})


def _json(member: Any) -> str:
    try:
        return msgspec.json.encode(encodable_json(member)).decode()
    except OverflowError:
        return json.dumps(member)  # which no reader takes


def _objects_in(pieces: list[str]) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    for start, piece in enumerate(pieces):
        if not piece.strip() or piece.lstrip()[:1] == "{":
            with contextlib.suppress(ValueError):
                yield decoder.raw_decode("".join(pieces[start:]).strip())[0]


def _pieces_of_calls(body: bytes, format_: Format) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What each event says of a call, with the index it gives."""
    for value in _values(body):
        if format_ == "anthropic":
            kind = value.get("type")
            if isinstance(kind, str) and kind not in KNOWN and not value.get("content"):
                continue  # an event of a later version, which is passed over
            yield value.get("index"), _dict(value.get("content_block"))
            yield value.get("index"), _dict(value.get("delta"))
            yield from (("whole", block) for block in _each(value.get("content")))
            continue
        if format_ == "responses":
            yield from _pieces_of_outputs(value)
            continue
        for choice in _each(value.get("choices")):
            delta = choice.get("delta") or choice.get("message")
            if not isinstance(delta, dict) or choice.get("index"):
                continue
            for call in _each(delta.get("tool_calls")):
                yield call.get("index"), _dict(call.get("function"))
            yield "old", _dict(delta.get("function_call"))


def _pieces_of_outputs(value: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    key = value.get("output_index"), value.get("item_id")
    if value.get("type") == "response.function_call_arguments.delta":
        yield key, {"arguments": value.get("delta")}
    response = _dict(value.get("response"))
    for item in (value.get("item"), *_each(response.get("output")), *_each(value.get("output"))):
        if isinstance(item, dict) and item.get("type") == "function_call":
            yield key, item


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _each(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _values(body: bytes) -> Iterator[dict[str, Any]]:
    """The objects of a body: itself, or the data of its events."""
    parser = SSEParser()
    for data in [body, *(data for _, data in [*parser.feed(body), *parser.end()])]:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(value := json.loads(data.decode("utf-8", "replace"), strict=False), dict):
                yield value


# -- ways to break ------------------------------------------------------------------------------

#: What stands in a member's place.
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 7, 2**70, 1.5, 1e308, float("inf"), "", "x", "{", "\ud83d", [], [None], ["x"], [[]], [{}], {}, {"x": 1},
)  # fmt: skip


def events_of(body: bytes) -> list[bytes]:
    """The events of a stream, each with its blank line."""
    return [event + b"\n\n" for event in body.split(b"\n\n") if event]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every member of a value stands."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield (*path, key)
        yield from places_in(member, (*path, key))


def with_member(value: Any, path: tuple[Any, ...], member: Any, *, leave_out: bool = False) -> Any:
    """A copy of a value with another member in one place, or with none there."""
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if leave_out:
        del inner[path[-1]]
    else:
        inner[path[-1]] = member
    return value


def encoded(value: Any) -> bytes:
    return json.dumps(value).replace("Infinity", "1e999").encode()


def retyped(seed: Seed, rng: random.Random) -> bytes:
    """One member of one event is something else, or missing."""
    if not seed.streamed:
        return _retyped_object(seed.body, rng)
    events = events_of(seed.body)
    at = rng.randrange(len(events))
    head, mark, data = events[at].rpartition(b"data: ")
    if data.lstrip()[:1] == b"{":
        events[at] = head + mark + _retyped_object(data, rng) + b"\n\n"
    return b"".join(events)


def _retyped_object(data: bytes, rng: random.Random) -> bytes:
    value = json.loads(data)
    places = list(places_in(value))
    if not places:
        return data
    return encoded(with_member(value, rng.choice(places), rng.choice(VALUES), leave_out=rng.random() < 0.1))


def reordered(seed: Seed, rng: random.Random) -> bytes:
    """Some events are doubled, swapped, dropped, or come from another place."""
    events = events_of(seed.body)
    for _ in range(rng.randint(1, 4)):
        at, to = rng.randrange(len(events)), rng.randrange(len(events))
        action = rng.randrange(4)
        if action == 0:
            events.insert(to, events[at])
        elif action == 1:
            events[at], events[to] = events[to], events[at]
        elif action == 2 and len(events) > 1:
            del events[at]
        else:
            events.insert(to, events.pop(at))
    return b"".join(events)


def damaged(seed: Seed, rng: random.Random) -> bytes:
    """Some bytes are others, missing, or too many."""
    body = bytearray(seed.body)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(body) + 1)
        action = rng.randrange(4)
        piece = rng.choice(PIECES) if rng.random() < 0.5 else rng.randbytes(rng.randint(1, 4))
        if action == 0:
            body[at:at] = piece
        elif action == 1:
            body[at : at + len(piece)] = piece
        elif action == 2:
            del body[at : at + rng.randint(1, 40)]
        else:
            body[at:at] = body[at : at + rng.randint(1, 200)]
    return bytes(body)


PIECES = (
    b"\n", b"\n\n", b"\r", b"\r\n", b"\r\r", b"data:", b"data: ", b"event: error\n", b": c\n\n", b"[DONE]", b"data: [DONE]\n\n",
    b"\xef\xbb\xbf", b"\xff", b"\xf0\x9f", rb"\ud83d", rb"\ude00", rb"\u0000", b"\x00", b'"', b"{", b"}", b"[", b"]", b"null", b"{}",
    b"1e999", b"NaN", b"-", b"\\", b",", b":",
)  # fmt: skip


def mixed(seed: Seed, rng: random.Random, others: list[Seed]) -> bytes:
    """Events of one answer among those of another."""
    mine, theirs = events_of(seed.body), events_of(rng.choice(others).body)
    for _ in range(rng.randint(1, 3)):
        mine.insert(rng.randrange(len(mine) + 1), rng.choice(theirs))
    return b"".join(mine)


def split(body: bytes, rng: random.Random) -> list[bytes]:
    """A body in pieces, as a network might deliver it."""
    marks = sorted({0, len(body), *(rng.randrange(len(body) + 1) for _ in range(rng.randint(0, 12)))})
    return [body[a:b] for a, b in itertools.pairwise(marks)] or [body]


def broken(seed: Seed, rng: random.Random, others: list[Seed]) -> bytes:
    """A body, broken in one way or two."""
    ways = [damaged, retyped] + ([reordered, lambda s, r: mixed(s, r, others)] if seed.streamed else [])
    body = rng.choice(ways)(seed, rng)
    if rng.random() < 0.3 and body:
        second = seed._replace(body=body)
        body = rng.choice([damaged, reordered] if seed.streamed else [damaged])(second, rng)
    return body[: rng.randrange(len(body) + 1)] if rng.random() < 0.2 and body else body
