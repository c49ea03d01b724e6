"""Whatever bytes a server sends: one answer or one typed error, soon, and no call that nobody asked for.

Real answers of both formats are cut at every byte, doubled, reordered, mixed, retyped and damaged; the same
seeds each time, and others by hypothesis.
"""

import asyncio
import itertools
import random
import string
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_recordings import recording
from llm_server import Exchange, RawServer
from wire_fuzz import (
    READERS,
    VALUES,
    Seed,
    broken,
    check,
    check_error,
    encoded,
    events_of,
    places_in,
    seeds,
    split,
    with_member,
)

from actors.llm.anthropic.client import AnthropicClient
from actors.llm.base import Answer, Assembler, Request
from actors.llm.errors import classify, retry_after
from actors.llm.openai.client import OpenAIClient
from actors.llm.responses.client import ResponsesClient
from protocol.errors import ModelError
from protocol.items import UserItem

SEEDS = seeds()
STREAMS = [seed for seed in SEEDS if seed.streamed]
#: One of each form: text, calls, reasoning, whole and streamed, in both formats.
SMALL = [seed for seed in SEEDS if len(seed.body) < 1_600][:12]


def test_there_is_something_to_break():
    assert {(seed.format, seed.streamed) for seed in SEEDS} == {
        (format_, streamed) for format_ in READERS for streamed in (True, False)
    }
    assert len(SMALL) > 8
    assert all(isinstance(check(seed, seed.body), Answer | ModelError) for seed in SEEDS)


@pytest.mark.parametrize("seed", SMALL, ids=lambda seed: f"{seed.format} {seed.name}")
def test_an_answer_that_is_cut_at_any_byte(seed: Seed):
    whole = check(seed, seed.body)
    for end in range(len(seed.body)):
        outcome = check(seed, seed.body[:end])
        if isinstance(outcome, Answer):
            assert isinstance(whole, Answer)
            assert outcome.item == whole.item, end  # what was said was complete
        else:
            assert outcome.retryable or outcome.kind == "context_overflow", end


@pytest.mark.parametrize(
    "seed", [seed for seed in STREAMS if len(seed.body) < 8_000][:10], ids=lambda seed: seed.name
)
def test_an_answer_with_any_event_doubled_or_missing(seed: Seed):
    events = events_of(seed.body)
    for at in range(len(events)):
        check(seed, b"".join([*events[:at], events[at], *events[at:]]))
        check(seed, b"".join([*events[:at], *events[at + 1 :]]))
        check(seed, b"".join([events[at], *events]))


def _objects(seed: Seed) -> list[tuple[bytes, bytes, bytes]]:
    """The JSON objects of an answer with what stands before and behind each, one of each form."""
    if not seed.streamed:
        return [(b"", seed.body, b"")]
    events, found, forms = events_of(seed.body), [], set()
    for at, event in enumerate(events):
        head, mark, data = event.rpartition(b"data: ")
        form = data.translate(None, string.digits.encode())[:160]
        if data.lstrip()[:1] == b"{" and form not in forms:
            forms.add(form)
            found.append((b"".join(events[:at]) + head + mark, data, b"\n\n" + b"".join(events[at + 1 :])))
    return found[:6]


@pytest.mark.parametrize("seed", SMALL[::2], ids=lambda seed: f"{seed.format} {seed.name}")
def test_an_answer_with_any_member_of_another_type_or_missing(seed: Seed):
    import json  # noqa: PLC0415

    for before, data, behind in _objects(seed):
        value = json.loads(data)
        for path in places_in(value):
            check(seed, before + encoded(with_member(value, path, None, leave_out=True)) + behind)
            for member in VALUES:
                check(seed, before + encoded(with_member(value, path, member)) + behind)


@pytest.mark.parametrize("start", range(0, 1_200, 300))
def test_answers_broken_in_all_ways_at_once(start):
    for number in range(start, start + 300):
        rng = random.Random(number)
        seed = rng.choice(SEEDS)
        body = broken(seed, rng, STREAMS)
        check(seed, body, split(body, rng) if seed.streamed else None)


@given(st.randoms(use_true_random=False), st.sampled_from(SEEDS), st.data())
def test_answers_broken_in_ways_that_nobody_thought_of(rng, seed, data):
    body = broken(seed, rng, STREAMS)
    marks = sorted({0, len(body), *data.draw(st.lists(st.integers(0, len(body)), max_size=6))})
    pieces = [body[a:b] for a, b in itertools.pairwise(marks)] or [body]
    outcome = check(seed, body, pieces if seed.streamed else None)
    again = check(seed, body)
    if isinstance(outcome, Answer) and isinstance(again, Answer):
        assert [part.text for part in outcome.item.content] == [part.text for part in again.item.content]
        assert outcome.stop_reason == again.stop_reason
    else:
        assert type(outcome) is type(again)  # nothing depends on how the network split it


