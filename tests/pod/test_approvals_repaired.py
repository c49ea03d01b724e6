"""A damaged session that is repaired goes on as it was left: what waits for a person goes on waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_kit import change_entry

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.repair import check, mend
from actors.sessions.sqlite.store import SQLiteStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.approval import ApprovalAnswer
from protocol.events import ApprovalRequested, StateChanged
from protocol.items import ToolResult
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

ASKS = PodManifest.of(name="p", approval=[{"tool": "pay", "policy": "ask"}])


async def spawn(system: PodSystem, ran: list[str], *replies: Any, **options: Any) -> Pod:
    @tool
    async def pay(to: str) -> str:
        ran.append(to)
        return f"paid {to}"

    client = ScriptedClient([*replies])
    return await system.spawn(ASKS, client=client, tools=[pay], **options)


async def ask(path: Path, ran: list[str]) -> ApprovalRequested:
    """Have a pod ask for a call and leave it waiting: what it has asked."""
    async with PodSystem(f"sqlite:{path}") as system:
        with system.subscribe(kinds=(ApprovalRequested, StateChanged)) as events:
            asked = call("pay", {"to": "ann"}, id="c", input_tokens=70)
            pod = await spawn(system, ran, asked)
            run = pod.run("go")
            async for event in events:
                if isinstance(event, ApprovalRequested):
                    request = event
                elif isinstance(event, StateChanged) and event.new is PodState.WAITING:
                    break
    assert (await run).outcome == "paused"
    return request


def mend_all(path: Path, folder: Path) -> str:
    """Repair the one damaged session; the one that takes its place."""
    store = SQLiteStore(path)
    (finding,) = check(store)
    taken, kept = mend(store, finding, "mended", folder)
    assert taken is not None
    assert kept is not None
    assert list(check(store)) == []
    store.close()
    return taken.session_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pods.db"


def damage(path: Path, seq: int) -> None:
    change_entry(path, seq, b'"type"', b'"typo"')


async def test_a_call_that_waits_for_a_person_still_waits_in_a_session_that_was_repaired(path: Path) -> None:
    ran: list[str] = []
    asked = await ask(path, ran)
    damage(path, asked.seq + 1)
    mended = mend_all(path, path.parent / "damaged")
    assert mended != asked.session_id
    async with PodSystem(f"sqlite:{path}") as system:
        pod = await spawn(system, ran, say("done"), resume=mended)
        described = await pod.describe()
        assert described.state is PodState.PAUSED
        assert described.usage is not None
        assert described.usage.input_tokens == 70, "a budget is not given back by a repair"
        (request,) = await system.approvals()
        assert request.arguments == {"to": "ann"}
        run = pod.resume()
        await system.approve(request.approval_id)
        assert (await run).text == "done"
    assert ran == ["ann"]


@pytest.mark.parametrize("answer", ["in the log", "in the store"])
async def test_a_call_that_may_have_begun_does_not_wait_again_behind_a_repair(
    path: Path, answer: str
) -> None:
    ran: list[str] = []
    asked = await ask(path, ran)
    if answer == "in the log":
        async with PodSystem(f"sqlite:{path}") as system:
            pod = await spawn(system, ran, say("done"), resume=asked.session_id)
            (request,) = await system.approvals()
            run = pod.resume()
            await system.approve(request.approval_id)
            await run
        assert ran == ["ann"]
    else:
        store = SQLiteStore(path)
        assert store.put_answer(ApprovalAnswer(asked.approval_id, asked.session_id, approved=True, at=1.0))
        store.close()
    damage(path, asked.seq + 1)
    mended = mend_all(path, path.parent / "damaged")
    ran.clear()
    async with PodSystem(f"sqlite:{path}") as system:
        pod = await spawn(system, ran, say("I see"), resume=mended)
        assert await system.approvals() == []
        assert (await pod.resume()).text == "I see"
        (result,) = [item for item in await pod.history() if isinstance(item, ToolResult)]
        assert "unknown" in result.text
    assert ran == []
