"""Agents that are programs: ours by their lines, others' by their formats; none is left behind."""

import asyncio
import json
import os
import random
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from process_kit import children_of, descriptors, living, wait_until_none
from swarm.agent_kit import all_events, lines, swarm_in, types, until
from swarm.runners.recordings import FOLDER

from polypod import (
    AgentIdle,
    AgentNotRunning,
    AgentOutput,
    AgentStarted,
    AgentStopped,
    ApprovalRequested,
    ApprovalResolved,
    Head,
    MemoryStore,
    PodSystem,
    StoredEntry,
    Swarm,
    ToolResulted,
    ToolStart,
    UserMessage,
)
from protocol.config import RunnerSection

HERE = Path(__file__).parents[1]
LISTENING = [sys.executable, "-I", "-S", str(HERE / "programs" / "listening.py")]


def quick(system: PodSystem, folder: Path) -> Swarm:
    return Swarm(system, folder / "root", request_wait=0.2, term_wait=0.2)


async def test_a_program_of_ours_does_its_task_and_takes_more(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("-- one", LISTENING, name="lines")
        assert (await agent.wait()).text == "did -- one"
        assert agent.pid is not None
        await agent.send("two\nlines")
        assert (await agent.wait()).text == "did two\nlines"
        pid = agent.pid
        await agent.stop()
        assert (agent.status, agent.pid) == ("killed", None)
        assert not Path(f"/proc/{pid}").exists()
        assert types(agent, swarm)[-1] == "agent_stopped"


@pytest.mark.parametrize(("task", "code", "status"), [("die", 7, "failed"), ("leave", 0, "done")])
async def test_how_a_program_ends_is_how_its_agent_does(
    tmp_path: Path, task: str, code: int, status: str
) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start(task, LISTENING)
        last = (await all_events(agent))[-1]
        assert (await agent.wait()).status == agent.status == status
        assert isinstance(last, AgentStopped)
        assert last.code == code


async def test_a_program_that_is_not_there_has_failed(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", ["/no/such/program"])
        result = await agent.wait()
        assert (result.status, agent.status) == ("failed", "failed")
        assert result.error is not None
        assert "/no/such/program" in result.error


async def test_a_program_that_was_killed_is_started_again_in_its_session(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("one", LISTENING, restart={"policy": "on_failure"})
        await agent.wait()
        assert agent.pid is not None
        os.kill(agent.pid, signal.SIGKILL)
        await until(agent, AgentStarted, AgentStarted, AgentIdle)
        await agent.send("two")
        assert (await agent.wait()).text == "did two"
        started = [
            each for each in await until(agent, AgentStarted, AgentStarted) if isinstance(each, AgentStarted)
        ]
        assert [each.task for each in started] == ["one", None]
        assert started[0].session == started[1].session


class Counting(MemoryStore):
    """Counts its commits."""

    commits = 0

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> None:
        self.commits += 1
        super().append(session_id, after, batch)


async def test_the_results_of_many_calls_that_a_stopped_program_leaves_take_few_commits(
    tmp_path: Path,
) -> None:
    store = Counting()
    async with PodSystem(store=store) as system:
        swarm = quick(system, tmp_path)
        agent = await swarm.start("call", LISTENING)
        await until(agent, *[ToolStart] * 300)
        before = store.commits
        await agent.stop()
        assert store.commits - before < 20
        left = [each.item.call_id for each in await all_events(agent) if isinstance(each, ToolResulted)]
        assert left == [f"c{number}" for number in range(300)]
        assert types(agent, swarm).count("tool_result") == 300


@pytest.mark.parametrize("approved", [True, False])
async def test_what_a_program_asks_is_an_approval_of_its_agent(tmp_path: Path, approved: bool) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("ask", LISTENING)
        await until(agent, ApprovalRequested)
        [asked] = agent.approvals
        assert (agent.status, asked.tool, asked.arguments) == ("waiting", "shell", {"command": "ls"})
        if approved:
            await agent.approve(asked.approval_id, arguments={"command": "pwd"})
        else:
            await agent.deny(asked.approval_id, note="not now")
        said = json.loads((await agent.wait()).text)
        assert said.pop("type") == ("Approve" if approved else "Disapprove")
        more = {"arguments": {"command": "pwd"}} if approved else {"note": "not now"}
        assert said == {"approval_id": "q1", **more}
        assert agent.approvals == []


async def test_what_a_person_has_answered_to_the_program_itself_is_recorded_so(tmp_path: Path) -> None:
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("ask", LISTENING)
        await until(agent, ApprovalRequested)
        _, writer = await asyncio.open_unix_connection(agent._keeper._inbox)
        writer.write(b'{"type":"Approve","approval_id":"q1"}\n')
        writer.close()
        [*_, answer] = await until(agent, ApprovalRequested, ApprovalResolved)
        assert isinstance(answer, ApprovalResolved)
        assert (answer.approved, answer.by) == (True, "person")
        assert (await agent.wait()).status == "done"


async def test_a_question_that_has_no_id_is_a_line_like_others(tmp_path: Path) -> None:
    lines = ["agent_ready", "approval_requested"]
    program = "\n".join(f"print('{json.dumps({'type': each})}', flush=True)" for each in lines)
    async with swarm_in(tmp_path) as swarm:
        agent = await swarm.start("x", [sys.executable, "-c", program])
        events = await until(agent, AgentStopped)
        assert any(
            "question without a usable id" in each.text for each in events if isinstance(each, AgentOutput)
        )


async def test_a_program_that_asks_and_asks_is_ended_and_holds_up_nobody(tmp_path: Path) -> None:
    program = """
import itertools, json
print(json.dumps({"type": "agent_ready"}))
for number in itertools.count():
    asked = {"approval_id": f"q{number}", "tool": "shell", "arguments": {"command": "x" * 1000}}
    print(json.dumps({"type": "approval_requested", **asked}), flush=True)
"""
    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        agent = await quick(system, tmp_path).start("x", [sys.executable, "-c", program])
        end = (await all_events(agent))[-1]
        assert isinstance(end, AgentStopped)
        assert "more than 100 open questions" in (end.error or "")
        assert agent.approvals == []


async def test_the_supervisor_of_programs_is_killed_and_none_outlives_it(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from polypod import PodSystem, Swarm\n"
        "async def main():\n"
        "    async with PodSystem(store='sqlite:pods.db') as system:\n"
        "        swarm = Swarm(system, 'root', request_wait=0.2, term_wait=0.2)\n"
        "        again = {'policy': 'on_failure', 'on_restart': 'resume'}\n"
        "        agents = [await swarm.start('wait', sys.argv[1:], restart=each) for each in (None, None, again)]\n"
        "        for each in agents:\n"
        "            while each.pid is None: await asyncio.sleep(0.01)\n"
        "        print(*(each.pid for each in agents), flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *LISTENING, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    pids = (await child.stdout.readline()).split()
    assert len(pids) == 3
    child.kill()
    await child.wait()
    await asyncio.to_thread(wait_until_none, lambda: {int(pid) for pid in pids} & living())
    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        again, *agents = await quick(system, tmp_path).agents()
        assert [each.status for each in agents] == ["failed"] * 2
        assert all("its supervisor died" in (each.result.error or "") for each in agents)
        assert "You were interrupted" in (await again.wait()).text
        assert again.status == "idle"


@pytest.mark.slow
async def test_programs_in_chaos_leave_no_process_socket_or_descriptor(tmp_path: Path) -> None:
    dice = random.Random(7)
    before = children_of(os.getpid())
    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        swarm = quick(system, tmp_path)
        first = await swarm.start("first", LISTENING)
        await first.wait()
        opened = descriptors()
        tasks = ["one", "die", "leave", "daemon", "fail", "wait", "garbage"]
        agents = [await swarm.start(dice.choice(tasks), LISTENING) for _ in range(30)]

        async def trouble(number: int) -> None:
            agent, dice = agents[number], random.Random(number)
            for _ in range(3):
                what = dice.choice(["send", "cancel", "stop", "kill", "idle"])
                if what == "kill" and agent.pid is not None:
                    os.kill(agent.pid, signal.SIGKILL)
                elif what == "idle":
                    await until(agent, AgentStarted)
                elif what == "send":
                    sending = agent.send("more")
                    sending.when_done(lambda: None)
                elif what in {"cancel", "stop"}:
                    await getattr(agent, what)()

        await asyncio.gather(*map(trouble, range(30)), return_exceptions=True)
        for each in agents:
            await each.stop()
        assert {each.status for each in agents} <= {"done", "failed", "killed"}
        for each in agents:
            results = [line for line in lines(each, swarm, "stdout.log") if line["type"] == "result"]
            assert len(results) == 1
            assert not each._keeper._inbox.exists()
        await first.stop()
        assert descriptors() <= opened
    assert children_of(os.getpid()) <= before


def of_codex(folder: Path, name: str = "codex_text", code: int = 0) -> RunnerSection:
    """``codex`` that prints what a real one did; each start of it is noted in a file."""
    words = (sys.executable, "-I", "-S", HERE / "programs" / "replay.py", FOLDER / f"{name}.jsonl", code)
    script = folder / "codex.sh"
    run = " ".join(shlex.quote(str(each)) for each in words)
    script.write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(folder / "starts"))}\nexec {run}\n')
    script.chmod(0o700)
    return RunnerSection("codex", (str(script),))


async def test_a_program_that_does_one_task_is_started_again_for_the_next(tmp_path: Path) -> None:
    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        swarm = Swarm(system, tmp_path / "root", runners=[of_codex(tmp_path)])
        agent = await swarm.start("one", "codex")
        first = await agent.wait()
        assert (first.status, agent.status) == ("done", "done")
        await agent.send("two")
        assert (await agent.wait()).text == first.text
        assert agent.status == "done"
        said = [each.item.text for each in await all_events(agent) if isinstance(each, UserMessage)]
        assert said == ["one", "two"]
        results = [line for line in lines(agent, swarm, "stdout.log") if line["type"] == "result"]
        assert [line["is_error"] for line in results] == [False, False]
        await agent.resume()
        assert agent.status == "idle"
        sent = [agent.send(words) for words in ("three", "four")]
        for each in sent:
            await each
        await agent.wait()
        assert agent.status == "done"
        assert len((tmp_path / "starts").read_text().splitlines()) == 4
        await agent.resume()
        await agent.stop()
        assert agent.status == "killed"
        with pytest.raises(AgentNotRunning):
            await agent.send("five")


async def test_a_good_last_line_with_a_bad_exit_code_is_a_failure(tmp_path: Path) -> None:
    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        swarm = Swarm(system, tmp_path / "root", runners=[of_codex(tmp_path, code=3)])
        agent = await swarm.start("one", "codex")
        assert (await agent.wait()).status == agent.status == "failed"
