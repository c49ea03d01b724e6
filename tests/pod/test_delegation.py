"""Sub-agents: what they are given and refused, how their ends are reported, and what becomes of them with their parent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from delegation_kit import Cast, lead, of, spawn, until
from msgspec.structs import asdict
from store_kit import AwaitedStore, Interposed

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.approvals.find import open_requests
from actors.pod.delegation.output import answers_after
from actors.pod.handle import Pod
from actors.pod.local import actor_of, shut_down
from actors.runtime.future import AsyncFuture
from actors.sessions.answer_token import answer_token
from actors.sessions.chain import chained
from actors.sessions.memory.store import MemoryStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.system import PodSystem
from protocol.approval import ApprovalAnswer
from protocol.entries import Head, StoredEntry
from protocol.errors import AlreadyResolved, PodNotFound, StoreError, TooManyRestarts, UnknownApproval
from protocol.events import (
    ApprovalRequested,
    ChildEnded,
    ChildStarted,
    PodEnded,
    PodStarted,
    RunEnd,
    RunStart,
    ToolResulted,
    UserMessage,
)
from protocol.items import ToolResult, UserItem
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest
from protocol.scope import Scope
from protocol.usage import Usage


async def results(pod: Pod) -> list[str]:
    return [item.text for item in await pod.history() if isinstance(item, ToolResult)]


async def test_the_end_of_a_sub_agent_starts_a_run_of_its_idle_parent_with_its_last_answer() -> None:
    cast = Cast(lead=[spawn(), say("working on it"), say("it is 42")], reader=[..., say("forty-two")])
    async with PodSystem() as system:
        pod = await system.spawn(lead(), client=cast)
        with system.subscribe("lead", children=True) as events:
            assert (await pod.run("go")).text == "working on it"
            cast.go.set()
            ended = await until(events, of(ChildEnded))
            assert (ended.child, ended.name, ended.outcome) == ("lead.reader", "reader", "finished")
            assert ended.usage is not None
            said = await until(events, lambda e: isinstance(e, UserMessage) and e.source == "notify")
            assert said.item.text.endswith("has ended: finished]\nforty-two")
            await until(events, of(RunEnd, "lead"))
        with pytest.raises(PodNotFound):
            system.get("lead.reader")


async def test_events_of_sub_agents_and_theirs_reach_who_subscribes_with_children_and_name_their_parent() -> (
    None
):
    cast = Cast(
        lead=[spawn("a"), call("read_pod_output", {"name": "a", "wait": 20}), say("done"), say("ok")],
        a=[
            spawn("b"),
            call("read_pod_output", {"name": "b", "wait": 20}),
            say("a is done"),
            say("a is done"),
        ],
        b=[say("b is done")],
    )
    async with PodSystem() as system:
        pod = await system.spawn(lead(), client=cast)
        with system.subscribe("lead", children=True) as all_, system.subscribe("lead") as own:
            await pod.run("go")
            await until(all_, of(ChildEnded, "lead"))
            seen = system.subscribe("lead", since=0, children=True)
            assert {event.pod for event in own.drain()} == {"lead"}
            seen.close()
        sessions = {info.pod for info in system.store.sessions()}  # type: ignore[union-attr]
        assert sessions == {"lead", "lead.a", "lead.a.b"}
        with system.subscribe("lead.a.b", since=0) as past:
            assert (await until(past, of(PodStarted))).parent == "lead.a"


async def test_what_goes_beyond_the_scope_is_refused_with_the_name_of_the_rule(tmp_path: Path) -> None:
    asked = {"allow": [{"target": "/etc", "permission": "read"}]}
    deeper = {"allow": [{"target": str(tmp_path), "permission": "write"}]}
    cast = Cast(lead=[spawn(scope=asked), spawn(scope=deeper), say("no")])
    manifest = lead(scope={"allow": [{"target": str(tmp_path), "permission": "read"}]})
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=cast)
        await pod.run("go")
        first, second = await results(pod)
        assert "scope.allow[0] (read /etc)" in first
        assert f"scope.allow[0] (write {tmp_path})" in second
        assert [each.name for each in system.pods()] == ["lead"]


async def test_what_a_sub_agent_may_write_its_parent_and_siblings_may_not_until_it_has_ended(
    tmp_path: Path,
) -> None:
    (tmp_path / "docs").mkdir()
    docs = {"allow": [{"target": "docs", "permission": "write"}]}
    write = call("write_file", {"path": "docs/a.txt", "content": "x"})
    cast = Cast(
        lead=[spawn(scope=docs), write, spawn("other", scope=docs), say("later"), write, say("now")],
        reader=[..., say("done")],
    )
    manifest = lead(scope=Scope.writable(tmp_path), pwd=str(tmp_path))
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=cast)
        with system.subscribe("lead") as events:
            await pod.run("go")
            _, refused, sibling = await results(pod)
            assert "not allowed to write" in refused
            assert "only sub-agent 'reader' may write until it ends" in sibling
            cast.go.set()
            await until(events, of(ChildEnded))
            await until(events, of(RunEnd))
        assert (tmp_path / "docs" / "a.txt").read_text() == "x"


async def test_the_budget_of_a_sub_agent_is_set_aside_and_what_is_left_of_it_comes_back() -> None:
    cast = Cast(
        lead=[spawn(budget={"tokens": 90_000}), spawn("b", budget={"tokens": 90_000}), say("ok"), say("ok")],
        reader=[..., say("done", input_tokens=10, output_tokens=5)],
    )
    async with PodSystem(budget={"tokens": 200_000}) as system:
        pod = await system.spawn(lead(tokens=100_000, max_tokens=10), client=cast)
        with system.subscribe("lead") as events:
            await pod.run("go")
            _, refused = await results(pod)
            assert "budget.tokens is more than" in refused
            use = system.budget
            assert use is not None
            assert use.reserved_tokens == 90_000
            cast.go.set()
            assert (await until(events, of(ChildEnded))).usage.total_tokens == 15
            await until(events, of(RunEnd))
            use = system.budget
            assert use is not None
            assert use.reserved_tokens == 0


async def test_there_are_at_most_so_many_sub_agents_and_so_deep() -> None:
    cast = Cast(
        lead=[spawn("a"), spawn("b"), say("ok"), say("ok")],
        a=[..., call("spawn_pod", {"name": "c", "instruction": "c", "task": "t"}), say("no")],
    )
    async with PodSystem() as system:
        pod = await system.spawn(lead(delegation={"max_children": 1, "max_depth": 1}), client=cast)
        with system.subscribe("lead") as events:
            await pod.run("go")
            assert "delegation.max_children" in (await results(pod))[1]
            child = system.get("lead.a")
            cast.go.set()
            await until(events, of(ChildEnded))
            with system.subscribe(child.name, since=0) as past:
                refused = await until(past, lambda e: isinstance(getattr(e, "item", None), ToolResult))
            assert "there is no tool 'spawn_pod'" in refused.item.text


async def test_sub_agents_of_a_paused_pod_are_paused_and_go_on_with_it() -> None:
    cast = Cast(lead=[spawn(), ..., say("ok"), say("told")], reader=[..., say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(lead(), client=cast)
        with system.subscribe("lead", children=True) as events:
            run = pod.run("go")
            await until(events, of(RunStart, "lead.reader"))
            await pod.pause()
            assert (await run).outcome == "paused"
            assert (await until(events, of(RunEnd, "lead.reader"))).outcome == "paused"
            cast.go.set()
            await pod.resume()
            assert (await until(events, of(ChildEnded))).outcome == "finished"


async def test_sub_agents_of_a_stopped_pod_are_stopped_before_it() -> None:
    cast = Cast(lead=[spawn(), say("ok")], reader=[..., say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(lead(), client=cast)
        with system.subscribe("lead", children=True) as events:
            await pod.run("go")
            await pod.stop()
            published = [(e.pod, type(e)) for e in events.drain() if isinstance(e, ChildEnded | PodEnded)]
            assert published == [("lead.reader", PodEnded), ("lead", ChildEnded), ("lead", PodEnded)]
        assert system.pods() == []


class HeldBack(AwaitedStore):
    """Makes no session of a sub-agent before it may ``go`` on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def create(self, session_id: str, pod: str, *args: Any, **options: Any) -> None:
        if pod == "lead.reader":
            self.asked.set()
            await self.go.wait()
        await super().create(session_id, pod, *args, **options)


