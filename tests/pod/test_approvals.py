"""Calls that need a person's word wait for it, whatever becomes of their run; the others run meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from every_commit import Refusing

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.pod.runs.tool_runner import NOT_RUN
from actors.runtime.events.subscription import Subscription
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from actors.tools.base import ToolContext, tool
from protocol.errors import (
    AlreadyResolved,
    InvalidInput,
    RunFailed,
    StoreError,
    UnknownApproval,
    WaitingForApproval,
)
from protocol.events import (
    ApprovalRequested,
    ApprovalResolved,
    RunEnd,
    StateChanged,
    ToolResulted,
    TurnEnd,
    TurnStart,
)
from protocol.hooks import Deny, Inject, Replace
from protocol.items import AssistantItem, SystemItem, ToolResult
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

ASKS = PodManifest.of(
    name="p",
    approval=[
        {"tool": "pay", "policy": "deny", "match": {"to": "mallory"}},
        {"tool": "pay", "policy": "ask"},
    ],
)


class Stage:
    """A pod with ``pay``, which has to be asked for, and ``look``, which has not."""

    def __init__(self, system: PodSystem, client: ScriptedClient, events: Subscription) -> None:
        self.system, self.client, self.events = system, client, events
        self.ran: list[Any] = []
        self.pod: Pod

    async def spawn(self, manifest: PodManifest = ASKS, **options: Any) -> Pod:
        @tool
        async def pay(to: str) -> str:
            self.ran.append(to)
            return f"paid {to}"

        @tool(concurrency="read_only")
        async def look() -> str:
            self.ran.append("look")
            return "seen"

        self.pod = await self.system.spawn(manifest, client=self.client, tools=[pay, look], **options)
        return self.pod

    async def waiting(self) -> list[ApprovalRequested]:
        """Wait until the pod can do nothing else, and what it has asked."""
        async for event in self.events:
            if isinstance(event, StateChanged) and event.new is PodState.WAITING:
                break
        return await self.system.approvals()

    async def results(self) -> list[str]:
        return [item.text for item in await self.pod.history() if isinstance(item, ToolResult)]


def pay(to: str) -> Reply:
    return call("pay", {"to": to})


def play_staged(
    play: Callable[[Stage], Coroutine[Any, Any, None]],
    *replies: Reply,
    store: SessionStore | None = None,
    grace: float = 1.0,
) -> None:
    async def main() -> None:
        client = ScriptedClient([*replies])
        held = MemoryStore() if store is None else store
        async with asyncio.timeout(30), PodSystem(held, grace=grace) as system:
            with system.subscribe() as events:
                await play(Stage(system, client, events))

    asyncio.run(main())


def test_a_batch_asks_at_once_and_runs_what_needs_no_word() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        one, two = await stage.waiting()
        assert stage.ran == ["look"]
        assert [(each.tool, each.arguments) for each in (one, two)] == [
            ("pay", {"to": "ann"}),
            ("pay", {"to": "bob"}),
        ]
        assert one.why == "the rule ask 'pay'"
        assert (await pod.describe()).state is PodState.WAITING
        await stage.system.approve(two.approval_id, note="he waits")
        await pod.deny(one.approval_id, note="not her")
        assert (await run).text == "done"
        assert stage.ran == ["look", "bob"]
        assert await stage.results() == [
            "pay was not run: a person denied it: not her",
            "seen",
            "paid bob\nA person says: he waits",
            "pay was not run: it is denied (the rule deny 'pay' with to = 'mallory')",
        ]
        assert await stage.system.approvals() == []
        kinds = [type(event) for event in stage.events.drain() if isinstance(event, ApprovalResolved)]
        assert kinds == [ApprovalResolved] * 2

    play_staged(play, pay("ann") + call("look", {}) + pay("bob") + pay("mallory"), say("done"))


def test_of_two_answers_the_first_holds_and_an_unknown_id_is_said_to_be_none() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        first, second = await asyncio.gather(
            pod.deny(asked.approval_id), pod.approve(asked.approval_id), return_exceptions=True
        )
        assert first is None
        assert isinstance(second, AlreadyResolved)
        await run
        assert stage.ran == []
        for answer in (pod.approve(asked.approval_id), stage.system.deny(asked.approval_id)):
            with pytest.raises(AlreadyResolved):
                await answer
        for answer in (pod.approve("nobody"), stage.system.approve("nobody")):
            with pytest.raises(UnknownApproval):
                await answer

    play_staged(play, pay("ann"), say("done"))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"always": "no"}, "always: expected True or False, got 'no'"),
        ({"always": 1}, "always: expected True or False"),
        ({"arguments": [1]}, "arguments: expected a dict with their names as keys, got [1]"),
        ({"arguments": "to=bob"}, "arguments: expected a dict"),
        ({"note": 5}, "note: expected a string, got 5"),
        ({"by": "me"}, "by: expected 'person' or 'nobody', got 'me'"),
    ],
)
def test_an_answer_that_is_none_names_what_is_wrong_and_the_call_waits_on(
    given: dict[str, Any], named: str
) -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        for whose in (pod, stage.system):
            answer = whose.deny if "by" in given else whose.approve
            with pytest.raises(InvalidInput, match=re.escape(named)):
                await answer(asked.approval_id, **given)
        await pod.approve(asked.approval_id)
        await run
        assert stage.ran == ["ann"]

    play_staged(play, pay("ann"), say("done"))


async def test_an_answer_of_the_system_reaches_the_pod_that_has_asked_and_no_other() -> None:
    ran: list[str] = []

    @tool
    async def pay(ctx: ToolContext) -> str:
        ran.append(ctx.pod)
        return "paid"

    async with asyncio.timeout(30), PodSystem() as system:
        runs, asked = {}, {}
        with system.subscribe(kinds=ApprovalRequested) as questions:
            for name in ("a", "b", "c", "d"):
                manifest = PodManifest.of(name=name, approval=[{"tool": "pay", "policy": "ask"}])
                client = ScriptedClient([call("pay", {}), *([] if name == "b" else [say("done")])])
                runs[name] = (await system.spawn(manifest, client=client, tools=[pay])).run("go")
                request = await anext(questions)
                assert isinstance(request, ApprovalRequested)
                asked[name] = request.approval_id
        for name in ("c", "a", "d"):
            await system.approve(asked[name])
            assert (await runs[name]).text == "done"
            with pytest.raises(AlreadyResolved):
                await system.deny(asked[name])
        assert ran == ["c", "a", "d"]
        await system.get("b").stop()
        with pytest.raises(UnknownApproval):
            await system.approve(asked["b"])


def test_always_holds_for_the_same_arguments_also_behind_a_compaction_and_a_restart() -> None:
    store = MemoryStore()

    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        await pod.approve(asked.approval_id, always=True)
        await run
        await pod.run("again")
        session = await pod.compact(retained_tokens=0)
        await pod.stop()
        pod = await stage.spawn(resume=session)
        await pod.run("once more")
        assert stage.ran == ["ann", "ann", "ann"]
        run = pod.run("another")
        (asked,) = await stage.waiting()
        assert asked.arguments == {"to": "bob"}
        await pod.cancel()
        await run
        branch = await pod.fork()
        await pod.stop()
        pod = await stage.spawn(resume=branch)
        run = pod.run("in the branch")
        assert len(await stage.waiting()) == 1
        await pod.cancel()
        await run

    summary = [call("write_summary", {"text": "they paid"}), say("ok")]
    replies = [
        pay("ann"),
        say("1"),
        pay("ann"),
        say("2"),
        *summary,
        pay("ann"),
        say("3"),
        pay("bob"),
        pay("ann"),
    ]
    play_staged(play, *replies, store=store)


def test_other_arguments_are_checked_and_the_model_learns_what_ran() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        for wrong in ({"to": 5}, {"to": "mallory"}):
            with pytest.raises(InvalidInput):
                await pod.approve(asked.approval_id, arguments=wrong)
        await pod.approve(asked.approval_id, arguments={"to": "bob"})
        await run
        assert stage.ran == ["bob"]
        published = 'paid bob\nA person changed the arguments; it ran with {"to":"bob"}'
        assert await stage.results() == [published]
        results = [event for event in stage.events.drain() if isinstance(event, ToolResulted)]
        assert results[0].arguments == {"to": "bob"}

    play_staged(play, pay("ann"), say("done"))


def test_long_arguments_that_a_person_gives_are_what_runs_and_the_model_reads_where_they_were_cut() -> None:
    long = "b" * 100_000

    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        await pod.approve(asked.approval_id, arguments={"to": long})
        await run
        assert stage.ran == [long]
        (text,) = await stage.results()
        assert text.count("bytes cut here") == 2  # what the tool gave, and what it ran with
        assert len(text) < 40_000

    play_staged(play, pay("ann"), say("done"))


def test_where_nobody_is_there_for_the_question_the_call_is_denied_with_words() -> None:
    async def main() -> None:
        client = ScriptedClient([pay("ann"), say("done")])
        async with asyncio.timeout(30), PodSystem() as system:
            stage = Stage(system, client, system.subscribe("nobody"))
            pod = await stage.spawn()
            assert (await pod.run("go")).text == "done"
            (text,) = await stage.results()
            assert "needs a person's approval (the rule ask 'pay'), but nobody is there to give it" in text
            assert stage.ran == []

    asyncio.run(main())


def test_history_cannot_be_changed_while_calls_wait_and_a_fork_begins_before_their_answer() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        for change in (pod.compact(), pod.push_item(SystemItem.of("x"))):
            with pytest.raises(WaitingForApproval):
                await change
        await pod.try_pre_run_compact()
        branch = await pod.fork()
        await pod.approve(asked.approval_id)
        await run
        forked = await stage.system.spawn(ASKS, client=stage.client, resume=branch, name="f")
        assert not [item for item in await forked.history() if isinstance(item, AssistantItem)]

    play_staged(play, pay("ann"), say("done"))


def test_words_that_steer_deny_what_waits() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        await stage.waiting()
        await pod.steer("pay nobody")
        await run
        assert await stage.results() == ["pay was not run: a person denied it: pay nobody"]
        assert stage.client.requests[1].items[-1].text == "pay nobody"

    play_staged(play, pay("ann"), say("done"))


def test_a_cancelled_call_was_not_run_and_waits_no_more() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        assert await stage.results() == [NOT_RUN]
        assert await stage.system.approvals() == []
        with pytest.raises(AlreadyResolved):
            await pod.approve(asked.approval_id)

    play_staged(play, pay("ann"))


@pytest.mark.parametrize("answered_when", ["paused", "resumed"])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_waits_outlives_a_pause_and_a_restart(answered_when: str, *, restarted: bool) -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        await pod.pause()
        assert (await run).outcome == "paused"
        if restarted:
            session = (await pod.describe()).session_id
            await pod.stop()
            pod = await stage.spawn(resume=session)
        assert [each.approval_id for each in await stage.system.approvals()] == [asked.approval_id]
        if answered_when == "paused":
            await pod.approve(asked.approval_id)
            assert stage.ran == ["look"]
            run = pod.resume()
        else:
            run = pod.resume()
            await stage.waiting()
            await pod.approve(asked.approval_id)
        assert (await run).text == "done"
        assert stage.ran == ["look", "ann"]
        assert await stage.results() == ["paid ann", "seen"]

    play_staged(play, pay("ann") + call("look", {}), say("done"))


def test_a_run_that_begins_anew_closes_what_waits_as_not_run() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        await stage.waiting()
        await pod.pause()
        await run
        assert (await pod.run("something else")).text == "done"
        assert await stage.results() == [NOT_RUN]
        assert await stage.system.approvals() == []

    play_staged(play, pay("ann"), say("done"))


def test_time_in_which_people_are_waited_for_counts_nothing() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn(ASKS.replace(budget=PodManifest.of(seconds=0.2).budget))
        run = pod.run("go")
        (asked,) = await stage.waiting()
        loop = asyncio.get_running_loop()
        later: asyncio.Future[None] = loop.create_future()
        loop.call_later(0.4, later.set_result, None)
        await later
        await pod.approve(asked.approval_id)
        assert (await run).outcome == "finished"
        end = next(event for event in stage.events.drain() if isinstance(event, RunEnd))
        assert end.seconds is not None
        assert end.seconds < 0.4
        assert (await pod.describe()).seconds < 0.4

    play_staged(play, pay("ann"), say("done"))


def test_a_call_that_hooks_change_is_asked_for_as_it_would_run() -> None:
    class Hook:
        def before_tool(self, call: Any) -> Any:
            return Replace({"to": "carol"}) if call.name == "pay" else None

        def after_tool(self, call: Any, result: Any) -> Any:
            return Inject(f"of {call.arguments}")

    async def play(stage: Stage) -> None:
        pod = await stage.spawn(hooks=[Hook()])
        run = pod.run("go")
        (asked,) = await stage.waiting()
        assert asked.arguments == {"to": "carol"}
        await pod.approve(asked.approval_id)
        await run
        assert await stage.results() == ["paid carol\nof {'to': 'carol'}"]

    play_staged(play, pay("ann"), say("done"))


class Gate:
    """Has a say about whom is paid, and notes whom it was asked about."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def before_tool(self, call: Any) -> Any:
        to = call.arguments["to"]
        self.asked.append(to)
        answer = self.answers.get(to)
        return await answer() if callable(answer) else answer


