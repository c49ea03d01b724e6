"""A pod that is a process: what it is given, how it dies, and how it comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from pod_processes import SystemOn
from process_doubles import gated, scripted, where
from process_kit import children_of, living, wait_for_end, wait_until_none
from warm import Popen

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.answers import settled
from actors.sessions.store import Holder, in_use, process_of_pod
from actors.swarm.processes.process_pod import ProcessPod
from actors.system import PodSystem
from protocol.errors import (
    NotImportable,
    PodLost,
    PodStopped,
    RunFailed,
    SessionInUse,
    StoreError,
    ToolDefinitionError,
    TooManyRestarts,
    WatchdogExpired,
)
from protocol.events import (
    ApprovalRequested,
    Event,
    PodEnded,
    PodStarted,
    ProcessLost,
    RestartsExhausted,
    RunEnd,
    RunStart,
    StateChanged,
    TextDelta,
    ToolProgress,
    UserMessage,
)
from protocol.items import ToolResult, UserItem
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest
from protocol.scope import Scope

ONE = PodManifest.of(name="p")


def restarting(**more: Any) -> PodManifest:
    return PodManifest.of(name="p", restart={"policy": "on_failure", **more})


def process_of(pod: Pod) -> int:
    address = pod.address
    assert isinstance(address, ProcessPod)
    assert address._child is not None
    return address._child.pid


def kill(pod: Pod) -> int:
    pid = process_of(pod)
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'pods.db'}"


# -- what it is given ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"client": ScriptedClient([])}, "ScriptedClient"),
        ({"tools": [where]}, "tools"),
        ({"hooks": [object()]}, "hooks"),
        ({"deps": object()}, "deps"),
        ({"client": "__main__:client"}, "__main__"),
        ({"client": "process_doubles"}, "module:name"),
        ({"client": "process_doubles:nothing"}, "AttributeError"),
        ({"client": "no_such_module:client"}, "ModuleNotFoundError"),
        ({"hooks": ["process_doubles:nothing"]}, "AttributeError"),
    ],
)
async def test_what_cannot_be_imported_is_refused(
    store: str, system_on: SystemOn, given: dict[str, Any], words: str
) -> None:
    async with system_on(store) as system:
        with pytest.raises(NotImportable, match=words):
            await system.spawn(ONE, process=True, **given)
        assert system.pods() == []


async def test_a_tool_that_is_not_there_is_refused_as_for_any_pod(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        with pytest.raises(ToolDefinitionError, match="no_such"):
            await system.spawn(ONE, process=True, tools=["process_doubles:no_such"])


async def test_a_store_in_memory_is_refused() -> None:
    async with PodSystem() as system:
        with pytest.raises(StoreError, match="memory:") as refused:
            await system.spawn(ONE, process=True)
        assert "sqlite:FILE" in str(refused.value.hint)
        assert system.pods() == []


async def test_two_processes_on_one_session_are_kept_apart(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        with scripted([]) as client:
            first = await system.spawn(ONE, client=client, process=True)
            session_id = (await first.describe()).session_id
            with pytest.raises(SessionInUse):
                await system.spawn(ONE, client=client, process=True, resume=session_id)
            assert system.pods() == [first]


@pytest.mark.parametrize("of_asked", [False, True])
@pytest.mark.parametrize("of_holder", [False, True])
async def test_a_session_that_a_pod_of_the_same_program_has_is_found_by_what_the_error_says(
    store: str, system_on: SystemOn, *, of_holder: bool, of_asked: bool
) -> None:
    """Where either pod was a process, the error did not name the pod to get."""
    manifest = PodManifest.of(name="p", model="offline")
    async with system_on(store) as system:
        first = await system.spawn(manifest, process=of_holder, session="ada")
        with pytest.raises(
            SessionInUse, match=r"get\('p'\) of its system returns the pod that has it"
        ) as caught:
            await system.spawn(manifest, process=of_asked, session="ada")
        assert system.get(caught.value.pod) is first


async def test_a_session_of_a_sub_agent_in_the_process_of_a_pod_is_found_by_that_pod(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system:
        manifest = PodManifest.of(
            name="p",
            model="offline",
            scope=Scope.readable("."),
            tools={"builtin": ["pods", "files"]},
            approval=[{"tool": "list_files", "policy": "ask"}],
            approvals={"headless": "wait"},
        )
        pod = await system.spawn(manifest, process=True)
        with pod.subscribe(kinds=[ApprovalRequested], children=True) as asked:
            await pod.run('use spawn_pod name=child instruction=reader task="list files"')
            await anext(asked)  # so it lives on
        [child] = [each for each in await settled(system.store.sessions()) if each.pod != "p"]
        with pytest.raises(SessionInUse, match=r"get\('p'\) of its system returns the pod whose sub-agent"):
            await system.spawn(ONE, client=ScriptedClient([]), resume=child.session_id)


async def test_its_environment_shows_no_secret(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret-of-a-user")
    async with PodSystem(store) as system:
        with scripted([]) as client:
            pod = await system.spawn(ONE, client=client, process=True)
            assert b"secret-of-a-user" not in Path(f"/proc/{process_of(pod)}/environ").read_bytes()


async def test_it_has_what_an_interpreter_has_that_was_just_started(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "of its parent's")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("TZ", "EAST-5")
    found = []
    async with PodSystem(store) as system:
        with scripted([call("what_it_has"), say("done")]) as client:
            for _ in range(2):
                tools = ["process_doubles:what_it_has"]
                pod = await system.spawn(ONE, client=client, tools=tools, process=True)
                await pod.run("go")
                result = (await pod.history())[2]
                assert isinstance(result, ToolResult)
                found.append(json.loads(result.text))
    for each in found:
        sockets = [one for one in each["descriptors"] if one.startswith("socket:")]
        assert len(sockets) == 4  # two to its parent, and the pair of its event loop
        assert not [one for one in each["descriptors"] if one.startswith("pipe:") or "pidfd" in one]
        assert "SOME_VARIABLE" in each["variables"]
        assert set(each["handled"]) <= {signal.SIGINT, signal.SIGTERM}
        assert each["collects"]
        assert each["children"] == 0
        assert each["temporary"] == str(tmp_path)
        assert each["zone"] == "+0500"
    assert found[0]["chance"] != found[1]["chance"]


async def test_what_pods_are_forked_from_has_one_thread_and_nothing_that_would_not_work_in_them(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system:
        launcher = system._here().assembly.launchers._of_pods
        assert launcher is not None
        with scripted([call("what_it_was_forked_with"), say("done")]) as client:
            tools = ["process_doubles:what_it_was_forked_with"]
            pod = await system.spawn(ONE, client=client, tools=tools, process=True)
            assert len(list(Path(f"/proc/{launcher.pid}/task").iterdir())) == 1  # which so holds no lock
            await pod.run("go")
            assert (await pod.history())[2].text == "[]"  # type: ignore[union-attr]


_MADE = """
from actors.pod_process.holes import fill_holes
held = [bytes(number % 1000) for number in range(20000)]
del held[::3]
fill_holes()
for size in (20, 60, 200, 400, 700):
    print(len({id(each) // 4096 for each in [bytes(size) for _ in range(5)]}))
"""


def test_what_is_made_once_holes_are_filled_lies_together(tmp_path: Path) -> None:
    with Popen([sys.executable, "-c", _MADE], stdout=subprocess.PIPE, text=True) as process:
        spread, _ = process.communicate()
    assert len(pages := list(map(int, spread.split()))) == 5
    assert max(pages) <= 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_for_all_processes_of_a_terminal_ends_no_launcher_of_pods(
    store: str, number: signal.Signals, system_on: SystemOn
) -> None:
    async with system_on(store) as system:
        with scripted([]) as client:
            await system.spawn(ONE, client=client, process=True)
            launcher = system._here().assembly.launchers._of_pods
            assert launcher is not None
            pid = launcher.pid
            assert pid is not None
            os.kill(pid, number)
            await system.spawn(ONE, client=client, process=True)
            assert launcher.pid == pid


# -- its events ----------------------------------------------------------------------------------


async def test_its_events_are_published_with_the_bytes_of_its_log(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        encoded = system.subscribe_encoded()
        with scripted([say("one two", chunks=2)]) as client:
            pod = await system.spawn(ONE, client=client, process=True)
            result = await pod.run("go")
            durable = [each for each in encoded.drain() if each.event.durable]
            entries = system.store.read(result.session_id, after=0, limit=100)
            kept = [entry.body for entry in await settled(entries) if b'"SessionOpened"' not in entry.body]
            assert [each.body for each in durable] == kept
            with system.subscribe(pod="p", since=0) as replayed:
                reported = [await anext(replayed) for _ in durable]
            assert reported == [each.event for each in durable]


# -- its death -----------------------------------------------------------------------------------


async def test_whoever_follows_a_pod_gets_the_last_event_of_its_sub_agent(
    store: str, system_on: SystemOn
) -> None:
    reader = {"name": "reader", "instruction": "You read.", "task": "Read."}
    with scripted([call("spawn_pod", reader), *[say("read")] * 4]) as client:
        async with system_on(store) as system, asyncio.timeout(60):
            manifest = PodManifest.of(name="p", tools={"builtin": ["pods"]})
            pod = await system.spawn(manifest, client=client, process=True)
            with pod.subscribe(StateChanged, children=True) as events:
                await pod.run("go")
                async for event in events:
                    assert isinstance(event, StateChanged)
                    if (event.pod, event.new) == ("p.reader", PodState.STOPPED):
                        break


async def test_a_killed_process_fails_what_was_asked_and_leaves_nothing(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system, gated([say("never")]) as (client, gate):
        pod = await system.spawn(ONE, client=client, process=True)
        with system.subscribe(kinds=[ProcessLost, RunStart]) as events:
            run, queued = pod.run("go"), pod.run("later")
            await gate.asked.acquire()
            pid = kill(pod)
            for future in (run, queued):
                with pytest.raises(PodLost, match="signal 9"):
                    await future
            wait_for_end(pid)
            reported = events.drain()
        assert [type(event) for event in reported] == [RunStart, ProcessLost]
        assert isinstance(reported[-1], ProcessLost)
        assert not reported[-1].restarts
        assert system.pods() == []
        with pytest.raises(PodStopped):
            await pod.run("again")
        assert await pod.stop() is False

        session = (await system.interrupted())[0].session_id
        again = await system.spawn(ONE, client=ScriptedClient([say("went on")]), resume=session)
        assert (await again.describe()).state is PodState.PAUSED
        assert (await again.resume()).text == "went on"


async def test_a_pod_whose_process_died_is_started_again_on_its_session(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system, gated([say("first"), say("second")]) as (client, gate):
        pod = await system.spawn(restarting(), client=client, process=True)
        with system.subscribe(kinds=[PodStarted, ProcessLost, UserMessage, RunEnd]) as events:
            run, queued = pod.run("go"), pod.run("later")
            await gate.asked.acquire()
            gate.gate.release()
            kill(pod)
            with pytest.raises(PodLost):
                await run
            gate.gate.release()
            result = await queued
            reported = events.drain()
        assert result.text == "first"  # each process plays its script anew
        kinds = [type(event) for event in reported]
        assert kinds[:3] == [UserMessage, ProcessLost, PodStarted]
        assert [event.item.text for event in reported if isinstance(event, UserMessage)] == ["go", "later"]
        history = await pod.history()
        assert [item.text for item in history if isinstance(item, UserItem)] == ["go", "later"]
        assert system.pods() == [pod]


async def test_an_interrupted_run_is_resumed_where_the_manifest_says_so(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system, gated([say("went on")]) as (client, gate):
        pod = await system.spawn(restarting(on_restart="resume"), client=client, process=True)
        run = pod.run("go")
        await gate.asked.acquire()
        with pod.subscribe(RunEnd) as ends:
            kill(pod)
            with pytest.raises(PodLost):
                await run
            gate.gate.release()
            end = await anext(ends)
        assert isinstance(end, RunEnd)
        assert end.outcome == "finished"


async def test_a_process_that_somebody_signals_pauses_its_run_and_what_waits_goes_on(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system, gated([say("answer")]) as (client, gate):
        pod = await system.spawn(restarting(), client=client, process=True)
        run, queued = pod.run("go"), pod.run("later")
        await gate.asked.acquire()
        os.kill(process_of(pod), signal.SIGTERM)
        assert (await run).outcome == "paused"
        await gate.asked.acquire()
        gate.gate.release()
        assert (await queued).text == "answer"
        history = await pod.history()
        assert [item.text for item in history if isinstance(item, UserItem)] == ["go", "later"]


async def test_a_launcher_that_is_killed_costs_no_pod_that_is_started_again(store: str) -> None:
    async with PodSystem(store, grace=0.1, memory_grace=0.0, store_grace=0.1) as system:
        with scripted([say("first"), say("second")]) as client:
            pod = await system.spawn(restarting(), client=client, process=True)
            launcher = system._here().assembly.launchers._of_pods
            assert launcher is not None
            assert launcher.pid is not None
            pid = process_of(pod)
            with pod.subscribe({PodStarted}) as starts:
                os.kill(launcher.pid, signal.SIGKILL)
                await anext(starts)
            wait_for_end(pid)
            assert (await pod.run("go")).text == "first"


async def test_one_death_too_many_goes_up(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        with scripted([]) as client, system.subscribe(kinds=[PodStarted, RestartsExhausted]) as events:
            pod = await system.spawn(restarting(max_restarts=1), client=client, process=True)
            kill(pod)
            while not isinstance(event := await anext(events), PodStarted) or not event.resumed:
                pass
            await pod.describe()
            kill(pod)
            exhausted = await anext(events)
        assert isinstance(exhausted, RestartsExhausted)
        assert (exhausted.restarts, exhausted.error.kind) == (1, "PodLost")
        assert system.pods() == []


async def test_a_group_counts_the_deaths_of_its_processes_together(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        with scripted([]) as client:
            pods = [await system.spawn(ONE, client=client, process=True) for _ in range(2)]
            here = await system.spawn(ONE, client=ScriptedClient([]))
            group = system.supervise([*pods, here], max_restarts=0)
            kill(pods[0])
            with pytest.raises(TooManyRestarts, match="'p'"):
                await group.wait()
            assert system.pods() == []


async def test_a_process_that_stands_still_is_ended_by_its_heartbeat(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        with scripted([say("hello")]) as client:
            pod = await system.spawn(restarting(heartbeat_seconds=1.5), client=client, process=True)
            with system.subscribe(kinds=[ProcessLost]) as events:
                os.kill(process_of(pod), signal.SIGSTOP)
                run = pod.run("go")
                lost = await anext(events)
            assert isinstance(lost, ProcessLost)
            assert lost.error.kind == WatchdogExpired.__name__
            assert lost.restarts
            # One that is ended goes on for a moment, and may begin the run, which is not begun twice.
            (outcome,) = await asyncio.gather(run, return_exceptions=True)
            assert isinstance(outcome, PodLost) or outcome.text == "hello"


async def test_a_run_of_a_process_that_stood_still_is_paused_or_lost_and_says_so(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system, gated([say("never")]) as (client, gate):
        pod = await system.spawn(restarting(heartbeat_seconds=0.5), client=client, process=True)
        run = pod.run("go")
        await gate.asked.acquire()
        os.kill(process_of(pod), signal.SIGSTOP)
        # One that is ended goes on for a moment, in which it may still pause what it does.
        (outcome,) = await asyncio.gather(run, return_exceptions=True)
        if isinstance(outcome, Exception):
            assert isinstance(outcome, PodLost)
            assert "did not answer for 0.5 s" in str(outcome)
        else:
            assert outcome.outcome == "paused"
        await pod.stop()


async def test_a_stop_ends_a_process_that_stands_still(store: str, system_on: SystemOn) -> None:
    async with system_on(store, grace=0.1, memory_grace=0.0, store_grace=0.1) as system:
        with scripted([]) as client:
            pod = await system.spawn(restarting(), client=client, process=True)
            pid = process_of(pod)
            os.kill(pid, signal.SIGSTOP)
            assert await pod.stop() is True
            wait_for_end(pid)
            assert system.pods() == []


async def test_a_process_ends_by_itself_though_a_tool_holds_a_thread_of_its_loop(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system:
        with scripted([call("holds_a_thread")]) as client:
            tools = ["process_doubles:holds_a_thread"]
            pod = await system.spawn(ONE, client=client, tools=tools, process=True)
            with pod.subscribe(kinds=[ToolProgress]) as events:
                run = pod.run("go")
                await anext(events)
            assert isinstance(pod.address, ProcessPod)
            child = pod.address._child
            assert child is not None
            await pod.stop()
            assert (await run).outcome == "cancelled"
            assert (await child.wait()).code == 0


async def test_a_stopped_pod_does_not_come_back(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        with scripted([]) as client, system.subscribe(kinds=[PodStarted, PodEnded, ProcessLost]) as events:
            pod = await system.spawn(restarting(), client=client, process=True)
            pid = process_of(pod)
            assert await pod.stop() is True
            wait_for_end(pid)
            assert [type(event) for event in events.drain()] == [PodStarted, PodEnded]
            assert system.pods() == []


async def test_a_system_that_is_left_pauses_what_runs_in_processes(store: str) -> None:
    async with gated([say("never")]) as (client, gate):
        async with PodSystem(store) as system:
            pod = await system.spawn(ONE, client=client, process=True)
            run = pod.run("go")
            await gate.asked.acquire()
            pid = process_of(pod)
        assert (await run).outcome == "paused"
        wait_for_end(pid)
    async with PodSystem(store) as system:
        assert len(await system.interrupted()) == 1


async def test_a_system_is_left_while_a_process_begins(store: str) -> None:
    async with PodSystem(store) as system:
        with scripted([]) as client:
            spawned = system.spawn(ONE, client=client, process=True)
    with pytest.raises(PodStopped):
        await spawned


async def test_bytes_that_are_no_frames_end_the_process_that_sent_them(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store) as system:
        with scripted([call("write_garbage"), say("done")]) as client:
            pod = await system.spawn(
                ONE, client=client, tools=["process_doubles:write_garbage"], process=True
            )
            pid = process_of(pod)
            with pytest.raises(PodLost):
                await pod.run("go")
            wait_for_end(pid)


async def test_a_slow_reader_gets_every_durable_event(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        with scripted([say("x " * 20_000, chunks=20_000)]) as client:
            pod = await system.spawn(ONE, client=client, process=True)
            with pod.subscribe({RunStart, UserMessage, RunEnd}) as events, pod.subscribe(TextDelta) as deltas:
                run = pod.run("go")
                await asyncio.to_thread(lambda: None)
                result = await run
                kinds = [type(event) for event in events.drain()]
            assert kinds == [RunStart, UserMessage, RunEnd]
            assert result.text == "x " * 20_000
            assert deltas.drain()


# -- the end of the others -----------------------------------------------------------------------

_PARENT = """
import asyncio, sys
from actors.system import PodSystem
from protocol.manifest import PodManifest
from protocol.scope import Scope
from process_doubles import gated
from actors.llm.scripted import say

async def main():
    async with PodSystem(sys.argv[1]) as system, gated([say("never")]) as (client, gate):
        pod = await system.spawn(PodManifest.of(name="p"), client=client, process=True)
        run = pod.run("go")
        await gate.asked.acquire()
        print(pod.address._child.pid, system._here().assembly.launchers._of_pods.pid, flush=True)
        await run

asyncio.run(main())
"""


@pytest.mark.parametrize("whose", ["parent", "launcher"])
async def test_a_parent_or_a_launcher_that_is_killed_takes_its_pods_with_it(store: str, whose: str) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 - it has printed all by the time that anything waits
        [sys.executable, "-c", _PARENT, store],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pid, launcher = map(int, parent.stdout.readline().split())
    below = children_of(parent.pid)
    assert pid in below
    os.kill(parent.pid if whose == "parent" else launcher, signal.SIGKILL)
    wait_for_end(pid)
    parent.wait()
    parent.stdout.close()
    wait_until_none(lambda: below & living())
    async with PodSystem(store) as system:
        session = (await system.interrupted())[0].session_id
        again = await system.spawn(ONE, client=ScriptedClient([say("went on")]), resume=session)
        assert (await again.resume()).text == "went on"


# -- budgets -------------------------------------------------------------------------------------


def tokens_of(system: PodSystem) -> tuple[float, float]:
    use = system.budget
    assert use is not None
    return use.tokens, use.reserved_tokens


async def test_processes_draw_on_the_budget_of_their_system(store: str, system_on: SystemOn) -> None:
    replies = [say("a", input_tokens=100, output_tokens=10)] * 3
    async with system_on(store, budget={"tokens": 250}) as system:
        with scripted(replies) as client:
            pods = [
                await system.spawn(
                    PodManifest.of(name="p", worker={"max_tokens": 10}), client=client, process=True
                )
                for _ in range(2)
            ]
            assert (await pods[0].run("go")).outcome == "finished"
            assert (await pods[1].run("go")).outcome == "finished"
            assert system.totals.usage.total_tokens == 220
            used, reserved = tokens_of(system)
            assert used - reserved == 220
            for pod in pods:
                assert (await pod.run("go")).outcome in {"finished", "budget"}
            outcomes = {(await pod.run("more")).outcome for pod in pods}
            assert outcomes == {"budget"}
            for pod in pods:
                await pod.stop()
            assert tokens_of(system)[1] == 0


async def test_a_lease_is_given_back_by_a_killed_process_but_for_what_it_may_have_taken(
    store: str, system_on: SystemOn
) -> None:
    async with system_on(store, budget={"tokens": 100_000}) as system, gated([say("a")]) as (client, gate):
        manifest = PodManifest.of(name="p", worker={"max_tokens": 1000})
        pod = await system.spawn(manifest, client=client, process=True)
        run = pod.run("go")
        await gate.asked.acquire()
        pid = kill(pod)
        with pytest.raises(PodLost):
            await run
        wait_for_end(pid)
        used, reserved = tokens_of(system)
        assert reserved == 0
        assert 1000 < used < 2000


# -- failures of the pod itself ------------------------------------------------------------------


async def test_a_run_that_fails_there_fails_here_with_the_same_error(store: str, system_on: SystemOn) -> None:
    async with system_on(store) as system:
        with scripted([]) as client:
            pod = await system.spawn(restarting(), client=client, process=True)
            with pytest.raises(RunFailed, match="script"):
                await pod.run("go")
            assert (await pod.describe()).state is PodState.IDLE


def test_it_is_used_without_a_loop_of_ones_own(store: str) -> None:
    with scripted([say("hello")]) as client, PodSystem(store) as system:
        pod = system.spawn(ONE, client=client, process=True).get(timeout=60)
        events: list[Event] = []
        with pod.subscribe(RunEnd) as ends:
            assert pod.run("go").get(timeout=60).text == "hello"
            events += ends.drain()
        assert len(events) == 1


async def test_what_is_asked_of_a_pod_while_its_system_stops_it_has_an_answer(
    system_on: SystemOn, tmp_path: Path
) -> None:
    async with system_on(f"sqlite:{tmp_path / 'pods.db'}") as system:
        with scripted([]) as client:
            pod = await system.spawn(ONE, client=client, process=True)
        assert isinstance(pod.address, ProcessPod)
        stopped = pod.address.shut_down()
        with pytest.raises(PodStopped):
            await pod.describe()
        assert await stopped


async def test_an_answer_is_looked_at_without_a_traceback_while_the_system_stops_its_pod(
    system_on: SystemOn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Leaves(Struct):
        n: int

        def __post_init__(self) -> None:
            assert isinstance(pod.address, ProcessPod)
            pod.address.shut_down()

    async with system_on(f"sqlite:{tmp_path / 'pods.db'}") as system:
        with scripted([say('{"n": 1}')]) as client:
            pod = await system.spawn(ONE, client=client, process=True)
        assert (await pod.run("go", output=Leaves)).outcome == "paused"
    assert not caplog.text


def test_a_process_pod_with_the_pid_of_one_that_has_just_ended_is_found_by_its_name() -> None:
    """Two ended with KeyError, the older one's end having removed what was known of the newer one."""
    older, newer = process_of_pod(7, "older"), process_of_pod(7, "newer")
    older.__enter__()
    newer.__enter__()
    older.__exit__(None, None, None)
    assert "get('newer')" in str(in_use("s", Holder(7, socket.gethostname(), 0.0, "newer")))
    newer.__exit__(None, None, None)
    assert "get('newer')" not in str(in_use("s", Holder(7, socket.gethostname(), 0.0, "newer")))
