"""Mail rooms and loops in threads: mail in order, from anywhere, and loops that end."""

import asyncio
import concurrent.futures.thread
import gc
import threading
import weakref

import pykka
import pytest

from actors.runtime.actor import AsyncActor
from actors.runtime.loop import IN_A_ROW, LoopThread, comes_soon, mailroom_here
from actors.runtime.tasks import begin_task

WAIT = 60


@pytest.fixture
def thread():
    thread = LoopThread("test")
    yield thread
    thread.stop()


def on_loop(thread, work):
    """What ``work`` gives, called on the loop of ``thread``."""
    got, done = [], threading.Event()

    def run(_):
        got.append(work())
        done.set()

    thread.mailroom.post(run)
    assert done.wait(WAIT)
    return got[0]


def test_what_is_there_comes_soon_and_what_never_comes_is_not_waited_for():
    looked = []
    assert comes_soon(lambda: True)
    assert not comes_soon(lambda: looked.append(1))
    assert len(looked) < 100


def test_a_loop_calls_functions_in_threads_also_once_the_main_thread_has_ended(thread, monkeypatch):
    def fail():
        raise LookupError

    monkeypatch.setattr(concurrent.futures.thread, "_shutdown", True)  # as Python does then
    with pytest.raises(RuntimeError, match="interpreter shutdown"):
        asyncio.run(asyncio.to_thread(threading.get_ident))
    calls = [asyncio.to_thread(threading.get_ident), asyncio.to_thread(fail)]
    called, failed = [asyncio.run_coroutine_threadsafe(each, thread.mailroom.loop) for each in calls]
    assert called.result(WAIT) not in {threading.get_ident(), on_loop(thread, threading.get_ident)}
    with pytest.raises(LookupError):
        failed.result(WAIT)


def test_work_and_messages_are_done_on_the_loop_in_the_order_they_were_posted(thread):
    class Noting(AsyncActor):
        def on_receive(self, message):
            done.append(message)

    class Nobody:
        def register(self, ref, /):
            pass

        unregister = register

    done = []
    actor = Noting.make(thread.mailroom, Nobody())
    actor.begin()
    for number in range(100):
        thread.mailroom.post(done.append, number)
        actor.actor_ref.tell(-number)
    assert on_loop(thread, threading.current_thread) is thread._thread
    assert done == [value for number in range(100) for value in (number, -number)]
    assert not thread.mailroom.here()
    assert on_loop(thread, thread.mailroom.here)


def test_work_that_raises_is_reported_to_the_loop_and_the_rest_is_done(thread):
    reported = []
    thread.mailroom.loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    thread.mailroom.post(lambda _: 1 / 0)
    assert on_loop(thread, lambda: "the rest") == "the rest"
    assert [type(error) for error in reported] == [ZeroDivisionError]


def test_mail_for_a_closed_loop_is_refused(thread):
    thread.stop()
    with pytest.raises(pykka.ActorDeadError, match="closed"):
        thread.mailroom.post(print)


def test_every_loop_has_one_mail_room_and_a_closed_one_is_forgotten():
    async def main():
        assert mailroom_here() is mailroom_here()
        return weakref.ref(asyncio.get_running_loop())

    first = asyncio.run(main())
    second = asyncio.run(main())
    assert first() is not second()
    asyncio.run(main())
    gc.collect()
    assert first() is None
    assert second() is None


def test_a_loop_that_goes_on_in_another_thread_still_wakes_the_first_one():
    loop = asyncio.new_event_loop()

    async def room():
        return mailroom_here()

    mailroom = loop.run_until_complete(room())
    reported = threading.Event()
    moved = threading.Thread(target=loop.run_forever)
    moved.start()
    mailroom.post(lambda _: reported.set())
    assert reported.wait(WAIT)
    reported.clear()
    mailroom.post(lambda _: reported.set())
    assert reported.wait(WAIT)
    loop.call_soon_threadsafe(loop.stop)
    moved.join(WAIT)
    loop.close()


def test_a_loop_that_was_closed_before_it_delivered_says_so_to_who_writes():
    loop = asyncio.new_event_loop()
    rooms = []

    def at_last():
        rooms.append(mailroom_here())
        rooms[0].post(print)
        loop.stop()

    loop.call_soon(at_last)
    loop.run_forever()
    loop.close()
    with pytest.raises(pykka.ActorDeadError, match="closed"):
        rooms[0].post(print)


def test_a_loop_in_a_thread_stops_as_often_as_one_likes_and_also_from_inside():
    thread = LoopThread("test")
    assert thread.alive
    thread.mailroom.post(lambda _: thread.stop())
    thread.stop()
    thread.stop()
    assert not thread.alive


def test_the_end_of_a_loop_cancels_its_tasks_and_waits_for_them(thread):
    began, ends = threading.Event(), []

    async def task():
        try:
            began.set()
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ends.append("whole")

    kept = on_loop(thread, lambda: thread.mailroom.loop.create_task(task()))
    assert began.wait(WAIT)
    thread.stop()
    assert ends == ["whole"]
    assert kept.cancelled()


def test_a_loop_that_answers_a_thread_without_pause_serves_sockets_and_timers(thread):
    """It waits for more mail before it sleeps, and may not forget the rest of the world over it."""

    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def serve():
        async with await asyncio.start_server(echo, "127.0.0.1") as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            while len(served) < 5 or len(asked) < 50:
                writer.write(b"line\n")
                served.append(await reader.readline())
                await asyncio.sleep(1e-4)
            writer.close()
            await writer.wait_closed()
            await ended.wait()

    served, asked, ended = [], [], asyncio.Event()
    kept = on_loop(thread, lambda: thread.mailroom.loop.create_task(serve()))
    while not kept.done():
        asked.append(on_loop(thread, lambda: "answer"))
    kept.result()
    assert set(served) == {b"line\n"}
    assert set(asked) == {"answer"}


class Noting(AsyncActor):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_receive(self, message):
        self.seen.append((message, asyncio.current_task()))
        return message


def test_who_awaits_an_answer_has_the_mail_delivered_in_order_and_in_no_task():
    async def main():
        actor = Noting.start()
        before = asyncio.current_task()
        actor.tell("one")
        two = actor.ask("two", block=False)
        actor.tell("three")
        assert await two == "two"
        assert asyncio.current_task() is before
        return actor.actor_inbox.actor.seen

    assert asyncio.run(main()) == [("one", None), ("two", None), ("three", None)]


def test_who_asks_without_end_leaves_the_loop_its_turn():
    async def main():
        actor, turns = Noting.start(), []
        loop = asyncio.get_running_loop()

        def take_turn():
            turns.append(1)
            loop.call_soon(take_turn)

        take_turn()
        for number in range(10 * IN_A_ROW):
            assert await actor.ask(number, block=False) == number
        return len(turns)

    assert asyncio.run(main()) >= 10


def test_what_is_raised_in_a_delivery_is_not_for_who_awaits_an_answer():
    def fail(_):
        raise ValueError("of nobody's")

    async def main():
        reported = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context["exception"])
        )
        actor = Noting.start()
        mailroom_here().post(fail)
        assert await actor.ask("x", block=False) == "x"
        return [str(error) for error in reported]

    assert asyncio.run(main()) == ["of nobody's"]


async def test_no_mail_is_delivered_in_the_middle_of_a_task_that_begins_another():
    actor = Noting.start()
    actor.tell("one")

    async def ask():
        return await actor.ask("two", block=False)

    begun = begin_task(ask())
    assert actor.actor_inbox.actor.seen == []
    assert await begun == "two"
