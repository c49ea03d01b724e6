"""AsyncActor beyond pykka's promises: async handlers, its loop, deferred replies, how it ends."""

import asyncio
import gc
import mmap
import threading
import tracemalloc
from pathlib import Path

import pykka
import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.runtime.actor import DEFERRED, AsyncActor
from actors.runtime.loop import LoopThread, mailroom_here
from protocol.errors import WouldDeadlock

WAIT = 60


class Names:
    """A registry of a system's own."""

    def __init__(self):
        self.refs = {}

    def register(self, ref, /):
        self.refs[id(ref)] = ref

    def unregister(self, ref, /):
        self.refs.pop(id(ref), None)


class Worker(AsyncActor):
    """Does what it is sent: a message is a function of the actor, plain or async."""

    def __init__(self):
        super().__init__()
        self.did = []

    def on_receive(self, message):
        return message(self) if callable(message) else self.did.append(message)

    async def double(self, number):
        await asyncio.sleep(0)
        return 2 * number

    def do(self, what):
        return lambda _: self.did.append(what)


def made(thread, kind=Worker, *args):
    """An actor on the loop of ``thread``, in a registry of its own."""
    names = Names()
    actor = kind.make(thread.mailroom, names, *args)
    actor.begin()
    return actor.actor_ref, names


@pytest.fixture
def thread():
    thread = LoopThread("test")
    yield thread
    thread.stop()
    assert not thread.alive


@pytest.fixture(autouse=True)
def nothing_stays_registered():
    yield
    pykka.ActorRegistry.stop_all(timeout=WAIT)


# -- handlers that wait ---------------------------------------------------------------------------


def test_a_handler_may_be_async(thread):
    async def handler(actor):
        await asyncio.sleep(0)
        return "done"

    ref, _ = made(thread)
    assert ref.ask(handler, timeout=WAIT) == "done"
    assert ref.proxy().double(4).get(timeout=WAIT) == 8


async def test_while_an_async_handler_waits_the_next_messages_wait_in_order():
    gate = asyncio.Event()

    async def first(actor):
        await gate.wait()
        actor.did.append("first")

    ref = Worker.start()
    ref.tell(first)
    for number in range(300):
        ref.tell(number)
    answered = ref.ask(lambda actor: list(actor.did), block=False)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not answered.done()
    gate.set()
    assert await answered == ["first", *range(300)]
    assert ref.actor_inbox.empty()


async def test_async_handlers_of_one_actor_never_overlap_and_those_of_two_do():
    inside, most = {}, {}

    async def handler(actor):
        key = id(actor)
        inside[key] = inside.get(key, 0) + 1
        most[key] = max(most.get(key, 0), inside[key])
        together.append(sum(inside.values()))
        await asyncio.sleep(0)
        inside[key] -= 1

    together = []
    refs = [Worker.start(), Worker.start()]
    await asyncio.gather(*(ref.ask(handler, block=False) for _ in range(20) for ref in refs))
    assert set(most.values()) == {1}
    assert max(together) == 2


async def test_a_stop_waits_for_the_async_handler_that_runs_and_for_what_was_sent_before_it():
    gate = asyncio.Event()

    async def handler(_):
        await gate.wait()
        return "whole"

    ref = Worker.start()
    running, queued = ref.ask(handler, block=False), ref.ask(lambda _: "queued", block=False)
    stopping, late = ref.stop(block=False), ref.ask(lambda _: None, block=False)
    await asyncio.sleep(0)
    assert ref.is_alive()
    gate.set()
    assert await asyncio.gather(running, queued, stopping) == ["whole", "queued", True]
    with pytest.raises(pykka.ActorDeadError):
        await late


def test_an_error_of_an_async_handler_goes_to_who_asked_and_of_a_sent_one_ends_the_actor(thread, caplog):
    async def handler(_):
        await asyncio.sleep(0)
        raise KeyError("async")

    ref, names = made(thread)
    with pytest.raises(KeyError, match="async"):
        ref.ask(handler, timeout=WAIT)
    assert ref.is_alive()
    ref.tell(handler)
    assert ref.actor_stopped.wait(WAIT)
    assert not names.refs
    assert "Unhandled exception" in caplog.text


def test_what_is_cancelled_inside_a_handler_is_an_error_like_any_other(thread):
    async def waits_for_what_is_cancelled(_):
        task = asyncio.ensure_future(asyncio.sleep(WAIT))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    def raises_at_once(_):
        raise asyncio.CancelledError

    ref, _ = made(thread)
    for handler in (waits_for_what_is_cancelled, raises_at_once):
        with pytest.raises(asyncio.CancelledError):
            ref.ask(handler, timeout=WAIT)
    assert ref.ask(lambda _: "alive", timeout=WAIT) == "alive"


