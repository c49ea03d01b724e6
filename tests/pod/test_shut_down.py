"""A graceful end is no worse than a crash: what ran is paused, found again and resumed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from shut_down_child import Child, manifest, tools

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from protocol.errors import PodStopped, RunFailed, SystemNotRunning
from protocol.events import CompactFailed, CompactStart, RunEnd
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")


class Summing(ScriptedClient):
    """Answers what it is asked to; as a summariser it writes a summary."""

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        summing = "write_summary" in {spec.name for spec in request.tools}
        if summing:
            written = any(each.name == "write_summary" for item in request.items for each in _calls(item))
            reply = say("so") if written else call("write_summary", {"text": "all of it"})
            async for block in reply.stream():
                yield block
            return
        async for block in super().stream(request):
            yield block


def _calls(item: object) -> tuple[object, ...]:
    return getattr(item, "calls", ())


def goes_on(child: Child, scene: str) -> list[str]:
    """Resume what the child left; the texts of the history in the end."""

    async def main() -> list[str]:
        async with PodSystem(f"sqlite:{child.store}") as system:
            (found,) = await system.interrupted()
            pod = await system.spawn(
                manifest(scene),
                client=Summing([say("went on")]),
                tools=tools(child.file),
                resume=found.session_id,
            )
            assert (await pod.describe()).state is PodState.PAUSED
            assert await system.interrupted() == []
            result = await pod.resume()
            assert (result.text, result.outcome) == ("went on", "finished")
            with system.subscribe(pod, since=0) as events:
                kept = events.drain()
            ends = [event.outcome for event in kept if isinstance(event, RunEnd)]
            assert ends == ["paused", "finished"]
            started = [event for event in kept if isinstance(event, CompactStart)]
            failed = [event for event in kept if isinstance(event, CompactFailed)]
            assert len(failed) == (1 if scene == "compaction" else 0)
            assert len(started) == (2 if scene == "compaction" else 0)
            return [item.text for item in await pod.history()]

    return asyncio.run(main())


@pytest.mark.parametrize("how", ["async", "with"])
@pytest.mark.parametrize("scene", ["async", "plain", "stream", "compaction"])
def test_a_process_that_is_asked_to_end_pauses_its_run_which_goes_on_in_another(
    tmp_path: Path, scene: str, how: str
) -> None:
    child = Child(tmp_path, scene, how)
    child.signal(signal.SIGTERM)
    expected = "paused PodStopped left" if how == "async" else "paused left"
    assert child.rest()[-1] == expected
    assert child.process.returncode == 0
    before = child.ran
    texts = goes_on(child, scene)
    assert child.ran == before, "a call was run again"
    assert sum("outcome unknown" in text for text in texts) == (1 if scene in {"async", "plain"} else 0)


def test_ctrl_c_pauses_too(tmp_path: Path) -> None:
    child = Child(tmp_path, "async", "with")
    child.signal(signal.SIGINT)
    assert child.rest()[-1] == "paused left"
    goes_on(child, "async")


def test_a_second_signal_in_the_middle_of_the_stop_does_not_break_it_off(tmp_path: Path) -> None:
    child = Child(tmp_path, "deaf")
    child.signal(signal.SIGTERM)
    child.wait_for("asked to end")
    child.signal(signal.SIGTERM)
    assert child.rest()[-1] == "paused PodStopped left"
    goes_on(child, "deaf")


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGKILL"), ("SIGINT", "SIGINT")])
async def test_one_whose_stop_is_broken_off_goes_on_as_well(tmp_path: Path, first: str, second: str) -> None:
    child = Child(tmp_path, "deaf")
    child.signal(signal.Signals[first])
    child.wait_for("asked to end")
    child.signal(signal.Signals[second])
    child.rest()

    async with PodSystem(f"sqlite:{child.store}") as system:
        (found,) = await system.interrupted()
        client = ScriptedClient([say("went on")])
        pod = await system.spawn(
            manifest("deaf"), client=client, tools=tools(child.file), resume=found.session_id
        )
        assert (await pod.resume()).text == "went on"


def test_a_program_that_ends_without_leaving_its_system_pauses_too(tmp_path: Path) -> None:
    child = Child(tmp_path, "async", "crash")
    child.signal(signal.SIGTERM)
    child.rest()
    assert child.process.returncode == 1
    goes_on(child, "async")


async def test_to_stop_one_pod_cancels_its_run_and_to_leave_the_system_pauses_it() -> None:
    class Waits:
        def __init__(self) -> None:
            self.asked = asyncio.Semaphore(0)

        async def stream(self, _request: Request) -> AsyncIterator[Block]:
            self.asked.release()
            await asyncio.Event().wait()
            yield  # type: ignore[misc]

    client = Waits()
    async with PodSystem() as system:
        stopped, left, cancelled = [await system.spawn(PLAIN, client=client) for _ in range(3)]
        runs = [pod.run("go") for pod in (stopped, left, cancelled)]
        queued = left.run("more")
        for _ in runs:
            await client.asked.acquire()
        await stopped.stop()
        cancel = cancelled.cancel()
    assert [(await run).outcome for run in runs] == ["cancelled", "paused", "cancelled"]
    await cancel
    with pytest.raises(PodStopped):
        await queued
    with pytest.raises(SystemNotRunning):
        await system.interrupted()


async def test_sessions_that_can_be_resumed_are_found_and_no_others(tmp_path: Path) -> None:
    store = f"jsonl:{tmp_path}"

    class Waits(ScriptedClient):
        waits: asyncio.Semaphore

        async def stream(self, request: Request) -> AsyncIterator[Block]:
            if self.remaining == 0:
                self.waits.release()
                await asyncio.Event().wait()
            async for block in super().stream(request):
                yield block

    waits = asyncio.Semaphore(0)
    async with PodSystem(store) as system:
        manifest = PodManifest.of(name="other")
        ended = await system.spawn(manifest, client=ScriptedClient([say("done")]))
        await ended.run("go")
        broken = await system.spawn(PLAIN, client=_Failing())
        with pytest.raises(RunFailed):
            await broken.run("go")
        await system.spawn(PLAIN, client=ScriptedClient([]))
        sessions = []
        for name in ("one", "two"):
            client = Waits([])
            client.waits = waits
            pod = await system.spawn(PodManifest.of(name=name), client=client)
            pod.run("go")
            await waits.acquire()
            sessions.append((await pod.describe()).session_id)
        assert await system.interrupted() == []  # they go on
    async with PodSystem(store) as system:
        found = await system.interrupted()
        assert {info.session_id for info in found} == set(sessions)
        assert [info.pod for info in await system.interrupted("one")] == ["one"]
        assert len(await system.interrupted(limit=1)) == 1


class _Failing:
    async def stream(self, _request: Request) -> AsyncIterator[Block]:
        raise ValueError("no")
        yield


def test_a_system_in_a_thread_finds_them_from_outside(tmp_path: Path) -> None:
    with PodSystem(f"sqlite:{tmp_path / 'pods.db'}") as system:
        assert system.interrupted().get(timeout=60) == []
