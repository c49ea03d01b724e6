"""Pods with MCP servers of others: time, git, filesystem and everything.

POLYPOD_REAL_MCP   a folder with ``bin/mcp-server-time`` and ``bin/mcp-server-git`` of a Python environment, and ``npm``
                   with ``@modelcontextprotocol/server-filesystem`` and ``server-everything`` installed in it
"""

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mcp_kit import calls, follow, having

from actors.llm.scripted import ScriptedClient
from actors.system import PodSystem
from protocol.events import ApprovalRequested, ToolStart
from protocol.items import ImagePart, ToolResult

FOLDER = os.environ.get("POLYPOD_REAL_MCP", "")
pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="POLYPOD_REAL_MCP is not set"),
    pytest.mark.timeout(120),
]


def python(name: str, *words: str) -> dict[str, Any]:
    command = [f"{FOLDER}/bin/mcp-server-{name}", *words]
    return {"name": name, "command": command, "approval": "allow"}


def node(name: str, *words: str) -> dict[str, Any]:
    script = f"{FOLDER}/npm/node_modules/@modelcontextprotocol/server-{name}/dist/index.js"
    return {"name": name, "command": ["node", script, *words], "approval": "allow"}


async def play(server: dict[str, Any], *wanted: Any) -> tuple[Any, ScriptedClient]:
    client = ScriptedClient(calls(*wanted))
    async with PodSystem() as system:
        pod = await system.spawn(having(server), client=client)
        return await follow(pod), client


async def test_time() -> None:
    server = python("time", "--local-timezone", "UTC")
    played, _ = await play(
        server, ("time__get_current_time", {"timezone": "Europe/Oslo"}), ("time__get_current_time", {})
    )
    right, wrong = played.results
    assert "Europe/Oslo" in right.text
    assert not right.is_error
    assert wrong.is_error
    assert "timezone" in wrong.text


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "the first one"], check=True)
    return tmp_path


async def test_git(repository: Path) -> None:
    played, client = await play(
        python("git", "--repository", str(repository)), ("git__git_log", {"repo_path": str(repository)})
    )
    assert "the first one" in played.texts[0]
    assert "git__git_status" in [each.name for each in client.requests[0].tools]


async def test_filesystem(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    played, _ = await play(
        node("filesystem", str(tmp_path)),
        ("filesystem__read_text_file", {"path": str(tmp_path / "a.txt")}),
        ("filesystem__write_file", {"path": str(tmp_path / "b.txt"), "content": "more"}),
        ("filesystem__read_text_file", {"path": "/etc/hostname"}),
    )
    assert played.texts[0] == "words"
    assert (tmp_path / "b.txt").read_text() == "more"
    assert played.results[2].is_error


async def test_everything() -> None:
    played, client = await play(
        node("everything"),
        ("everything__echo", {"message": "hello"}),
        ("everything__get-tiny-image", {}),
        ("everything__trigger-long-running-operation", {"duration": 1, "steps": 4}),
        ("everything__get-structured-content", {"location": "New York"}),
        ("everything__get-resource-links", {"count": 2}),
        ("everything__no-such-tool", {}),
    )
    echo, image, long, structured, links, unknown = played.results
    assert "hello" in echo.text
    assert any(isinstance(part, ImagePart) for part in image.content)
    assert not long.is_error
    assert len(played.progress) >= 4
    assert "temperature" in structured.text
    assert "[link to " in links.text
    assert unknown.is_error
    assert len(client.requests[0].tools) > 8


async def test_everything_asks_a_person() -> None:
    tool = "everything__trigger-elicitation-request"
    async with PodSystem() as system:
        pod = await system.spawn(having(node("everything")), client=ScriptedClient(calls(tool)))
        with pod.subscribe([ApprovalRequested]) as questions:
            run = pod.run("go")
            question = await anext(questions)
            assert isinstance(question, ApprovalRequested)
            assert question.form is not None
            await pod.approve(question.approval_id, arguments={"name": "Ann"})
            await run
        (result,) = [item for item in await pod.history() if isinstance(item, ToolResult)]
        assert "Ann" in result.text


async def test_one_that_is_killed_in_mid_call_is_started_again() -> None:
    tool = "everything__trigger-long-running-operation"
    wanted = ((tool, {"duration": 60, "steps": 2}), ("everything__echo", {"message": "again"}))
    async with PodSystem() as system:
        pod = await system.spawn(having(node("everything")), client=ScriptedClient(calls(*wanted)))
        with pod.subscribe([ToolStart]) as starts:
            run = pod.run("go")
            await anext(starts)
            await asyncio.to_thread(_kill_server)
            await run
        dead, again = [item for item in await pod.history() if isinstance(item, ToolResult)]
    assert "ended by signal 9" in dead.text
    assert "again" in again.text


def _kill_server() -> None:
    """Kill the one that this process started: its launcher's grandchild that runs the script."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            words[0] == b"node"
            and b"server-everything" in words[1]
            and _is_below(int(folder.name), os.getpid())
        ):
            os.kill(int(folder.name), signal.SIGKILL)
            return
    raise AssertionError("no server is there")


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False
