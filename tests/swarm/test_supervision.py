"""Pods that fail are started again on their sessions, as often as their limits allow."""

import asyncio
import contextlib
import os

import pytest
from pod_stage import GatedClient
from store_kit import AwaitedStore

from actors.llm.base import TextChunk
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.commands import Stop
from protocol.errors import (
    NotPaused,
    PodError,
    PodNotFound,
    PodStopped,
    RunFailed,
    StoreError,
    SystemOfParent,
    TooManyRestarts,
)
from protocol.events import (
    PodEnded,
    PodFailed,
    PodStarted,
    RestartsExhausted,
    RunEnd,
    RunStart,
    SessionForked,
    TextDelta,
)
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

STORES = pytest.mark.parametrize("make_store", [MemoryStore, AwaitedStore])


def asks(**restart: object) -> PodManifest:
    return PodManifest.of(name="p", restart={"policy": "on_failure", **restart})


def fail(pod: Pod, words: str = "boom") -> None:
    """Have a defect end the pod's actor."""
    pod.ref.actor.end_by_defect(RuntimeError(words))


async def restarted(events) -> PodStarted:
    """Wait for the next actor."""
    async for event in events:
        if isinstance(event, PodStarted) and event.resumed:
            return event
    raise AssertionError("it was not started again")


@STORES
async def test_a_pod_that_failed_is_started_again_on_its_session_and_the_handle_follows(make_store) -> None:
    async with PodSystem(make_store()) as system:
        pod = await system.spawn(asks(), client=ScriptedClient([say("one"), say("two")]))
        first = await pod.run("hi")
        with pod.subscribe([PodFailed, PodStarted]) as events:
            fail(pod)
            second = await pod.run("more")
            failed, started = events.drain()
        assert failed.error.message == "boom"
        assert failed.restarts
        assert started.resumed
        assert (second.text, second.session_id) == ("two", first.session_id)
        assert system.get("p") is pod
        assert system.pods() == [pod]
        assert len(await pod.history()) == 4


@STORES
@pytest.mark.parametrize("on_restart", ["pause", "resume"])
async def test_the_open_run_fails_and_queued_ones_stay(make_store, on_restart) -> None:
    async with PodSystem(make_store()) as system:
        client = GatedClient([say("never"), say("again"), say("queued")])
        pod = await system.spawn(asks(on_restart=on_restart), client=client)
        with pod.subscribe([PodStarted, RunStart, RunEnd]) as events:
            opened, queued = pod.run("open"), pod.run("queued")
            await client.asked.acquire()
            fail(pod)
            with pytest.raises(RunFailed, match="boom"):
                await opened
            await restarted(events)
            for _ in range(3):
                client.gate.release()
            if on_restart == "pause":
                assert (await pod.describe()).state is PodState.PAUSED
                assert not queued.done()
                await pod.resume()
            await queued
            ends = [event.outcome for event in events.drain() if isinstance(event, RunEnd)]
            assert ends == ["finished", "finished"]


async def test_what_is_asked_in_a_restart_waits_for_it_in_order() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(asks(), client=ScriptedClient([say(f"{n}") for n in range(30)]))
        fail(pod)
        answers = await asyncio.gather(*(pod.run(f"run {n}") for n in range(30)))
        assert [each.text for each in answers] == [f"{n}" for n in range(30)]


async def test_a_burst_of_failures_goes_up_after_as_many_restarts_as_allowed() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(asks(max_restarts=3), client=ScriptedClient([]))
        with system.subscribe(kinds=[PodFailed, PodStarted, RestartsExhausted]) as events:
            for _ in range(3):
                fail(pod)
                await restarted(events)
            fail(pod, "the last straw")
            with pytest.raises(PodStopped):
                await pod.run("hi")
            failed, exhausted = events.drain()
        assert not failed.restarts
        assert (exhausted.restarts, exhausted.error.message) == (3, "the last straw")
        with pytest.raises(PodNotFound):
            system.get("p")
        assert await pod.stop() is False


class Refusing(MemoryStore):
    """Reads nothing back while it ``refuses``."""

    refuses = False
    asked = 0

    def claim(self, session_id, pod):
        if self.refuses:
            self.asked += 1
            raise StoreError("the disk is away")
        return super().claim(session_id, pod)


