"""What users of other supervisors of agents report, and how it is here."""

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from swarm.agent_kit import (
    all_events,
    echo,
    fail,
    fork_swarm,
    hang,
    kill,
    lines,
    run_and_kill,
    swarm_in,
    talk,
    types,
    until,
    wait_for_ever,
)

from actors.runtime.children.child import Ladder
from actors.runtime.children.mark import is_running, mark_of
from actors.sessions.chain import chained
from actors.sessions.jsonl.lines import batch_lines, header_line
from actors.sessions.repair import import_session
from actors.sessions.urls import open_store
from actors.swarm.agents.kept_programs import KeptChild, Place
from actors.swarm.agents.projections import EVENTS, META, STDOUT
from actors.swarm.runners.base import Permission
from polypod import (
    AgentActivity,
    AgentError,
    AgentIdle,
    AgentRestarted,
    AgentStarted,
    AgentStopped,
    ApprovalRequested,
    Failure,
    Lagged,
    PodManifest,
    PodSystem,
    RunEnd,
    RunStart,
    ScriptedClient,
    Swarm,
    ToolProgress,
    UserMessage,
    call,
    say,
)
from protocol.agents import AgentSpec, opening_of
from protocol.entries import SessionOpened
from protocol.manifest import RestartSection
from protocol.wire import encode


async def work_and_say_so(swarm: Swarm, ready: Callable[[], None]) -> None:
    """A pod in the middle of a tool, and a function at work."""
    begun = asyncio.Event()
    again = {"policy": "on_failure"}  # no other process has what they were given, so none starts them again
    client = ScriptedClient([call("wait_for_ever", {})])
    function = await swarm.start("hang", hang, name="function", restart=again)
    await swarm.start("wait", client=client, tools=[wait_for_ever(begun)], name="pod", restart=again)
    await begun.wait()
    await until(function, UserMessage)
    ready()


def test_an_agent_whose_supervisor_was_killed_has_failed_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    run_and_kill(tmp_path, work_and_say_so)

    async def after() -> None:
        async with swarm_in(tmp_path) as swarm:
            agents = await swarm.agents()
            assert [each.status for each in agents] == ["failed", "failed"]
            for each in agents:
                assert "its supervisor died" in each.result.error
                last = lines(each, swarm, STDOUT)[-1]
                assert (last["type"], last["is_error"]) == ("result", True)
                assert types(each, swarm)[-1] == "agent_stopped"
            pod = await swarm.get("pod")
            client = ScriptedClient([say("went on")])
            await pod.resume(client=client)
            await until(pod, AgentRestarted, RunEnd)
            assert (await pod.wait()).text == "went on"
            said = [each.item.text for each in await until(pod, AgentIdle) if isinstance(each, UserMessage)]
            assert said == ["wait"]

    asyncio.run(after())


