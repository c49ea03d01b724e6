"""A server that is down or busy is not stampeded, and nobody who waits for it is forgotten."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.http.endpoint import BreakerState, Endpoint, Entry
from protocol.errors import ModelError


class Clock:
    """Monotonic seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def down() -> ModelError:
    return ModelError("127.0.0.1:1: refused", kind="connection", where="127.0.0.1:1", hint="start it")


def endpoint(clock: Clock | None = None, **settings: object) -> Endpoint:
    return Endpoint("127.0.0.1:1", clock=clock or Clock(), **settings)


async def fail(door: Endpoint, times: int = 1) -> None:
    for _ in range(times):
        entry = await door.enter()
        entry.failed(down())
        entry.leave()


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_no_more_streams_run_than_are_allowed_and_the_others_wait_in_order():
    async def main() -> list[int]:
        door = endpoint(streams=2)
        order: list[int] = []
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            entry = await door.enter()
            most = max(most, door.statistics().running)
            order.append(number)
            await settle()
            entry.leave()

        await asyncio.gather(*(one(number) for number in range(7)))
        assert most == 2
        assert door.statistics().running == 0
        return order

    assert asyncio.run(main()) == [0, 1, 2, 3, 4, 5, 6]


def test_nobody_overtakes_those_who_wait():
    async def main() -> list[str]:
        door = endpoint(streams=1)
        order: list[str] = []

        async def one(name: str) -> None:
            entry = await door.enter()
            order.append(name)
            entry.leave()

        first = await door.enter()
        waiting = asyncio.create_task(one("early"))
        await settle()
        first.leave()
        await one("late")
        await waiting
        return order

    assert asyncio.run(main()) == ["early", "late"]


async def test_one_who_gives_up_waiting_leaves_no_gap():
    door = endpoint(streams=1)
    first = await door.enter()
    tasks = [asyncio.create_task(door.enter()) for _ in range(3)]
    await settle()
    tasks[0].cancel()
    first.leave()  # hands its place to the next one that still wants it
    tasks[1].cancel()  # and that one, who has been given it, gives up as well
    entry = await tasks[2]
    assert door.statistics().running == 1
    entry.leave()
    assert door.statistics().running == 0


async def test_leaving_twice_frees_one_place():
    door = endpoint(streams=2)
    entry, other = await door.enter(), await door.enter()
    entry.leave()
    entry.leave()
    assert door.statistics().running == 1
    other.leave()


async def test_waiting_for_a_place_ends_with_the_deadline():
    clock = Clock()
    door = endpoint(clock, streams=1)
    await door.enter()
    with pytest.raises(ModelError, match="1 streams are already open") as caught:
        await door.enter(deadline=clock.now + 0.01)
    assert caught.value.kind == "timeout"
    assert not caught.value.retryable
    assert door.statistics().waiting == 0


async def test_a_server_that_fails_again_and_again_is_left_alone_and_fails_at_once():
    clock = Clock()
    door = endpoint(clock)
    await fail(door, 5)
    assert door.state is BreakerState.OPEN
    clock.now += 0.5
    with pytest.raises(ModelError, match="5 failures in a row") as caught:
        await door.enter()
    assert caught.value.kind == "connection"
    assert caught.value.hint == "start it"
    assert caught.value.retryable
    assert caught.value.retry_after == pytest.approx(1.5)


async def test_an_answer_in_between_makes_failures_forgotten():
    door = endpoint()
    for _ in range(3):
        await fail(door, 4)
        entry = await door.enter()
        entry.answered()
        entry.leave()
    assert door.state is BreakerState.CLOSED


async def test_a_refusal_is_a_sign_of_life_and_overload_is_not():
    door = endpoint()
    await fail(door, 4)
    entry = await door.enter()
    entry.failed(ModelError("no", kind="auth", status=401))
    assert door.statistics().failures == 0
    for _ in range(5):
        entry.failed(ModelError("busy", kind="overloaded", status=503))
    with pytest.raises(ModelError) as caught:
        await door.enter()
    assert caught.value.kind == "overloaded"


async def half_open(waiting: int) -> tuple[Endpoint, Entry, list[asyncio.Task[Entry]]]:
    """A server that was down a while ago: the endpoint, the one request that finds out, and those that wait."""
    clock = Clock()
    door = endpoint(clock)
    await fail(door, 5)
    clock.now += 2.0
    assert door.state is BreakerState.HALF_OPEN
    probe = await door.enter()
    others = [asyncio.create_task(door.enter()) for _ in range(waiting)]
    await settle()
    return door, probe, others


async def test_after_a_while_one_request_finds_out_for_all_that_the_server_is_back():
    door, probe, others = await half_open(20)
    assert not any(other.done() for other in others)
    probe.answered()
    await asyncio.gather(*others)
    assert door.state is BreakerState.CLOSED
    assert door.statistics().running == 21


async def test_when_the_one_request_fails_the_others_fail_with_it_and_learn_when_to_come_back():
    door, probe, others = await half_open(3)
    probe.failed(down())
    probe.leave()
    failures = await asyncio.gather(*others, return_exceptions=True)
    assert [failure.retry_after for failure in failures] == [2.0] * 3
    assert door.statistics().running == 0


async def test_when_the_one_request_is_given_up_the_next_takes_its_part():
    _door, probe, others = await half_open(3)
    probe.leave()  # cancelled, say: nothing is known
    await settle()
    done = [other for other in others if other.done()]
    assert len(done) == 1
    done[0].result().answered()
    await asyncio.gather(*others)


def test_an_endpoint_shows_what_it_does():
    assert repr(endpoint()) == "<Endpoint 127.0.0.1:1 closed, 0 running, 0 waiting>"


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "cancel", "fail", "answer", "wait"]), st.integers(0, 9)),
        max_size=40,
    )
)
def test_whatever_happens_places_are_neither_lost_nor_made(steps):
    async def main() -> None:
        clock = Clock()
        door = endpoint(clock, streams=2, trip_after=2, cooldown=1.0)
        tasks: list[asyncio.Task[Entry]] = []
        for step, number in steps:
            picked = tasks[number % len(tasks)] if tasks else None
            entry = (
                picked.result()
                if picked and picked.done() and not picked.cancelled() and not picked.exception()
                else None
            )
            if step == "enter":
                tasks.append(asyncio.create_task(door.enter()))
            elif step == "wait":
                clock.now += number
            elif step == "cancel" and picked is not None:
                picked.cancel()
            elif entry is not None:
                {"leave": entry.leave, "fail": lambda e=entry: e.failed(down()), "answer": entry.answered}[
                    step
                ]()
            await settle()
            assert 0 <= door.statistics().running <= 2
        for _ in range(len(tasks) + 1):
            for task in tasks:
                if task.done() and not task.cancelled() and not task.exception():
                    task.result().leave()
                else:
                    task.cancel()
            await settle()
        assert door.statistics().running == 0
        assert door.statistics().waiting == 0
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
