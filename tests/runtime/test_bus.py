"""The bus: every event or a Lagged in its place, whoever reads, whenever, on whatever thread."""

import asyncio
import gc
import sys
import threading
import time

import pykka
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import protocol
from actors.runtime.events.bus import Bus
from actors.runtime.events.subscription import Closed
from actors.runtime.loop import LoopThread
from protocol import errors
from protocol.entries import StoredEntry
from protocol.errors import WouldDeadlock
from protocol.events import Alert, Event, Lagged, PodStarted, PodStopped, Retry, RunStart, TextDelta
from protocol.wire import encode

WAIT = 60


def delta(number, pod="p", seq=0):
    return TextDelta(pod=pod, session_id="s", seq=seq, at=0.0, text=str(number))


def fact(seq, pod="p"):
    return RunStart(pod=pod, session_id="s", seq=seq, at=0.0)


def numbers(events):
    return [int(event.text) for event in events]


def publish(bus, *events):
    for event in events:
        bus.publish([event])


@pytest.fixture
def hasty_threads():
    """Threads that take turns at every step, so that what can come between two of them does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


# -- delivery -------------------------------------------------------------------------------------


def transient_kinds(bus: Bus, pod: str) -> frozenset[type[Event]]:
    """The kinds of transient events of a pod that anybody reads."""
    return bus.subscribed_kinds(pod)[1]


def test_an_event_goes_to_who_listens_to_its_pod_or_to_all():
    bus = Bus()
    everything, one, other = bus.subscribe(), bus.subscribe("a"), bus.subscribe("b")
    publish(bus, delta(1, "a"), delta(2, "b"), delta(3, "c"))
    assert numbers(everything.drain()) == [1, 2, 3]
    assert numbers(one.drain()) == [1]
    assert numbers(other.drain()) == [2]
    assert everything.drain() == []


def test_kinds_are_one_or_several_and_anything_else_is_refused():
    bus = Bus()
    one, two, none = (
        bus.subscribe(kinds=RunStart),
        bus.subscribe("p", [RunStart, TextDelta]),
        bus.subscribe(kinds=()),
    )
    publish(bus, delta(1), fact(1))
    assert one.drain() == [fact(1)]
    assert two.drain() == [delta(1), fact(1)]
    assert none.drain() == []
    with pytest.raises(TypeError, match="not a kind of event"):
        bus.subscribe(kinds=str)
    with pytest.raises(ValueError, match="at least 1"):
        bus.subscribe(size=0)


@pytest.mark.parametrize("name", [PodStopped, errors.PodStopped, protocol.PodStopped])
def test_the_error_and_the_event_named_pod_stopped_are_one_kind(name):
    bus = Bus()
    stopped = PodStopped(pod="p", session_id="s", seq=1, at=0.0)
    for kinds in (name, {name}, [name, PodStarted]):
        with bus.subscribe(kinds=kinds) as events:
            publish(bus, fact(0), stopped)
            assert events.drain() == [stopped]
            assert isinstance(stopped, name)


def test_a_closed_subscription_gets_nothing_more_and_gives_what_it_has():
    bus = Bus()
    events = bus.subscribe("p")
    publish(bus, delta(1), delta(2))
    events.close()
    events.close()
    publish(bus, delta(3))
    assert numbers(events) == [1, 2]
    with pytest.raises(Closed):
        events.get()
    assert bus.statistics() == {"subscriptions": 0, "queued": 0}


def test_a_bus_that_closes_ends_its_subscriptions_and_those_to_come():
    bus = Bus()
    events, one = bus.subscribe(), bus.subscribe("p")
    publish(bus, delta(1))
    bus.close()
    publish(bus, delta(2))
    assert numbers(events) == numbers(one) == [1]
    assert list(bus.subscribe()) == []
    assert bus.silent


def test_the_bus_knows_what_it_holds_and_whether_anybody_reads_what_is_only_published():
    bus = Bus()
    assert bus.silent
    facts = bus.subscribe(kinds=[RunStart, Lagged])
    assert not bus.silent
    assert not transient_kinds(bus, "p")
    retries = bus.subscribe(kinds=Retry)
    assert transient_kinds(bus, "p")
    assert transient_kinds(bus, "p") & {Retry, TextDelta} == {Retry}
    retries.close()
    one = bus.subscribe("p")
    assert TextDelta in transient_kinds(bus, "p")
    publish(bus, delta(1), fact(1))
    assert bus.statistics() == {"subscriptions": 2, "queued": 3}
    assert (bool(transient_kinds(bus, "p")), bool(transient_kinds(bus, "other"))) == (True, False)
    with bus.subscribe():
        assert transient_kinds(bus, "other")
    one.close()
    assert not transient_kinds(bus, "p")
    facts.close()
    assert bus.silent
    assert repr(facts) == "<Subscription all pods, closed>"
    assert repr(bus.subscribe("p")) == "<Subscription p, 0 queued>"


async def test_a_subscription_that_nobody_holds_is_forgotten_and_one_that_is_waited_on_is_not():
    bus = Bus()
    bus.loop = asyncio.get_running_loop()
    bus.subscribe()
    bus.subscribe("p")
    gc.collect()
    assert bus.silent
    got = []

    async def read():
        async for event in bus.subscribe():
            got.append(event)  # noqa: PERF401 - one by one, to be seen from outside

    asyncio.ensure_future(read())  # noqa: RUF006 - that nobody holds it is the point
    await asyncio.sleep(0)
    gc.collect()
    publish(bus, delta(1))
    await asyncio.sleep(0)
    assert numbers(got) == [1]
    bus.close()
    await asyncio.sleep(0)


# -- a full queue ---------------------------------------------------------------------------------


def gaps_stand_in_place(got, published):
    """Of events numbered from 0: all are there in order, or counted by the Lagged in their place."""
    following = 0
    for event in got:
        if isinstance(event, Lagged):
            assert event.missed > 0
            following += event.missed
        else:
            assert int(event.text) == following
            following += 1
    assert following == published


@given(st.integers(1, 5), st.lists(st.sampled_from(["publish", "next", "drain"]), max_size=60))
def test_whatever_publishers_and_readers_do_nothing_is_lost_unreported(size, steps):
    bus = Bus()
    bus.loop = None
    events = bus.subscribe("p", size=size)
    got, published = [], 0
    for step in steps:
        if step == "publish":
            bus.publish([delta(published)])
            published += 1
        elif step == "drain":
            got += events.drain()
        else:
            event = events._next()
            got += [] if event is None else [event]
    got += events.drain()
    gaps_stand_in_place(got, published)
    assert events.drain() == []


@given(
    st.lists(st.lists(st.booleans(), max_size=4), max_size=8),
    st.integers(1, 6),
    st.sampled_from([None, TextDelta, [RunStart, TextDelta]]),
    st.sampled_from([None, "p"]),
)
def test_events_that_are_published_together_come_as_if_one_by_one(batches, size, kinds, pod):
    together, apart = Bus(), Bus()
    got, wanted = (bus.subscribe(pod, kinds, size=size) for bus in (together, apart))
    number = 0
    for batch in batches:
        events = [delta(number + n) if transient else fact(number + n) for n, transient in enumerate(batch)]
        number += len(batch)
        together.publish(events)
        publish(apart, *events)
    assert _without_time(got.drain()) == _without_time(wanted.drain())


def _without_time(events):
    return [replace(event, at=0.0) for event in events]


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize("reading", ["get", "drain", "for"])
def test_a_reader_on_a_thread_misses_nothing_unreported_and_no_wake_up(size, reading, hasty_threads):
    bus = Bus()
    events = bus.subscribe(size=size)
    got = []

    def read():
        if reading == "for":
            got.extend(events)
        while reading != "for":
            try:
                got.append(events.get(timeout=WAIT))
            except Closed:
                return
            if reading == "drain":
                got.extend(events.drain())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(3000):
        bus.publish([delta(number)])
    events.close()
    reader.join(WAIT)
    assert not reader.is_alive()
    gaps_stand_in_place(got, 3000)


def test_a_slow_reader_is_woken_for_every_single_event(hasty_threads):
    bus = Bus()
    events = bus.subscribe()
    taken = threading.Semaphore(0)

    def read():
        for _ in range(500):
            events.get(timeout=WAIT)
            taken.release()

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(500):
        bus.publish([delta(number)])
        assert taken.acquire(timeout=WAIT)
    reader.join(WAIT)


facts_and_deltas = st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=40)


@given(facts_and_deltas, st.integers(1, 4), st.sampled_from([None, "a"]), st.data())
def test_replaying_since_what_lagged_says_gives_every_durable_event_that_was_missed(story, size, pod, data):
    """Transient events carry the number of the last durable one, as pods say them."""
    bus = Bus()
    events = bus.subscribe(pod, size=size)
    last, published, got = {"a": 0, "b": 0}, [], []
    for name, durable in story:
        last[name] += durable
        event = fact(last[name], name) if durable else delta(0, name, last[name])
        bus.publish([event])
        published += [event] if pod in (None, name) else []
        got += events.drain() if data.draw(st.booleans()) else []
    got += events.drain()
    position, known = 0, {"a": 0, "b": 0}
    for event in got:
        if not isinstance(event, Lagged):
            known[event.pod] = event.seq
            position += 1
            continue
        missed = published[position : position + event.missed]
        position += event.missed
        since = event.since if isinstance(event.since, dict) else {pod: event.since}
        assert set(since) == {lost.pod for lost in missed}
        for lost in missed:
            assert since[lost.pod] >= known[lost.pod]
            assert not lost.durable or lost.seq > since[lost.pod]
    assert position == len(published)


def test_a_lagging_subscriber_learns_so_whatever_kinds_it_asked_for():
    bus = Bus()
    events = bus.subscribe("p", RunStart, size=1)
    publish(bus, fact(1), fact(2), fact(3))
    lagged, kept = events.drain()
    assert (lagged.missed, lagged.since, lagged.pod, lagged.seq) == (2, 0, "p", 0)
    assert kept == fact(3)


def test_publishing_to_a_queue_that_is_full_and_waited_on_neither_blocks_nor_raises(caplog):
    bus = Bus()
    events = bus.subscribe(size=1)
    waiter = events._queue.wait(None)
    waiter.when_done(lambda: 1 / 0)
    publish(bus, *map(delta, range(100)))
    assert events.drain()[0].missed == 99
    assert "ZeroDivisionError" in caplog.text


# -- waiting --------------------------------------------------------------------------------------


def test_get_waits_times_out_and_ends():
    bus = Bus()
    events = bus.subscribe()
    with pytest.raises(pykka.Timeout):
        events.get(timeout=0.01)
    threading.Timer(0.01, bus.publish, ([delta(1)],)).start()
    assert numbers([events.get(timeout=WAIT)]) == [1]
    threading.Timer(0.01, events.close).start()
    with pytest.raises(Closed):
        events.get(timeout=WAIT)


async def test_get_on_the_loop_that_publishes_is_refused():
    bus = Bus()
    bus.loop = asyncio.get_running_loop()
    with bus.subscribe() as events, pytest.raises(WouldDeadlock):
        events.get(timeout=WAIT)


def test_async_readers_get_what_is_published_while_they_wait_and_then_an_end():
    async def main():
        bus = Bus()
        bus.loop = asyncio.get_running_loop()
        both = [asyncio.ensure_future(read(bus.subscribe())) for _ in range(2)]
        for number in range(100):
            bus.publish([delta(number)])
            if number % 10 == 0:
                await asyncio.sleep(0)
        bus.close()
        assert await asyncio.gather(*both) == [list(range(100))] * 2

    async def read(events):
        async with events:
            return numbers([event async for event in events])

    asyncio.run(main())


def test_a_reader_in_another_loop_is_woken_too():
    thread = LoopThread("publishes")
    bus = Bus()
    bus.loop = thread.mailroom.loop

    async def main():
        events = bus.subscribe()
        thread.mailroom.post(lambda _: bus.publish([delta(1)]))
        event = await asyncio.wait_for(anext(events), WAIT)
        thread.mailroom.post(lambda _: bus.close())
        return numbers([event, *[event async for event in events]])

    assert asyncio.run(main()) == [1]
    thread.stop()


async def test_a_reader_that_is_cancelled_loses_nothing():
    bus = Bus()
    bus.loop = asyncio.get_running_loop()
    events = bus.subscribe()
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    reading.cancel()
    publish(bus, delta(1), delta(2))
    assert numbers([await anext(events), await anext(events)]) == [1, 2]


# -- replay ---------------------------------------------------------------------------------------


class Past:
    """A log that is read in pages; it answers at once, or only when it is let."""

    def __init__(self, events, through, page=2):
        entries = [StoredEntry(event.seq, b"", encode(event)) for event in events]
        self.pages = [entries[start : start + page] for start in range(0, len(entries), page)]
        self.through = through
        self.answers = None  # a semaphore, where it has to be let
        self.read = 0

    async def begin(self):
        await self._let()
        return self.through

    async def page(self):
        await self._let()
        self.read += 1
        if not self.pages:
            return None
        if isinstance(self.pages[0], Exception):
            raise self.pages.pop(0)
        return self.pages.pop(0)

    async def _let(self):
        if self.answers is not None:
            await self.answers.acquire()


@pytest.fixture(scope="module")
def on_loop():
    """Does something on a loop in a thread, and waits for it."""
    thread = LoopThread("replays")
    loop = thread.mailroom.loop

    def do(work):
        async def done():
            return work()

        return asyncio.run_coroutine_threadsafe(done(), loop).result(WAIT)

    yield do
    thread.stop()


def late(past, on_loop):
    """Have it answer only when its semaphore is released."""
    past.answers = on_loop(lambda: asyncio.Semaphore(0))
    return past


def test_a_replay_comes_first_and_what_it_reported_is_not_reported_again(on_loop):
    bus = Bus()
    events = bus.subscribe()
    publish(bus, delta(1, seq=1), fact(2), delta(2, seq=2), fact(1, "other"))
    events.replay(Past([fact(1), fact(2)], {"p": 2}), on_loop)
    publish(bus, fact(3))
    assert events.drain() == [fact(1), fact(2), delta(2, seq=2), fact(1, "other"), fact(3)]


def test_a_replay_gives_only_the_kinds_that_were_asked_for(on_loop):
    bus = Bus()
    events = bus.subscribe(kinds=Alert)
    alert = Alert(pod="p", session_id="s", seq=2, at=0.0, text="x")
    events.replay(Past([fact(1), alert], {"p": 2}), on_loop)
    events.close()
    assert list(events) == [alert]


def test_a_pod_that_begins_anew_under_its_name_is_followed_after_a_replay_of_the_old_one(on_loop):
    bus = Bus()
    events = bus.subscribe("p")
    events.replay(Past([fact(1), fact(2)], {"p": 2}), on_loop)
    publish(bus, fact(1), fact(2))
    assert events.drain() == [fact(1), fact(2), fact(1), fact(2)]


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.integers(1, 9), st.booleans())
def test_subscribing_in_the_middle_of_a_story_gives_every_durable_event_once(
    on_loop, before, queued, after, at_once, one_by_one
):
    """However much was published before the replay's end was looked up, and however it is read."""
    bus = Bus()
    log = [fact(seq) for seq in range(1, before + queued + 1)]
    publish(bus, *log[:before])
    events = bus.subscribe("p")
    publish(bus, *log[before:])
    events.replay(Past(log, {"p": len(log)}), on_loop)
    late = [fact(len(log) + number) for number in range(1, after + 1)]
    got = []
    for event in late:
        bus.publish([event])
        if event.seq % at_once == 0:
            got += [events.get(timeout=WAIT)] if one_by_one else events.drain()
    assert got + events.drain() == log + late


