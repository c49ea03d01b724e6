"""What a server answers over HTTP reaches the SDK whole, however it is cut into pieces, and is mended where odd."""

from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tools.mcp import http_bodies
from actors.tools.mcp.http_bodies import mend_body


class Pieces(httpx2.AsyncByteStream):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = list(pieces)
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for each in self.pieces:
            yield each

    async def aclose(self) -> None:
        self.closed = True


def response(kind: str, *pieces: bytes) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": kind}, stream=Pieces(pieces))


LINES = st.lists(
    st.sampled_from([b"data: {}", b"data:[1]", b"event: message", b": words", b"", b"id: 7", b"data: \\ud8"]),
    max_size=8,
)


@given(
    st.text(st.sampled_from('{}[]",: \n\rdat\u00e9\\')).map(str.encode) | LINES.map(b"\r\n".join),
    st.lists(st.integers(0, 60), max_size=4),
    st.sampled_from(["text/event-stream", "application/json; charset=utf-8", "text/plain"]),
)
async def test_what_is_not_odd_stays_byte_for_byte(text: bytes, cuts: list[int], kind: str) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(places)]
    made = response(kind, *pieces)
    await mend_body(made)
    assert await made.aread() == text


async def test_an_event_comes_as_soon_as_its_line_has_ended() -> None:
    made = response("text/event-stream", b"data: 1\n\nda", b'ta: "\\ud83d"\n', b"\n")
    await mend_body(made)
    assert [each async for each in made.aiter_bytes()] == [b"data: 1\n\n", b'data:"\\ufffd"\n', b"\n"]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
async def test_a_line_of_any_length_passes_and_those_behind_it_are_mended(
    monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(http_bodies, "_LONGEST_LINE", 50)
    long = b"data: " + b"[" * 300 + b'"\\ud83d"' + b"]" * 300
    pieces: list[Any] = [long[:100], long[100:500], long[500:] + end + b'data: "\\ud83d"' + end]
    made = response("text/event-stream", *pieces)
    await mend_body(made)
    assert await made.aread() == long + end + b'data:"\\ufffd"' + end


async def test_who_reads_no_more_closes_what_the_server_sends() -> None:
    made = response("text/event-stream", b"data: 1\n", b"data: 2\n")
    sent = made.stream
    await mend_body(made)
    async for _ in made.aiter_bytes():
        break
    await made.aclose()
    assert isinstance(sent, Pieces)
    assert sent.closed