class AsyncHooks(Worker):
    def __init__(self, broken=None):
        super().__init__()
        self.broken = broken
        self.gate = asyncio.Event()

    async def hook(self, name):
        self.did.append(f"{name} begins")
        await self.gate.wait()
        if self.broken == name:
            raise ValueError(name)
        self.did.append(f"{name} ends")

    async def on_start(self):
        await self.hook("start")

    async def on_stop(self):
        await self.hook("stop")

    async def on_failure(self, *_):
        await self.hook("failure")


async def test_messages_wait_for_an_async_start_and_who_stops_for_an_async_stop():
    ref = AsyncHooks.start()
    actor = ref.actor_inbox.actor
    ref.tell("message")
    stopping = ref.stop(block=False)
    late = ref.ask("late", block=False)
    for _ in range(5):
        await asyncio.sleep(0)
    assert actor.did == ["start begins"]
    actor.gate.set()
    assert await stopping is True
    assert actor.did == ["start begins", "start ends", "message", "stop begins", "stop ends"]
    with pytest.raises(pykka.ActorDeadError):
        await late


@pytest.mark.parametrize("hook", ["start", "stop", "failure"])
def test_an_error_in_an_async_hook_is_logged_and_the_actor_is_gone(hook, caplog):
    async def main():
        ref = AsyncHooks.start(hook)
        ref.actor_inbox.actor.gate.set()
        if hook == "failure":
            ref.tell(lambda _: 1 / 0)
        await ref.stop(block=False)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not ref.is_alive()
        assert pykka.ActorRegistry.get_all() == []

    asyncio.run(main())
    assert f"ValueError: {hook}" in caplog.text


async def test_messages_that_came_while_an_async_start_failed_are_refused(caplog):
    ref = AsyncHooks.start("start")
    early = ref.ask("early", block=False)
    ref.actor_inbox.actor.gate.set()
    with pytest.raises(pykka.ActorDeadError):
        await early
    assert ref.actor_inbox.actor.did == ["start begins"]


@pytest.mark.parametrize("handler", ["plain", "async"])
async def test_an_async_failure_hook_is_awaited_before_what_is_left_is_refused(handler, caplog):
    async def fails(_):
        await asyncio.sleep(0)
        raise ZeroDivisionError

    ref = AsyncHooks.start()
    actor = ref.actor_inbox.actor
    actor.gate.set()
    ref.tell(fails if handler == "async" else lambda _: 1 / 0)
    left = ref.ask("left", block=False)
    with pytest.raises(pykka.ActorDeadError):
        await left
    assert actor.did[-2:] == ["failure begins", "failure ends"]


# -- replies given later --------------------------------------------------------------------------


class Later(AsyncActor):
    def __init__(self):
        super().__init__()
        self.replies = []

    def on_receive(self, message):
        if message == "set":
            self.replies.pop(0).set("late")
            return None
        self.replies.append(self.defer_reply())
        return DEFERRED

    async def ask_later(self):
        self.replies.append(self.defer_reply())
        await asyncio.sleep(0)
        return DEFERRED


def test_a_deferred_reply_is_given_while_later_messages_are_handled(thread):
    ref, _ = made(thread, Later)
    futures = [ref.ask("defer", block=False), ref.proxy().ask_later(), ref.ask("defer", block=False)]
    for future in futures:
        ref.ask("set", timeout=WAIT)
        assert future.get(timeout=WAIT) == "late"


def test_a_deferred_reply_of_a_sent_message_reaches_nobody(thread):
    ref, _ = made(thread, Later)
    ref.tell("defer")
    assert ref.ask("set", timeout=WAIT) is None


def test_an_error_after_the_reply_is_not_lost(thread, caplog):
    def handler(actor):
        actor.defer_reply().set("replied")
        raise ValueError("afterwards")

    ref, _ = made(thread)
    assert ref.ask(handler, timeout=WAIT) == "replied"
    assert ref.ask(lambda _: "alive", timeout=WAIT) == "alive"
    assert "ValueError: afterwards" in caplog.text


# -- loops ----------------------------------------------------------------------------------------


def test_an_actor_lives_on_the_running_loop_and_without_one_on_a_daemon_thread_of_the_process():
    def where(_):
        return threading.current_thread(), asyncio.get_running_loop()

    async def main():
        ref = Worker.start()
        assert await ref.ask(where, block=False) == (threading.current_thread(), asyncio.get_running_loop())
        await ref.stop(block=False)

    asyncio.run(main())
    first, second = (Worker.start().ask(where, timeout=WAIT) for _ in range(2))
    assert first == second
    assert first[0].daemon
    assert first[0] is not threading.current_thread()


