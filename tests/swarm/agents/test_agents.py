"""Agents from their start to their end, whatever runs them."""

import asyncio
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from swarm.agent_kit import all_events, echo, fail, hang, lines, swarm_in, talk, types, until, wait_for_ever

from actors.swarm.agents.projections import make_folders, reserve_folder
from polypod import (
    AgentError,
    AgentIdle,
    AgentNotRunning,
    AgentStarted,
    AgentStopped,
    AgentStopRequested,
    AssistantMessage,
    Launch,
    NameTaken,
    PodManifest,
    PodSystem,
    RunEnd,
    RunStart,
    Scope,
    ScriptedClient,
    Swarm,
    SystemNotRunning,
    ToolResulted,
    UnknownRunner,
    UserMessage,
    call,
    runner_func,
    say,
)


async def test_a_pod_as_an_agent_does_its_task_and_takes_more(tmp_path: Path) -> None:
    client = ScriptedClient(
        [say("one", input_tokens=3, output_tokens=4), say("two", input_tokens=5, output_tokens=6)]
    )
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("count", client=client, name="counter", cwd=tmp_path)
        result = await agent.wait()
        assert (result.status, result.text, agent.status) == ("done", "one", "idle")
        assert agent.name == "counter"
        assert (result.usage.input_tokens, result.usage.output_tokens) == (3, 4)
        assert result.seconds is not None
        await agent.send("more")
        result = await agent.wait()
        assert (result.text, result.usage.output_tokens) == ("two", 6)
        await agent.stop()
        assert agent.status == "killed"
        assert (await agent.wait()).text == "two"


