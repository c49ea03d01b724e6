"""Passivation: a pod that rests leaves its history to the store, and nobody who uses it can see that."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from pod_stage import PLAIN, GatedClient, Stage, on_stage, texts
from stepped_loop import SteppedLoop, idle, run_stepped
from store_kit import KINDS, AwaitedStore

from actors.llm.base import Request
from actors.llm.openai.dialect import Dialect
from actors.llm.openai.request import body_of
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.answers import settled, wait
from actors.sessions.chain import verified
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.entries import StoredEntry
from protocol.errors import (
    CompactionFailed,
    NotPaused,
    NotRunning,
    RunFailed,
    SessionCorrupt,
    SessionInUse,
    SessionNotFound,
)
from protocol.events import CompactDone, ExtractDone, PodStopped, SessionForked
from protocol.items import AssistantItem, ToolCall, UserItem
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

AFTER = 60.0

#: All stores there are, each opened in a folder.
STORES: dict[str, Callable[[Path], SessionStore]] = {
    "memory": lambda _: MemoryStore(),
    "awaited": lambda _: AwaitedStore(),
    **KINDS,
}
each_store = pytest.mark.parametrize("kind", STORES)

Play = Callable[[PodSystem, Pod, ScriptedClient], Coroutine[Any, Any, None]]


def play_pod(
    replies: list[Any],
    play: Play,
    store: SessionStore | str = "memory:",
    *,
    memory: Path | None = None,
    tools: Any = (),
    **settings: Any,
) -> None:
    """Play with a pod; a store that was given is closed behind it."""

    async def main() -> None:
        client = ScriptedClient(replies)
        async with PodSystem(store, memory=memory) as system:
            pod = await system.spawn(PodManifest.of(name="p", **settings), client=client, tools=tools)
            await asyncio.wait_for(play(system, pod, client), 60)

    try:
        asyncio.run(main())
    finally:
        if isinstance(store, SessionStore):
            wait(store.close())


def play_timed(
    replies: list[Any], play: Callable[[PodSystem, Pod, SteppedLoop], Coroutine[Any, Any, None]]
) -> None:
    """Play with a pod of a system that passivates, on a loop whose clock the test puts forward."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        async with PodSystem(passivate_after=AFTER) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient(replies))
            await play(system, pod, loop)

    run_stepped(main())


async def passes(loop: SteppedLoop, seconds: float) -> None:
    loop.step(seconds)
    await idle()


async def is_passive(pod: Pod) -> bool:
    return (await pod.describe()).passive


# -- when ------------------------------------------------------------------------------------------


def test_a_pod_idle_for_the_set_time_is_passive_and_the_next_message_brings_it_back() -> None:
    async def play(system: PodSystem, pod: Pod, loop: SteppedLoop) -> None:
        await pod.run("1")
        await passes(loop, AFTER - 1)
        assert not await is_passive(pod)
        await passes(loop, 2)
        assert await is_passive(pod)
        assert system.statistics()["passive"] == 1
        assert (await pod.run("2")).text == "b"
        assert system.statistics()["passive"] == 0
        assert texts(await pod.history()) == ["1", "a", "2", "b"]
        await passes(loop, AFTER + 1)
        assert await is_passive(pod)

    play_timed([say("a"), say("b")], play)


def test_looking_at_a_pod_neither_brings_it_back_nor_keeps_it_awake() -> None:
    async def play(system: PodSystem, pod: Pod, loop: SteppedLoop) -> None:
        await pod.run("1")
        await pod.describe()
        for _ in range(3):
            await passes(loop, AFTER / 2)
            await pod.describe()
        assert await is_passive(pod)

    play_timed([say("a")], play)


def test_reading_the_history_counts_as_use() -> None:
    async def play(system: PodSystem, pod: Pod, loop: SteppedLoop) -> None:
        await pod.run("1")
        for _ in range(3):
            await passes(loop, AFTER / 2)
            await pod.history()
        assert not await is_passive(pod)

    play_timed([say("a")], play)


def test_a_run_longer_than_the_set_time_is_let_be() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        client = GatedClient([say("a")])
        async with PodSystem(passivate_after=AFTER) as system:
            pod = await system.spawn(PLAIN, client=client)
            run = pod.run("1")
            await client.asked.acquire()
            await passes(loop, 3 * AFTER)
            assert not await is_passive(pod)
            client.gate.release()
            assert (await run).text == "a"
            await passes(loop, AFTER + 1)
            assert await is_passive(pod)

    run_stepped(main())


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_that_none_can_be_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="passivate_after"):
        PodSystem(passivate_after=seconds)