async def test_a_blocking_ask_on_the_actors_own_loop_is_refused_before_anything_is_sent():
    ref = Worker.start()
    for wait in (lambda: ref.ask("sent", timeout=WAIT), lambda: ref.stop(timeout=WAIT)):
        with pytest.raises(WouldDeadlock):
            wait()
    assert await ref.ask(lambda actor: list(actor.did), block=False) == []


def test_an_actor_asks_another_by_awaiting_and_is_refused_when_it_would_block_their_loop(thread):
    other, _ = made(thread)
    ref, _ = made(thread)

    async def awaits(_):
        return await other.ask(lambda _: "answer", block=False)

    assert ref.ask(awaits, timeout=WAIT) == "answer"
    with pytest.raises(WouldDeadlock):
        ref.ask(lambda _: other.ask("x"), timeout=WAIT)


def test_actors_on_two_loops_and_on_threads_ask_each_other(thread):
    class Blocking(pykka.ThreadingActor):
        def on_receive(self, message):
            return message.ask(lambda _: "from a thread", timeout=WAIT)

    async def awaits(_):
        return await other.ask(lambda _: "from a loop", block=False)

    async def awaits_the_blocking_one(_):
        asked = blocking.ask(other, block=False)
        return await AsyncActor._create_future().resolved(None).join(asked)

    other = Worker.start()
    blocking = Blocking.start()
    ref, _ = made(thread)
    assert ref.ask(awaits, timeout=WAIT) == "from a loop"
    assert blocking.ask(ref, timeout=WAIT) == "from a thread"
    assert ref.ask(awaits_the_blocking_one, timeout=WAIT) == [None, "from a thread"]
    blocking.stop(timeout=WAIT)


async def exit_soon():
    await asyncio.sleep(0)
    raise SystemExit


@pytest.mark.parametrize("handler", [lambda _: exit_now(), lambda _: exit_soon()])
def test_a_system_exit_ends_the_actor_and_its_loop_but_nobody_who_asked(handler, caplog):
    thread = LoopThread("ends")
    others = Worker.start()
    ref, names = made(thread)
    with pytest.raises(pykka.ActorDeadError, match="ended by SystemExit"):
        ref.ask(handler, timeout=WAIT)
    thread._thread.join(WAIT)
    assert not thread.alive
    assert not ref.is_alive()
    assert not names.refs
    assert others.ask(lambda _: "alive", timeout=WAIT) == "alive"


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("hook", ["on_start", "on_stop", "on_failure"])
def test_a_system_exit_out_of_a_hook_ends_actor_and_loop_too(hook, kind, caplog):
    thread = LoopThread("ends")
    exits = exit_now if kind == "plain" else exit_soon
    leaving = type("Leaving", (Worker,), {hook: lambda _self, *_: exits()})
    ref, names = made(thread, leaving)
    if hook != "on_start":
        ref.tell((lambda _: 1 / 0) if hook == "on_failure" else (lambda actor: actor.stop()))
    assert ref.actor_stopped.wait(WAIT)
    thread._thread.join(WAIT)
    assert not thread.alive
    assert ref.actor_stopped.is_set()
    assert not names.refs


def exit_now():
    raise SystemExit


def test_when_the_loop_of_the_process_has_ended_the_next_actor_gets_a_new_one(caplog):
    first = Worker.start()
    loop = first.actor_inbox.mailroom.loop
    first.tell(lambda _: exit_now())
    assert first.actor_stopped.wait(WAIT)
    while not loop.is_closed():
        threading.Event().wait(0.001)
    second = Worker.start()
    assert second.ask(lambda _: "alive", timeout=WAIT) == "alive"


def test_a_loop_that_ends_takes_the_actor_with_it_whose_handler_it_cancels(thread):
    began = threading.Event()

    async def forever(_):
        began.set()
        await asyncio.get_running_loop().create_future()

    ref, names = made(thread)
    asked, behind = ref.ask(forever, block=False), ref.ask("behind", block=False)
    assert began.wait(WAIT)
    thread.stop()
    for future in (asked, behind):
        with pytest.raises(pykka.ActorDeadError):
            future.get(timeout=WAIT)
    assert not ref.is_alive()
    assert not names.refs


def test_a_loop_that_is_closed_over_a_handler_leaves_nobody_waiting():
    """Who closes a loop without ending its tasks; the task is thrown away, and the actor goes with it."""

    async def asked():
        async def forever(_):
            await asyncio.get_running_loop().create_future()

        names = Names()
        ref = made_here(mailroom_here(), names)
        futures = [ref.ask(forever, block=False), *(ref.ask(n, block=False) for n in range(300))]
        await until(lambda: len(ref.actor_inbox.backlog or ()) == 300)
        return names, futures

    loop = asyncio.new_event_loop()
    names, futures = loop.run_until_complete(asked())
    loop.close()
    names.refs.clear()
    gc.collect()
    for future in futures:
        with pytest.raises(pykka.ActorDeadError):
            future.get(timeout=WAIT)


