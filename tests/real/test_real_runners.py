"""The real command lines of others as agents, offline: their model server is a script on this machine.

POLYPOD_REAL_CLI           the folder that has ``claude``, ``codex`` and ``gemini``
POLYPOD_REAL_MODEL_SCRIPT  the model server: ``python SCRIPT PORT LOGDIR``; the first part of a path says what it does
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.swarm.runners.base import Answer, Permission, Runner, StopWaits
from actors.swarm.runners.named import runner_of
from polypod import (
    AgentIdle,
    AgentStarted,
    AgentStopped,
    AssistantMessage,
    PodSystem,
    Retry,
    RunEnd,
    Swarm,
    TextDelta,
    ToolResulted,
    ToolStart,
    Usage,
)
from protocol.config import RunnerSection
from tests.ports import unused_port
from tests.swarm.runner_kit import KitHost, Reader, launch, left_in, names, one
from tests.swarm.runners.recordings import ends, texts

CLI = os.environ.get("POLYPOD_REAL_CLI", "")
SCRIPT = os.environ.get("POLYPOD_REAL_MODEL_SCRIPT", "")
PROGRAMS = ("claude", "codex", "gemini")
HELLO = "Hello from the fake model."
QUICK = StopWaits(request=1.0, term=1.0)
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.slow,
    pytest.mark.skipif(not CLI, reason="POLYPOD_REAL_CLI is not set"),
    pytest.mark.skipif(not SCRIPT, reason="POLYPOD_REAL_MODEL_SCRIPT is not set"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the model server answers, without what it does."""
    port = unused_port()
    log = tmp_path_factory.mktemp("requests")
    with subprocess.Popen(
        [sys.executable, SCRIPT, str(port), str(log)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        process.kill()


class Home:
    """A home without anything of ours, and what the programs find in it."""

    def __init__(self, folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.work, self._home, self._server, self._patch = folder / "work", folder, server, monkeypatch
        for each in (self.work, folder / "tmp", folder / ".codex", folder / ".gemini"):
            each.mkdir()
        settings: dict[str, object] = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
        settings |= {"privacy": {"usageStatisticsEnabled": False}, "general": {"enableAutoUpdate": False}}
        (folder / ".gemini" / "settings.json").write_text(json.dumps(settings))
        variables = {"HOME": str(folder), "TMPDIR": str(folder / "tmp"), "IS_SANDBOX": "1"}
        for name in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "DUMMY_KEY"):
            variables[name] = "dummy"
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
            variables[name] = "http://127.0.0.1:9"  # any other host fails at once
        variables |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "GEMINI_CLI_TRUST_WORKSPACE": "true"}
        variables |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        self.names = tuple(variables)

    def serve(self, mode: str) -> None:
        """Have the programs ask for what the server does in that mode."""
        self._patch.setenv("ANTHROPIC_BASE_URL", f"{self._server}/{mode}")
        self._patch.setenv("GOOGLE_GEMINI_BASE_URL", f"{self._server}/{mode}")
        (self._home / ".codex" / "config.toml").write_text(
            'model_provider = "fake"\ncheck_for_update_on_startup = false\n[analytics]\nenabled = false\n'
            f'[model_providers.fake]\nname = "fake"\nbase_url = "{self._server}/{mode}"\n'
            'env_key = "DUMMY_KEY"\nwire_api = "responses"\n'
        )

    def runner(self, program: str, mode: str, *args: str, retries: int = 1) -> Runner:
        """The runner of a program, that asks nobody unless it says so."""
        self.serve(mode)
        command = (str(Path(CLI, program)),)
        section = RunnerSection(program, command, args, self.names, max_retries=retries)
        return runner_of(program, [section])

    def acp(self, mode: str) -> Runner:
        """Gemini as an agent of the Agent Client Protocol."""
        self.serve(mode)
        name = f"acp:{Path(CLI, 'gemini')} --acp -m fake-1"
        names = (*self.names, "GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY")
        return runner_of(name, [RunnerSection(name, env=names)])


@pytest.fixture
def home(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, server, monkeypatch)


#: What has a program ask nobody.
FREELY = {
    "claude": ("--dangerously-skip-permissions",),
    "codex": ("--dangerously-bypass-approvals-and-sandbox",),
    "gemini": ("--yolo",),
}
#: How a task ends by what the server does; claude asks again without streaming where a stream breaks.
MODES = {
    "text": ("finished", "finished", "finished", ""),
    "tool": ("finished", "finished", "finished", ""),
    "toolfail": ("finished", "finished", "finished", ""),
    "e401": ("failed", "failed", "failed", "auth"),
    "e429": ("failed", "failed", "failed", "rate_limit"),
    "overflow": ("failed", "failed", "failed", "context_overflow"),
    "midstream": ("finished", "failed", "failed", ""),
    "cutstream": ("finished", "failed", "failed", ""),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_task_ends_as_its_model_server_lets_it(home: Home, program: str, mode: str) -> None:
    outcome, kind = MODES[mode][PROGRAMS.index(program)], MODES[mode][3]
    async with KitHost() as host:
        runner = home.runner(program, mode, *FREELY[program], retries=2)
        life = runner.start(launch(home.work, "--hi there", model="fake-1", waits=QUICK), host)
        reader = Reader(life)
        events = await reader.until(RunEnd)
        await life.stop()
        events = await reader.all()
    end, stopped = one(events, RunEnd), one(events, AgentStopped)
    assert end.outcome == outcome
    assert (end.error is not None) == (outcome == "failed")
    if outcome == "finished":
        assert {text.strip() for text in texts(events)} == {HELLO}
        assert len(texts(events)) == (2 if mode.startswith("tool") else 1)
        assert stopped.error is None
        assert end.usage.input_tokens
        assert (end.cost is not None) == (program == "claude")
    else:
        assert end.usage == Usage()
        assert end.error is not None
        assert end.error.details.get("kind", "") == kind
        assert [event.item.cut for event in events if isinstance(event, AssistantMessage)] in ([], [True])
    if mode.startswith("tool"):
        result = one(events, ToolResulted).item
        assert ("hi-from-tool" if mode == "tool" else "some-output") in result.text
        assert result.is_error == (mode == "toolfail" and program != "gemini")  # which reports success
    if mode == "e429":
        assert [event.attempt for event in events if isinstance(event, Retry)][:2] == [1, 2]
    assert one(events, AgentStarted).session


@pytest.mark.parametrize("program", ["codex", "gemini"])
async def test_a_conversation_goes_on_by_its_session(home: Home, program: str) -> None:
    async with KitHost() as host:
        runner = home.runner(program, "text", *FREELY[program])
        first = await Reader(runner.start(launch(home.work, "one", model="fake-1"), host)).all()
        session = one(first, AgentStarted).session
        used = one(first, RunEnd).usage
        again = launch(home.work, "two", model="fake-1", session=session, resuming=True, used=used)
        second = await Reader(runner.start(again, host)).all()
        used += one(second, RunEnd).usage
        waiting = runner.start(
            launch(home.work, None, model="fake-1", session=session, resuming=True, used=used), host
        )
        reader = Reader(waiting)
        await reader.until(AgentIdle)
        await waiting.send("three")
        third = await reader.all()
    for events in (second, third):
        assert one(events, AgentStarted).session == session
        assert ends(events) == ["finished"]
        assert one(events, AgentStopped).error is None
        assert [text.strip() for text in texts(events)] == [HELLO]
        assert one(events, RunEnd).usage.output_tokens == 7


@pytest.mark.parametrize("program", PROGRAMS)
async def test_an_agent_that_is_stopped_within_a_tool_leaves_nothing(home: Home, program: str) -> None:
    async with KitHost() as host:
        runner = home.runner(program, "toolsleep", *FREELY[program])
        life = runner.start(launch(home.work, "hi", model="fake-1", waits=QUICK), host)
        reader = Reader(life)
        await reader.until(ToolStart)
        await life.stop()
        assert life.pid is None
        assert not left_in(home.work)
        events = await reader.all()
    assert ends(events) == ["cancelled"]
    assert one(events, ToolResulted).item.is_error
    assert one(events, AgentStopped).reason == "shutdown"


# -- claude ----------------------------------------------------------------------------------------


async def test_claude_does_many_tasks_and_is_resumed(home: Home) -> None:
    async with KitHost() as host:
        runner = home.runner("claude", "text")
        life = runner.start(launch(home.work, "one", model="fake-1", waits=QUICK), host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        await life.send("two\nlines")
        await reader.until(AgentIdle, AgentIdle)
        await life.stop()
        events = await reader.all()
        assert ends(events) == ["finished", "finished"]
        usages = [event.usage.output_tokens for event in events if isinstance(event, RunEnd)]
        assert usages == [17, 17]
        stopped = one(events, AgentStopped)
        assert (stopped.reason, stopped.code, stopped.error) == ("shutdown", 0, None)
        again = launch(home.work, None, model="fake-1", session=life.session, resuming=True, waits=QUICK)
        life = runner.start(again, host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        await life.send("three")
        events = await reader.until(RunEnd)
        assert ends(events) == ["finished"]
        assert one(events, RunEnd).usage.output_tokens == 17
        await life.stop()
        assert one(await reader.all(), AgentStarted).session == again.session


async def test_claude_says_why_a_session_cannot_be_resumed(home: Home) -> None:
    session = "11111111-1111-4111-8111-111111111111"
    async with KitHost() as host:
        runner = home.runner("claude", "text")
        gone = launch(home.work, "hi", model="fake-1", session=session, resuming=True)
        events = await Reader(runner.start(gone, host)).all()
    assert ends(events) == ["failed"]
    assert session in (one(events, AgentStopped).error or "")


async def test_words_join_a_task_of_claude(home: Home) -> None:
    async with KitHost() as host:
        runner = home.runner("claude", "tool", *FREELY["claude"])
        life = runner.start(launch(home.work, "one", model="fake-1", waits=QUICK), host)
        reader = Reader(life)
        await reader.until(TextDelta)
        await life.send("and two")
        await reader.until(AgentIdle)
        await life.stop()
        events = await reader.all()
    # They joined the task at its tool, or began the next one: idle it was behind both alone.
    assert set(ends(events)) == {"finished"}
    assert names(events).count("AgentIdle") == 1
    assert names(events).count("RunStart") == names(events).count("RunEnd")


async def test_a_task_of_claude_is_cancelled_and_claude_goes_on(home: Home) -> None:
    async with KitHost() as host:
        runner = home.runner("claude", "toolsleep", *FREELY["claude"])
        life = runner.start(launch(home.work, "one", model="fake-1", waits=QUICK), host)
        reader = Reader(life)
        await reader.until(ToolStart)
        await life.cancel()
        await reader.until(AgentIdle)
        assert life.pid
        await life.send("two")
        await reader.until(RunEnd, RunEnd)
        await life.stop()
        assert ends(await reader.all()) == ["cancelled", "finished"]


@pytest.mark.parametrize("approved", [True, False])
async def test_claude_asks_a_person_for_a_permission(home: Home, approved: bool) -> None:
    async def person(_: Permission) -> Answer:
        return Answer(approved=approved, note="not today")

    async with KitHost(person) as host:
        runner = home.runner("claude", "toolw")
        life = runner.start(launch(home.work, "one", model="fake-1", waits=QUICK), host)
        reader = Reader(life)
        await reader.until(RunEnd)
        await life.stop()
        events = await reader.all()
        [asked] = host.asked
    assert asked.tool == "Bash"
    assert "made-by-tool.txt" in asked.arguments["command"]
    assert (home.work / "made-by-tool.txt").exists() == approved
    result = one(events, ToolResulted).item
    assert result.call_id == asked.call_id
    assert result.is_error != approved
    assert ("not today" in result.text) != approved


async def test_a_swarm_has_real_programs_as_agents(home: Home) -> None:
    command = {program: [str(Path(CLI, program))] for program in PROGRAMS}
    sections = [
        {"name": program, "command": command[program], "args": list(FREELY[program]), "env": list(home.names)}
        for program in PROGRAMS
    ]
    home.serve("text")
    async with PodSystem() as system:
        swarm = Swarm(system, home.work.parent / "swarm", runners=sections)
        agents = [
            await swarm.start("one", program, model="fake-1", cwd=home.work, name=program)
            for program in PROGRAMS
        ]
        for agent in agents:
            result = await agent.wait()
            assert (result.status, result.text.strip()) == ("done", HELLO), agent.id
            await agent.send("two")
            result = await agent.wait()
            assert (result.status, result.text.strip()) == ("done", HELLO), agent.id
            assert result.usage is not None
            assert result.usage.output_tokens == (17 if agent.id.startswith("claude") else 7)
            await agent.stop()
        assert not left_in(home.work)


# -- an agent of the Agent Client Protocol ---------------------------------------------------------


async def test_a_real_agent_of_the_protocol_does_turns(home: Home) -> None:
    pytest.importorskip("acp")
    async with KitHost() as host:
        runner = home.acp("text")
        life = runner.start(launch(home.work, "one", waits=QUICK), host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        await life.send("two")
        await reader.until(RunEnd, RunEnd)
        await life.stop()
        events = await reader.all()
        assert ends(events) == ["finished", "finished"]
        assert [text.strip() for text in texts(events)] == [HELLO, HELLO]
        assert one(events, AgentStarted).session
        assert [event.usage.output_tokens for event in events if isinstance(event, RunEnd)] == [7, 7]


@pytest.mark.parametrize("approved", [True, False])
async def test_a_real_agent_of_the_protocol_asks_a_person(home: Home, approved: bool) -> None:
    pytest.importorskip("acp")

    async def person(_: Permission) -> Answer:
        return Answer(approved=approved)

    async with KitHost(person) as host:
        life = home.acp("toolw").start(launch(home.work, "one", waits=QUICK), host)
        reader = Reader(life)
        events = await reader.until(RunEnd)
        await life.stop()
        [asked] = host.asked
    assert asked.tool == "execute"
    assert (home.work / "made-by-tool.txt").exists() == approved
    assert one(events, ToolResulted).item.call_id == asked.call_id


async def test_a_real_agent_of_the_protocol_is_cancelled(home: Home) -> None:
    pytest.importorskip("acp")
    begun = asyncio.Event()

    async def person(_: Permission) -> Answer:
        begun.set()
        return Answer(approved=True)

    async with KitHost(person) as host:
        life = home.acp("toolsleep").start(launch(home.work, "one", waits=QUICK), host)
        reader = Reader(life)
        await begun.wait()
        await life.cancel()
        await reader.until(AgentIdle)
        assert life.pid
        await life.stop()
        assert not left_in(home.work)
        assert ends(await reader.all()) == ["cancelled"]