def test_a_replay_that_has_to_be_awaited_gives_what_has_come_and_the_rest_when_it_comes(on_loop):
    bus = Bus()
    events = bus.subscribe("p")
    publish(bus, fact(1), fact(2))
    past = late(Past([fact(1), fact(2), fact(3), fact(4)], {"p": 4}, page=1), on_loop)
    events.replay(past, on_loop)
    publish(bus, fact(3), fact(4))
    assert events.drain() == []
    with pytest.raises(pykka.Timeout):
        events.get(timeout=0)
    on_loop(past.answers.release)  # how far it goes, which is looked up once nothing comes between
    publish(bus, fact(5))
    got = []
    for _ in range(4):
        assert events.drain() == []
        on_loop(past.answers.release)
        got.append(events.get(timeout=WAIT))
    assert got == [fact(1), fact(2), fact(3), fact(4)]
    on_loop(past.answers.release)
    assert events.get(timeout=WAIT) == fact(5)
    assert events.drain() == []


def test_a_replay_that_has_to_be_awaited_is_read_ahead_of_its_reader_but_not_far(on_loop):
    bus = Bus()
    events = bus.subscribe("p")
    past = late(Past([fact(seq) for seq in range(1, 41)], {"p": 40}), on_loop)
    events.replay(past, on_loop)
    for _ in range(100):
        on_loop(past.answers.release)
    assert past.read == 2
    assert events.drain()[:4] == [fact(1), fact(2), fact(3), fact(4)]


