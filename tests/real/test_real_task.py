"""A task end to end: a real model, shell, an MCP server and approvals, in a process that is killed and killed again.

What has to be set: POLYPOD_REAL_BASE_URL (a llama-server whose model opens a call whenever tools are offered) and
POLYPOD_REAL_MCP (see test_real_mcp; of it, ``bin/mcp-server-git``).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pod_stage import check_pairs
from real_kit import BASE_URL, in_all_formats, needs_server
from task_child import SLEEP

from actors.sessions.sqlite.store import SQLiteStore
from actors.system import PodSystem
from protocol.items import AssistantItem, ToolResult
from protocol.manifest import PodManifest

MCP = os.environ.get("POLYPOD_REAL_MCP", "")
pytestmark = [
    needs_server,
    pytest.mark.skipif(not MCP, reason="POLYPOD_REAL_MCP is not set"),
    pytest.mark.timeout(300),
]
CHILD = Path(__file__).with_name("task_child.py")
ROOT = Path(__file__).parents[2]


class Task:
    """The task's folder and store, and the processes that work on it."""

    def __init__(self, folder: Path, scheme: str) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.store = f"sqlite:{folder / 'pods.db'}"
        self.session: list[str] = []
        self._words = [self.store, BASE_URL, f"{MCP}/bin/mcp-server-git", scheme]
        self._env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        self._env |= {"XDG_STATE_HOME": str(folder / "state"), "LANG": "C.UTF-8"}
        for name in ("AUTHOR", "COMMITTER"):
            self._env |= {f"GIT_{name}_NAME": "a", f"GIT_{name}_EMAIL": "a@b"}
        self.git("init", "-q")
        self.git("config", "user.name", "a")
        self.git("config", "user.email", "a@b")

    def git(self, *words: str) -> str:
        made = ["git", "-C", str(self.folder), *words]
        return subprocess.run(made, check=True, capture_output=True, text=True, env=self._env).stdout

    def polypod(self, *words: str) -> str:
        """What the command prints, in a process of its own."""
        made = [sys.executable, "-m", "polypod", *words, "--store", self.store]
        done = subprocess.run(made, capture_output=True, text=True, env=self._env, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def working(self) -> Iterator[Worker]:
        """A process that begins the task, or goes on with it; it is killed at the end of the block."""
        with subprocess.Popen(
            [sys.executable, str(CHILD), *self._words, *self.session],
            cwd=self.folder, env=self._env, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            worker = Worker(process)
            try:
                self.session = [worker.sees("session")]
                yield worker
            finally:
                process.kill()

    def approve(self, approval_id: str) -> None:
        """Answer from another process, which has to find the question itself."""
        (waiting,) = [json.loads(line) for line in self.polypod("approvals", "--json").splitlines()]
        assert waiting["approval_id"] == approval_id
        self.polypod("approve", approval_id)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


class Worker:
    """A process that works on the task, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def sees(self, what: str) -> str:
        """The rest of the next line that begins so; nothing else comes before it."""
        assert self._process.stdout is not None
        said, _, rest = self._process.stdout.readline().strip().partition(" ")
        assert said == what, (said, rest)
        return rest

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


def sleepers() -> list[int]:
    """The processes that are in the middle of the last step."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if command[:2] == [word.encode() for word in SLEEP.split()]:
            found.append(int(folder.name))
    return found


async def wait_until(holds: Any) -> None:
    """Wait for something that other processes do, which nothing reports."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@in_all_formats
async def test_a_task_that_is_killed_at_a_question_and_in_a_tool_is_done_once_and_left_unanswered_nowhere(
    tmp_path: Path, scheme: str
) -> None:
    task = Task(tmp_path, scheme)
    with task.working() as first:
        question = first.sees("asks")
        first.kill()  # between the question and its answer
    assert task.lines("log.txt") == []
    task.approve(question)  # while nobody is there

    with task.working() as second:
        assert second.sees("starts") == "shell"
        assert "exit code 0" in second.sees("result")
        assert task.lines("log.txt") == ["first"]
        task.approve(second.sees("asks"))
        assert second.sees("starts") == "git__git_add"
        second.sees("result")
        question = second.sees("asks")
        second.kill()  # between the question and its answer, with a server at work
    assert "No commits" in task.git("status", "--branch") or task.git("diff", "--cached", "--name-only")
    with task.working() as third:
        task.approve(question)  # while it waits
        assert third.sees("starts") == "git__git_commit"
        assert "committed" in third.sees("result").lower()
        task.approve(third.sees("asks"))
        assert third.sees("starts") == "shell"
        await wait_until(lambda: task.lines("slow.txt") and sleepers())
        third.kill()  # in the middle of the tool
    await wait_until(lambda: not sleepers())

    with task.working() as fourth:
        assert "outcome unknown" in fourth.sees("result")
        assert fourth.sees("end") in {"finished", "limit_reached"}
    assert task.lines("log.txt") == ["first"]
    assert task.lines("slow.txt") == ["begun"]
    assert task.git("log", "--format=%s").splitlines() == ["by the model"]
    assert task.polypod("approvals", "--json") == ""
    task.polypod("fsck")
    await check_history(task)


async def check_history(task: Task) -> None:
    """Every call has its one result, in order."""
    async with PodSystem(store=SQLiteStore(task.store.removeprefix("sqlite:"))) as system:
        pod = await system.spawn(PodManifest.of(model="offline"), resume=task.session[0])
        history = await pod.history()
    check_pairs(history)
    asked = [call.id for item in history if isinstance(item, AssistantItem) for call in item.calls]
    assert asked == [item.call_id for item in history if isinstance(item, ToolResult)]
    assert len(asked) == 4
