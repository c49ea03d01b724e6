"""The lives of MCP servers: shared, started when needed, ended when idle, started again, never waited for."""

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from delegation_kit import Cast
from delegation_kit import spawn as spawn_child
from mcp_kit import calls, follow, having, play, raw, servers
from process_kit import marked, wait_until_none

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from actors.tools.base import ToolContext
from actors.tools.mcp import connections, source
from actors.tools.mcp.connection import Seconds
from actors.tools.mcp.log import MOST_BYTES, ServerLog
from actors.tools.toolbox import Toolbox
from protocol.errors import ManifestError
from protocol.events import ToolResulted, ToolStart
from protocol.items import ToolCall, ToolResult
from protocol.manifest import PodManifest
from protocol.scope import Scope

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Marks the processes of a test, of which none may be left."""
    name = uuid.uuid4().hex
    monkeypatch.setenv("OF_TEST", name)
    yield name
    wait_until_none(lambda: marked(name))


def of_test(server: dict, name: str) -> dict:
    return {**server, "env": {"POLYPOD_TEST": name}}


def context() -> ToolContext:
    return ToolContext(pwd=Path("/"), scope=Scope())


async def spawn(system: PodSystem, server: dict, *wanted: object) -> Pod:
    return await system.spawn(having(server), client=ScriptedClient(calls(*wanted)))  # type: ignore[arg-type]


async def test_pods_share_one_process_and_its_end_is_that_of_the_last_of_them() -> None:
    async with PodSystem() as system:
        first = await spawn(system, raw(), "raw__pid")
        other = await spawn(system, raw(allow=["pid"], timeout=9), "raw__pid")
        elsewhere = await spawn(system, raw("in another way"), "raw__pid")
        pids = [(await follow(pod)).texts[0] for pod in (first, other, elsewhere)]
        assert pids[0] == pids[1] != pids[2]
        await first.stop()
        os.kill(int(pids[0]), 0)
        await other.stop()
        await asyncio.to_thread(wait_until_none, lambda: _there(int(pids[0])))
        os.kill(int(pids[2]), 0)


async def test_a_sub_agent_shares_the_server_of_its_parent() -> None:
    read = call("read_pod_output", {"name": "reader", "wait": 60})
    model = Cast(
        lead=[call("raw__pid"), spawn_child(), read, say("done"), say("done")],
        reader=[call("raw__pid"), say("done")],
    )
    manifest = PodManifest.of(name="lead", system_prompt="lead", mcp=[raw()], tools={"builtin": ["pods"]})
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=model)
        with pod.subscribe(ToolResulted, children=True) as events:
            await pod.run("go")
            first, second = [each.item.text for each in events.drain() if each.item.name == "raw__pid"]
    assert first == second


def _there(pid: int) -> list[int]:
    return [pid] if Path(f"/proc/{pid}").exists() else []


async def test_a_server_that_is_killed_in_mid_call_fails_it_and_the_next_call_starts_it_again() -> None:
    wanted = ["raw__pid", ("raw__pause", {"seconds": 1000}), "raw__pid"]
    client = ScriptedClient(calls(*wanted))  # type: ignore[arg-type]
    async with PodSystem() as system:
        pod = await system.spawn(having(raw(timeout=100)), client=client)
        killed = 0
        with pod.subscribe([ToolStart]) as starts:
            run = pod.run("go")
            async for start in starts:
                if isinstance(start, ToolStart) and start.name == "raw__pause":
                    items = await pod.history()
                    killed = int(items[2].text)
                    os.kill(killed, signal.SIGKILL)
                    break
        await run
        texts = [item.text for item in await pod.history() if isinstance(item, ToolResult)]
    assert "ended by signal 9" in texts[1]
    assert "may or may not have taken effect" in texts[1]
    assert int(texts[2]) != killed


async def test_a_server_that_nobody_calls_is_ended_and_the_next_call_starts_it_again() -> None:
    async with servers(idle=0.05) as every:
        (only,) = every.sources(having(raw()).tools.mcp, "/")
        await only.open()
        box = Toolbox(only.tools())
        first = (await box.run(ToolCall("1", "raw__pid"), context())).text
        await asyncio.to_thread(wait_until_none, lambda: _there(int(first)))
        assert tuple(only.tools()) == tuple(box)  # what it listed is known still
        second = (await box.run(ToolCall("2", "raw__pid"), context())).text
        assert first != second
        await only.close()


async def test_a_server_that_was_started_and_never_called_is_ended_too() -> None:
    async with asyncio.timeout(60), servers(idle=0.05) as every:
        (only,) = every.sources(having(raw()).tools.mcp, "/")
        ended = asyncio.Event()
        await only.open()
        assert [tool.name for tool in only.tools()]
        only._connection.watchers.append(lambda: only._connection.has_process or ended.set())
        await ended.wait()
        assert only.failure is None
        await only.close()


async def test_a_server_that_never_answers_holds_a_run_for_a_moment_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "Seconds", lambda: Seconds(first_wait=0.05))
    client = ScriptedClient([say("without it")])
    async with PodSystem() as system:
        pod = await system.spawn(having(raw("mute")), client=client)
        played = await follow(pod)
    assert any("has not listed its tools yet" in text for text in played.alerts)


async def test_a_server_that_nobody_needs_any_more_while_it_starts_is_ended() -> None:
    """Who opens it was cancelled: it went on until its system ended."""
    async with servers() as every:
        (opened,) = every.sources(having(raw("mute")).tools.mcp, "/")
        opening = asyncio.create_task(opened.open())
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening})
        assert opening.cancelled()
        assert not opened._connection.has_process


async def test_a_change_of_its_list_is_followed_and_nothing_else_changes_requests() -> None:
    wanted = [
        "raw__echo",
        "raw__change",
        ("raw__never", {"steps": 5, "pause": 0.05, "answer": True}),
        "raw__new",
    ]
    client = ScriptedClient(calls(*wanted))  # type: ignore[arg-type]
    async with PodSystem() as system:
        pod = await system.spawn(having(raw()), client=client)
        played = await follow(pod)
    lists = [request.tools for request in client.requests]
    assert lists[0] is lists[1]
    assert "raw__new" in [each.name for each in lists[-1]]
    assert all(one is other for one, other in zip(lists[0], lists[-1], strict=False))
    assert "Unknown tool: new" in played.texts[-1]  # the server's words: it only lists it


async def test_a_call_that_is_cancelled_is_cancelled_at_the_server(tmp_path: Path) -> None:
    async with PodSystem(outputs=tmp_path) as system:
        client = ScriptedClient([call("raw__never", {})])
        pod = await system.spawn(having(raw(timeout=100)), client=client)
        with pod.subscribe([ToolStart]) as starts:
            run = pod.run("go")
            await anext(starts)
            await pod.cancel()
            assert (await run).outcome == "cancelled"
        again = ScriptedClient(calls(("raw__echo", {"text": "fine"})))
        other = await system.spawn(having(raw(timeout=100)), client=again)
        assert (await follow(other)).texts == ["fine"]
        (log,) = (tmp_path / "mcp").iterdir()
        assert "cancelled " in log.read_text()
        assert log.stat().st_mode & 0o777 == 0o600


async def test_nothing_is_left_of_a_server_whose_system_has_ended(mark: str) -> None:
    played = await play(("raw__echo", {"text": "fine"}), of=of_test(raw(), mark))
    assert played.texts == ["fine"]


async def test_secrets_of_the_environment_are_in_no_session_and_no_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-value")
    server = {**raw(), "env": {"A": "${TOKEN}", "B": "l1teral-value"}}
    async with PodSystem(f"jsonl:{tmp_path}", outputs=tmp_path / "out") as system:
        pod = await spawn(system, server, "raw__die", "raw__echo")
        played = await follow(pod)
    assert "the token is [redacted]" in played.texts[0]
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "s3cret-value" not in kept
    assert "l1teral-value" not in kept
    assert "${TOKEN}" in kept
    assert "${B}" in kept


async def test_a_variable_that_is_not_set_is_reported_by_its_name() -> None:
    server = {**raw(), "env": {"A": "${NO_SUCH_VARIABLE}"}}
    client = ScriptedClient([say("without it")])
    async with PodSystem() as system:
        pod = await system.spawn(having(server), client=client)
        played = await follow(pod)
    assert "the variable NO_SUCH_VARIABLE is not set" in played.alerts[0]


async def test_calls_of_several_pods_run_beside_each_other() -> None:
    async with PodSystem() as system:
        pods = [await spawn(system, raw(), ("raw__pause", {"seconds": 0.2})) for _ in range(5)]
        played = await asyncio.gather(*(follow(pod) for pod in pods))
    assert [each.texts for each in played] == [["waited"]] * 5


async def test_what_is_asked_of_a_server_by_rules_of_the_manifest() -> None:
    client = ScriptedClient(
        [call("raw__echo", {"text": "read"}), call("raw__twice", {}), call("raw__flood", {}), say("done")]
    )
    rules = [{"tool": "raw__flood", "policy": "allow"}]
    server = {key: value for key, value in raw().items() if key != "approval"}
    async with PodSystem() as system:
        pod = await system.spawn(having(server, approval=rules), client=client)
        await pod.run("go")  # and nobody listens who could be asked
        read, wrote, allowed = [item.text for item in await pod.history() if isinstance(item, ToolResult)]
    assert read == "read"
    assert "needs a person's approval" in wrote
    assert allowed == "said a lot"


async def test_a_server_whose_calls_are_denied_runs_none() -> None:
    played = await play("raw__echo", of=raw(approval="deny"))
    assert "it is denied (the rule deny 'raw__*')" in played.texts[0]


async def test_allow_and_deny_choose_among_its_tools() -> None:
    client = ScriptedClient([say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(having(raw(allow=["e*", "d*"], deny=["die*"])), client=client)
        await pod.run("go")
    assert [each.name for each in client.requests[0].tools] == ["raw__echo"]


async def test_without_the_sdk_a_pod_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "find_spec", lambda _: None)
    async with PodSystem() as system:
        with pytest.raises(ManifestError) as caught:
            await system.spawn(having(raw()), client=ScriptedClient([]))
    assert caught.value.hint == "pip install 'polypod[mcp]'"


def test_what_a_server_says_is_kept_private_and_small(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "mcp" / "a.log")
    log.hide(frozenset({"s3cret-value"}))
    log.add("\033[31mno colours\033[0m\r\n")
    assert log.last_words().endswith(":\nno colours")
    for number in range(3000):
        log.add(f"{number} s3cret-value {'x' * 1000}\n")
    files = list((tmp_path / "mcp").iterdir())
    assert sorted(each.name for each in files) == ["a.log", "a.old"]
    assert all(each.stat().st_size <= MOST_BYTES and each.stat().st_mode & 0o777 == 0o600 for each in files)
    assert not any("s3cret-value" in each.read_text() for each in files)
    assert log.last_words().count("\n") == 8
    assert "2999 [redacted]" in log.last_words()
