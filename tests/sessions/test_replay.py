"""Replay reads no more of an entry than it folds, and loses nothing by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protocol_strategies import structs

from actors.sessions.chain import chained
from actors.sessions.replay import Replayed, replay
from protocol.entries import ENTRIES, StoredEntry
from protocol.errors import WireError
from protocol.events import AssistantMessage, DurableEvent
from protocol.wire import decode_entry, encode

CARRIERS = [kind for kind in ENTRIES if issubclass(kind, DurableEvent) and kind.carries_item]


def stored(*entries: object) -> list[StoredEntry]:
    return chained(map(encode, entries))


@given(st.lists(st.one_of([structs(kind) for kind in CARRIERS]), max_size=6))
def test_a_history_has_the_items_of_its_entries_in_order(events: list):
    log = stored(*events)
    whole = [decode_entry(entry.body) for entry in log]
    assert replay(log).items == [event.item for event in whole]


@given(structs(AssistantMessage))
def test_an_answer_counts_with_its_usage_cost_and_step(event: AssistantMessage):
    state = replay(stored(event))
    assert state.calls == ([] if event.usage is None else [(0, event.usage)])
    assert state.cost == event.cost
    assert state.open_steps == (event.run_id is not None)


@given(st.sampled_from(ENTRIES).flatmap(structs))
def test_every_kind_of_entry_is_read(entry: object):
    assert replay(stored(entry)).seq == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"type":"Nonsense"}',
        b'{"type":"UserMessage"}',
        b'{"type":"UserMessage","item":{"type":"system","content":[]}}',
        b'{"type":"UserMessage","item":"\xff"}',
    ],
)
def test_what_is_no_entry_is_an_error_at_its_number(body: bytes):
    state = Replayed()
    with pytest.raises(WireError, match="not an entry"):
        state.read([*chained([body], first_seq=7)])
    assert state.seq == 7