def test_hooks_have_their_say_about_the_arguments_that_a_person_gives() -> None:
    gate = Gate(ann=Inject("about ann"), bob=Deny("not bob"), carol=Inject("about carol"))

    async def play(stage: Stage) -> None:
        pod = await stage.spawn(hooks=[gate])
        run = pod.run("go")
        one, two, three = await stage.waiting()
        await pod.approve(one.approval_id, arguments={"to": "bob"}, note="please")
        await pod.approve(two.approval_id, arguments={"to": "carol"})
        await pod.approve(three.approval_id, note="yes")
        assert (await run).text == "done"
        assert stage.ran == ["carol", "ann"]
        assert await stage.results() == [
            'not bob\nA person changed the arguments to {"to":"bob"}',
            'paid carol\nabout carol\nA person changed the arguments; it ran with {"to":"carol"}',
            "paid ann\nabout ann\nA person says: yes",
        ]
        assert gate.asked == ["ann", "ann", "ann", "bob", "carol"]

    play_staged(play, pay("ann") + pay("ann") + pay("ann"), say("done"))


@pytest.mark.parametrize("again", [False, True])
def test_what_hooks_put_in_the_place_of_a_persons_arguments_is_asked_for_anew(again: bool) -> None:
    """A system that is left meanwhile has the new question in its log alone."""
    gate, store = Gate(bob=Replace({"to": "carol"})), MemoryStore()

    async def play(stage: Stage) -> None:
        pod = await stage.spawn(hooks=[gate])
        run = pod.run("go")
        (asked,) = await stage.waiting()
        await pod.approve(asked.approval_id, arguments={"to": "bob"})
        (anew,) = await stage.waiting()
        assert (anew.call_id, anew.arguments) == (asked.call_id, {"to": "carol"})
        assert stage.ran == []
        if again:
            return
        await pod.approve(anew.approval_id)
        assert (await run).text == "done"
        assert stage.ran == ["carol"]
        assert gate.asked == ["ann", "bob"]

    async def go_on(stage: Stage) -> None:
        info = store.sessions()[0]
        pod = await stage.spawn(hooks=[gate], resume=info.session_id)
        run = pod.resume()
        (anew,) = await stage.waiting()
        assert anew.arguments == {"to": "carol"}
        await pod.approve(anew.approval_id)
        assert (await run).text == "done"
        assert stage.ran == ["carol"]

    play_staged(play, pay("ann"), *([] if again else [say("done")]), store=store)
    if again:
        play_staged(go_on, say("done"), store=store)


