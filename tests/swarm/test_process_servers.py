"""MCP servers of pods that are processes: their parent has the connections."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mcp_kit import calls, follow, having, raw
from pod_processes import SystemOn
from process_doubles import scripted
from process_kit import wait_for_end

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod_process.parent_servers import ParentServers
from actors.runtime.children.launcher import Launcher
from actors.runtime.read_frame import read_frame
from actors.swarm.processes.process_pod import ProcessPod
from actors.swarm.processes.shared_servers import SharedServers
from actors.tools.base import ToolContext
from actors.tools.mcp.connections import OwnConnections
from protocol import channel
from protocol.errors import PodLost, PodStopped, ToolError
from protocol.events import ApprovalRequested, ToolProgress
from protocol.items import Part, TextPart, ToolResult
from protocol.mcp import McpServer
from protocol.scope import Scope
from protocol.shared_servers import (
    CallGave,
    CallProgress,
    CallTool,
    HoldServer,
    decode_to_process,
    frame,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")


RAW = McpServer("raw", command=tuple(raw()["command"]))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'pods.db'}"


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    asyncio.run(made.aclose())


async def test_all_pods_share_a_server_and_those_in_processes_import_no_sdk(
    system_on: SystemOn, store: str
) -> None:
    """It costs half a second and 64 MB in each process that asks servers itself."""
    script = [call("raw__pid"), call("has_sdk"), say("done")]
    with scripted(script) as client:
        async with system_on(store) as system:
            here = await system.spawn(having(raw()), client=ScriptedClient(calls("raw__pid")))
            tools = ["process_doubles:has_sdk"]
            others = [
                await system.spawn(having(raw()), client=client, tools=tools, process=True) for _ in range(2)
            ]
            first, *rest = [await follow(pod) for pod in (here, *others)]
            assert [each.texts for each in rest] == 2 * [[*first.texts, "False"]]


async def test_a_server_ends_with_the_process_that_needed_it_however_that_ends(
    system_on: SystemOn, store: str
) -> None:
    """And the pod can be stopped while it does: that was not answered."""
    command = ["sh", "-c", '"$@"; sleep 60', "sh", *raw()["command"]]
    with scripted(calls("raw__pid")) as client:
        async with system_on(store) as system:
            pod = await system.spawn(having({**raw(), "command": command}), client=client, process=True)
            (server,) = (await follow(pod)).texts
            assert isinstance(pod.address, ProcessPod)
            assert pod.address._child is not None
            pod.address._child.ask_to_stop()
            await asyncio.to_thread(wait_for_end, int(server))


async def test_what_a_server_does_in_a_call_reaches_its_pod(system_on: SystemOn, store: str) -> None:
    """Progress, an error of the tool's own, an end in mid-call, a start anew, tools that come."""
    wanted: list[Any] = [
        ("raw__never", {"steps": 2, "answer": True}),
        "raw__strange",
        "raw__die",
        ("raw__echo", {"text": "again"}),
        "raw__change",
        ("raw__pause", {"seconds": 0.1}),  # it is asked for its list meanwhile
        "raw__new",
    ]
    with scripted(calls(*wanted)) as client:
        async with system_on(store) as system:
            pod = await system.spawn(having(raw()), client=client, process=True)
            played = await follow(pod)
    assert played.progress == ["at it (0)", "at it (1)"]
    assert "which polypod does not know" in played.texts[1]
    assert "ended with exit code 3" in played.texts[2]
    assert "may or may not have taken effect" in played.texts[2]
    assert played.results[2].is_error
    assert played.texts[3:5] == ["again", "changed"]
    assert "Unknown tool: new" in played.texts[6]  # it was there to be called


async def test_a_pod_that_is_stopped_as_it_is_spawned_has_not_started(
    system_on: SystemOn, store: str
) -> None:
    """Neither its start nor its stop was answered."""
    async with system_on(store) as system:
        spawned = asyncio.ensure_future(system.spawn(having(), process=True))
        (pod,) = system.pods()
        await pod.stop()
        with pytest.raises(PodStopped):
            await spawned