def test_a_pod_that_is_at_work_keeps_its_history() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("1")
        assert await stage.pod.passivate() is False
        stage.answer()
        assert (await run).text == "a"
        assert await stage.pod.passivate() is True

    on_stage([say("a")], play)


def test_a_pod_whose_memory_is_being_read_keeps_its_history() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("1")
        stage.answer()
        await run
        await stage.pod.spawn_memory_jobs()
        await stage.client.asked.acquire()
        assert await stage.pod.passivate() is False
        stage.answer()
        assert await stage.pod.wait_for_memory_jobs(timeout=60)
        assert await stage.pod.passivate() is True

    manifest = PodManifest.of(name="p", extract_threshold=1, schedule="manual")
    on_stage([say("a"), say("nothing")], play, manifest)


def test_a_pod_of_a_system_in_a_thread_is_passivated_as_well() -> None:
    with PodSystem() as system:
        pod = system.spawn(PLAIN, client=ScriptedClient([say("a"), say("b")])).get(timeout=60)
        pod.run("1").get(timeout=60)
        assert pod.passivate().get(timeout=60)
        assert pod.run("2").get(timeout=60).text == "b"


# -- what goes, and what stays -------------------------------------------------------------------------


def test_the_memory_of_the_history_is_given_back(tmp_path: Path) -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        for number in range(300):
            await pod.push_item(UserItem.of(f"{number} " * 1000))
        before = tracemalloc.get_traced_memory()[0]
        assert await pod.passivate()
        assert before - tracemalloc.get_traced_memory()[0] > 500_000
        assert len(await pod.history()) == 300

    tracemalloc.start()
    try:
        play_pod([], play, f"sqlite:{tmp_path}/pods.db")
    finally:
        tracemalloc.stop()


@each_store
def test_a_pod_that_comes_back_is_as_it_was(kind: str, tmp_path: Path) -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        await pod.push_item(UserItem.of("by hand"))
        described, history = await pod.describe(), await pod.history()
        assert await pod.passivate()
        passive = await pod.describe()
        assert passive.passive
        assert (passive.head, passive.occupancy) == (described.head, described.occupancy)
        assert await pod.history() == history
        assert await pod.describe() == described
        for text in ("b", "c"):
            assert await pod.passivate()
            assert (await pod.run("more")).text == text
        after = await pod.describe()
        assert after.session_id == described.session_id
        assert after.usage.input_tokens == 7 * 3
        verified(after.session_id, await settled(system.store.read(after.session_id)))

    replies = [say(text, input_tokens=7, output_tokens=1) for text in "abc"]
    play_pod(replies, play, STORES[kind](tmp_path))


@each_store
def test_the_request_after_a_return_begins_with_the_bytes_of_the_one_before(
    kind: str, tmp_path: Path
) -> None:
    @tool
    def read(part: int) -> str:
        """Much text."""
        return f"{part}: " + "words of a file " * 400

    def sent(requests: list[Request]) -> list[bytes]:
        return [body_of(request, "m", Dialect()) for request in requests]

    calls = [call("read", {"part": part}) for part in range(14)]

    def bodies(store: SessionStore, *, passive: bool) -> list[bytes]:
        async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
            for _ in range(3):
                assert not passive or await pod.passivate()
                await pod.run("go on")
            found.extend(sent(client.requests))

        found: list[bytes] = []
        replies = [*calls, say("a"), call("read", {"part": 99}), say("b"), say("c")]
        play_pod(replies, play, store, tools=[read])
        return found

    assert bodies(STORES[kind](tmp_path), passive=True) == bodies(MemoryStore(), passive=False)


def test_nobody_else_may_take_the_session_of_a_passive_pod() -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        session = (await pod.describe()).session_id
        assert await pod.passivate()
        with pytest.raises(SessionInUse):
            await system.spawn(PLAIN, client=client, resume=session)
        assert await is_passive(pod)

    play_pod([say("a")], play)


def _runs_within_budget(*, passive: bool) -> int:
    async def play(stage: Stage) -> None:
        outcome = "finished"
        while outcome == "finished":
            assert not passive or await stage.pod.passivate()
            stage.answer()
            outcome = (await stage.pod.run("1")).outcome
        assert outcome == "budget"

    answer = say("a", input_tokens=9, output_tokens=1)
    client = on_stage([answer] * 20, play, PodManifest.of(name="p", tokens=100))
    return len(client.requests)


def test_what_a_pod_used_is_counted_once() -> None:
    assert _runs_within_budget(passive=True) == _runs_within_budget(passive=False) > 1


# -- commands to a passive pod -------------------------------------------------------------------------


