"""AsyncFuture: got from any thread, awaited in any loop, mapped and joined, and never a hang."""

import asyncio
import queue
import threading
import traceback
from functools import partial

import pykka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.future import AsyncFuture
from protocol.errors import WouldDeadlock

WAIT = 60


def on_thread(work):
    """Start ``work`` on a thread; what it gives or raises is in the returned list after a join."""
    got = []

    def run():
        try:
            got.append(work())
        except Exception as error:  # noqa: BLE001
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, got


def awaited(future, timeout=WAIT):
    async def main():
        return await asyncio.wait_for(future, timeout)

    return asyncio.run(main())


# -- giving and getting ---------------------------------------------------------------------------


def test_a_value_is_got_and_awaited_as_often_as_one_likes():
    future = AsyncFuture()
    assert not future.done()
    future.set("value")
    assert future.done()
    assert [future.get(), future.get(timeout=0), awaited(future), awaited(future)] == ["value"] * 4


def test_a_future_can_be_made_done():
    assert AsyncFuture.resolved(3).get() == 3
    with pytest.raises(KeyError):
        AsyncFuture.failed(KeyError()).get()


@pytest.mark.parametrize("again", ["set", "set_exception", "set_get_hook"])
def test_what_is_set_cannot_be_set_again(again):
    for future in (AsyncFuture.resolved(1), AsyncFuture.failed(ValueError())):
        with pytest.raises(queue.Full):
            getattr(future, again)(ValueError())
    hooked = AsyncFuture()
    hooked.set_get_hook(lambda _: 1)
    for way in (hooked.set, hooked.set_exception, hooked.map(str).set, hooked.map(str).set_get_hook):
        with pytest.raises(queue.Full):
            way(ValueError())


def test_of_many_threads_that_set_a_value_one_wins():
    def set_once(future, barrier, number):
        barrier.wait(WAIT)
        future.set(number)

    for _ in range(20):
        future, barrier = AsyncFuture(), threading.Barrier(4)
        started = [on_thread(partial(set_once, future, barrier, number)) for number in range(4)]
        for thread, _ in started:
            thread.join(WAIT)
        results = [got[0] for _, got in started]
        assert results[future.get()] is None
        assert sum(isinstance(result, queue.Full) for result in results) == 3


def test_an_error_is_raised_with_its_own_traceback_each_time():
    future = AsyncFuture()
    try:
        {}["where it began"]
    except KeyError:
        future.set_exception()
    depths = set()
    for _ in range(5):
        with pytest.raises(KeyError, match="where it began") as raised:
            future.get()
        frames = traceback.extract_tb(raised.value.__traceback__)
        depths.add(len(frames))
        assert frames[-1].name == "test_an_error_is_raised_with_its_own_traceback_each_time"
    assert len(depths) == 1


@pytest.mark.parametrize("given", [ValueError("x"), (ValueError, ValueError("x"), None)])
def test_an_error_is_given_as_an_exception_or_as_a_triple(given):
    future = AsyncFuture()
    future.set_exception(given)
    with pytest.raises(ValueError, match="x"):
        future.get()


def test_an_error_without_an_instance_is_made_one():
    future = AsyncFuture()
    future.set_exception((KeyError, None, None))
    with pytest.raises(KeyError):
        future.get()


def test_threads_and_loops_wait_for_one_future_together():
    future = AsyncFuture()
    waiting = [on_thread(lambda: future.get(timeout=WAIT)) for _ in range(4)]
    waiting += [on_thread(lambda: awaited(future)) for _ in range(4)]

    async def main():
        tasks = [asyncio.ensure_future(future) for _ in range(4)]
        await asyncio.sleep(0)
        threading.Thread(target=future.set, args=("v",)).start()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["v"] * 4
    for thread, got in waiting:
        thread.join(WAIT)
        assert got == ["v"]


@pytest.mark.parametrize("timeout", [0, 0.01, -1])
def test_a_get_times_out_and_leaves_nothing_behind(timeout):
    future = AsyncFuture()
    for _ in range(3):
        with pytest.raises(pykka.Timeout):
            future.get(timeout=timeout)
    assert not future._callbacks
    future.set(1)
    assert future.get(timeout=timeout) == 1


def test_all_futures_of_a_list_can_be_got_by_pykka():
    assert pykka.get_all([AsyncFuture.resolved(n) for n in range(3)], timeout=WAIT) == [0, 1, 2]


# -- in a loop ------------------------------------------------------------------------------------


