"""The test doubles that users have: scripts that repeat, functions as models, and the fixture of pytest."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from actors.llm.base import Request
from actors.llm.function_client import FunctionClient
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.system import PodSystem
from protocol.errors import ModelError, RunFailed, ScriptExhausted, ScriptLeftover
from protocol.items import ToolResult
from protocol.manifest import PodManifest


def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


async def test_a_script_that_repeats_begins_anew_and_may_be_left_anywhere() -> None:
    client = ScriptedClient([say("tick"), "tock"], repeat=True)
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        assert [(await pod.run("?")).text for _ in range(5)] == ["tick", "tock", "tick", "tock", "tick"]
    client.check()


async def test_an_empty_script_does_not_repeat() -> None:
    with pytest.raises(ScriptExhausted):
        async for _ in ScriptedClient([], repeat=True).stream(Request([])):
            pass


async def test_replies_may_be_left_over_where_that_is_said() -> None:
    for leftovers in (True, False):
        client = ScriptedClient([say("a"), say("b")], leftovers=leftovers)
        system = PodSystem()
        async with system:
            pod = await system.spawn(PodManifest.of(), client=client)
            await pod.run("?")
            if not leftovers:
                with pytest.raises(ScriptLeftover):
                    client.check()
                await pod.run("?")


async def test_a_function_answers_what_it_is_asked() -> None:
    def model(request: Request) -> Reply | str:
        last = request.items[-1]
        return f"It is {last.text}." if isinstance(last, ToolResult) else call("add", {"a": 1, "b": 2})

    client = FunctionClient(model)
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(system_prompt="Add."), client=client, tools=[add])
        assert (await pod.run("1 + 2?")).text == "It is 3."
        assert (await pod.run("again?")).text == "It is 3."
        ids = [item.call_id for item in await pod.history() if isinstance(item, ToolResult)]
    assert len(set(ids)) == 2
    assert [request.system for request in client.requests] == ["Add."] * 4
    assert "model, 4 requests" in repr(client)


async def test_a_function_may_be_async_fail_and_give_what_is_no_reply() -> None:
    async def slow(_: Request) -> str:
        await asyncio.sleep(0)
        return "done"

    def busy(_: Request) -> Reply:
        raise ModelError("no such model", kind="not_found")

    def wrong(_: Request) -> Reply:
        return 7  # type: ignore[return-value]

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=FunctionClient(slow))
        assert (await pod.run("?")).text == "done"
        with pytest.raises(RunFailed, match="no such model"):
            await pod.run("?", model=FunctionClient(busy))
        with pytest.raises(RunFailed, match="which is not a reply"):
            await pod.run("?", model=FunctionClient(wrong))


TESTS = """
from polypod import PodManifest
from polypod.testing import ScriptedClient, say


def test_plain(polypod):
    pod = polypod.spawn(PodManifest.of(), client=ScriptedClient([say("hello")])).get()
    assert pod.run("hi").get(timeout=30).text == "hello"
    assert polypod.running


def test_leftovers_fail_the_test(polypod):
    polypod.spawn(PodManifest.of(), client=ScriptedClient([say("hello")])).get()
"""


def test_the_fixture_of_pytest_is_a_system_for_one_test(tmp_path: Path) -> None:
    (tmp_path / "test_agent.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "polypod.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=100,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert "1 passed" in done.stdout or "2 passed" in done.stdout, done.stdout
    assert "ScriptLeftover" in done.stdout
    assert done.returncode == 1


def test_pytest_finds_the_fixture_by_itself() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["pytest11"] == {"polypod": "polypod.pytest_plugin"}


def test_the_plugin_costs_a_test_run_that_does_not_use_it_no_agents() -> None:
    code = "import sys, polypod.pytest_plugin; print('actors.llm.http.http_pool' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