def test_messages_behind_the_one_that_woke_it_are_answered_in_their_order() -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        assert await pod.passivate()
        order: list[str] = []
        asked = [pod.push_item(UserItem.of("2")), pod.history(), pod.describe(), pod.run("3"), pod.stop()]
        for name, future in zip(("push", "history", "describe", "run", "stop"), asked, strict=True):
            future.when_done(lambda name=name: order.append(name))
        assert texts(await asked[1]) == ["1", "a", "2"]
        assert not (await asked[2]).passive
        assert (await asked[3]).outcome == "cancelled"
        await asked[4]
        assert order == ["push", "history", "describe", "run", "stop"]

    play_pod([say("a")], play)


def test_what_needs_no_history_is_answered_without_it() -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        assert await pod.passivate()
        with pytest.raises(NotRunning):
            await pod.steer("hey")
        with pytest.raises(NotPaused):
            await pod.resume()
        assert await pod.cancel() is None
        assert await pod.pause() is None
        assert await pod.wait_for_memory_jobs() is True
        assert await is_passive(pod)

    play_pod([say("a")], play)


@pytest.mark.parametrize(
    "command",
    [
        lambda pod: pod.notify("you"),
        lambda pod: pod.push_item(UserItem.of("you")),
        lambda pod: pod.fork(),
        lambda pod: pod.compact(),
        lambda pod: pod.try_pre_run_compact(),
        lambda pod: pod.try_post_run_extract(),
        lambda pod: pod.spawn_memory_jobs(),
    ],
)
def test_what_needs_the_history_brings_it_back(command: Callable[[Pod], Any]) -> None:
    async def play(stage: Stage) -> None:
        await stage.pod.push_item(UserItem.of("1"))
        assert await stage.pod.passivate()
        asked = command(stage.pod)
        assert not await is_passive(stage.pod)
        for _ in range(3):
            stage.answer()
        with contextlib.suppress(CompactionFailed):  # a model that only talks writes no summary
            await asked

    on_stage([say("a")] * 3, play)


def test_a_fork_of_a_passive_pod_has_its_history() -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        assert await pod.passivate()
        session = await pod.fork()
        branch = await system.spawn(PLAIN, client=client, resume=session)
        assert texts(await branch.history()) == ["1", "a"]

    play_pod([say("a")], play)


def test_a_paused_run_is_resumed_after_its_pod_was_passive() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.paused("1")
        assert await stage.pod.passivate()
        assert (await stage.pod.describe()).state is PodState.PAUSED
        resumed = stage.pod.resume()
        stage.answer()
        result = await resumed
        assert (result.text, result.run_id) == ("a", (await run).run_id)

    on_stage([say("a")], play)


def test_a_paused_run_of_a_passive_pod_is_cancelled() -> None:
    async def play(stage: Stage) -> None:
        await stage.paused("1")
        assert await stage.pod.passivate()
        await stage.pod.cancel()
        assert (await stage.pod.describe()).state is PodState.IDLE

    on_stage([], play)


def test_events_since_any_number_are_there_for_a_passive_pod() -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        with system.subscribe("p", since=0) as events:
            before = events.drain()
        assert await pod.passivate()
        with system.subscribe("p", since=0) as events:
            assert events.drain() == before
            assert await is_passive(pod)
            await pod.run("2")
            assert len(events.drain()) > 0

    play_pod([say("a"), say("b")], play)


class WatchedStore(MemoryStore):
    """Counts how often it is read."""

    reads = 0

    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        self.reads += 1
        return super().read(session_id, after=after, limit=limit)


@pytest.mark.parametrize("ends", ["pod", "system"])
def test_a_stop_does_not_bring_the_history_back(ends: str) -> None:
    store = WatchedStore()

    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        assert await pod.passivate()
        with system.subscribe("p") as events:
            await (pod.stop() if ends == "pod" else system.stop())
            assert [type(event) for event in events.drain() if event.durable] == [PodStopped]
        assert store.reads == 0

    play_pod([say("a")], play, store)
    (session,) = [info.session_id for info in store.sessions()]
    verified(session, store.read(session))


# -- the same as if it had stayed ------------------------------------------------------------------


def _compacted(*, passive: bool) -> tuple[list[str], list[Any]]:
    found: list[Any] = []

    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        for number in range(4):
            await pod.run(f"question {number}")
            assert not passive or await pod.passivate()
        with system.subscribe("p", CompactDone) as events:
            await pod.compact(retained_tokens=30)
            done = events.drain()[0]
        assert isinstance(done, CompactDone)
        if passive:
            assert await pod.passivate()
        await pod.run("and then")
        found.extend([texts(await pod.history()), [done.before, done.after]])
        found.append((await pod.describe()).occupancy)

    answers = [say(f"answer {n} " * 20, input_tokens=60 * (n + 1), output_tokens=50) for n in range(4)]
    play_pod([*answers, call("write_summary", {"text": "sum"}), say("done"), say("end")], play)
    return found[0], found[1:]