async def test_a_reader_that_awaits_a_replay_is_woken_by_each_page_and_by_the_end():
    bus = Bus()
    bus.loop = asyncio.get_running_loop()
    events = bus.subscribe("p")
    past = Past([fact(1), fact(2), fact(3)], {"p": 3})
    past.answers = asyncio.Semaphore(0)
    events.replay(past, lambda work: work())
    reading = asyncio.ensure_future(anext(events))
    for _ in range(8):
        await asyncio.sleep(0)
    assert not reading.done()
    past.answers.release()
    past.answers.release()
    assert await asyncio.wait_for(reading, WAIT) == fact(1)
    past.answers.release()
    past.answers.release()
    assert [await anext(events), await anext(events)] == [fact(2), fact(3)]
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    bus.publish([fact(4)])
    assert await asyncio.wait_for(reading, WAIT) == fact(4)


def test_what_goes_wrong_in_a_replay_is_raised_behind_what_was_reported_before_it(on_loop):
    for make_late in (False, True):
        bus = Bus()
        events = bus.subscribe("p")
        past = Past([fact(1), fact(2)], {"p": 4})
        past.pages.append(errors.StoreError("gone"))
        if make_late:
            late(past, on_loop)
        events.replay(past, on_loop)
        publish(bus, fact(5))
        for _ in range(9 if make_late else 0):
            on_loop(past.answers.release)
        assert [events.get(timeout=WAIT), events.get(timeout=WAIT)] == [fact(1), fact(2)]
        with pytest.raises(errors.StoreError, match="gone"):
            events.get(timeout=WAIT)
        assert events.get(timeout=WAIT) == fact(5)