@pytest.mark.parametrize("end", [Pod.stop, shut_down])
@pytest.mark.parametrize("in_time", [True, False])
async def test_a_sub_agent_that_is_being_started_as_its_parent_ends_ends_too_and_never_works(
    end: Callable[[Pod], AsyncFuture[bool]], in_time: bool
) -> None:
    store = HeldBack()
    cast = Cast(lead=[spawn()], reader=[say("done")])
    graces = {} if in_time else dict.fromkeys(("grace", "memory_grace", "store_grace"), 0.01)
    async with PodSystem(store, **graces) as system, asyncio.timeout(30):
        pod = await system.spawn(lead(), client=cast)
        run = pod.run("go")
        with system.subscribe("lead.reader") as events:
            await store.asked.wait()
            child, ended = system.get("lead.reader"), end(pod)
            if in_time:
                store.go.set()
            await ended
            assert (await run).outcome == ("cancelled" if end is Pod.stop else "paused")
            store.go.set()
            await until(events, of(PodEnded))
        await child.stop()
        assert not system.pods()
        assert len(cast.requests) == 1


class Endless(Interposed, MemoryStore):
    """Keeps no end of a sub-agent while it ``refuses``, as if its process had been killed before that."""

    refuses = True

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> None:
        if self.refuses and any(b'"type":"ChildEnded"' in each.body for each in batch):
            raise StoreError("no")
        MemoryStore.append(self, session_id, after, batch)

    create = MemoryStore.create


