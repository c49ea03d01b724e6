"""A process that is killed while calls wait, or between an answer and what it allows: nothing is lost or run twice."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store_kit import python

from actors.llm.scripted import ScriptedClient, call, say
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from actors.tools.toolbox import INTERRUPTED
from protocol.entries import Head, StoredEntry
from protocol.errors import HeadConflict
from protocol.events import ApprovalRequested, ApprovalResolved, SessionForked
from protocol.items import ToolResult
from protocol.manifest import PodManifest

ASKS = PodManifest.of(name="p", approval=[{"tool": "pay", "policy": "ask"}], approvals={"headless": "wait"})
#: A pod that makes two calls, of which ``pay`` waits; its process is killed at a moment that is named.
KILLED = """
import asyncio, os, signal, sys
sys.path += [sys.argv[1], os.path.dirname(sys.argv[1])]  # behind ours, whose names some of them have
from actors.llm.scripted import ScriptedClient, call, say
from actors.sessions.sqlite.store import SQLiteStore
from actors.system import PodSystem
from protocol.entries import Head, StoredEntry
from protocol.errors import HeadConflict
from protocol.events import ApprovalRequested, ToolResulted
from test_approvals_killed import ASKS, tools_in

folder, moment = sys.argv[2:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Store(SQLiteStore):
    def append(self, session_id, after, batch):
        kept = super().append(session_id, after, batch)
        if moment == "resolved" and any(b'"ApprovalResolved"' in each.body for each in batch):
            die()
        return kept

    def put_answer(self, answer):
        first = super().put_answer(answer)
        if moment == "answered":
            die()
        return first

async def main():
    client = ScriptedClient([call("pay", {"to": "ann"}) + call("look", {}), say("done")])
    async with PodSystem(Store(folder + "/pods.db")) as system:
        pod = await system.spawn(ASKS, client=client, tools=tools_in(folder))
        with system.subscribe() as events:
            pod.run("go")
            async for event in events:
                if isinstance(event, ApprovalRequested):
                    asked = event
                elif isinstance(event, ToolResulted):
                    if moment == "waiting":
                        die()
                    pod.approve(asked.approval_id)

asyncio.run(main())
"""


def tools_in(folder: str | Path) -> list[Tool]:
    """Tools that leave a trace in ``folder``."""
    trace = Path(folder) / "ran.txt"

    @tool
    async def pay(to: str) -> str:
        with trace.open("a") as file:
            file.write(f"pay {to}\n")
        return f"paid {to}"

    @tool(concurrency="read_only")
    async def look() -> str:
        with trace.open("a") as file:
            file.write("look\n")
        return "seen"

    return [pay, look]


def ran(folder: Path) -> list[str]:
    return (folder / "ran.txt").read_text().splitlines()


def kill_at(moment: str, folder: Path) -> None:
    with python(KILLED, Path(__file__).parent, folder, moment) as process:
        assert process.wait(60) == -signal.SIGKILL


async def resume(folder: Path, *replies: Any) -> tuple[list[str], list[Any]]:
    """The results that the model reads once the run is resumed, and what was asked and answered then."""
    async with PodSystem(f"sqlite:{folder / 'pods.db'}") as system:
        (info,) = await system.interrupted()
        client = ScriptedClient([*replies])
        with system.subscribe(kinds=(ApprovalRequested, ApprovalResolved)) as events:
            pod = await system.spawn(ASKS, resume=info.session_id, client=client, tools=tools_in(folder))
            run = pod.resume()
            for asked in await system.approvals():
                await system.approve(asked.approval_id)
            assert (await run).text == "done"
            results = [item.text for item in await pod.history() if isinstance(item, ToolResult)]
            return results, events.drain()


async def test_the_result_of_a_call_that_has_ended_is_kept_and_the_one_that_waits_goes_on_waiting(
    tmp_path: Path,
) -> None:
    kill_at("waiting", tmp_path)
    assert ran(tmp_path) == ["look"]
    results, published = await resume(tmp_path, say("done"))
    assert results == ["paid ann", "seen"]
    assert ran(tmp_path) == ["look", "pay ann"]
    assert [type(each) for each in published] == [ApprovalResolved]


async def test_an_answer_that_is_in_the_store_and_not_in_the_log_is_found_by_the_resume(
    tmp_path: Path,
) -> None:
    kill_at("answered", tmp_path)
    assert ran(tmp_path) == ["look"]
    results, published = await resume(tmp_path, say("done"))
    assert results == ["paid ann", "seen"]
    assert ran(tmp_path) == ["look", "pay ann"]
    assert [(type(each), each.by, each.approved) for each in published] == [
        (ApprovalResolved, "person", True)
    ]


async def test_behind_a_recorded_approval_the_outcome_is_unknown_and_the_call_is_not_run_again(
    tmp_path: Path,
) -> None:
    kill_at("resolved", tmp_path)
    assert ran(tmp_path) == ["look"]
    results, published = await resume(tmp_path, say("done"))
    assert results == [INTERRUPTED, "seen"]
    assert ran(tmp_path) == ["look"]
    assert published == []


class TakenStore(MemoryStore):
    """Somebody else takes the session once, when the result of a second payment is to be kept."""

    taken = 0

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> None:
        if any(b"paid ann" in entry.body for entry in batch):
            self.taken += 1
            if self.taken == 2:
                raise HeadConflict("taken")
        super().append(session_id, after, batch)


async def test_a_branch_that_takes_a_sessions_place_has_the_rules_that_people_have_given(
    tmp_path: Path,
) -> None:
    store = TakenStore()
    pays = [call("pay", {"to": "ann"}), say("done")]
    async with PodSystem(store) as system:
        pod = await system.spawn(ASKS, client=ScriptedClient([*pays, *pays]), tools=tools_in(tmp_path))
        with system.subscribe(kinds=(ApprovalRequested, SessionForked)) as events:
            run = pod.run("go")
            asked = await anext(events)
            assert isinstance(asked, ApprovalRequested)
            await pod.approve(asked.approval_id, always=True)
            await run
            await pod.run("again")
            forked = await anext(events)
            assert isinstance(forked, SessionForked)
        session_id = (await pod.describe()).session_id
        assert session_id != asked.session_id
        await pod.stop()
    async with PodSystem(store) as system:
        client = ScriptedClient(pays)
        again = await system.spawn(ASKS, resume=session_id, client=client, tools=tools_in(tmp_path))
        assert (await again.run("once more")).text == "done"
    assert ran(tmp_path) == ["pay ann"] * 3
