"""Replay reads no more of an entry than it folds, and loses nothing by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from protocol_strategies import structs

from actors.sessions.chain import chained
from actors.sessions.replay import Replayed, _usual, replay
from protocol.entries import ENTRIES, MemoryPointer, SessionOpened, StoredEntry
from protocol.errors import WireError
from protocol.events import (
    Alert,
    AssistantMessage,
    CompactDone,
    DurableEvent,
    PodEnded,
    PodStarted,
    RunEnd,
    RunStart,
    ToolResulted,
    UserMessage,
)
from protocol.items import AssistantItem, ToolResult, UserItem
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
    assert state.calls == ([] if event.usage is None or event.item.cut else [(0, event.usage)])
    assert state.cost == event.cost
    assert state.open_steps == (event.run_id is not None)


@given(st.sampled_from(ENTRIES).flatmap(structs))
def test_every_kind_of_entry_is_read(entry: object):
    assert replay(stored(entry)).seq == 1


@given(st.lists(st.one_of([structs(kind) for kind in CARRIERS] + [structs(MemoryPointer), structs(Alert)])))
def test_what_comes_behind_a_kind_that_few_logs_have_is_read_as_before_it(events: list):
    later = b'{"type":"OfALaterVersion","seq":2,"at":1.0}'
    state = replay(chained([*map(encode, events), later, *map(encode, events)]))
    assert state.items == 2 * [event.item for event in events if type(event) in CARRIERS]
    assert state.pointer == next(
        (each.pointer for each in reversed(events) if type(each) is MemoryPointer), None
    )


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


# -- how long a pod's runs took ----------------------------------------------------------------------


def took(*reported: tuple[float, object]) -> float:
    """The seconds of a log, whose entries are given with their times (of run ``r`` where they are of one)."""
    return replay(stored(*(make(at) for at, make in reported))).seconds


def of_run(kind: type[DurableEvent], **fields: object):
    return lambda at: kind(pod="p", session_id="s", seq=1, at=at, run_id="r", **fields)


def of_pod(kind: type[DurableEvent], **fields: object):
    return lambda at: kind(pod="p", session_id="s", seq=1, at=at, **fields)


def opened(**fields: object):
    return lambda at: SessionOpened(session_id="s", seq=1, at=at, pod="p", manifest=Raw(b"{}"), **fields)


START, ANSWER = of_run(RunStart), of_run(AssistantMessage, item=AssistantItem.of("a"))
RESULT = of_run(ToolResulted, item=ToolResult("c", "t", ()))
LIFE = of_pod(PodStarted, model="m", resumed=True)


def ended(seconds: float | None, outcome: str = "finished"):
    return of_run(RunEnd, outcome=outcome, seconds=seconds)


def test_runs_that_ended_took_what_they_say():
    assert took((0, START), (90, ended(2.5)), (100, START), (101, ended(0.5))) == 3.0


def test_a_run_that_was_cut_off_took_the_time_to_the_last_thing_it_did():
    assert took((10, START), (12, ANSWER), (15, RESULT)) == 5
    assert took((10, START), (12, ANSWER), (900, of_pod(Alert, text="torn")), (901, LIFE)) == 2


def test_the_time_between_two_lives_counts_for_nothing():
    reported = [
        (10, START),
        (12, ANSWER),
        (900, LIFE),
        (910, ended(None, "cancelled")),
        (950, START),
        (953, ANSWER),
    ]
    assert took(*reported) == 5


def test_a_pause_counts_for_nothing():
    note = of_run(UserMessage, item=UserItem.of("by the way"))
    resumed = of_run(RunStart, reason="resume")
    reported = [(0, START), (4, ended(4.0, "paused")), (50, note), (90, resumed), (91, ended(1.0))]
    assert took(*reported) == 5
    assert took(*reported[:-1]) == 4
    assert took(*reported[:3], (60, ended(None, "cancelled"))) == 4


def test_a_session_goes_on_from_what_the_one_before_took():
    assert took((0, opened(seconds=7.0))) == 7
    middle = (20, opened(seconds=7.0, run_id="r", run_seconds=3.0))
    assert took(middle, (20, of_run(CompactDone, new_session_id="s"))) == 10
    assert took(middle, (24, ANSWER)) == 14
    assert took(middle, (24, ANSWER), (25, ended(8.0))) == 15


def test_a_clock_that_was_put_back_gives_no_time_back():
    assert took((100, START), (40, ANSWER)) == 0


def test_an_end_without_its_time_is_of_an_older_log_and_reckoned():
    assert took((10, START), (12, ANSWER), (13, ended(None))) == 2


# -- what a restore pays for -------------------------------------------------------------------------


def test_a_log_of_the_usual_kinds_does_not_pay_for_a_decoder_of_all():
    usual = [
        make(at)
        for at, make in enumerate((opened(), LIFE, START, ANSWER, RESULT, ended(1.0), of_pod(PodEnded)))
    ]
    assert replay(stored(*usual))._decoder is _usual
    assert replay(stored(*usual, of_pod(Alert, text="torn")(9)))._decoder is not _usual