async def test_what_a_sub_agent_took_that_had_done_its_work_as_its_parents_process_ended_counts_in_its_budget() -> (
    None
):
    store, cheap = Endless(), {"input_tokens": 10, "output_tokens": 10}
    manifest = lead(tokens=2_000, max_tokens=100)
    cast = Cast(
        lead=[spawn(), say("working on it", **cheap), say("it is 42", **cheap)],
        reader=[..., say("forty-two", input_tokens=1_800, output_tokens=50)],
    )
    async with PodSystem(store) as system:
        pod = await system.spawn(manifest, client=cast)
        with system.subscribe("lead", children=True) as events:
            session_id = (await pod.run("go")).session_id
            cast.go.set()
            await until(events, of(PodEnded, "lead.reader"))
    store.refuses = False
    async with PodSystem(store) as system, asyncio.timeout(30):
        pod = await system.spawn(manifest, client=cast, resume=session_id)
        with system.subscribe("lead", since=0) as events:
            assert (await until(events, of(ChildEnded))).usage == Usage(1_800, 50)
            result = await pod.run("how far is it?")
        assert result.outcome == "budget", result
        assert len(cast.requests) == 3


async def test_a_call_of_a_sub_agent_that_waits_for_approval_is_answered_at_its_parents_door(
    tmp_path: Path,
) -> None:
    cast = Cast(
        lead=[spawn(), say("ok"), say("told")],
        reader=[call("list_files", {"path": str(tmp_path)}), say("seen")],
    )
    rules = [{"tool": "list_files", "policy": "ask"}]
    async with PodSystem() as system:
        pod = await system.spawn(lead(approval=rules), client=cast)
        with system.subscribe("lead", children=True) as events:
            run = pod.run("go")
            asked = await until(events, of(ApprovalRequested))
            assert asked.pod == "lead.reader"
            await pod.approve(asked.approval_id)
            again = None
            while not isinstance(again, UnknownApproval):  # as once nothing is left of the sub-agent
                with pytest.raises((AlreadyResolved, UnknownApproval)) as refused:
                    await pod.approve(asked.approval_id)
                again = refused.value
            await run
            assert (await until(events, of(ChildEnded))).outcome == "finished"


async def test_a_call_of_a_sub_agent_that_waits_is_seen_and_answered_from_another_process(
    tmp_path: Path,
) -> None:
    cast = Cast(
        lead=[spawn(), say("ok"), say("told")],
        reader=[call("list_files", {"path": str(tmp_path)}), say("seen")],
    )
    rules = [{"tool": "list_files", "policy": "ask"}]
    elsewhere = SQLiteStore(tmp_path / "pods.db")
    async with PodSystem(f"sqlite:{tmp_path / 'pods.db'}") as system:
        pod = await system.spawn(lead(approval=rules), client=cast)
        with system.subscribe("lead", children=True) as events:
            pod.run("go")
            asked = await until(events, of(ApprovalRequested))
            (waiting,) = await open_requests(elsewhere, elsewhere.info(asked.session_id))
            assert (waiting.pod, waiting.approval_id) == ("lead.reader", asked.approval_id)
            answer = ApprovalAnswer(asked.approval_id, asked.session_id, approved=True, at=asked.at)
            assert elsewhere.put_answer(answer_token().sign(answer))
            assert (await until(events, of(ChildEnded))).outcome == "finished"
            await until(events, of(RunEnd, "lead"))
    elsewhere.close()