async def test_a_function_as_an_agent_ends_with_its_answer(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("this", echo)
        result = await agent.wait()
        assert (result.status, result.text, agent.status) == ("done", "did this", "done")
        failing = await swarm.start("that", runner_func(fail, name="failing"))
        result = await failing.wait()
        assert (result.status, failing.status) == ("failed", "failed")
        assert "cannot that" in result.error
        assert failing.spec.runner == "failing"


@pytest.mark.parametrize("runner", ["pod", "function"])
async def test_agent_events_are_entries_of_one_session_and_nothing_is_published_twice(
    tmp_path: Path, runner: str
) -> None:
    given: dict[str, Any] = {"client": ScriptedClient([say("hi")])} if runner == "pod" else {"runner": echo}
    async with swarm_in(tmp_path) as swarm:
        system = swarm.home.system
        with system.subscribe() as everything:
            agent = await swarm.start("greet", **given)
            await agent.wait()
            await agent.stop()
            published = [each for each in everything.drain() if each.durable]
        [info] = system.store.sessions(pod=agent.id)
        assert info.session_id == agent.session_id
        own = [each for each in published if each.pod == agent.id]
        assert [each.seq for each in own] == list(range(2, info.head.seq + 1))
        kinds = Counter(type(each) for each in published)
        assert kinds[AssistantMessage] == kinds[UserMessage] == kinds[RunStart] == kinds[RunEnd] == 1
        assert kinds[AgentStarted] == kinds[AgentStopped] == 1
        seen = [each for each in await all_events(agent) if each.durable]
        assert Counter((each.pod, each.seq) for each in seen) == Counter(
            (each.pod, each.seq) for each in published
        )


async def test_events_come_from_the_first_on_whenever_they_are_asked_for(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("this", echo)
        await agent.wait()
        for _ in range(2):
            events = await all_events(agent)
            assert [type(each).__name__ for each in events] == [
                *("AgentStarted", "RunStart", "UserMessage", "AssistantMessage", "RunEnd", "AgentStopped")
            ]
        assert [type(each) for each in [e async for e in agent.events(since=6)]] == [AgentStopped]
        async with asyncio.timeout(30):
            assert [e async for e in agent.events(since=7)] == []  # there is nothing more to come


async def test_words_join_the_task_of_a_pod_that_goes_on(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        asked, answered = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            """Take a while."""
            asked.set()
            await answered.wait()
            return "slept"

        client = ScriptedClient([call("slow", {}), say("both")])
        agent = await swarm.start("sleep", client=client, tools=[slow])
        await asked.wait()
        sending, pod = agent.send("and this"), swarm.home.system.get(f"{agent.id}.pod")
        for _ in range(9):  # it is on its way to the pod
            await pod.describe()
        answered.set()
        await sending
        assert (await agent.wait()).text == "both"
        said = [each.item.text for each in await until(agent, AgentIdle) if isinstance(each, UserMessage)]
        assert said == ["sleep", "and this"]


async def test_words_for_a_program_that_is_busy_are_delivered_once_when_it_is_idle(tmp_path: Path) -> None:
    taken, go_on = [], asyncio.Event()

    async def busy(agent: Any) -> None:
        words = agent.task
        while True:
            taken.append(words)
            await go_on.wait()
            words = await agent.receive(f"got {words}")

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("first", runner_func(busy, joins=False))
        await until(agent, UserMessage)
        sent = [agent.send(f"words {number}") for number in range(3)]
        assert not any(each.done() for each in sent)
        go_on.set()
        for each in sent:
            await each
        assert (await agent.wait()).text == "got words 2"
        assert taken == ["first", "words 0", "words 1", "words 2"]


async def test_what_could_not_be_delivered_comes_back_as_an_error(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("hang", runner_func(hang, joins=False))
        await until(agent, UserMessage)
        sent = agent.send("you never hear this")
        await agent.stop()
        with pytest.raises(AgentNotRunning, match="never received 'you never hear this'"):
            await sent
        with pytest.raises(AgentNotRunning, match="accepts no messages"):
            await agent.send("nor this")


async def test_a_cancel_ends_the_task_and_a_pod_lives_on(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        begun = asyncio.Event()
        client = ScriptedClient([call("wait_for_ever", {}), say("again")])
        agent = await swarm.start("wait", client=client, tools=[wait_for_ever(begun)])
        await begun.wait()
        await agent.cancel()
        assert (await agent.wait()).status == "killed"
        assert agent.status == "idle"
        await agent.send("go on")
        assert (await agent.wait()).text == "again"


async def test_a_stop_is_recorded_as_intent_before_anything_is_asked_of_the_program(tmp_path: Path) -> None:
    seen: list[str] = []

    async def stubborn(agent: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            entries = system.store.read(agents[0].session_id)
            seen.append(entries[-1].body.decode())
            raise

    async with swarm_in(tmp_path) as swarm:
        system = swarm.home.system
        agents = [await swarm.start("stay", stubborn)]
        await until(agents[0], RunStart)
        await agents[0].stop()
        assert '"AgentStopRequested"' in seen[0]
        assert agents[0].status == "killed"
        kinds = [type(each) for each in await all_events(agents[0])]
        assert kinds.index(AgentStopRequested) < kinds.index(AgentStopped)


async def test_resume_goes_on_in_the_same_session_and_sends_no_task_again(tmp_path: Path) -> None:
    client = ScriptedClient([say("one"), say("two")])
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("count", client=client)
        await agent.wait()
        with pytest.raises(AgentError, match="still running"):
            await agent.resume()
        await agent.stop()
        await agent.resume()
        await until(agent, AgentStopped, AgentIdle)
        assert agent.status == "idle"
        await agent.send("go on")
        assert (await agent.wait()).text == "two"
        [sent] = client.requests[1:]
        assert [each.text for each in sent.items] == ["count", "one", "go on"]


async def test_an_agent_of_an_earlier_system_is_found_and_resumed(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("count", client=ScriptedClient([say("one")]), name="counter")
        await agent.wait()
        agent_id = agent.id
    async with swarm_in(tmp_path) as swarm:
        [found] = await swarm.agents()
        assert (found.id, found.status, found.result.text) == (agent_id, "done", "one")
        client = ScriptedClient([say("two")])
        await found.resume(client=client)
        await found.send("more")
        assert (await found.wait()).text == "two"
        assert [each.text for each in client.requests[0].items] == ["count", "one", "more"]
        assert await swarm.get("count") == found


async def test_a_function_of_an_earlier_system_has_to_be_given_again(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("talk", runner_func(talk, session="x"))
        await until(agent, AgentIdle)
    async with swarm_in(tmp_path) as swarm:
        [found] = await swarm.agents()
        assert found.status == "done"
        with pytest.raises(AgentError, match="has no runner"):
            await found.resume()
        await found.resume(runner_func(talk, session="x"))
        await found.send("hello")
        assert (await found.wait()).text == "got hello"


async def test_leaving_the_system_ends_all_agents_and_pauses_what_pods_did(tmp_path: Path) -> None:
    begun = asyncio.Event()
    async with swarm_in(tmp_path) as swarm:
        client = ScriptedClient([call("wait_for_ever", {})])
        pod = await swarm.start("wait", client=client, tools=[wait_for_ever(begun)])
        function = await swarm.start("hang", hang)
        await begun.wait()
        await until(function, UserMessage)
        assert {each.status for each in (pod, function)} == {"running"}
        await swarm.aclose()
        assert [each.status for each in (pod, function)] == ["killed", "killed"]
        assert [each.outcome for each in await all_events(pod) if isinstance(each, RunEnd)] == ["paused"]
        with pytest.raises(SystemNotRunning):
            await swarm.start("more", echo)


async def test_remove_refuses_what_lives_and_leaves_nothing_of_what_has_ended(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        system = swarm.home.system
        agent = await swarm.start("count", client=ScriptedClient([say("one")]))
        await agent.wait()
        with pytest.raises(AgentError, match="still running"):
            await agent.remove()
        await agent.stop()
        await agent.remove()
        assert await swarm.agents() == []
        assert system.store.sessions() == []
        assert list((swarm.root / "agents").iterdir()) == []
        await agent.remove()


async def test_the_folder_of_an_agent_whose_process_died_before_it_was_recorded_goes(tmp_path: Path) -> None:
    agents = make_folders(tmp_path / "root")
    (agents / "died-1").mkdir()
    (agents / "files-2").mkdir()
    (agents / "files-2" / "notes.txt").write_text("mine")
    held = reserve_folder(agents, "begins-3")
    assert held is not None
    try:
        async with swarm_in(tmp_path) as swarm:
            assert await swarm.agents() == []
            assert [each.partition(":")[0] for each in swarm.problems] == ["files-2"]
            await swarm.agents()
            assert [each.partition(":")[0] for each in swarm.problems] == ["files-2"]
            assert sorted(each.name for each in agents.iterdir()) == ["begins-3", "files-2"]
    finally:
        os.close(held)


async def test_agents_and_pods_share_one_name_space(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        system = swarm.home.system
        agent = await swarm.start("this", talk)
        with pytest.raises(NameTaken, match="there is already an agent"):
            await system.spawn(PodManifest.of(), name=agent.id)


@pytest.mark.parametrize(
    ("task", "given", "error"),
    [
        ("  ", {}, AgentError),
        ("x", {"cwd": "/nowhere/at/all"}, AgentError),
        ("x", {"runner": "no-such-runner"}, UnknownRunner),
        ("x", {"runner": 3}, UnknownRunner),
    ],
)
async def test_what_cannot_be_started_is_refused_and_leaves_nothing(
    tmp_path: Path, task: str, given: dict[str, Any], error: type[Exception]
) -> None:
    async with swarm_in(tmp_path) as swarm:
        with pytest.raises(error):
            await swarm.start(task, **given)
        assert await swarm.agents() == []
        assert list(tmp_path.glob("root/agents/*")) == []


async def test_a_working_directory_that_is_gone_is_an_error_and_no_crash_loop(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    starts = []

    async def flaky(agent: Any) -> None:
        starts.append(agent.launch.cwd)
        place.rmdir()
        raise RuntimeError("lost")

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", flaky, cwd=place, restart={"policy": "on_failure"})
        assert (await agent.wait()).status == "failed"
        assert starts == [place]
        with pytest.raises(AgentError, match="working directory of agent"):
            await agent.resume()


async def test_files_are_private_and_say_what_happened(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("greet", client=ScriptedClient([say("hi")]))
        await agent.wait()
        await agent.stop()
        folder = swarm.root / "agents" / agent.id
        for place in (swarm.root, swarm.root / "agents", folder):
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
        for file in folder.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert types(agent, swarm) == [
            *("agent_started", "pod_started", "turn_start", "user_message", "assistant_message", "turn_end"),
            *("agent_idle", "agent_stop_requested", "pod_stopped", "agent_stopped"),
        ]
        assert types(agent, swarm, "stdout.log") == ["system", "user", "stream_event", "assistant", "result"]
        assert lines(agent, swarm, "stdout.log")[-1]["result"] == "hi"
        meta = json.loads((folder / "meta.json").read_text())
        assert (meta["agent"]["id"], meta["session_id"]) == (agent.id, agent.session_id)


def test_a_program_without_a_loop_of_its_own_uses_agents_by_get(tmp_path: Path) -> None:
    with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        swarm = Swarm(system, tmp_path / "root")
        agent = swarm.start("this", echo).get(timeout=30)
        assert agent.wait().get(timeout=30).text == "did this"
        assert [each.id for each in swarm.agents().get(timeout=30)] == [agent.id]


async def test_a_runner_that_breaks_its_contract_ends_its_agent_as_failed(tmp_path: Path) -> None:
    class Broken:
        name, one_shot = "broken", False

        def start(self, launch: Launch, host: Any) -> Any:
            return BrokenLife()

    class BrokenLife:
        pid = session = None

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            raise ZeroDivisionError("a defect")

        async def stop(self) -> None:
            return None

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", Broken())
        result = await agent.wait()
        assert result.status == "failed"
        assert "a defect" in result.error


async def test_no_tool_of_a_pod_touches_the_folder_of_a_swarm_whatever_its_scope(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("this", echo)
        await agent.wait()
        file = swarm.root / "agents" / agent.id / "events.jsonl"
        client = ScriptedClient([call("read_file", {"path": str(file)}), say("done")])
        scope = Scope.writable(str(tmp_path))
        manifest = PodManifest.of(scope=scope, tools={"builtin": ["files"]}, pwd=str(tmp_path))
        reader = await swarm.start("read it", client=client, manifest=manifest)
        await reader.wait()
        [result] = [each for each in await until(reader, AgentIdle) if isinstance(each, ToolResulted)]
        assert result.item.is_error


async def test_who_resumes_stops_and_removes_at_once_has_one_agent_or_none(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", runner_func(talk, session="s"))
        await until(agent, AgentIdle)
        await agent.stop()
        asked = [agent.resume(), agent.resume(), agent.stop(), agent.resume()]
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(each, AgentError) for each in ends] == [False, True, False, False]
        await until(agent, AgentStopped, AgentStopped, AgentIdle)
        assert agent.status == "idle"
        await agent.stop()
        removing, resuming = agent.remove(), agent.resume()
        ends = await asyncio.gather(removing, resuming, return_exceptions=True)
        assert ends[0] is None
        assert isinstance(ends[1], AgentError)


async def test_no_agent_works_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    async with swarm_in(tmp_path) as swarm:
        with pytest.raises(AgentError, match="not UTF-8"):
            await swarm.start("hi", echo, cwd=folder)
        assert await swarm.agents() == []