async def test_a_blocking_get_on_a_loop_that_would_have_to_answer_raises():
    own, nobodys, elsewhere = AsyncFuture(), AsyncFuture(), AsyncFuture()
    own._loop = asyncio.get_running_loop()
    elsewhere._loop = other = asyncio.new_event_loop()
    for future in (own, nobodys, own.map(str), elsewhere.join(own), own.map(str).map(str)):
        with pytest.raises(WouldDeadlock, match="await the future instead"):
            future.get(timeout=WAIT)
    threading.Timer(0.01, elsewhere.set, ("from elsewhere",)).start()
    assert elsewhere.get(timeout=WAIT) == "from elsewhere"
    assert AsyncFuture.resolved(1).map(str).get() == "1"
    other.close()


async def test_gather_wait_for_and_ensure_future_take_futures():
    futures = [AsyncFuture() for _ in range(3)]
    for number, future in enumerate(futures):
        asyncio.get_running_loop().call_soon(future.set, number)
    assert await asyncio.gather(*futures) == [0, 1, 2]
    assert await asyncio.wait_for(futures[0].map(str), WAIT) == "0"
    assert await asyncio.ensure_future(futures[0].join(futures[1])) == [0, 1]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(AsyncFuture(), 0.01)


async def test_an_awaiter_that_is_cancelled_is_forgotten_and_the_others_are_answered():
    future = AsyncFuture()
    gone, stays = asyncio.ensure_future(future), asyncio.ensure_future(future)
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert len(future._callbacks) == 1
    future.set("v")
    assert await stays == "v"


@pytest.mark.parametrize("from_thread", [False, True])
def test_an_awaiter_whose_loop_is_closed_is_ignored(from_thread):
    future = AsyncFuture()
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.wait_for(future, None))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert future._callbacks
    loop.close()
    if from_thread:
        thread, got = on_thread(lambda: future.set("v"))
        thread.join(WAIT)
        assert got == [None]
    else:
        future.set("v")
    assert future.get() == "v"
    assert not task.done()


def test_waiting_for_a_loop_that_closes_ends_with_an_error():
    future = AsyncFuture()
    future._loop = asyncio.new_event_loop()
    thread, got = on_thread(lambda: future.get(timeout=WAIT))
    future._loop.close()
    thread.join(WAIT)
    assert isinstance(got[0], pykka.ActorDeadError)
    with pytest.raises(pykka.ActorDeadError):
        awaited(future)


# -- called back ----------------------------------------------------------------------------------


def test_a_callback_is_called_once_by_who_sets_or_at_once_if_that_was_before():
    future, called = AsyncFuture(), []
    future.when_done(lambda: called.append("before"))
    assert called == []
    future.set(1)
    future.when_done(lambda: called.append("after"))
    assert called == ["before", "after"]


def test_a_callback_that_raises_is_logged_and_stops_neither_the_setter_nor_the_next(caplog):
    future, called = AsyncFuture(), []
    future.when_done(lambda: 1 / 0)
    future.when_done(lambda: called.append("next"))
    future.set(1)
    assert called == ["next"]
    assert "ZeroDivisionError" in caplog.text


def test_a_derived_future_calls_back_when_the_last_of_its_sources_is_done():
    sources, called = [AsyncFuture() for _ in range(3)], []
    joined = sources[0].join(*sources[1:])
    joined.map(len).when_done(lambda: called.append(joined.get()))
    for number in (1, 0, 2):
        assert called == []
        assert not joined.done()
        sources[number].set(number)
    assert joined.done()
    assert called == [[0, 1, 2]]


@pytest.mark.parametrize("make", [pykka.ThreadingFuture, AsyncFuture])
def test_a_derived_future_calls_back_for_what_can_only_be_got(make):
    source, reported = make(), threading.Event()
    gate = threading.Event()
    source.set_get_hook(lambda _: gate.wait(WAIT))
    AsyncFuture.resolved(1).join(source).when_done(reported.set)
    assert not reported.is_set()
    gate.set()
    assert reported.wait(WAIT)


# -- hooks, and futures made of futures -----------------------------------------------------------


def test_a_hook_is_asked_once_on_a_thread_that_may_block():
    asked = []

    def hook(timeout):
        asked.append(timeout)
        return threading.get_ident()

    future = AsyncFuture()
    future.set_get_hook(hook)
    assert future.get(timeout=3) == threading.get_ident()
    assert awaited(future) == threading.get_ident()
    assert asked == [3]
    future = AsyncFuture()
    future.set_get_hook(hook)
    assert awaited(future) != threading.get_ident()


