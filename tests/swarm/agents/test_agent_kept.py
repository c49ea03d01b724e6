"""Programs that were kept outlive who started them, are found again, and are never doubled."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from process_kit import living, wait_until_none
from swarm.agent_kit import all_events, echo, until
from swarm.runner_kit import left_in

from actors.runtime.children.child import Ladder
from actors.runtime.children.descendants import with_variable
from actors.runtime.children.kernel import free_range
from actors.swarm.agents.kept_programs import ERRORS, OUTPUT, PLACE, KeptChild, Place
from actors.swarm.runners.listening import AGENT_LOG
from polypod import (
    Agent,
    AgentError,
    AgentIdle,
    AgentOutput,
    AgentStarted,
    AgentStopped,
    ApprovalRequested,
    AssistantMessage,
    MemoryStore,
    PodSystem,
    RunStart,
    Swarm,
    UserMessage,
)

LISTENING = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "programs" / "listening.py")]


def system_in(folder: Path) -> PodSystem:
    return PodSystem(store=f"sqlite:{folder / 'pods.db'}")


def quick(system: PodSystem, folder: Path) -> Swarm:
    return Swarm(system, folder / "root", request_wait=0.2, term_wait=0.2)


async def keep(folder: Path, task: str) -> int:
    """Start an agent that is kept, and leave it: the number of its process."""
    async with system_in(folder) as system:
        agent = await quick(system, folder).start(task, LISTENING, keep=True, name="kept")
        await until(agent, *([AgentIdle] if task != "wait" else [AgentStarted]))
        if task == "wait":
            await until(agent, RunStart)
        pid = agent.pid
        assert pid is not None
    return pid


def check_files(folder: Path, agent: Agent) -> None:
    assert not [each.name for each in (folder / "root" / "agents" / agent.id).glob("kept.json")]


async def seen_once(agent: Agent) -> list[str]:
    """What it has said, after a look that no entry came twice."""
    events = await until(agent, AgentIdle)
    assert max(Counter((each.pod, each.seq) for each in events if each.durable).values()) == 1
    return [each.item.text for each in events if isinstance(each, AssistantMessage)]


async def test_a_kept_program_is_found_again_and_goes_on(tmp_path: Path) -> None:
    pid = await keep(tmp_path, "one")
    assert pid in living()
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        await agent.wait()
        assert (agent.status, agent.pid, agent.result.text) == ("idle", pid, "did one")
        await agent.send("two")
        assert (await agent.wait()).text == "did two"
        with pytest.raises(AgentError, match="still running"):
            await agent.resume()
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        await agent.stop()
        assert agent.status == "killed"
        said = [
            each.item.text
            for each in [event async for event in agent.events()]
            if isinstance(each, AssistantMessage)
        ]
        assert said == ["did one", "did two"]
        check_files(tmp_path, agent)
    wait_until_none(lambda: {pid} & living())


async def test_what_a_kept_program_does_while_nobody_looks_is_recorded_later(tmp_path: Path) -> None:
    pid = await keep(tmp_path, "one")
    async with system_in(tmp_path) as system:
        swarm = quick(system, tmp_path)
        [inbox] = [each._inbox for each in await _keepers(swarm)]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(inbox))
        connection.sendall(b"user alone\n")
    output = next((tmp_path / "root" / "agents").glob("*/kept.out"))
    async with asyncio.timeout(30):
        while b"did alone" not in output.read_bytes():  # noqa: ASYNC110 - nothing reports a file's growth
            await asyncio.sleep(0.01)
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        async with asyncio.timeout(30), agent.events() as events:
            async for event in events:
                if isinstance(event, AssistantMessage) and event.item.text == "did alone":
                    break
        await agent.stop()
    wait_until_none(lambda: {pid} & living())


async def _keepers(swarm: Swarm) -> list[object]:
    return [each._keeper for each in await swarm.agents()]


async def test_a_kept_program_that_works_is_found_at_work(tmp_path: Path) -> None:
    pid = await keep(tmp_path, "wait")
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        assert agent.status == "running"
        await agent.cancel()
        assert (await agent.wait()).status == "killed"
        assert agent.status == "idle"
        assert [
            each.item.text for each in await until(agent, AgentIdle) if isinstance(each, UserMessage)
        ] == ["wait"]
        await agent.stop()
    wait_until_none(lambda: {pid} & living())


async def test_what_a_kept_program_has_put_in_another_session_ends_with_it(tmp_path: Path) -> None:
    pid = await keep(tmp_path, "branch")
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        child = int((await agent.wait()).text)
        assert child in living()
        await agent.stop()
        assert not {pid, child} & living()


async def test_what_a_kept_program_has_left_that_ended_by_itself_ends_too(tmp_path: Path) -> None:
    async with system_in(tmp_path) as system:
        swarm = quick(system, tmp_path)
        agent = await swarm.start("daemon", LISTENING, keep=True)
        await agent.wait()
        await until(agent, AgentStopped)
        left = with_variable(f"{AGENT_LOG}={swarm.root / 'agents' / agent.id / 'events.jsonl'}")
    assert left == []


async def test_a_program_that_has_the_number_of_a_kept_one_since_is_left_alone(tmp_path: Path) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    place = Place(stranger.pid, "an earlier boot:1")
    (tmp_path / OUTPUT).touch()
    (tmp_path / ERRORS).touch()

    async def settle() -> tuple[int, tuple[str, ...]]:
        return 0, ()

    ladder = Ladder(request=signal.SIGTERM, request_wait=0.1, term_wait=0.1)
    end = await KeptChild("program", tmp_path, place, None, ladder, settle).stop()
    assert (end.code, end.left) == (-signal.SIGKILL, ())
    assert stranger.returncode is None
    assert stranger.pid in living()
    stranger.kill()
    await stranger.wait()


async def test_a_kept_program_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from polypod import PodSystem, Swarm\n"
        "async def main():\n"
        "    async with PodSystem(store='sqlite:pods.db') as system:\n"
        "        agent = await Swarm(system, 'root').start('one', sys.argv[1:], keep=True)\n"
        "        await agent.wait()\n"
        "        print(agent.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *LISTENING, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    pid = int(await child.stdout.readline())
    child.kill()
    await child.wait()
    assert pid in living()
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        await agent.wait()
        assert (agent.status, agent.pid) == ("idle", pid)
        assert await seen_once(agent) == ["did one"]
        await agent.stop()
    wait_until_none(lambda: {pid} & living())


def size_on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def can_free(path: Path) -> bool:
    """Whether the file system frees parts of files."""
    with path.open("w+b") as file:
        file.write(b"x" * (1 << 16))
        file.flush()
        os.fsync(file.fileno())
        free_range(file.fileno(), 0, 1 << 15)
    return size_on_disk(path) < 1 << 16


async def test_what_is_recorded_of_a_kept_program_takes_no_space(tmp_path: Path) -> None:
    if not can_free(tmp_path / "file"):
        pytest.skip("this file system frees no parts of files")
    async with system_in(tmp_path) as system:
        swarm = quick(system, tmp_path)
        agent = await swarm.start("much", LISTENING, keep=True)
        await agent.wait()
        pid = agent.pid
        assert pid is not None
        files = [swarm.root / "agents" / agent.id / name for name in (OUTPUT, ERRORS)]
        async with asyncio.timeout(30):
            while any(size_on_disk(each) > 6 << 20 for each in files):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
    assert all(each.stat().st_size >= 12 << 20 for each in files)
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        assert agent.status == "idle"
        await agent.send("one")
        assert (await agent.wait()).text == "did one"
        await agent.stop()
        events = await all_events(agent)
        said = [each.item.text for each in events if isinstance(each, AssistantMessage)]
        printed = [each.text for each in events if isinstance(each, AgentOutput)]
        assert (said, printed.count("ready")) == (["did much", "did one"], 1)
    wait_until_none(lambda: {pid} & living())


@pytest.mark.parametrize("task", ["flood", "flood errors"])
async def test_a_kept_program_whose_output_is_not_recorded_any_more_is_ended(
    tmp_path: Path, task: str
) -> None:
    async with system_in(tmp_path) as system:
        swarm = quick(system, tmp_path)
        agent = await swarm.start(task, LISTENING, keep=True)
        async with asyncio.timeout(30):
            result = await agent.wait()
        assert result.status == "failed"
        assert "could not be recorded" in str(result.error)
        await until(agent, AgentStopped)
        assert (swarm.root / "agents" / agent.id / OUTPUT).stat().st_size == 0
        check_files(tmp_path, agent)


async def test_what_a_kept_program_waits_for_is_asked_again_by_who_finds_it(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from polypod import PodSystem, Swarm\n"
        "async def main():\n"
        "    async with PodSystem(store='sqlite:pods.db') as system:\n"
        "        agent = await Swarm(system, 'root').start('ask', sys.argv[1:], keep=True)\n"
        "        while not agent.approvals: await asyncio.sleep(0.01)\n"
        "        print(agent.approvals[0].approval_id, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *LISTENING, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    approval_id = (await child.stdout.readline()).decode().strip()
    child.kill()
    await child.wait()
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        assert [each.approval_id for each in agent.approvals] == [approval_id]
        assert agent.status == "waiting"
        await agent.approve(approval_id)
        assert '"Approve"' in (await agent.wait()).text
        assert agent.status == "idle"
        asked = [each for each in await until(agent, AgentIdle) if isinstance(each, ApprovalRequested)]
        assert len(asked) == 1
        await agent.stop()


async def test_a_kept_program_whose_supervisor_is_killed_before_it_is_up_is_found(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from polypod import PodSystem, Swarm\n"
        "async def main():\n"
        "    async with PodSystem(store='sqlite:pods.db') as system:\n"
        "        agent = await Swarm(system, 'root').start('one', sys.argv[1:], keep=True)\n"
        "        while not Path('root', 'agents', agent.id, 'kept.json').exists():\n"
        "            await asyncio.sleep(0)\n"
        "        print('begun', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = ["sh", "-c", 'read line < "$0"; exec "$@"', str(gate), *LISTENING]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    await child.stdout.readline()
    child.kill()
    await child.wait()
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        assert agent.status != "failed"
        with gate.open("w") as opened:
            opened.write("go\n")
        await agent.wait()
        assert (agent.status, agent.result.text) == ("idle", "did one")
        assert await seen_once(agent) == ["did one"]
        pid = agent.pid
        assert pid in living()
        await agent.stop()
        assert pid not in living()


async def test_a_kept_program_that_was_killed_meanwhile_has_failed(tmp_path: Path) -> None:
    pid = await keep(tmp_path, "one")
    os.kill(pid, signal.SIGKILL)
    wait_until_none(lambda: {pid} & living())
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        await agent.wait()
        assert agent.status == "failed"


async def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    async with system_in(tmp_path) as system:
        with pytest.raises(AgentError, match="cannot be kept"):
            await quick(system, tmp_path).start("x", echo, keep=True)


@pytest.mark.parametrize("name", [PLACE, OUTPUT, ERRORS])
async def test_a_program_that_cannot_be_kept_is_not_left_behind(tmp_path: Path, name: str) -> None:
    class InTheWay(MemoryStore):
        """Has a folder in the place of a file by the time that the program is started."""

        def create(self, session_id: str, pod: str, *entries: Any, **more: Any) -> None:
            (tmp_path / "root" / "agents" / pod / name).mkdir()
            super().create(session_id, pod, *entries, **more)

    async with PodSystem(store=InTheWay()) as system:
        agent = await quick(system, tmp_path).start("wait", LISTENING, keep=True, cwd=tmp_path)
        result = await agent.wait()
        assert result.status == "failed"
        assert "cannot start" in result.error
    assert left_in(tmp_path) == []


async def test_a_kept_program_is_found_and_sent_to_whatever_our_runtime_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Path(tempfile.mkdtemp(prefix="pp"))
    (runtime / "other").mkdir()
    (runtime / "other" / "polypod").write_text("in the way")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    pid = await keep(tmp_path, "one")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "other"))
    async with system_in(tmp_path) as system:
        [agent] = await quick(system, tmp_path).agents()
        assert (agent.status, agent.pid) == ("idle", pid)
        await agent.send("two")
        assert (await agent.wait()).text == "did two"
        await agent.stop()
    wait_until_none(lambda: {pid} & living())
    shutil.rmtree(runtime)