def test_a_closed_subscription_waits_for_no_replay(on_loop):
    bus = Bus()
    events = bus.subscribe("p")
    events.replay(late(Past([fact(1)], {"p": 1}), on_loop), on_loop)
    reader = threading.Thread(target=lambda: list(events))
    reader.start()
    events.close()
    reader.join(WAIT)
    assert not reader.is_alive()


@pytest.mark.parametrize(
    ("pod", "kinds"), [(None, None), ("p", None), (None, Retry)], ids=["all pods", "one pod", "one kind"]
)
def test_a_subscription_costs_the_same_to_make_and_to_close_however_many_there_are(pod, kinds):
    bus = Bus()
    began = time.process_time()
    subscriptions = [bus.subscribe(pod, kinds) for _ in range(20_000)]
    publish(bus, fact(1))
    for subscription in subscriptions:
        subscription.close()
    assert time.process_time() - began < 3, "one by one against all that there are, it takes a minute"
    assert bus.silent
    assert bus.statistics() == {"subscriptions": 0, "queued": 0}


def test_subscriptions_that_are_collected_while_the_bus_is_locked_are_removed_later():
    bus = Bus()
    kept, lost = bus.subscribe("p"), bus.subscribe("p")
    with bus._lock:
        del lost
        gc.collect()
    assert bus.statistics()["subscriptions"] == 1
    kept.close()
    assert bus.silent
    assert bus._near.of_pod == {}


def test_what_only_one_of_two_reads_is_made_until_that_one_is_closed():
    bus = Bus()
    retries, deltas = bus.subscribe("p", Retry), bus.subscribe("p", [Retry, TextDelta])
    assert TextDelta in transient_kinds(bus, "p")
    deltas.close()
    deltas.close()
    assert transient_kinds(bus, "p") & {Retry, TextDelta} == {Retry}
    retries.close()
    assert Retry not in transient_kinds(bus, "p")