@pytest.mark.parametrize("end", ["cancel", "pause"])
def test_a_call_whose_given_arguments_a_hook_still_looks_at_was_not_run(end: str) -> None:
    looking = asyncio.Event()

    async def look() -> None:
        looking.set()
        await asyncio.Event().wait()

    async def play(stage: Stage) -> None:
        pod = await stage.spawn(hooks=[Gate(bob=look)])
        run = pod.run("go")
        (asked,) = await stage.waiting()
        await pod.approve(asked.approval_id, arguments={"to": "bob"})
        await looking.wait()
        await (pod.cancel() if end == "cancel" else pod.pause())
        assert (await run).outcome == ("cancelled" if end == "cancel" else "paused")
        if end == "pause":
            assert (await pod.resume()).text == "done"
        assert stage.ran == []
        assert await stage.results() == [NOT_RUN]

    play_staged(play, pay("ann"), *([say("done")] if end == "pause" else []))


class Quiet:
    """Is asked about each call before policy is, so that a request has a commit of its own."""

    def before_tool(self, call: Any) -> None: ...


@pytest.mark.parametrize("refused", ["calls and request", "request", "answer"])
def test_where_the_store_refuses_a_request_or_an_answer_the_run_fails_and_nothing_runs(refused: str) -> None:
    store = Refusing(lambda _: False)

    async def play(stage: Stage) -> None:
        pod = await stage.spawn(hooks=[Quiet()] if refused == "request" else ())
        if refused != "answer":
            await pod.describe()
            before = store.commits
            nth = 3 if refused == "request" else 2  # behind the input
            store.refuses = lambda number: number == before + nth
            with pytest.raises(RunFailed, match="the disk is full"):
                await pod.run("go")
        else:
            run = pod.run("go")
            (asked,) = await stage.waiting()
            before = store.commits
            store.refuses = lambda number: number == before + 1
            with pytest.raises(StoreError, match="the disk is full"):
                await pod.approve(asked.approval_id)
            with pytest.raises(RunFailed):
                await run
        assert stage.ran == []
        assert (await pod.run("now")).text == "done"
        assert await stage.system.approvals() == []
        assert await stage.results() == ([] if refused == "calls and request" else [NOT_RUN])

    play_staged(play, pay("ann"), say("done"), store=store)