async def test_a_process_in_the_place_of_a_killed_one_has_its_servers(
    system_on: SystemOn, store: str
) -> None:
    with scripted([call("raw__never", {"steps": 1}), say("done")]) as client:
        async with system_on(store) as system:
            manifest = having(raw(), restart={"policy": "on_failure"})
            pod = await system.spawn(manifest, client=client, process=True)
            with pod.subscribe([ToolProgress]) as events:
                for _ in range(2):  # the call goes to a server that is at work, in the second life too
                    run = pod.run("go")
                    await anext(events)
                    assert isinstance(pod.address, ProcessPod)
                    assert pod.address._child is not None
                    os.kill(pod.address._child.pid, signal.SIGKILL)
                    with pytest.raises(PodLost):
                        await run


async def test_a_server_that_cannot_start_is_an_alert_in_the_process(system_on: SystemOn, store: str) -> None:
    with scripted([say("alone")]) as client:
        async with system_on(store) as system:
            pod = await system.spawn(having(raw("broken")), client=client, process=True)
            played = await follow(pod)
    assert any("ended with exit code 7" in each for each in played.alerts)


async def test_what_a_server_asks_is_asked_by_the_pod_whose_call_it_is(
    system_on: SystemOn, store: str
) -> None:
    with scripted(calls("raw__ask")) as client:
        async with system_on(store) as system:
            pod = await system.spawn(having(raw()), client=client, process=True)
            with pod.subscribe([ApprovalRequested]) as questions:
                run = pod.run("go")
                question = await anext(questions)
                assert isinstance(question, ApprovalRequested)
                assert question.why == "MCP server 'raw' asks: which town?"
                await pod.approve(question.approval_id, arguments={"town": "Oslo"})
                await run
            assert any("Oslo" in item.text for item in await pod.history() if isinstance(item, ToolResult))


async def test_a_call_that_is_cancelled_is_cancelled_at_the_server(system_on: SystemOn, store: str) -> None:
    wanted = [call("raw__never", {"steps": 1}), call("raw__echo", {"text": "still here"}), say("done")]
    with scripted(wanted) as client:
        async with system_on(store, outputs=Path(store.removeprefix("sqlite:")).parent / "kept") as system:
            pod = await system.spawn(having(raw()), client=client, process=True)
            with pod.subscribe([ToolProgress]) as events:
                run = pod.run("go")
                await anext(events)
                await pod.cancel()
                assert (await run).outcome == "cancelled"
            assert (await follow(pod)).texts == ["still here"]
    (log,) = Path(store.removeprefix("sqlite:")).parent.glob("kept/mcp/*.log")
    assert "cancelled" in log.read_text()


async def test_a_process_that_speaks_nonsense_is_given_no_servers(launcher: Launcher) -> None:
    near, far = socket.socketpair()
    far.setblocking(False)
    shared = SharedServers(near, OwnConnections(lambda: launcher, None))
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(far, frame(HoldServer(1, RAW, "/")) + channel.head(3) + b"???")
    while await loop.sock_recv(far, 65536):
        pass  # what it said before, and then the end
    await shared.close(5)
    far.close()


async def test_a_process_whose_parent_is_gone_waits_for_no_server() -> None:
    near, far = socket.socketpair()
    servers = await ParentServers.over(near)
    server = servers.connect(McpServer("raw", command=("x",)), "/")
    server.hold()
    ctx: ToolContext[Any] = ToolContext(pwd=Path("/"), scope=Scope())
    under_way = asyncio.create_task(server.call("echo", {}, ctx, 5))
    await asyncio.sleep(0)
    far.close()
    await server.wait_listed()
    assert server.failure is not None
    with pytest.raises(ToolError, match="the parent process"):
        await under_way
    with pytest.raises(ToolError, match="the parent process"):
        await server.call("echo", {}, ctx, 5)
    await server.release()
    server.hold()
    server.begin()
    await server.wait_listed()
    assert server.failure is not None


