"""Server-sent events come out the same however the bytes were split."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.http.sse import MAX_EVENT_BYTES, SSEEvent, SSEParser


def parsed(*pieces: bytes) -> list[SSEEvent]:
    parser = SSEParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.end()


def test_an_event_has_the_name_message_where_the_server_gives_none():
    assert parsed(b"data: {}\n\n") == [("message", b"{}")]


def test_a_burst_of_events_in_one_chunk_is_all_given_at_once():
    assert SSEParser().feed(b"data: 1\n\ndata: 2\n\ndata: 3\n\n") == [
        ("message", b"1"),
        ("message", b"2"),
        ("message", b"3"),
    ]


def test_a_named_event_keeps_its_name():
    assert parsed(b'event: message_start\ndata: {"type":1}\n\n') == [("message_start", b'{"type":1}')]


def test_data_without_a_space_is_data():
    assert parsed(b"data:x\n\nevent:e\ndata:y\n\n") == [("message", b"x"), ("e", b"y")]


def test_only_one_space_after_the_colon_is_taken_away():
    assert parsed(b"data:  x\n\n") == [("message", b" x")]


def test_data_of_many_lines_is_joined_by_newlines():
    assert parsed(b"data: a\ndata:\ndata: b\n\n") == [("message", b"a\n\nb")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_lf_crlf_or_cr(end):
    assert parsed(end.join([b"event: e", b"data: x", b"", b"data: y", b"", b""])) == [
        ("e", b"x"),
        ("message", b"y"),
    ]


def test_comments_give_no_event_and_disturb_none():
    assert parsed(b":\n\n: ping\n\n:keep\ndata: x\n: more\n\n") == [("message", b"x")]


def test_a_byte_order_mark_at_the_beginning_is_no_part_of_the_first_field():
    assert parsed(b"\xef\xbb\xbfdata: x\n\n") == [("message", b"x")]
    assert parsed(b"\xef", b"\xbb", b"\xbf", b"data: x\n\n") == [("message", b"x")]


def test_other_fields_and_unknown_ones_are_passed_over():
    assert parsed(b"id: 7\nretry: 10\nfoo\ndata: x\n\nevent: lonely\n\n") == [("message", b"x")]


def test_an_event_without_its_blank_line_is_given_at_the_end():
    parser = SSEParser()
    assert parser.feed(b"data: [DONE]") == []
    assert parser.end() == [("message", b"[DONE]")]
    assert parser.end() == []


def test_an_event_is_given_as_soon_as_its_blank_line_is_there():
    parser = SSEParser()
    assert parser.feed(b"data: x\r") == []
    assert parser.feed(b"\r") == [("message", b"x")]


def test_a_line_that_never_ends_is_refused():
    parser = SSEParser()
    assert parser.feed(b"x" * MAX_EVENT_BYTES) == []
    with pytest.raises(ValueError, match=f"more than {MAX_EVENT_BYTES} bytes"):
        parser.feed(b"x")


def test_utf8_split_between_chunks_is_whole_again():
    text = 'data: "Grüße, 世界 🙂"\n\n'.encode()
    for at in range(len(text)):
        assert parsed(text[:at], text[at:]) == [("message", text[6:-2])]


_alphabet = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"event: ",
        b"event",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b":",
        b" ",
        b"x",
        b"{}",
        b"\xef\xbb\xbf",
        "ü".encode(),
    ]
)


@given(st.lists(_alphabet, max_size=40).map(b"".join), st.lists(st.integers(0, 120), max_size=8))
def test_events_do_not_depend_on_how_the_bytes_were_split(stream, cuts):
    marks = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    pieces = [stream[a:b] for a, b in itertools.pairwise(marks)]
    assert parsed(*pieces) == parsed(stream)


@given(st.lists(_alphabet, max_size=40).map(b"".join))
def test_events_are_the_same_byte_by_byte(stream):
    assert parsed(*(bytes([byte]) for byte in stream)) == parsed(stream)
