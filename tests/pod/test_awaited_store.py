"""A store over a network, which takes its time or does not come back: whoever is waited for, or stops meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from documented import DatabaseStore
from pod_stage import PLAIN, GatedClient, all_of
from store_kit import AwaitedStore, make

from actors.llm.scripted import ScriptedClient, say
from actors.pod.handle import Pod
from actors.runtime.future import AsyncFuture
from actors.sessions import repair, retention
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from protocol.commands import Passivate
from protocol.entries import StoredEntry
from protocol.errors import HeadConflict, PodStopped, RunFailed, SessionInUse, SessionNotFound, StoreError
from protocol.events import PodEnded, PodStarted, RunEnd, SessionForked
from protocol.lifecycle import PodState

SOON = {"grace": 0.05, "memory_grace": 0.05, "store_grace": 0.05}


def play_to_the_end(play: Callable[[AwaitedStore], Coroutine[Any, Any, None]]) -> None:
    """Play it to its end: no task goes on behind it, and no error went unseen."""
    unhandled: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        async with asyncio.timeout(60):
            await play(AwaitedStore())
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())
    gc.collect()
    assert unhandled == []


async def left_paused(store: AwaitedStore) -> str:
    """A session whose run waits to be resumed."""
    async with PodSystem(store) as system:
        client = GatedClient([say("never")])
        pod = await system.spawn(PLAIN, client=client)
        pod.run("go")
        await client.asked.acquire()
        return (await pod.describe()).session_id


def holder(store: AwaitedStore, session: str) -> Any:
    return store.kept.holder(session)


def test_of_two_pods_that_make_one_session_at_once_the_first_keeps_it() -> None:
    async def play(store: AwaitedStore) -> None:
        async with PodSystem(store) as system:
            spawns = [system.spawn(PLAIN, client=ScriptedClient([]), session="ada") for _ in range(2)]
            spawned = await asyncio.gather(*spawns, return_exceptions=True)
            assert {type(each) for each in spawned} == {Pod, SessionInUse}
            assert holder(store, "ada") is not None
            with pytest.raises(SessionInUse):
                await system.spawn(PLAIN, client=ScriptedClient([]), session="ada")

    play_to_the_end(play)


def test_a_pod_works_and_comes_back_and_is_followed_over_a_store_that_is_awaited() -> None:
    async def play(store: AwaitedStore) -> None:
        async with PodSystem(store) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([say("a")]))
            session = (await pod.run("1")).session_id
            assert await pod.stop()
            assert holder(store, session) is None
            events = system.subscribe("p", since=0)  # of a pod that does not live
            pod = await system.spawn(PLAIN, client=ScriptedClient([say("b")]), resume=session)
            assert (await pod.run("2")).text == "b"
            kinds = [type(event) for event in await all_of(events)]
            assert kinds.count(PodStarted) == 2
            assert kinds.count(RunEnd) == 2
            assert kinds.count(PodEnded) == 1
            assert await system.interrupted() == []
        assert holder(store, session) is None

    play_to_the_end(play)


def test_who_subscribes_to_a_pod_that_is_being_resumed_is_notified_of_its_whole_session() -> None:
    async def play(store: AwaitedStore) -> None:
        session = await left_paused(store)
        for kept in (store, store.kept):
            async with PodSystem(kept) as system:
                future = system.spawn(PLAIN, client=ScriptedClient([]), name="q", resume=session)
                await asyncio.sleep(0)
                with system.subscribe("q", since=0) as events:
                    pod = await future
                    published = [event.seq for event in await all_of(events) if event.durable]
                    assert published == list(range(2, len(store.kept.read(session)) + 1))
                await pod.stop()

    play_to_the_end(play)


def test_a_subscription_to_a_pod_that_was_never_there_says_so_when_it_is_read() -> None:
    async def play(store: AwaitedStore) -> None:
        async with PodSystem(store) as system:
            with system.subscribe("nobody", since=0) as events, pytest.raises(SessionNotFound):
                await anext(events)

    play_to_the_end(play)


def test_of_two_that_resume_one_session_at_once_one_has_it_and_one_learns_who() -> None:
    async def play(store: AwaitedStore) -> None:
        session = await left_paused(store)
        async with PodSystem(store) as system:
            client = ScriptedClient([say("done")])
            asked = [system.spawn(PLAIN, name=name, client=client, resume=session) for name in ("one", "two")]
            first, second = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(second, SessionInUse)
            assert second.pod == "one"
            assert (await first.resume()).text == "done"
            assert [pod.name for pod in system.pods()] == ["one"]

    play_to_the_end(play)


@pytest.mark.parametrize("what", ["successors", "claim", "read", "append"])
def test_a_stop_while_a_session_is_resumed_waits_for_a_slow_store_and_leaves_it_free(what: str) -> None:
    async def play(store: AwaitedStore) -> None:
        session = await left_paused(store)
        async with PodSystem(store) as system:
            store.go_away(at=what)
            future = system.spawn(PLAIN, client=ScriptedClient([]), resume=session)
            await store.wait_until_asked(what)
            stopped = system.stop()
            store.come_back()
            await stopped
            pod = await future
            with pytest.raises(PodStopped):
                await pod.run("late")
        assert holder(store, session) is None

    play_to_the_end(play)


@pytest.mark.parametrize("what", ["successors", "claim", "read", "append"])
def test_a_stop_while_a_session_is_resumed_does_not_wait_for_ever_and_leaves_no_claim(what: str) -> None:
    async def play(store: AwaitedStore) -> None:
        session = await left_paused(store)
        async with PodSystem(store, **SOON) as system:
            store.go_away(at=what)
            future = system.spawn(PLAIN, client=ScriptedClient([]), resume=session)
            await store.wait_until_asked(what)
            await system.stop()
            with pytest.raises(StoreError, match="did not answer"):
                await future
            store.come_back()
            for _ in range(20):
                await asyncio.sleep(0)
            assert holder(store, session) is None

    play_to_the_end(play)


def test_a_store_that_does_not_answer_who_makes_a_session_holds_up_no_stop() -> None:
    async def play(store: AwaitedStore) -> None:
        async with PodSystem(store, **SOON) as system:
            store.go_away()
            future = system.spawn(PLAIN, client=ScriptedClient([]))
            await store.wait_until_asked("create")
            await system.stop()
            with pytest.raises(StoreError, match="did not answer"):
                await future
            store.come_back()
            for _ in range(20):
                await asyncio.sleep(0)
            assert all(holder(store, each.session_id) is None for each in store.kept.sessions())

    play_to_the_end(play)


def test_commands_to_a_pod_that_is_still_read_back_wait_and_are_answered_in_order() -> None:
    async def play(store: AwaitedStore) -> None:
        session = await left_paused(store)
        async with PodSystem(store) as system:
            future = system.spawn(PLAIN, client=ScriptedClient([say("on")]), resume=session)
            await asyncio.sleep(0)
            pod = system.get("p")
            paused, described, resumed = pod.pause(), pod.describe(), pod.resume()
            assert await paused is None
            assert (await described).state is PodState.PAUSED
            assert (await resumed).text == "on"
            assert await future is pod

    play_to_the_end(play)


def test_a_passive_pod_whose_store_is_away_can_be_stopped_and_who_waits_learns_why() -> None:
    async def play(store: AwaitedStore) -> None:
        async with PodSystem(store, **SOON) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([say("a")]))
            session = (await pod.run("1")).session_id
            assert await pod.ref.ask(Passivate(), block=False)
            store.go_away()
            asked = [pod.history() for _ in range(3)]
            await store.wait_until_asked("read")
            stopped = pod.stop()
            for each in asked:
                with pytest.raises((StoreError, PodStopped)):
                    await each
            assert await stopped
            store.come_back()
            for _ in range(20):
                await asyncio.sleep(0)
            assert holder(store, session) is None

    play_to_the_end(play)


def test_a_run_whose_commit_does_not_come_back_is_left_by_a_stop() -> None:
    async def play(store: AwaitedStore) -> None:
        async with PodSystem(store, **SOON) as system:
            pod = await system.spawn(PLAIN, client=GatedClient([say("a")]))
            store.go_away()
            run, queued, forked = pod.run("1"), pod.run("2"), pod.fork()
            await store.wait_until_asked("append")
            assert await pod.stop()
            for each in (run, queued, forked):
                with pytest.raises(PodStopped):
                    await each
            store.come_back()
            for _ in range(20):
                await asyncio.sleep(0)

    play_to_the_end(play)


def test_a_pod_that_finds_its_session_taken_goes_on_in_one_of_its_own_and_gives_the_old_one_back() -> None:
    async def play(store: AwaitedStore) -> None:
        async with PodSystem(store) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([say("a")]))
            old = (await pod.describe()).session_id
            taken, append = [HeadConflict("moved on")], store.kept.append
            with system.subscribe("p", SessionForked) as published:
                store.kept.append = lambda *args: _raise(taken.pop()) if taken else append(*args)  # type: ignore[method-assign]
                result = await pod.run("1")
                assert result.session_id != old
                assert [event.new_session_id for event in published.drain()] == [result.session_id]  # type: ignore[attr-defined]
            for _ in range(5):
                await asyncio.sleep(0)
            assert holder(store, old) is None

    play_to_the_end(play)


def _raise(error: Exception) -> None:
    raise error


def test_a_loop_that_ends_in_the_middle_of_a_claim_ends() -> None:
    store = AwaitedStore()
    session = asyncio.run(left_paused(store))

    async def main() -> None:
        system = await PodSystem(store).__aenter__()
        system.spawn(PLAIN, client=ScriptedClient([]), resume=session)
        await store.wait_until_asked("claim")

    store.go_away(at="claim")
    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("what", ["append", "create", "read"])
def test_a_loop_that_ends_while_a_pod_waits_for_its_store_ends_and_nothing_is_left(what: str) -> None:
    store = AwaitedStore()
    session = asyncio.run(left_paused(store))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        system = await PodSystem(store, **SOON).__aenter__()
        if what == "append":
            pod = await system.spawn(PLAIN, client=ScriptedClient([]))
        store.go_away(at=what)
        if what == "append":
            pod.run("go")
        else:
            system.spawn(PLAIN, client=ScriptedClient([]), resume=None if what == "create" else session)
        await store.wait_until_asked(what)

    unhandled: list[dict[str, Any]] = []
    asyncio.run(asyncio.wait_for(main(), 60))
    gc.collect()
    assert unhandled == []


def test_a_system_in_a_thread_works_over_a_store_that_is_awaited_and_gives_all_to_who_blocks() -> None:
    store = AwaitedStore()
    with PodSystem(store) as system:
        pod = system.spawn(PLAIN, client=ScriptedClient([say("a")])).get(timeout=60)
        session = pod.run("1").get(timeout=60).session_id
        with pod.subscribe(RunEnd, since=0) as events:
            assert events.get(timeout=60).outcome == "finished"  # type: ignore[attr-defined]
            pod.stop().get(timeout=60)
        again = system.spawn(PLAIN, client=ScriptedClient([]), resume=session).get(timeout=60)
        with again.subscribe([RunEnd, PodEnded], since=0) as events:
            assert [type(events.get(timeout=60)) for _ in range(2)] == [RunEnd, PodEnded]
    assert holder(store, session) is None


def test_a_long_entry_is_read_back_and_checked_from_a_store_that_is_awaited() -> None:
    long = "x" * 3_000_000

    async def play(store: AwaitedStore) -> None:
        async with PodSystem(store) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([say("a")]))
            session = (await pod.run(long)).session_id
            await pod.stop()
            again = await system.spawn(PLAIN, client=ScriptedClient([]), resume=session)
            assert [item.text for item in await again.history()] == [long, "a"]

    play_to_the_end(play)


def test_a_system_whose_loop_was_closed_keeps_no_other_from_starting_whatever_its_store_gives() -> None:
    class GivesTasks(AwaitedStore):
        def release(self, session_id) -> Any:
            return asyncio.get_running_loop().create_task(super().release(session_id))

    async def never_left() -> PodSystem:
        system = await PodSystem(GivesTasks()).__aenter__()
        await system.spawn(PLAIN, client=ScriptedClient([]))
        return system

    lost = asyncio.run(never_left())
    with PodSystem() as system:
        assert system.running
    del lost


async def test_a_long_entry_is_read_back_from_a_store_whose_plain_methods_give_futures() -> None:
    class GivesTasks(AwaitedStore):
        def read(self, session_id, **options) -> Any:
            return asyncio.get_running_loop().create_task(super().read(session_id, **options))

    async with PodSystem(GivesTasks()) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("a")]))
        session = (await pod.run("x" * 3_000_000)).session_id
        await pod.stop()
        again = await system.spawn(PLAIN, client=ScriptedClient([]), resume=session)
        assert [len(item.text) for item in await again.history()] == [3_000_000, 1]


class _Failing(AwaitedStore):
    """A store whose driver raises errors of its own, at once or when it is awaited."""

    def __init__(self, error: BaseException, *, at_once: bool) -> None:
        super().__init__()
        self.error = error
        self.at_once = at_once
        self.fails_at = ""

    async def _answer(self, what: str, *args: Any, **options: Any) -> Any:
        if what == self.fails_at:
            raise self.error
        return await super()._answer(what, *args, **options)

    def _check(self, what: str) -> None:
        if self.at_once and what == self.fails_at:
            raise self.error

    def create(self, *args, **options) -> Any:
        self._check("create")
        return super().create(*args, **options)

    def append(self, *args) -> Any:
        self._check("append")
        return super().append(*args)

    def release(self, *args) -> Any:
        self._check("release")
        return super().release(*args)


class _Mute(Exception):  # noqa: N818 - what it is called does not matter
    def __str__(self) -> str:
        raise RuntimeError("it cannot say")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "at_once"),
    [
        (OSError("the line is dead"), True),
        (OSError("the line is dead"), False),
        (asyncio.CancelledError(), True),
        (asyncio.CancelledError(), False),
        (GeneratorExit(), True),
        (_Mute(), True),
        (_Mute(), False),
    ],
    ids=["raised", "awaited", "cancelled at once", "cancelled", "closed", "mute", "mute, awaited"],
)
async def test_what_a_driver_raises_at_a_commit_is_a_store_error_and_the_pod_lives_on(
    error: BaseException, *, at_once: bool
) -> None:
    store = _Failing(error, at_once=at_once)
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("a"), say("b")]))
        await pod.run("1")
        store.fails_at = "create"
        with pytest.raises(StoreError, match="the store failed"):
            await pod.fork()
        with pytest.raises(StoreError, match="the store failed"):
            await system.spawn(PLAIN, client=ScriptedClient([]), name="q")
        store.fails_at = "append"
        with pytest.raises(RunFailed, match="the store failed"):
            await pod.run("lost")
        store.fails_at = ""
        assert (await pod.run("2")).text == "b"
        for what in ("append", "release"):
            store.fails_at = what
            await pod.stop()


@pytest.mark.parametrize("what", ["claim", "read", "successors"])
async def test_a_store_that_cancels_itself_cancels_nobody_who_asked(what: str) -> None:
    store = _Failing(asyncio.CancelledError(), at_once=False)
    session = await left_paused(store)
    async with PodSystem(store) as system:
        store.fails_at = what
        with pytest.raises(StoreError, match="the store failed"):
            await system.spawn(PLAIN, client=ScriptedClient([]), resume=session)
        store.fails_at = ""
        assert holder(store, session) is None
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), resume=session)
        assert await pod.ref.ask(Passivate(), block=False)
        store.fails_at = "read"
        with pytest.raises(StoreError, match="the store failed"):
            await pod.history()


def test_who_looks_after_a_store_that_is_awaited_blocks(tmp_path: Path) -> None:
    store = AwaitedStore()
    entries = make(store.kept, "s", "a", "b")
    make(store.kept, "broken", "a")
    store.kept._sessions["broken"].entries.append(StoredEntry(2, bytes(32), b"{}"))  # type: ignore[attr-defined]
    store.kept.close()
    found = list(repair.check(store))
    assert [(each.kind, each.session_id, each.sound) for each in found][-1] == ("broken", "broken", 1)
    repair.export_session(store, "s", tmp_path / "s.jsonl")
    other = AwaitedStore(MemoryStore())
    assert repair.import_session(other, [(tmp_path / "s.jsonl").read_bytes()]).head.seq == 2
    assert other.kept.read("s") == entries
    assert {info.session_id for info in retention.collect(store, older_than=-1)} == {"broken", "s"}
    assert store.kept.sessions() == []


@pytest.mark.parametrize("what", ["spawn", "stop"])
def test_a_commit_that_fails_when_nobody_waits_for_it_any_more_is_no_unseen_error(what: str) -> None:
    class RollsBack(AwaitedStore):
        over = asyncio.Event()

        async def _answer(self, asked: str, *args: Any, **options: Any) -> Any:
            try:
                return await super()._answer(asked, *args, **options)
            except asyncio.CancelledError:
                self.over.set()
                raise OSError("rolled back") from None

    unhandled: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        store = RollsBack()
        async with asyncio.timeout(60), PodSystem(store, **SOON) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([say("a")]))
            await pod.run("1")
            at = "append" if what == "stop" else "create"
            store.go_away(at)
            if what == "spawn":
                system.spawn(PLAIN, client=ScriptedClient([]), name="q")
                await store.wait_until_asked(at)
        await store.over.wait()
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    assert unhandled == []


async def test_the_store_of_the_documentation_closes_whatever_became_of_it(tmp_path: Path) -> None:
    never = DatabaseStore(str(tmp_path / "no folder" / "pods.db"))
    with pytest.raises(StoreError, match="unable to open"):
        await never.sessions()
    await never.close()
    twice = DatabaseStore(str(tmp_path / "pods.db"))
    asked = asyncio.ensure_future(twice.sessions())
    await asyncio.sleep(0)
    await asyncio.gather(twice.close(), twice.close())
    assert await asked == []
    with pytest.raises(StoreError, match="is closed"):
        await twice.sessions()


async def test_a_pod_lives_in_the_store_of_the_documentation_and_goes_on_there(tmp_path: Path) -> None:
    path = str(tmp_path / "pods.db")

    store = DatabaseStore(path)
    async with PodSystem(store) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("a")]))
        session = (await pod.run("1")).session_id
    await store.close()
    again = DatabaseStore(path)
    async with PodSystem(again) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("b")]), resume=session)
        assert [item.text for item in await pod.history()] == ["1", "a"]
        assert (await pod.run("2")).text == "b"
        assert await pod.passivate()
        forked = await pod.fork()
        assert (await again.info(forked)).parent.session_id == session
    await again.close()


class LazyStore(MemoryStore):
    """Answers commits with futures that are worked out when somebody asks for them."""

    def __init__(self, lazy: Callable[[AsyncFuture[None]], AsyncFuture[None]]) -> None:
        super().__init__()
        self.lazy = lazy
        self.full = False

    def append(self, *args: Any) -> AsyncFuture[None]:
        answer: AsyncFuture[None] = AsyncFuture()

        def commit() -> None:
            if self.full:
                answer.set_exception(StoreError("the disk is full"))
            else:
                answer.set(MemoryStore.append(self, *args))

        asyncio.get_running_loop().call_soon(commit)
        return self.lazy(answer)


def hooked(answer: AsyncFuture[None]) -> AsyncFuture[None]:
    future: AsyncFuture[None] = AsyncFuture()
    future.set_get_hook(lambda timeout: answer.get(timeout=timeout))
    return future


@pytest.mark.parametrize(
    "lazy", [lambda answer: answer.map(lambda value: value), hooked], ids=["map", "hook"]
)
async def test_a_commit_that_is_worked_out_when_asked_for_is_kept_or_refused(
    lazy: Callable[[AsyncFuture[None]], AsyncFuture[None]],
) -> None:
    store = LazyStore(lazy)
    async with asyncio.timeout(60), PodSystem(store) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("one")]))
        assert (await pod.run("go")).text == "one"
        kept, store.full = await pod.history(), True
        with pytest.raises(RunFailed, match="the disk is full"):
            await pod.run("again")
        store.full = False
        assert await pod.history() == kept