async def test_a_store_that_refuses_in_a_restart_is_asked_no_more_often_than_allowed() -> None:
    store = Refusing()
    async with PodSystem(store) as system:
        client = GatedClient([])
        pod = await system.spawn(asks(max_restarts=3), client=client)
        with pod.subscribe(RestartsExhausted) as events:
            opened, queued = pod.run("open"), pod.run("queued")
            await client.asked.acquire()
            store.refuses = True
            fail(pod)
            held = pod.run("held")
            assert "disk is away" in (await anext(events)).error.message
        assert store.asked == 3
        for each, kind in ((opened, RunFailed), (queued, PodStopped), (held, PodStopped)):
            with pytest.raises(kind):
                await each
        store.refuses = False
        again = await system.spawn(asks(), client=ScriptedClient([say("ok")]), name="p")
        assert (await again.run("hi")).text == "ok"


@pytest.mark.parametrize("how", ["handle", "command"])
async def test_a_stopped_agent_that_comes_back(how) -> None:
    """It does not: what a person stopped is not started again, also where it fails meanwhile."""
    async with PodSystem() as system:
        client = GatedClient([])
        pod = await system.spawn(asks(), client=client)
        opened = pod.run("open")
        await client.asked.acquire()
        with system.subscribe(kinds=[PodStarted, PodEnded, PodFailed]) as events:
            stops = {"handle": pod.stop, "command": lambda: pod._ask(Stop())}
            stopped = stops[how]()
            fail(pod)
            await asyncio.wait([asyncio.ensure_future(stopped)])
            with pytest.raises((RunFailed, PodStopped)):
                await opened
            with pytest.raises(PodStopped):
                await pod.run("hi")
            assert PodStarted not in map(type, events.drain())
        assert system.pods() == []


async def test_a_stop_in_a_restart_ends_the_pod() -> None:
    async with PodSystem(AwaitedStore()) as system:
        pod = await system.spawn(asks(), client=ScriptedClient([]))
        fail(pod)
        assert await pod.stop() is True
        assert system.pods() == []
        with pytest.raises(PodStopped):
            await pod.run("hi")


async def test_a_revived_agent_that_repeats_a_turn_cancelled_before() -> None:
    """It does not: the run that a person had cancelled is cancelled, and not resumed."""
    async with PodSystem() as system:
        client = GatedClient([])
        pod = await system.spawn(asks(on_restart="resume"), client=client)
        opened = pod.run("open")
        await client.asked.acquire()
        with pod.subscribe([RunEnd, RunStart]) as events:
            pod.ref.actor.runs.run.ending = "cancelled"  # as far as a cancel comes before its run ends
            fail(pod)
            with pytest.raises(RunFailed):
                await opened
            end = await anext(events)
        assert isinstance(end, RunEnd)
        assert end.outcome == "cancelled"
        with pytest.raises(NotPaused):
            await pod.resume()


async def test_a_revived_agent_that_repeats_a_stale_prompt() -> None:
    """It does not: a restart between two runs starts none."""
    async with PodSystem() as system:
        client = ScriptedClient([say("one")])
        pod = await system.spawn(asks(on_restart="resume"), client=client)
        await pod.run("hi")
        fail(pod)
        assert (await pod.describe()).state is PodState.IDLE
        assert len(client.requests) == 1


async def test_a_system_that_is_left_starts_nothing_again() -> None:
    async with PodSystem(AwaitedStore()) as system:
        pod = await system.spawn(asks(), client=ScriptedClient([]))
        fail(pod)
        held = pod.run("hi")
    with pytest.raises(PodStopped):
        await held


async def test_a_pod_that_could_not_be_spawned_is_not_tried_again() -> None:
    async with PodSystem() as system:
        with pytest.raises(KeyError):
            await system.spawn(asks(), client=ScriptedClient([]), resume="none")
        assert system.pods() == []


async def test_a_group_that_gives_up_stops_its_members_in_reverse_order_and_says_so() -> None:
    async with PodSystem() as system:
        pods = [await system.spawn(PodManifest.of(name=n), client=ScriptedClient([])) for n in "abcd"]
        group = system.supervise(pods, max_restarts=1)
        with system.subscribe(kinds=[PodStarted, PodEnded, RestartsExhausted]) as events:
            fail(pods[1])
            assert (await restarted(events)).pod == "b"
            fail(pods[2])
            with pytest.raises(TooManyRestarts, match="boom"):
                await group.wait()
            *ended, exhausted = events.drain()
        assert [event.pod for event in ended] == ["d", "b", "a"]
        assert (exhausted.pod, exhausted.stopped, exhausted.restarts) == ("c", ("d", "b", "a"), 1)
        assert system.pods() == []


async def test_the_limits_of_a_group_stand_in_place_of_its_members() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(asks(max_restarts=0), client=ScriptedClient([say("ok")]))
        group = system.supervise([pod], max_restarts=5)
        fail(pod)
        assert (await pod.run("hi")).text == "ok"
        await pod.stop()
        assert await group.wait() is None