def test_an_error_of_a_hook_is_raised_and_the_hook_is_asked_again():
    answers = [ValueError("not yet"), "now"]

    def hook(_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    future = AsyncFuture()
    future.set_get_hook(hook)
    with pytest.raises(ValueError, match="not yet"):
        future.get()
    assert future.get() == "now"


def test_map_filter_join_and_reduce_are_got_and_awaited():
    made = {
        "map": lambda: AsyncFuture.resolved([1, 2, 3]).map(sum),
        "filter": lambda: AsyncFuture.resolved(range(5)).filter(lambda n: n % 2),
        "join": lambda: AsyncFuture.resolved(1).join(AsyncFuture.resolved(2)),
        "reduce": lambda: AsyncFuture.resolved([1, 2, 3]).reduce(lambda a, b: 10 * a + b),
        "reduce from": lambda: AsyncFuture.resolved([]).reduce(lambda a, b: a + b, 5),
        "chain": lambda: AsyncFuture.resolved(1).join(AsyncFuture.resolved(2)).map(sum).map(str),
    }
    results = {name: make().get(timeout=WAIT) for name, make in made.items()}
    assert results == {name: awaited(make()) for name, make in made.items()}
    assert results == {
        "map": 6,
        "filter": [1, 3],
        "join": [1, 2],
        "reduce": 123,
        "reduce from": 5,
        "chain": "3",
    }


def test_a_function_is_called_when_the_value_is_asked_for_and_then_no_more():
    calls = []
    source = AsyncFuture()
    mapped = source.map(lambda value: calls.append(value) or value + 1)
    source.set(1)
    assert calls == []

    async def main():
        return await asyncio.gather(mapped, mapped, mapped)

    assert asyncio.run(main()) == [2, 2, 2]
    assert mapped.get() == 2
    assert calls == [1]


def test_an_error_of_a_source_or_of_the_function_goes_to_who_asks():
    mapped = AsyncFuture.failed(KeyError("source")).map(str)
    divided = AsyncFuture.resolved(0).map(lambda n: 1 / n)
    for get in (lambda future: future.get(timeout=WAIT), awaited):
        with pytest.raises(KeyError, match="source"):
            get(mapped)
        with pytest.raises(ZeroDivisionError):
            get(divided)


def test_a_derived_future_may_recover_from_an_error():
    def recover(error):
        if isinstance(error, KeyError):
            return "recovered"
        raise error

    def derived(error):
        return AsyncFuture.derived([AsyncFuture.failed(error)], lambda values: values, recover)

    assert derived(KeyError()).get() == awaited(derived(KeyError())) == "recovered"
    with pytest.raises(ValueError, match="kept"):
        derived(ValueError("kept")).get()


def test_pykkas_own_futures_can_be_joined_and_are_waited_for_off_the_loop():
    async def main():
        own, pykkas = AsyncFuture(), pykka.ThreadingFuture()
        joined = own.join(pykkas)
        waiting = asyncio.ensure_future(joined)
        await asyncio.sleep(0)
        own.set("a")
        await asyncio.sleep(0)
        assert not waiting.done()
        pykkas.set("b")
        assert await asyncio.wait_for(waiting, WAIT) == ["a", "b"]

    asyncio.run(main())
    mixed = pykka.ThreadingFuture()
    mixed.set(1)
    assert mixed.join(AsyncFuture.resolved(2)).get(timeout=WAIT) == [1, 2]


async def test_giving_up_on_a_future_that_never_comes_does_not_hold_up_the_end_of_the_loop():
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(AsyncFuture.resolved(1).join(pykka.ThreadingFuture()), 0.01)


def test_the_time_of_a_joined_get_is_counted_over_all_its_sources():
    futures = [AsyncFuture() for _ in range(200)]
    with pytest.raises(pykka.Timeout):
        futures[0].join(*futures[1:]).get(timeout=0.01)


@given(st.lists(st.integers()), st.integers(0, 20))
def test_derived_futures_give_what_the_functions_of_the_language_give(numbers, start):
    future = AsyncFuture.resolved(numbers)
    assert future.filter(lambda n: n > 0).get() == [n for n in numbers if n > 0]
    assert future.map(sorted).get() == sorted(numbers)
    assert future.reduce(lambda a, b: a + b, start).get() == sum(numbers, start)
    assert AsyncFuture.resolved(0).join(*map(AsyncFuture.resolved, numbers)).get() == [0, *numbers]