async def test_a_model_writes_to_reads_lists_and_stops_its_sub_agents() -> None:
    cast = Cast(
        lead=[
            spawn(),
            call("send_to_pod", {"name": "reader", "text": "be quick"}),
            call("list_pods", {}),
            call("stop_pod", {"name": "reader"}),
            call("read_pod_output", {"name": "reader"}),
            call("send_to_pod", {"name": "reader", "text": "once more"}),
            call("read_pod_output", {"name": "nobody"}),
            say("ok"),
            say("told"),
        ],
        reader=[..., say("done")],
    )
    async with PodSystem() as system:
        pod = await system.spawn(lead(), client=cast)
        await pod.run("go")
        _, sent, listed, stopped, read, late, unknown = await results(pod)
        assert sent == "reader received the message"
        assert '"state":"running"' in listed
        assert stopped == "reader has ended: cancelled"
        assert '"outcome":"cancelled"' in read
        assert late == "'reader' has ended: cancelled"
        assert "known: reader" in unknown


async def test_a_sub_agent_of_a_pod_that_was_restored_goes_on_with_it_under_the_same_grant(
    tmp_path: Path,
) -> None:
    store = f"sqlite:{tmp_path}/pods.db"
    (tmp_path / "docs").mkdir()
    docs = {"allow": [{"target": "docs", "permission": "write"}]}
    manifest = lead(scope=Scope.writable(tmp_path), pwd=str(tmp_path))
    write = call("write_file", {"path": "docs/a.txt", "content": "x"})
    cast = Cast(lead=[spawn(scope=docs), say("ok")], reader=[..., say("done")])
    async with PodSystem(store) as system:
        pod = await system.spawn(manifest, client=cast)
        with system.subscribe("lead", children=True) as events:
            await pod.run("go")
            session = (await pod.describe()).session_id
            await until(events, of(RunStart, "lead.reader"))
    cast = Cast(lead=[write, say("not yet"), say("told")], reader=[..., say("done")])
    async with PodSystem(store) as system:
        pod = await system.spawn(manifest, client=cast, resume=session)
        with system.subscribe("lead", children=True) as events:
            await pod.run("go on")
            assert "not allowed to write" in (await results(pod))[-1]
            cast.go.set()
            assert (await until(events, of(ChildEnded))).outcome == "finished"
            await until(events, of(RunEnd, "lead"))
        published = [item.text for item in await pod.history() if isinstance(item, UserItem)]
        assert published[-1].endswith("has ended: finished]\ndone")