async def test_two_supervisors_cannot_have_one_pod() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(asks(), client=ScriptedClient([]))
        with pytest.raises(PodError, match="already in a group"):
            system.supervise([pod, pod])
        system.supervise([pod])
        with pytest.raises(PodError, match="already in a group"):
            system.supervise([pod])
        with pytest.raises(ValueError, match="max_restarts"):
            system.supervise([], max_restarts=-1)
        await pod.stop()
        with pytest.raises(PodStopped):
            system.supervise([pod])


async def test_two_groups_do_not_count_each_others_restarts() -> None:
    async with PodSystem() as system:
        one, two = [await system.spawn(PodManifest.of(name=n), client=ScriptedClient([])) for n in "ab"]
        system.supervise([one], max_restarts=0)
        system.supervise([two], max_restarts=1)
        with system.subscribe(kinds=[RestartsExhausted, PodStarted]) as events:
            fail(one)
            assert isinstance(await anext(events), RestartsExhausted)
            fail(two)
            assert (await restarted(events)).pod == "b"


class Hangs:
    """Says one word, and then nothing."""

    async def stream(self, _request):
        yield TextChunk("well")
        await asyncio.Event().wait()


async def hung(system: PodSystem) -> Pod:
    """Wait until a watchdog has barked in another pod."""
    pod = await system.spawn(PodManifest.of(name="hung", idle_seconds=0.05), client=Hangs())
    with pod.subscribe(PodFailed) as events:
        with pytest.raises(RunFailed, match=r"sent nothing for 0\.05 s"):
            await pod.run("hi")
        assert (await anext(events)).error.kind == "WatchdogExpired"
    return pod


async def test_a_model_that_hangs_in_mid_answer_fails_its_pod() -> None:
    async with PodSystem() as system:
        pod = await hung(system)
        with pytest.raises(PodStopped):
            await pod.run("hi")
        assert system.pods() == []


async def test_the_watchdog_waits_for_tools_and_first_bytes_that_the_client_bounds() -> None:
    async with PodSystem() as system:

        @tool
        async def slow() -> str:
            await hung(system)
            return "done"

        class Slow(ScriptedClient):
            bounds_first_byte = True

            async def stream(self, request):
                await hung(system)
                async for block in super().stream(request):
                    yield block

        manifest = PodManifest.of(name="p", idle_seconds=0.05)
        pod = await system.spawn(manifest, client=Slow([call("slow", {}), say("ok")]), tools=[slow])
        assert (await pod.run("hi")).text == "ok"


async def test_a_hung_run_is_resumed() -> None:
    class Once(ScriptedClient):
        hangs = True

        async def stream(self, request):
            if self.hangs:
                self.hangs = False
                yield TextChunk("well")
                await asyncio.Event().wait()
            async for block in super().stream(request):
                yield block

    async with PodSystem() as system:
        pod = await system.spawn(
            asks(idle_seconds=0.05, on_restart="resume"), client=Once([say("whole"), say("next")])
        )
        with pod.subscribe([RunEnd, TextDelta]) as events:
            opened, queued = pod.run("hi"), pod.run("next")
            with pytest.raises(RunFailed):
                await opened
            assert (await queued).text == "next"
            assert [e.outcome for e in events.drain() if isinstance(e, RunEnd)] == ["finished", "finished"]


async def test_a_forked_child_supervises_nothing() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(asks(), client=ScriptedClient([say("ok")]))
        if (child := os.fork()) == 0:
            try:
                pod.run("hi")
            except SystemOfParent:
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
        assert os.waitstatus_to_exitcode(status) == 0
        fail(pod)
        assert (await pod.run("hi")).text == "ok"


async def test_a_run_that_lets_a_fork_pass_records_nothing_more_once_a_defect_ends_its_pod() -> None:
    for turns in range(30):
        async with PodSystem(AwaitedStore()) as system:
            client = GatedClient([])
            pod = await system.spawn(asks(), client=client)
            with pod.subscribe() as events:
                run = pod.run("hi")
                await client.asked.acquire()
                fork, cancel = pod.fork(), pod.cancel()
                for _ in range(turns):
                    await asyncio.sleep(0)
                fail(pod)
                for each in (run, fork, cancel):
                    with contextlib.suppress(PodError):
                        await each
                await pod.describe()
                forks = [event for event in events.drain() if isinstance(event, SessionForked)]
            assert "taken" not in {event.reason for event in forks}
