"""What came from outside is made fit for the log: it can be encoded, and reads back as it is."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Failure, PolypodError
from protocol.events import AssistantMessage
from protocol.items import AssistantItem, TextPart, ToolCall, ToolResult
from protocol.recordable import plain, recordable
from protocol.usage import Usage
from protocol.wire import decode_event, decode_item, encode

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**8000, max_value=2**9000)
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.just(object()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.text(st.characters()) | st.integers() | st.floats(allow_nan=False) | st.binary(), inner
        )
    ),
    max_leaves=10,
)


@given(st.text(st.characters()), st.dictionaries(st.text(st.characters()), anything))
def test_an_item_reads_back_as_it_was_made_recordable(text: str, arguments: dict[str, Any]) -> None:
    item = recordable(AssistantItem((TextPart(text),), (ToolCall(text, text, arguments),)))
    assert decode_item(encode(item)) == item


@given(anything)
def test_anything_at_all_becomes_something_that_json_has(value: Any) -> None:
    made = plain(value)
    assert msgspec.json.decode(msgspec.json.encode(made)) == made


def test_what_can_be_kept_stays_as_it_is() -> None:
    event = AssistantMessage(
        pod="p",
        session_id="s",
        seq=1,
        at=0.5,
        item=AssistantItem.of("é", (ToolCall("a", "f", {"x": [1, 2.5, None, {"y": "ü"}]}),)),
        usage=Usage(1, 2),
        cost=0.25,
    )
    assert recordable(event) == event


def test_numbers_that_json_has_not_become_null_and_bytes_their_text() -> None:
    call = ToolCall("a", "f", {"x": math.nan, "y": [math.inf], "z": b"ab\xff", 3: {1, 2}})  # type: ignore[dict-item]
    assert recordable(call).arguments == {"x": None, "y": [None], "z": "ab\ufffd", "3": [1, 2]}


def test_what_holds_itself_comes_to_an_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    msgspec.json.encode(plain(loop))


def test_a_field_that_cannot_be_made_of_its_type_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected"):
        recordable(ToolResult(call_id="a", name="f", content=5))  # type: ignore[arg-type]


def test_an_entry_of_a_log_takes_it_too() -> None:
    event = AssistantMessage(pod="p", session_id="s", seq=1, at=0.0, item=AssistantItem.of("x\ud800y"))
    assert decode_event(encode(recordable(event))).item.text == "x\ufffdy"  # type: ignore[union-attr]


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_a_failure_can_always_be_reported() -> None:
    assert Failure.of(ValueError("x\ud800")).message == "x\ufffd"
    assert "Mute" in Failure.of(MuteError()).message
    reported = Failure.of(PolypodError("x\ud800", hint="\ud800"))
    assert (reported.message, reported.hint) == ("x\ufffd", "\ufffd")
    encode(reported)


def test_what_is_within_itself_several_times_ends_there() -> None:
    around: dict[str, Any] = {"n": 1}
    around["parents"] = [around, around]
    members: list[Any] = [around, 2]
    members += [members, members]
    assert plain(members) == [{"n": 1, "parents": ["…", "…"]}, 2, "…", "…"]
    twice = {"x": [1]}
    assert plain([twice, twice]) == [{"x": [1]}, {"x": [1]}]  # beside each other is not within