async def test_a_stopped_agent_does_not_come_back(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", hang, restart={"policy": "always"})
        await until(agent, RunStart)
        await agent.stop()
    for _ in range(2):
        async with swarm_in(tmp_path) as swarm:
            [agent] = await swarm.agents()
            assert agent.status == "killed"
            assert len(lines(agent, swarm, STDOUT)) == 3


async def test_a_revived_agent_repeats_no_prompt_and_no_turn_that_was_cancelled(tmp_path: Path) -> None:
    begun = asyncio.Event()
    async with swarm_in(tmp_path) as swarm:
        client = ScriptedClient([call("wait_for_ever", {})])
        agent = await swarm.start("stale", client=client, tools=[wait_for_ever(begun)])
        await begun.wait()
        await agent.cancel()
        await agent.stop()
    async with swarm_in(tmp_path) as swarm:
        [agent] = await swarm.agents()
        client = ScriptedClient([say("fresh")])
        await agent.resume(client=client)
        await until(agent, AgentRestarted, AgentIdle)
        assert client.requests == []
        await agent.send("new")
        assert (await agent.wait()).text == "fresh"


async def test_a_process_number_that_another_has_by_now_is_no_sign_of_life_and_gets_no_signal(
    tmp_path: Path,
) -> None:
    other = await asyncio.create_subprocess_exec("sleep", "100")  # it belongs to somebody else
    place = Place(other.pid, "another boot:1")
    child = KeptChild("x", tmp_path, place, None, Ladder(None, 0.05, 0.05), settle)
    assert child.ended
    (tmp_path / "kept.out").write_bytes(b"")
    assert (await child.stop()).code == -signal.SIGKILL
    assert is_running(other.pid, mark_of(other.pid) or "")
    other.kill()
    await other.wait()


async def settle() -> tuple[int, tuple[str, ...]]:
    return 0, ()


async def test_the_status_is_right_after_resume_and_so_is_the_result(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", fail)
        assert (await agent.wait()).status == "failed"
        await agent.resume(talk)
        result = await agent.wait()
        assert (agent.status, result.error) == ("idle", None)


async def test_an_api_error_is_not_reported_as_success_whatever_the_exit_code(tmp_path: Path) -> None:
    async def report_refusal(agent: Any) -> None:
        error = Failure("AgentFailed", "API Error: 429")
        agent._life.stream.put(*agent._life.recorder.end_run(outcome="failed", error=error))

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", report_refusal)
        result = await agent.wait()
        assert (result.status, agent.status) == ("failed", "failed")
        assert "429" in result.error
        assert lines(agent, swarm, STDOUT)[-1]["is_error"]


async def test_a_budget_that_is_used_up_ends_the_task_and_leaves_nothing_running(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        manifest = PodManifest.of(budget={"tokens": 10})
        agent = await swarm.start("x" * 400, client=ScriptedClient([say("never")]), manifest=manifest)
        result = await agent.wait()
        assert result.status == "failed"
        assert result.error is not None
        await agent.stop()
        assert [each.name for each in swarm.home.system.pods()] == []
        swarm.home.system._scripts.clear()


@pytest.mark.parametrize("damage", ["meta", "no_folder", "no_session", "session"])
async def test_a_row_can_be_removed_whatever_is_broken_about_it(tmp_path: Path, damage: str) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", echo)
        await agent.wait()
        folder = swarm.root / "agents" / agent.id
    if damage == "meta":
        (folder / META).write_bytes(b"\xff garbage")
    elif damage == "no_folder":
        for each in folder.iterdir():
            each.unlink()
        folder.rmdir()
    elif damage == "session":
        with contextlib.closing(sqlite3.connect(tmp_path / "pods.db")) as database, database:
            database.execute("UPDATE entries SET body = 'garbage'")
    async with swarm_in(tmp_path) as swarm:
        [found] = await swarm.agents()
        store = swarm.home.store
        if damage == "no_session":
            store.delete(found.session_id)
        await found.remove()
        assert await swarm.agents() == []
        assert list((swarm.root / "agents").iterdir()) == []
        assert store.sessions() == []


async def test_files_that_are_garbage_or_gone_are_made_anew_of_the_session(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", talk, name="talker")
        await until(agent, AgentIdle)
        await agent.send("more")
        await agent.wait()
        await agent.stop()
        folder = swarm.root / "agents" / agent.id
        before = {each.name: each.read_bytes() for each in folder.iterdir()}
    (folder / META).write_bytes(b"{half")
    (folder / EVENTS).write_bytes(before[EVENTS][:-20])
    (folder / STDOUT).unlink()
    async with swarm_in(tmp_path) as swarm:
        [agent] = await swarm.agents()
        assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


async def test_where_a_link_leads_that_stands_for_an_agents_folder_nothing_is_changed(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", echo)
        await agent.wait()
        folder = swarm.root / "agents" / agent.id
    shutil.rmtree(folder)
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    folder.symlink_to(other)
    async with swarm_in(tmp_path) as swarm:
        [agent] = await swarm.agents()
        assert (folder.is_symlink(), list(other.iterdir())) == (False, [])
        assert other.stat().st_mode & 0o777 == 0o755
        shutil.rmtree(folder)
        folder.symlink_to(other)
        await agent.remove()
        assert not folder.is_symlink()
        assert other.is_dir()


async def test_half_and_bad_lines_are_passed_over(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", echo)
        await agent.wait()
        file = swarm.root / "agents" / agent.id / EVENTS
        whole = types(agent, swarm)
        with file.open("ab") as log:
            log.write(b"\xff\n[1]\n\n{half")
        assert types(agent, swarm) == whole
        await agent.resume(echo)
        await agent.wait()
        assert types(agent, swarm)[len(whole) :][-1] == "agent_stopped"


async def test_files_that_cannot_be_written_stop_no_agent_and_are_made_good(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", talk)
        await until(agent, AgentIdle)
        file = swarm.root / "agents" / agent.id / EVENTS
        file.unlink()
        file.mkdir()
        await agent.send("more")
        assert (await agent.wait()).text == "got more"
        file.rmdir()
        await agent.stop()
        assert types(agent, swarm)[0] == "agent_started"
        assert types(agent, swarm)[-1] == "agent_stopped"
        assert types(agent, swarm, STDOUT).count("result") == 1


def test_an_agent_of_another_process_is_shown_and_let_be(tmp_path: Path) -> None:
    async def hang_and_say_so(swarm: Swarm, ready: Callable[[], None]) -> None:
        agent = await swarm.start("hang", hang)
        await until(agent, AgentActivity)
        ready()

    pid = fork_swarm(tmp_path, hang_and_say_so)

    async def look() -> None:
        async with swarm_in(tmp_path) as swarm:
            [agent] = await swarm.agents()
            assert (agent.status, agent.activity) == ("running", "hanging")
            asks = (
                agent.stop,
                agent.resume,
                agent.remove,
                agent.wait,
                agent.cancel,
                partial(agent.send, "x"),
            )
            for ask in asks:
                with pytest.raises(AgentError, match="another process manages"):
                    await ask()
            assert isinstance((await all_events(agent))[-1], AgentActivity)
            kill(pid)
            [agent] = await swarm.agents()
            assert agent.status == "failed"
            await agent.remove()

    asyncio.run(look())


async def test_ids_are_unique_whoever_starts_agents_on_a_folder(tmp_path: Path) -> None:
    async with (
        PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as one,
        PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as two,
    ):
        swarms = [Swarm(each, tmp_path / "root") for each in (one, two)]
        started = await asyncio.gather(*(swarms[n % 2].start("same", echo) for n in range(40)))
        assert len({each.id for each in started}) == 40
        for each in started:
            assert (await each.wait()).text == "did same"
        assert {each.id for each in await swarms[0].agents()} == {each.id for each in started}


async def test_a_reader_that_is_too_slow_loses_nothing_that_is_recorded(tmp_path: Path) -> None:
    async def chatter(agent: Any) -> str:
        for number in range(10_500):
            agent._life.stream.put(
                agent._life.recorder.make(ToolProgress, call_id="1", name="t", text=str(number))
            )
        await agent.emit(AgentActivity, activity="still here")
        return "end"

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", chatter)
        async with agent.events() as events:
            first = await anext(events)
            await agent.wait()
            seen = [first, *[event async for event in events]]
        assert any(isinstance(each, Lagged) for each in seen)
        durable = Counter(each.seq for each in seen if each.durable)
        assert durable == Counter(range(2, max(durable) + 1))


async def test_a_permission_that_a_program_asks_for_waits_for_a_person(tmp_path: Path) -> None:
    async def asks(agent: Any) -> str:
        answer = await agent.ask(Permission(tool="shell", arguments={"command": "ls"}, why="a rule"))
        return f"{answer.approved} {answer.note}"

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", asks)
        await until(agent, ApprovalRequested)
        assert agent.status == "waiting"
        [asked] = await swarm.approvals()
        assert (asked.tool, asked.pod) == ("shell", agent.id)
        await agent.approve(asked.approval_id, note="go on")
        assert (await agent.wait()).text == "True go on"
        assert await swarm.approvals() == []


async def test_a_program_is_answered_here_though_no_token_for_other_processes_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    token = tmp_path / "state" / "polypod" / "approval-token"
    token.parent.mkdir(parents=True, mode=0o700)
    token.write_bytes(b"x" * 32)
    token.chmod(0o644)
    async with swarm_in(tmp_path) as swarm:
        program = Path(__file__).parents[1] / "programs" / "listening.py"
        agent = await swarm.start("ask", [sys.executable, "-I", "-S", str(program)])
        await until(agent, ApprovalRequested)
        [asked] = agent.approvals
        assert asked.token == ""
        await agent.approve(asked.approval_id)
        assert '"approval_id"' in (await agent.wait()).text


async def test_a_call_of_a_pod_that_needs_a_person_is_answered_by_its_agent(tmp_path: Path) -> None:
    async def risky() -> str:
        """Do it."""
        return "dared"

    async with swarm_in(tmp_path) as swarm:
        manifest = PodManifest.of(approval=[{"tool": "risky", "policy": "ask"}])
        client = ScriptedClient([call("risky", {}), say("done")])
        agent = await swarm.start("x", client=client, manifest=manifest, tools=[risky])
        await until(agent, ApprovalRequested)
        [asked] = await swarm.approvals()
        assert (agent.status, agent.approvals, asked.tool) == ("waiting", [asked], "risky")
        await agent.approve(asked.approval_id)
        assert (await agent.wait()).text == "done"
        assert agent.approvals == []


async def test_a_stop_ends_an_agent_that_waits_for_a_person(tmp_path: Path) -> None:
    async def asks(agent: Any) -> str:
        return str(await agent.ask(Permission(tool="shell")))

    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", asks)
        await until(agent, ApprovalRequested)
        await agent.stop()
        assert agent.status == "killed"
        assert isinstance((await all_events(agent))[-1], AgentStopped)


def test_what_was_interrupted_is_looked_for_among_pods_alone(tmp_path: Path) -> None:
    run_and_kill(tmp_path, work_and_say_so)

    async def after() -> None:
        async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
            [found] = await system.interrupted()
            assert found.pod.endswith(".pod")

    asyncio.run(after())


def import_agent(folder: Path, pod: str, agent_id: str) -> None:
    """Import a session that somebody else has written: of an agent that is at work, and is to be restarted."""
    spec = AgentSpec(
        id=agent_id,
        task="x",
        runner=("sh", "-c", f"touch {folder / 'started'}"),
        cwd=str(folder),
        root=str(folder / "root"),
        created_at=1.0,
        restart=RestartSection(policy="on_failure"),
    )
    opened = SessionOpened(session_id="s", seq=1, at=1.0, pod=pod, manifest=opening_of(spec))
    started = AgentStarted(pod, "s", 2, 1.0, runner="sh", task="x", cwd=str(folder), session="s")
    exported = header_line("s", pod, 1.0, None) + batch_lines(chained([encode(opened), encode(started)]))
    with contextlib.closing(open_store(f"sqlite:{folder / 'pods.db'}")) as store:
        import_session(store, [exported])


async def test_an_agent_of_which_there_is_but_an_imported_session_is_started_by_no_look(
    tmp_path: Path,
) -> None:
    import_agent(tmp_path, "theirs-1", "theirs-1")
    async with swarm_in(tmp_path) as swarm:
        [agent] = await swarm.agents()
        assert agent.status == "failed"
        assert AgentRestarted not in [type(each) for each in await agent.events().recorded()]
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("agent_id", ["../../mine", "other-2"])
async def test_a_session_of_an_agent_that_has_another_id_is_no_agents(tmp_path: Path, agent_id: str) -> None:
    import_agent(tmp_path, "theirs-1", agent_id)
    async with swarm_in(tmp_path) as swarm:
        assert await swarm.agents() == []
        assert (await swarm.start("x", echo)).name == "x"
    assert not (tmp_path / "mine").exists()


async def test_settings_that_cannot_be_read_hold_up_no_look_at_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    settings = tmp_path / "polypod" / "polypod.toml"
    settings.parent.mkdir()
    command = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "programs" / "listening.py")]
    settings.write_text(f'[[runner]]\nname = "mine"\ncommand = {json.dumps(command)}\n')

    async def work(swarm: Swarm, ready: Callable[[], None]) -> None:
        for _ in range(2):
            await until(await swarm.start("wait", "mine", cwd=tmp_path), RunStart)
        ready()

    run_and_kill(tmp_path, work)
    settings.write_text("[[runner")
    async with swarm_in(tmp_path) as swarm:
        assert [each.status for each in await swarm.agents()] == ["failed", "failed"]