def test_of_calls_that_share_an_id_none_is_run_or_asked_for_that_needs_a_word() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        assert (await pod.run("go")).text == "done"
        assert stage.ran == ["look"]
        why = "it needs a person's approval (the rule ask 'pay'), but another call in the same answer has the same id"
        refused = f"pay was not run: {why}; make the call again, on its own"
        assert sorted(await stage.results()) == [refused, refused, "seen"]
        assert await stage.system.approvals() == []

    ann, bob = (call("pay", {"to": to}, id="same") for to in ("ann", "bob"))
    play_staged(play, ann + call("look", {}, id="same") + bob, say("done"))


def test_rules_that_deny_win_over_an_approval_of_a_call_that_other_rules_had_asked_for() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.spawn()
        run = pod.run("go")
        (asked,) = await stage.waiting()
        await pod.pause()
        await run
        session = (await pod.describe()).session_id
        await pod.stop()
        denies = PodManifest.of(approval=[{"tool": "pay", "policy": "deny"}])
        pod = await stage.spawn(ASKS.replace(approval=denies.approval), resume=session)
        await pod.approve(asked.approval_id)
        assert (await pod.resume()).text == "done"
        assert stage.ran == []
        assert await stage.results() == ["pay was not run: it is denied (the rule deny 'pay')"]

    play_staged(play, pay("ann"), say("done"))


