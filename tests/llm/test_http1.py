"""Answers in HTTP/1.1, however their bytes are split: heads and the pieces of bodies, or a typed refusal."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.http.http1 import Chunked, Head, HeadReader, Sized, Unbounded
from actors.net.failures import TransportError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


def read(*pieces: bytes) -> tuple[Head, bytes, bool]:
    """The head, the body, and whether it is over."""
    reader, head, body = HeadReader(), None, b""
    for piece in pieces:
        if head is None:
            found = reader.feed(piece)
            if found is None:
                continue
            head, piece = found  # noqa: PLW2901 - the rest of it
        if piece and not head.framing.over:
            body += head.framing.feed(piece)
    assert head is not None
    return head, body, head.framing.over


def headed(*lines: str) -> Head:
    return read("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode())[0]


def test_a_body_that_is_transferred_as_it_is_has_the_length_that_is_stated():
    head = headed("Transfer-Encoding: identity", "Content-Length: 3")
    assert isinstance(head.framing, Sized)
    assert head.keeps


CUTS = st.lists(st.integers(0, 400), max_size=12)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40) | st.just(b"\r\n0\r\n\r\n"), max_size=6),
    behind=st.sampled_from([b"", b";x=1", b" "]),
    trailer=st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"]),
    cuts=CUTS,
)
def test_a_body_in_chunks_is_the_same_wherever_it_is_split(chunks, behind, trailer, cuts):
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(each), behind, each) for each in chunks)
    wire = HEAD + framed + b"0\r\n" + trailer + b"\r\n"
    head, body, over = read(*split(wire, cuts))
    assert (head.status, body, over, head.keeps, head.framing.surplus) == (
        200,
        b"".join(chunks),
        True,
        True,
        False,
    )


@given(body=st.binary(max_size=60), cuts=CUTS)
def test_a_body_of_a_known_length_is_the_same_wherever_it_is_split(body, cuts):
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    head, came, over = read(*split(wire, cuts))
    assert (came, over, head.framing.surplus) == (body, True, False)


@given(data=st.binary(max_size=60), cuts=CUTS)
def test_whatever_comes_in_the_place_of_chunks_is_a_body_or_a_refusal(data, cuts):
    chunked = Chunked()
    try:
        for piece in split(data, cuts):
            if not chunked.over:
                chunked.feed(piece)
    except TransportError as error:
        assert error.failure.kind == "protocol"  # noqa: PT017 - not all of it is refused


@pytest.mark.parametrize(
    "wire",
    [b"-5\r\n", b"5;\r\nabcdefg", b"x\r\n", b"\r\n", b"1_0\r\n", b"0x5\r\nhello\r\n", b"5\r\nhello0\r\n\r\n"],
)
def test_what_is_no_chunk_is_refused(wire):
    with pytest.raises(TransportError, match="chunk"):
        Chunked().feed(wire)


def test_provisional_answers_are_passed_over():
    head, body, over = read(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        b"HTTP/1.1 201 Created\nContent-Length: 2\n\nhi",
    )
    assert (head.status, body, over) == (201, b"hi", True)


def test_a_provisional_answer_is_a_beginning_and_the_request_not_one_that_nobody_read():
    reader = HeadReader()
    assert not reader.begun
    assert reader.feed(b"HTTP/1.1 102 Processing\r\n\r\n") is None
    assert reader.begun


def test_a_connection_that_speaks_something_else_is_not_kept():
    assert not read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")[0].keeps


def test_headers_are_known_by_names_in_any_case_and_joined():
    head = headed("X-One: a", "x-one:b", "X-Two:  caf\u00e9 ", " and more")
    assert (head.headers["X-ONE"], head.headers.get("x-two")) == ("a, b", "caf\u00e9 and more")


def test_how_a_body_ends_is_known_by_its_head():
    assert isinstance(headed().framing, Unbounded)
    assert not headed().keeps
    assert isinstance(headed("Content-Length: 3, 3").framing, Sized)
    both = headed("Transfer-Encoding: gzip, chunked", "Content-Length: 3")
    assert isinstance(both.framing, Chunked)
    assert both.coding == "gzip"
    assert not both.keeps
    assert headed("Transfer-Encoding: chunked").keeps
    assert isinstance(headed("Transfer-Encoding: chunked, gzip").framing, Unbounded)
    assert not headed("Content-Length: 3", "Connection: Close").keeps
    assert read(b"HTTP/1.1 204 No Content\r\n\r\n")[2]
    assert not read(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")[0].keeps


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000,
    ],
)
def test_what_is_no_head_is_refused(wire):
    with pytest.raises(TransportError):
        HeadReader().feed(wire)