@given(st.binary(max_size=400), st.sampled_from(SEEDS))
def test_bytes_that_are_no_answer_at_all(data, seed):
    check(seed, data)


# -- refusals ------------------------------------------------------------------------------------

_words = st.text(max_size=60) | st.sampled_from(
    [
        "prompt is too long",
        "try again in 5s",
        "9" * 30 + " tokens > " + "9" * 30,
        "//u:p@h",
        "{",
        '{"error":',
        "\ud83d",
        "<html>",
    ]
)
_leaves = _words | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
_names = st.sampled_from(
    ["error", "errors", "detail", "message", "type", "code", "msg", "loc", "status", "metadata", "raw", "n_ctx",
     "n_prompt_tokens", "innererror", "provider_name"]
)  # fmt: skip
_bodies = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=14,
)
_waits = (
    st.text(max_size=20)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.floats(-1e12, 1e12).map(str)
    | st.integers(-(10**9), 4 * 10**9).map(lambda when: formatdate(when, usegmt=True))
    | st.sampled_from(
        ["1e999", "-1", "1" * 400, "٣", "Wed, 21 Oct 9999 07:28:00 -0000", "Mon, 99 Foo 0000 99:99:99 GMT"]
    )
)


@given(
    st.none() | st.integers(0, 999),
    _bodies.map(encoded) | st.binary(max_size=60),
    st.dictionaries(
        st.sampled_from(
            ["retry-after", "retry-after-ms", "llm_provider-retry-after", "x-should-retry", "location"]
        ),
        _waits,
    ),
)
def test_refusals_with_any_status_headers_and_body(status, body, headers):
    error = classify(status, headers, body, where="127.0.0.1:8080", now=1_700_000_000)
    check_error(error)
    assert error.kind != "rate_limit" or status is None or status < 600


@given(_waits, st.floats(0, 4e9))
def test_a_time_to_wait_is_a_time_whatever_stands_there(sent, now):
    for headers in ({"retry-after": sent}, {"retry-after-ms": sent}):
        seconds = retry_after(headers, sent, now=now)
        assert seconds is None or 0 <= seconds <= 366 * 86400


# -- over the network ----------------------------------------------------------------------------

RAW = [
    recording(name).raw
    for name in ("chat_stream", "tools_required_stream", "chat", "err_overflow", "anthropic_stream")
]
HEADS = (
    b"Retry-After: %b\r\n", b"Content-Encoding: gzip\r\n", b"Content-Length: %b\r\n", b"Transfer-Encoding: %b\r\n", b"X: %b\r\n",
    b"Location: %b\r\n", b"Content-Type: %b\r\n", b"Connection: %b\r\n", b"HTTP/1.1 %b x\r\n", b"\r\n",
)  # fmt: skip
CHANGED = (
    b"",
    b"-1",
    b"0",
    b"5",
    b"99999999999999999999",
    b"chunked",
    b"close",
    b"soon",
    b"\xff\x00",
    b"200",
    b"503",
    b"a" * 9000,
)


def garbled(rng: random.Random) -> bytes:
    """A whole answer, head and all, with bytes of its head or its framing changed."""
    raw = rng.choice(RAW)
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    action = rng.randrange(5)
    if action == 0:
        sent = rng.choice(HEADS)
        lines.insert(
            rng.randint(0, len(lines)), sent[:-2] % rng.choice(CHANGED) if b"%b" in sent else sent[:-2]
        )
    elif action == 1:
        del lines[rng.randrange(len(lines))]
    elif action == 2:
        lines[0] = b"HTTP/1.1 %d X" % rng.choice(
            [100, 200, 204, 206, 304, 307, 400, 413, 429, 500, 529, 600, 999]
        )
    elif action == 3:
        at = rng.randrange(len(body) + 1)
        body = body[:at] + rng.randbytes(rng.randint(1, 6)) + body[at + rng.randrange(3) :]
    raw = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return raw[: rng.randrange(len(raw))] if action == 4 else raw


async def test_heads_and_framings_broken_in_all_ways_end_in_an_answer_or_a_typed_error():
    async def one(number: int) -> None:
        rng = random.Random(number)
        raw = garbled(rng)

        async def serve(exchange: Exchange) -> None:
            await exchange.send(raw)
            exchange.close()

        kind = rng.choice([OpenAIClient, AnthropicClient, ResponsesClient])
        async with RawServer(serve) as server, kind(server.url, "m") as client:
            assembler = Assembler()
            try:
                async with asyncio.timeout(60):
                    async for block in client.stream(Request([UserItem.of("hi")])):
                        assembler.feed(block)
                assembler.answer()
            except ModelError as error:
                assert error.where == f"127.0.0.1:{server.port}", raw  # noqa: PT017
                assert error.where in error.message, raw  # noqa: PT017

    for start in range(0, 240, 40):
        await asyncio.gather(*(one(number) for number in range(start, start + 40)))