def test_the_turn_of_a_tool_that_goes_on_though_it_was_cancelled_ends_once() -> None:
    async def play(stage: Stage) -> None:
        began, release = asyncio.Event(), asyncio.Event()

        @tool
        async def stubborn() -> str:
            began.set()
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()
            return "late"

        pod = await stage.system.spawn(ASKS, client=stage.client, tools=[stubborn])
        run = pod.run("go")
        await began.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        release.set()
        await pod.run("again")
        turns = [type(event) for event in stage.events.drain() if isinstance(event, TurnStart | TurnEnd)]
        assert turns == [TurnStart, TurnEnd] * 2

    play_staged(play, call("stubborn", {}), say("done"), grace=0.01)


FORM = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}


@tool(concurrency="read_only")
async def ask_town(ctx: ToolContext) -> str:
    """Ask a person for a town."""
    assert ctx.ask_person is not None
    return str(await ctx.ask_person("which town?", FORM))


async def later(seconds: float) -> None:
    """Wait for a time to pass, which is what is counted here."""
    loop = asyncio.get_running_loop()
    passed: asyncio.Future[None] = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    await passed


@pytest.mark.parametrize("forms", [1, 2])
async def test_while_forms_are_open_and_nothing_else_is_at_work_no_time_counts(forms: int) -> None:
    asked = call("ask_town", {})
    client = ScriptedClient([asked + call("ask_town", {}) if forms == 2 else asked, say("done")])
    manifest = ASKS.replace(budget=PodManifest.of(seconds=0.3).budget)
    async with asyncio.timeout(30), PodSystem() as system:
        pod = await system.spawn(manifest, client=client, tools=[ask_town])
        with pod.subscribe((ApprovalRequested, StateChanged, RunEnd)) as events:
            run = pod.run("go")
            questions = []
            while len(questions) < forms:
                event = await anext(events)
                questions += [event] if isinstance(event, ApprovalRequested) else []
            waiting = await anext(events)
            assert isinstance(waiting, StateChanged)
            assert waiting.new is PodState.WAITING
            await later(0.5)
            for question in questions:
                await pod.approve(question.approval_id, arguments={"town": "Oslo"})
            assert (await run).outcome == "finished"
            (end,) = [event for event in events.drain() if isinstance(event, RunEnd)]
        assert end.seconds is not None
        assert end.seconds < 0.5
        assert (await pod.describe()).state is PodState.IDLE