def context(pod: str) -> ToolContext[Any]:
    return ToolContext(pwd=Path("/"), scope=Scope(), pod=pod)


def text(parts: Sequence[Part]) -> str:
    (part,) = parts
    assert isinstance(part, TextPart)
    return part.text


async def test_a_call_of_a_server_that_is_held_no_more_fails(launcher: Launcher) -> None:
    """It was never answered."""
    near, far = socket.socketpair()
    shared = SharedServers(near, OwnConnections(lambda: launcher, None))
    servers = await ParentServers.over(far)
    server = servers.connect(RAW, "/")
    server.hold()
    await server.wait_listed()
    assert text(await server.call("echo", {"text": "here"}, context("a"), 5)) == "here"
    await server.release()
    with pytest.raises(ToolError, match="closed"):
        await server.call("echo", {"text": "gone"}, context("a"), 5)
    server.begin()  # which is for nobody
    server.hold()
    await server.wait_listed()
    assert text(await server.call("echo", {"text": "anew"}, context("a"), 5)) == "anew"
    await shared.close(5)
    await asyncio.wait({servers._reading})


async def test_all_servers_of_a_process_that_has_died_end_while_others_are_still_ending(
    launcher: Launcher,
) -> None:
    """One that asks people is started for each pod; the first that was waited for kept the rest alive."""
    near, far = socket.socketpair()
    shared = SharedServers(near, OwnConnections(lambda: launcher, None))
    servers = await ParentServers.over(far)
    server = servers.connect(RAW, "/")
    server.hold()
    await server.wait_listed()
    pids = [text(await server.call("pid", {}, context("a"), 5))]
    with pytest.raises(ToolError, match="Unknown"):
        await server.call("nothing", {}, context("a"), 5)
    await server.call("ask", {}, context("a"), 5)
    pids += [text(await server.call("pid", {}, context(pod), 5)) for pod in ("a", "b")]
    servers._writer.close()
    await asyncio.wait({shared._serving})
    closing = asyncio.create_task(shared.close(5))
    await asyncio.sleep(0)
    closing.cancel()  # as a second stop of the pod does
    assert len(set(pids)) == 3
    for pid in pids:
        await asyncio.to_thread(wait_for_end, int(pid))
    await shared.close(5)


async def test_a_process_that_is_gone_before_it_was_served_leaves_no_socket(launcher: Launcher) -> None:
    near, far = socket.socketpair()
    await SharedServers(near, OwnConnections(lambda: launcher, None)).close(5)
    assert near.fileno() == -1
    far.close()


async def test_a_process_that_does_not_read_is_sent_no_more_progress(launcher: Launcher) -> None:
    near, far = socket.socketpair()
    far.setblocking(False)
    connections = OwnConnections(lambda: launcher, None)
    shared = SharedServers(near, connections)
    steps = 8_000  # the socket and the buffers before it take less than half of so many
    call_it = CallTool(7, 1, "never", {"steps": steps, "answer": True}, 60, "a")
    await asyncio.get_running_loop().sock_sendall(far, frame(HoldServer(1, RAW, "/")) + frame(call_it))
    reader, writer = await asyncio.open_connection(sock=far)
    while not isinstance(decode_to_process(await read_frame(reader)), CallProgress):
        pass
    here = connections.connect(RAW, "/")
    here.hold()
    await here.call("echo", {}, context("b"), 60)  # it has answered the other call before
    sent = 1
    while not isinstance(said := decode_to_process(await read_frame(reader)), CallGave):
        sent += isinstance(said, CallProgress)
    assert sent < steps
    writer.close()
    await shared.close(5)
    await here.release()
