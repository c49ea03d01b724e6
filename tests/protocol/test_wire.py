"""The wire: every type survives it, lines may arrive in any pieces, and strangers are refused."""

import json
from typing import Any

import msgspec
import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_strategies import plain, structs

from protocol import channel, wire
from protocol.commands import COMMANDS, Command
from protocol.entries import ENTRIES
from protocol.errors import Failure, NewerVersion, WireError
from protocol.events import DURABLE_EVENTS, EVENTS, DurableEvent, PodStopped, TextDelta
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem
from protocol.manifest import PodManifest

ITEMS = (UserItem, AssistantItem, SystemItem, ToolResult)
UNIONS = [(wire.decode_item, ITEMS), (wire.decode_event, EVENTS)]
UNIONS += [(wire.decode_command, COMMANDS), (wire.decode_entry, ENTRIES)]
MEMBERS = [
    pytest.param(decode, kind, id=f"{decode.__name__}-{kind.__name__}")
    for decode, kinds in UNIONS
    for kind in kinds
]


@settings(max_examples=times(5))
@pytest.mark.parametrize(("decode", "kind"), MEMBERS)
@given(data=st.data())
def test_every_type_of_every_union_survives_the_wire(decode: Any, kind: type[msgspec.Struct], data: Any):
    value = data.draw(structs(kind))
    again = decode(wire.encode(value))
    assert type(again) is kind
    assert plain(again) == plain(value)
    if kind.__name__ != "SessionOpened":  # its manifest is raw bytes, which compare by identity
        assert again == value


@settings(max_examples=times(5))
@pytest.mark.parametrize("kind", ENTRIES)
@given(data=st.data())
def test_the_kind_of_an_entry_is_known_without_decoding_it(kind: type[msgspec.Struct], data: Any):
    body = wire.encode(data.draw(structs(kind)))
    event = kind if issubclass(kind, DurableEvent) else None
    assert wire.event_kind(body) is event
    other_way_round = msgspec.json.encode(dict(reversed(msgspec.json.decode(body).items())))
    assert wire.event_kind(other_way_round) is event


def test_what_is_no_event_of_ours_has_no_kind_or_is_refused():
    assert wire.event_kind(b'{"type":"Later","seq":3,"at":1.0}') is None
    with pytest.raises(NewerVersion):
        wire.event_kind(b'{"type":"Later","seq":3,"at":1.0,"item":{}}')
    with pytest.raises(WireError):
        wire.event_kind(b"nonsense")


@settings(max_examples=times(3))
@pytest.mark.parametrize("kind", EVENTS)
@given(data=st.data(), follow=st.integers(0, 2**40))
def test_an_event_that_is_published_is_the_frame_it_would_be_encoded_to(kind: Any, follow: int, data: Any):
    body = wire.encode(data.draw(structs(kind)))
    frame = channel.frame(channel.Published(follow, msgspec.Raw(body)))
    assert b"".join(channel.event_frame(follow, body)) == frame
    reported = channel.decode_from_pod(frame[channel.HEAD :])
    assert isinstance(reported, channel.Published)
    assert (reported.id, bytes(reported.event)) == (follow, body)


def test_an_event_is_published_though_others_write_its_frame_in_another_way():
    reported = channel.decode_from_pod(b'{ "event": {"x":1}, "id": 7, "type": "Told" }')
    assert reported == channel.Published(7, msgspec.Raw(b'{"x":1}'))


@given(structs(PodManifest), structs(Failure))
def test_manifests_and_failures_survive_the_wire(manifest: PodManifest, failure: Failure):
    assert msgspec.json.decode(wire.encode(manifest), type=PodManifest) == manifest
    assert msgspec.json.decode(wire.encode(failure), type=Failure) == failure


@given(structs(TextDelta))
def test_a_line_is_one_line_whatever_the_text(event: TextDelta):
    line = wire.encode_line(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


@given(st.lists(structs(TextDelta), max_size=4), st.data())
def test_lines_split_anywhere_are_the_same_lines(events: list[TextDelta], data: Any):
    stream = b"".join(map(wire.encode_line, events))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    splitter = wire.LineSplitter()
    lines: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        lines += splitter.feed(stream[start:end])
    assert [wire.decode_event(line) for line in lines] == events
    assert splitter.end() is None


def test_a_line_separator_of_unicode_does_not_end_a_line():
    splitter = wire.LineSplitter()
    text = json.dumps({"text": "a\u2028b\u0085c"}, ensure_ascii=False).encode()
    assert list(splitter.feed(text + b"\r\n\r\n\n")) == [text]


def test_an_unterminated_last_line_is_reported_at_the_end():
    splitter = wire.LineSplitter()
    assert list(splitter.feed(b'{"a":1}\n{"b"')) == [b'{"a":1}']
    assert splitter.end() == b'{"b"'
    assert splitter.end() is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"type":"Nonsense"}', b'{"type":"RunEnd"}', b"\xff\xfe"]
)
@pytest.mark.parametrize(
    "decode", [wire.decode_item, wire.decode_event, wire.decode_command, wire.decode_entry]
)
def test_bytes_that_are_no_such_type_are_a_wire_error(decode: Any, data: bytes):
    with pytest.raises(WireError, match=r"not an? (item|event|command|entry)"):
        decode(data)


def test_fields_of_a_later_version_are_passed_over():
    event = wire.decode_event(
        b'{"type":"PodStopped","pod":"a","session_id":"s","seq":3,"at":1.5,"mood":"calm"}'
    )
    assert event == PodStopped(pod="a", session_id="s", seq=3, at=1.5)


def test_every_durable_event_is_an_entry_and_no_transient_one_is():
    assert set(DURABLE_EVENTS) < set(ENTRIES)
    assert all(issubclass(kind, DurableEvent) == (kind in ENTRIES) for kind in EVENTS)


def test_only_compaction_publishes_events_that_begin_with_compact():
    named = {kind.__name__ for kind in EVENTS if kind.__name__.startswith("Compact")}
    assert named == {"CompactStart", "CompactDone", "CompactFailed"}


def test_the_schema_describes_each_event_and_command():
    schema = wire.schema()
    text = json.dumps(schema)
    for kind in (*EVENTS, *COMMANDS, *ENTRIES, *ITEMS):
        assert kind.__name__ in schema["$defs"], kind
    assert schema["version"] == wire.VERSION
    assert set(text.split('"#/$defs/')[1:]), "definitions are referred to"
    assert all(ref.split('"')[0] in schema["$defs"] for ref in text.split('"#/$defs/')[1:])


def test_no_two_types_of_a_union_share_a_tag():
    for _, kinds in UNIONS:
        tags = [kind.__struct_config__.tag for kind in kinds]
        assert len(set(tags)) == len(tags)
    assert all(issubclass(kind, Command) for kind in COMMANDS)