async def test_while_another_call_is_at_work_beside_an_open_form_time_counts() -> None:
    done = asyncio.Event()

    @tool(concurrency="read_only")
    async def work() -> str:
        """Work."""
        await done.wait()
        return "worked"

    client = ScriptedClient([call("ask_town", {}) + call("work", {})])
    manifest = ASKS.replace(budget=PodManifest.of(seconds=0.2).budget)
    async with asyncio.timeout(30), PodSystem() as system:
        pod = await system.spawn(manifest, client=client, tools=[ask_town, work])
        with pod.subscribe(ApprovalRequested) as questions:
            run = pod.run("go")
            await anext(questions)
            assert (await run).outcome == "budget"


@pytest.mark.parametrize("ends", ["pause", "cancel", "stop"])
async def test_a_run_that_ends_while_a_form_is_open_ends_as_any_other(ends: str) -> None:
    client = ScriptedClient([call("ask_town", {}), *([say("done")] if ends == "pause" else [])])
    async with asyncio.timeout(30), PodSystem() as system:
        pod = await system.spawn(ASKS, client=client, tools=[ask_town])
        with pod.subscribe(ApprovalRequested) as questions:
            run = pod.run("go")
            await anext(questions)
            await getattr(pod, ends)()
            assert (await run).outcome == ("paused" if ends == "pause" else "cancelled")
        if ends == "pause":
            assert (await pod.resume()).text == "done"


async def test_a_pod_lives_on_that_is_paused_while_a_tool_asks_a_person_and_ignores_its_cancel() -> None:
    @tool(concurrency="read_only")
    async def stubborn(ctx: ToolContext) -> str:
        """Ask a person for a town, whatever happens meanwhile."""
        assert ctx.ask_person is not None
        answer = asyncio.ensure_future(ctx.ask_person("which town?", FORM))
        while not answer.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(answer)
        return "late"

    client = ScriptedClient([call("stubborn", {}), say("done")])
    async with asyncio.timeout(30), PodSystem(grace=0.01) as system:
        pod = await system.spawn(ASKS, client=client, tools=[stubborn])
        with pod.subscribe(StateChanged) as states, pod.subscribe(ApprovalRequested):
            run = pod.run("go")
            while (await anext(states)).new is not PodState.WAITING:
                pass
            await pod.pause()
            assert (await run).outcome == "paused"
            assert [event.new for event in states.drain()] == [PodState.RUNNING, PodState.PAUSED]
        assert (await pod.resume()).text == "done"


async def test_no_time_is_negative_where_a_store_fails_while_one_tool_asks_a_person_and_another_is_at_work() -> (
    None
):
    stopped, release = asyncio.Event(), asyncio.Event()

    @tool(concurrency="read_only")
    async def work() -> None:
        """Work."""
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @tool(concurrency="read_only")
    async def look() -> str:
        """Look."""
        await release.wait()
        return "seen"

    @tool(concurrency="read_only")
    async def ask_slowly(ctx: ToolContext) -> str:
        """Ask a person for a town, and take a while to end."""
        assert ctx.ask_person is not None
        answer = asyncio.ensure_future(ctx.ask_person("which town?", FORM))
        try:
            return str(await asyncio.shield(answer))
        except asyncio.CancelledError:
            await stopped.wait()
            await turns()
            raise
        finally:
            answer.add_done_callback(asyncio.Future.exception)

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    store = Refusing(lambda _: False)
    client = ScriptedClient([call("work", {}) + call("look", {}) + call("ask_slowly", {}), say("done")])
    async with asyncio.timeout(30), PodSystem(store) as system:
        pod = await system.spawn(ASKS, client=client, tools=[work, look, ask_slowly])
        with pod.subscribe(ApprovalRequested) as questions:
            run = pod.run("go")
            await anext(questions)
        store.refuses = store.commits.__lt__
        release.set()
        with pytest.raises(RunFailed):
            await run
        store.refuses = lambda _: False
        await turns()
        before = (await pod.describe()).seconds
        result = await pod.run("again")
        assert result.seconds > 0
        assert (await pod.describe()).seconds > before