def test_a_closed_loop_is_a_dead_actor(thread):
    ref, names = made(thread)
    deferred, _ = made(thread, Later)
    never = deferred.ask("defer", block=False)
    thread.stop()
    assert not ref.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("a")
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("a", timeout=WAIT)
    assert ref.stop(timeout=WAIT) is False
    assert not names.refs
    with pytest.raises(pykka.ActorDeadError, match="closed"):
        never.get(timeout=WAIT)
    with pytest.raises(pykka.ActorDeadError, match="closed"):
        asyncio.run(asyncio.wait_for(never, WAIT))


async def test_pykkas_own_kind_of_reference_reaches_an_actor_too():
    ref = pykka.ActorRef(Worker.start().actor_inbox.actor)
    asked = ref.ask(lambda _: "answer", block=False)
    with pytest.raises(WouldDeadlock):
        asked.get(timeout=WAIT)
    assert await asked == "answer"
    ref.tell("told")
    assert await ref.ask(lambda actor: actor.did, block=False) == ["told"]


# -- order, fairness, size ------------------------------------------------------------------------


@settings(max_examples=times(15))
@given(st.lists(st.integers(1, 80), min_size=1, max_size=5))
def test_messages_of_many_threads_arrive_once_each_and_in_the_order_of_their_senders(counts):
    thread = LoopThread("order")
    refs = [made(thread)[0] for _ in range(2)]

    def send(sender, count):
        for number in range(count):
            refs[number % 2].tell((sender, number))

    senders = [threading.Thread(target=send, args=pair) for pair in enumerate(counts)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(WAIT)
    got = [ref.ask(lambda actor: list(actor.did), timeout=WAIT) for ref in refs]
    thread.stop()
    for which, did in enumerate(got):
        for sender, count in enumerate(counts):
            assert [number for who, number in did if who == sender] == list(range(which, count, 2))


async def test_a_flood_of_messages_to_one_actor_starves_neither_timers_nor_other_actors():
    flooded, other = Worker.start(), Worker.start()
    for number in range(20_000):
        flooded.tell(number)
    asyncio.get_running_loop().call_later(0, lambda: when.append(len(actor.did)))
    when, actor = [], flooded.actor_inbox.actor
    await other.ask(lambda _: None, block=False)
    assert await flooded.ask(lambda actor: len(actor.did), block=False) == 20_000
    assert when[0] < 20_000


async def test_a_flood_behind_an_async_handler_starves_no_timer():
    gate = asyncio.Event()
    ref = Worker.start()
    actor = ref.actor_inbox.actor
    ref.tell(lambda _: gate.wait())
    for number in range(20_000):
        ref.tell(number)
    await until(lambda: len(actor.actor_inbox.backlog or ()) == 20_000)
    gate.set()
    await until(lambda: actor.did)
    asyncio.get_running_loop().call_later(0, lambda: when.append(len(actor.did)))
    when = []
    ref.tell("after")
    assert await ref.ask(lambda actor: actor.did, block=False) == [*range(20_000), "after"]
    assert when[0] < 20_000


async def test_an_idle_actor_is_small_and_keeps_nothing_of_its_last_message():
    names, mailroom = Names(), mailroom_here()
    ref = made_here(mailroom, names)
    reply = ref.ask(lambda _: big, block=False)
    big = [0] * 1000
    await reply
    await ref.ask(lambda _: asyncio.sleep(0), block=False)
    actor = ref.actor_inbox.actor
    assert (actor._reply_to, actor._task, actor.actor_inbox.backlog) == (None, None, None)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [made_here(mailroom, names, AsyncActor) for _ in range(1000)]
    size = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    tracemalloc.stop()
    assert size <= 1024, f"{size:.0f} bytes each"


def made_here(mailroom, names, kind=Worker):
    actor = kind.make(mailroom, names)
    actor.begin()
    return actor.actor_ref


async def until(condition):
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


def resident():
    """The memory of this process in bytes; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * mmap.PAGESIZE if statm.exists() else 0


def test_actors_start_and_stop_in_one_process_without_a_thread_or_a_task():
    async def main():
        names, mailroom = Names(), mailroom_here()
        threads, before = threading.active_count(), resident()
        refs = [made_here(mailroom, names, Counting) for _ in range(times(10_000))]
        assert resident() - before < times(15_000_000)
        for ref in refs:
            ref.tell("count")
        assert await refs[-1].ask("count", block=False) == 2
        assert threading.active_count() == threads
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for stopping in [ref.stop(block=False) for ref in refs]:
            assert await stopping
        assert not names.refs
        assert not any(ref.is_alive() for ref in refs)

    asyncio.run(main())
    gc.collect()


class Counting(AsyncActor):
    count = 0

    def on_receive(self, message):
        self.count += 1
        return self.count