async def test_a_compaction_carries_grants_and_a_fork_does_not(tmp_path: Path) -> None:
    cast = Cast(lead=[spawn(), say("ok"), say("told"), say("ok")], reader=[..., say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(lead(), client=cast)
        with system.subscribe("lead") as events:
            await pod.run("go")
            started = (await until(events, of(ChildStarted))).child_session
            fork = await pod.fork()
            other = await system.spawn(lead(), client=cast, resume=fork, name="other")
            assert (await other.describe()).state is PodState.IDLE
            assert [each.name for each in system.pods()] == ["lead", "lead.reader", "other"]
            cast.parts["You"] = [say("they talked"), say("they talked")]
            await pod.compact()
            cast.go.set()
            assert (await until(events, of(ChildEnded))).child_session == started


async def test_bug_what_a_sub_agent_says_behind_its_own_compaction_is_read_from_where_reading_had_come() -> (
    None
):
    summary = [call("write_summary", {"text": "they talked"}), say("ok")]
    client, store = ScriptedClient([say("one"), *summary, say("two")]), MemoryStore()
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        await pod.run("a")
        session = (await pod.describe()).session_id
        said = await answers_after(store, session, 0)
        assert said.texts == ["one"]
        await pod.compact(0)
        await pod.run("b")
        assert (await answers_after(store, session, said.next)).texts == ["two"]


async def test_a_sub_agent_that_is_paused_by_itself_can_be_stopped_by_its_parent_and_from_outside() -> None:
    for from_outside in (False, True):
        stop = call("list_pods", {}) if from_outside else call("stop_pod", {"name": "reader"})
        cast = Cast(lead=[spawn(), say("ok"), stop, say("seen"), say("told")], reader=[..., say("done")])
        async with PodSystem() as system:
            pod = await system.spawn(lead(tokens=100_000, max_tokens=10), client=cast)
            with system.subscribe("lead", children=True) as events:
                await pod.run("go")
                await until(events, of(RunStart, "lead.reader"))
                await system.get("lead.reader").pause()
                if from_outside:
                    await system.get("lead.reader").stop()
                    assert (await until(events, of(ChildEnded))).outcome == "cancelled"
                async with asyncio.timeout(20):
                    await pod.run("stop it")
                if not from_outside:
                    assert "reader has ended: cancelled" in await results(pod)
            assert [each.name for each in system.pods()] == ["lead"]


async def test_a_sub_agent_that_somebody_asks_more_as_its_task_ends_ends_after_that() -> None:
    cast = Cast(lead=[spawn(), say("ok"), say("told")], reader=[..., say("done"), say("more")])
    async with PodSystem() as system:
        pod = await system.spawn(lead(), client=cast)
        with system.subscribe("lead", children=True) as events:
            await pod.run("go")
            await until(events, of(RunStart, "lead.reader"))
            more = system.get("lead.reader").run("more")
            cast.go.set()
            assert (await more).text == "more"
            assert (await until(events, of(ChildEnded))).outcome == "finished"


async def test_a_scope_or_a_budget_that_no_manifest_may_have_is_refused_in_the_words_of_one() -> None:
    wrong: list[dict[str, Any]] = [
        {"budget": {"tokens": -5}},
        {"budget": {"seconds": -1}},
        {"scope": {"allow": [{"target": "a\0b", "permission": "write"}]}},
        {"scope": {"allow": [{"target": "", "permission": "read"}]}},
    ]
    cast = Cast(lead=[*(spawn(**each) for each in wrong), say("no")])
    async with PodSystem() as system:
        pod = await system.spawn(lead(max_repeats=0, tokens=1000), client=cast)
        await pod.run("go")
        tokens, seconds, nul, empty = await results(pod)
        assert tokens == "spawn_pod: budget.tokens: expected 0 or more, got -5"
        assert seconds == "spawn_pod: budget.seconds: expected 0 or more, got -1.0"
        assert "which is not a valid path" in nul
        assert "a rule's target is empty" in empty
        assert [each.name for each in system.pods()] == ["lead"]


async def test_a_sub_agent_is_given_no_empty_task_and_no_empty_words() -> None:
    cast = Cast(lead=[spawn(task=""), call("send_to_pod", {"name": "reader", "text": ""}), say("no")])
    async with PodSystem() as system:
        pod = await system.spawn(lead(), client=cast)
        await pod.run("go")
        task, text = await results(pod)
        assert "task: expected `str` of length >= 1" in task
        assert "text: expected `str` of length >= 1" in text
        assert [each.name for each in system.pods()] == ["lead"]


async def test_a_name_that_would_pass_for_another_pods_is_refused() -> None:
    wrong = ["", ".", "a.b", "a b", "a@b", "../a"]
    cast = Cast(lead=[*map(spawn, wrong), say("no")])
    async with PodSystem() as system:
        pod = await system.spawn(lead(max_repeats=0), client=cast)
        await pod.run("go")
        assert all("is not a valid name for a sub-agent" in each for each in await results(pod))
        assert [each.name for each in system.pods()] == ["lead"]


@pytest.mark.parametrize("at_work", [True, False])
async def test_sub_agents_of_a_pod_that_its_group_stops_end_paused_and_live_again_with_it(
    tmp_path: Path, at_work: bool
) -> None:
    cast = Cast(
        lead=[spawn(), *([...] if at_work else []), say("ok"), say("published"), say("published")],
        reader=[..., say("done")],
        other=[],
    )
    async with PodSystem(f"sqlite:{tmp_path}/pods.db") as system:
        pod = await system.spawn(lead(), client=cast)
        session = (await pod.describe()).session_id
        other = await system.spawn(PodManifest.of(name="other", system_prompt="other"), client=cast)
        group = system.supervise([pod, other], max_restarts=0)
        with system.subscribe("lead", children=True) as events:
            run = pod.run("go")
            await until(events, of(RunStart, "lead.reader"))
            if not at_work:
                await run
            other.ref.actor.end_by_defect(RuntimeError("boom"))
            with pytest.raises(TooManyRestarts):
                await group.wait()
            assert system.pods() == []
            assert not any(isinstance(each, ChildEnded) for each in events.drain())
        cast.go.set()
        pod = await system.spawn(lead(), client=cast, resume=session)
        with system.subscribe("lead", children=True) as events:
            await (pod.resume() if at_work else pod.run("go on"))
            assert (await until(events, of(ChildEnded))).outcome == "finished"


async def test_a_sub_agent_has_what_it_was_given_though_its_parent_has_spent_too_much_meanwhile(
    tmp_path: Path,
) -> None:
    store = f"sqlite:{tmp_path}/pods.db"
    manifest = lead(tokens=100_000, max_tokens=10)
    spent = say("ok", input_tokens=60_000, output_tokens=10)
    cast = Cast(lead=[spawn(budget={"tokens": 50_000}), spent], reader=[...])
    async with PodSystem(store) as system:
        pod = await system.spawn(manifest, client=cast)
        session = (await pod.describe()).session_id
        with system.subscribe("lead", children=True) as events:
            await pod.run("go")
            await until(events, of(RunStart, "lead.reader"))
    async with PodSystem(store) as system:
        with system.subscribe() as events:
            await system.spawn(manifest, client=Cast(), resume=session)
            come = await until(events, lambda e: isinstance(e, ChildEnded) or e.pod == "lead.reader")
            assert isinstance(come, PodStarted)


async def test_a_sub_agent_may_have_its_parents_scope_and_touches_nothing_of_polypods_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "polypod.toml").write_text("secret")
    reads = call("read_file", {"path": "polypod.toml"}) + call("read_file", {"path": "pods.db"})
    scope = {"allow": [{"target": ".", "permission": "read"}]}
    cast = Cast(
        lead=[spawn(scope=scope), say("working on it"), say("ok")], reader=[..., reads, say("cannot")]
    )
    async with PodSystem(f"sqlite:{tmp_path / 'pods.db'}") as system:
        pod = await system.spawn(lead(pwd=str(tmp_path), scope=Scope.writable(tmp_path)), client=cast)
        with system.subscribe("lead", children=True) as events:
            await pod.run("go")
            cast.go.set()
            first = await until(events, of(ToolResulted, "lead.reader"))
            second = await until(events, of(ToolResulted, "lead.reader"))
            await until(events, of(ChildEnded))
            await until(events, of(RunEnd, "lead"))
    for event in (first, second):
        assert event.item.text.startswith("not allowed to read"), event.item.text


async def test_sub_agents_of_an_idle_pod_that_is_restored_go_on_when_somebody_waits_for_them(
    tmp_path: Path,
) -> None:
    store = f"sqlite:{tmp_path / 'pods.db'}"
    cast = Cast(lead=[spawn(), say("working on it"), say("it is 42")], reader=[..., say("forty-two")])
    async with PodSystem(store=store) as system:
        pod = await system.spawn(lead(), client=cast)
        session_id = (await pod.run("go")).session_id
    cast.go.set()
    async with PodSystem(store=store) as system, asyncio.timeout(30):
        pod = await system.spawn(lead(), client=cast, resume=session_id)
        described = await pod.describe()
        assert (described.state, described.sub_agents) == (PodState.IDLE, ("lead.reader",))
        assert await pod.wait_for_sub_agents()
        assert (await pod.history())[-1].text == "it is 42"


async def test_a_restored_pod_that_is_stopped_idle_stops_its_sub_agents(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'pods.db'}"
    cast = Cast(lead=[spawn(), say("working on it")], reader=[..., say("forty-two")])
    async with PodSystem(store=store) as system:
        session_id = (await (await system.spawn(lead(), client=cast)).run("go")).session_id
    async with PodSystem(store=store) as system, asyncio.timeout(30):
        pod = await system.spawn(lead(), client=cast, resume=session_id)
        await pod.stop()
        assert not system.pods()
        with system.subscribe("lead", ChildEnded, since=0) as past:
            assert (await until(past, of(ChildEnded))).outcome == "cancelled"


#: What a sub-agent has of its own, within what its parent has.
ITS_OWN = {"pod", "model", "scope", "budget", "delegation"}


async def test_a_sub_agent_has_no_wider_options_than_its_parent_also_where_that_comes_back_with_less(
    tmp_path: Path,
) -> None:
    store = f"sqlite:{tmp_path / 'pods.db'}"
    (tmp_path / "a.txt").write_text("words")
    scope = {"allow": [{"target": str(tmp_path), "permission": "read"}]}
    read = call("read_file", {"path": str(tmp_path / "a.txt")})
    cast = Cast(lead=[spawn(scope=scope), say("working on it"), say("ok")], reader=[..., read, say("no")])
    wide = {"fetch": {"allow_private": True}, "sandbox": {"mode": "off", "network": True}, "output_cap": 9999}
    tools = {"builtin": ["pods", "files", "fetch", "shell"]}
    manifest = PodManifest.of(name="lead", system_prompt="lead", tools=tools, scope=scope, **wide)
    async with PodSystem(store=store) as system:
        pod = await system.spawn(manifest, client=cast)
        session_id = (await pod.run("go")).session_id
        check_options(system)
    less = {"approval": [{"tool": "shell", "policy": "deny"}], "output_cap": 500}
    manifest = PodManifest.of(
        name="lead", system_prompt="lead", tools={"builtin": ["pods", "files"]}, pwd=str(tmp_path), **less
    )
    async with PodSystem(store=store) as system, asyncio.timeout(30):
        pod = await system.spawn(manifest, client=cast, resume=session_id)
        waiting = pod.wait_for_sub_agents()
        with pod.subscribe(ToolResulted, children=True) as results:
            await until(system.subscribe(), lambda _: "lead.reader" in {each.name for each in system.pods()})
            check_options(system)
            cast.go.set()
            refused = await until(results, of(ToolResulted, "lead.reader"))
        await waiting
    assert refused.item.is_error
    assert "scope" in refused.item.text


def check_options(system: PodSystem) -> None:
    """Every section that a sub-agent is not given for itself is its parent's."""
    parent, child = (
        actor_of(system.get(name)).resources.template.manifest for name in ("lead", "lead.reader")
    )
    for section in PodManifest.__struct_fields__:
        if section not in ITS_OWN:
            assert getattr(child, section) == getattr(parent, section), section
    assert {**asdict(child.model), "model_id": None} == {**asdict(parent.model), "model_id": None}
    assert child.pod.pwd == parent.pod.pwd
    assert child.delegation.max_depth < parent.delegation.max_depth


async def test_a_sub_agent_that_a_newer_version_has_made_fails_alone(tmp_path: Path) -> None:
    cast = Cast(lead=[spawn(), say("ok")], reader=[...])
    old, new = MemoryStore(), MemoryStore()
    async with PodSystem(old) as system:
        pod = await system.spawn(lead(), client=cast)
        with system.subscribe("lead", children=True) as events:
            await pod.run("go")
            session = (await pod.describe()).session_id
            await until(events, of(RunStart, "lead.reader"))
    for info in old.sessions():
        bodies = [entry.body for entry in old.read(info.session_id)]
        if info.pod == "lead.reader":
            bodies[0] = bodies[0].replace(b'"manifest":{', b'"manifest":{"of_later":1,')
        new.create(info.session_id, info.pod, info.parent, chained(bodies), claim=False)
    cast = Cast(lead=[say("told"), say("I live")])
    async with PodSystem(new) as system:
        pod = await system.spawn(lead(), client=cast, resume=session)
        await pod.wait_for_sub_agents()
        assert (await pod.run("are you there?")).outcome == "finished"
        ended = [each for each in pod.subscribe(since=0).drain() if isinstance(each, ChildEnded)]
        assert [each.outcome for each in ended] == ["failed"]
        assert "newer polypod" in str(ended[0].error)