def test_a_compaction_after_a_return_gives_what_it_gives_without() -> None:
    assert _compacted(passive=True) == _compacted(passive=False)


def _remembered(folder: Path, *, passive: bool) -> list[Any]:
    found: list[Any] = []

    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        for number in range(2):
            await pod.run(f"question {number}")
            assert not passive or await pod.passivate()
            with system.subscribe("p", ExtractDone) as events:
                await pod.try_post_run_extract()
                (done,) = events.drain()
            assert isinstance(done, ExtractDone)
            found.append((done.pointer, done.staged, (await pod.describe()).extract_pointer))
            assert not passive or await pod.passivate()
        found.append([texts(list(request.items)) for request in client.requests])

    noted = {"decisions": [{"chosen": "this"}], "discussions": [], "attempts": [], "requests": []}
    job = [call("write_extracted", noted), say("done")]
    play_pod([say("a"), *job, say("b"), *job], play, memory=folder, extract_threshold=1, schedule="manual")
    return found


def test_memory_read_after_a_return_is_what_is_read_without(tmp_path: Path) -> None:
    assert _remembered(tmp_path / "a", passive=True) == _remembered(tmp_path / "b", passive=False)


# -- what may go wrong -----------------------------------------------------------------------------


def test_where_the_history_cannot_be_read_only_what_asked_for_it_fails(tmp_path: Path) -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        assert await pod.passivate()
        (file,) = (tmp_path / "pods").glob("*.jsonl")
        away = file.rename(tmp_path / "away")
        with pytest.raises(RunFailed) as caught:
            await pod.run("2")
        assert isinstance(caught.value.cause, SessionNotFound)
        with pytest.raises(SessionNotFound):
            await pod.history()
        with pytest.raises(CompactionFailed):
            await pod.compact()
        assert await pod.try_pre_run_compact() is None
        assert await pod.try_post_run_extract() is None
        pod.ref.tell(say)  # a stranger's message, which nobody waits for
        assert await is_passive(pod)
        away.rename(file)
        assert (await pod.run("3")).text == "b"
        assert texts(await pod.history()) == ["1", "a", "3", "b"]

    play_pod([say("a"), say("b")], play, KINDS["jsonl-process"](tmp_path))


def test_a_history_damaged_meanwhile_is_reported_and_not_used(tmp_path: Path) -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("the words")
        assert await pod.passivate()
        (file,) = (tmp_path / "pods").glob("*.jsonl")
        sound = file.read_bytes()
        file.write_bytes(sound.replace(b"the words", b"forgeries"))
        with pytest.raises(SessionCorrupt):
            await pod.history()
        assert await is_passive(pod)
        file.write_bytes(sound)
        assert texts(await pod.history()) == ["the words", "a"]

    play_pod([say("a")], play, KINDS["jsonl-process"](tmp_path))


def test_a_session_that_lost_its_end_meanwhile_is_reported_and_not_used(tmp_path: Path) -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        assert await pod.passivate()
        (file,) = (tmp_path / "pods").glob("*.jsonl")
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[:-1]))
        with pytest.raises(SessionCorrupt, match="the last entry that its pod wrote is gone"):
            await pod.history()
        file.write_bytes(b"".join(lines))
        assert texts(await pod.history()) == ["1", "a"]

    play_pod([say("a")], play, KINDS["jsonl-process"](tmp_path))


def test_a_passive_pod_whose_session_was_taken_goes_on_in_a_fork() -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.run("1")
        old = (await pod.describe()).session_id
        assert await pod.passivate()
        system.store.release(old)
        thief = await system.spawn(PodManifest.of(name="thief"), client=client, resume=old)
        await thief.run("mine")
        with system.subscribe("p", SessionForked) as events:
            result = await pod.run("2")
            assert len(events.drain()) == 1
        assert result.session_id != old
        assert texts(await pod.history()) == ["1", "a", "2", "c"]
        assert texts(await thief.history()) == ["1", "a", "mine", "b"]

    play_pod([say("a"), say("b"), say("c")], play)


def test_calls_left_open_are_closed_after_a_return() -> None:
    async def play(system: PodSystem, pod: Pod, client: ScriptedClient) -> None:
        await pod.push_item(AssistantItem((), (ToolCall("c", "t", {}),)))
        assert await pod.passivate()
        await pod.run("1")
        kinds = [type(item).__name__ for item in await pod.history()]
        assert kinds == ["AssistantItem", "ToolResult", "UserItem", "AssistantItem"]

    play_pod([say("a")], play)
