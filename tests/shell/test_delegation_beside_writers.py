"""No sub-agent is given what may be written while something of its parent could write there still."""

import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from delegation_kit import spawn
from process_kit import marked
from shell_kit import Model, begin, manifest, marking, stop, texts

from actors.llm.scripted import call, say
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.events import ChildStarted, RunEnd, ToolResulted
from protocol.scope import Scope

CHILDREN = {"child", "reader", "writer"}


class Family(Model):
    """Plays its steps for the parent; sub-agents say that they are done."""

    def stream(self, request: Any) -> AsyncIterator[Any]:
        """The next reply of whoever asks."""
        return say("done").stream() if request.system in CHILDREN else super().stream(request)


def child(name: str, target: Path, permission: str) -> Any:
    return spawn(name, scope={"allow": [{"target": str(target), "permission": permission}]})


async def shown(*steps: Any, folder: Path, tools: Iterable[Any] = (), **sections: Any) -> list[str]:
    """What the parent's model learns of its calls."""
    sections = {"tools": {"builtin": ["shell", "pods"]}, "scope": Scope.writable(str(folder)), **sections}
    async with PodSystem() as system:
        pod = await system.spawn(manifest(**sections), client=Family(*steps, say("x"), say("x")), tools=tools)
        with pod.subscribe([ToolResulted, RunEnd]) as events:
            await pod.run("go")
            return texts(each for each in events.drain() if isinstance(each, ToolResulted))


async def test_beside_a_command_in_the_background_a_sub_agent_may_read_and_not_write(
    tmp_path: Path, mark: str
) -> None:
    said = await shown(
        begin(marking(mark, "echo up; sleep 1000")),
        child("writer", tmp_path, "write"),
        child("reader", tmp_path, "read"),
        stop,
        child("writer", tmp_path, "write"),
        folder=tmp_path,
    )
    assert said[1] == (
        "refused: a sub-agent must be the only writer in its scope, but commands in the background could "
        "still write there: ID-1 (wait for them, or end them with shell_stop)"
    )
    assert '"name":"reader"' in said[2]
    assert said[3] == "[ended by SIGTERM]"
    assert '"name":"writer"' in said[4]
    assert not marked(mark)


async def test_beside_a_thread_that_was_given_up_a_sub_agent_may_not_write(tmp_path: Path) -> None:
    go, ended = threading.Event(), threading.Event()

    @tool(timeout=0.05)
    def stuck() -> str:
        """Never done in time."""
        go.wait()
        ended.set()
        return "late"

    @tool
    async def release() -> str:
        """Let it end."""
        go.set()
        ended.wait()
        return "released"

    said = await shown(
        call("stuck"),
        child("writer", tmp_path, "write"),
        call("release"),
        folder=tmp_path,
        tools=[stuck, release],
    )
    assert "stuck took too long" in said[0]
    assert "abandoned tool calls could still write there: stuck" in said[1]
    assert said[2] == "released"


async def test_beside_a_server_that_writes_a_sub_agent_may_not_write(tmp_path: Path) -> None:
    class Server:
        """A source with a process of its own."""

        name = "a server"
        may_write = True

        async def open(self) -> None:
            """Begin."""

        def tools(self) -> Iterable[Tool]:
            """None."""
            return ()

        async def close(self) -> None:
            """End."""

    said = await shown(child("writer", tmp_path, "write"), folder=tmp_path, tools=[Server()])
    assert "tool servers that can write could still write there: a server" in said[0]


@pytest.mark.parametrize("permission", ["read", "write"])
async def test_beside_nothing_a_sub_agent_has_what_it_is_given(tmp_path: Path, permission: str) -> None:
    async with PodSystem() as system:
        of = manifest(tools={"builtin": ["shell", "pods"]}, scope=Scope.writable(str(tmp_path)))
        client = Family(child("child", tmp_path, permission), say("x"), say("x"))
        pod = await system.spawn(of, client=client)
        with pod.subscribe(ChildStarted) as events:
            await pod.run("go")
            assert len(events.drain()) == 1
