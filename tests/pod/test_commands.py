"""The table of commands by state, as a pod's users meet it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pod_stage import Stage, all_of, on_each_store, on_stage, texts  # noqa: F401

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.pod import _HANDLERS
from actors.sessions.answers import settled
from actors.system import PodSystem
from actors.tools.base import tool
from protocol import commands
from protocol.commands import COMMANDS, Stop
from protocol.errors import (
    NotPaused,
    NotRunning,
    PodBusy,
    PodNotFound,
    PodStopped,
    RunFailed,
    UnknownEntry,
)
from protocol.events import Event, PodEnded, RunEnd, RunStart, StateChanged, ToolStart, UserMessage
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

# -- run -----------------------------------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("on_each_store")


def test_runs_queue_in_order_behind_the_one_that_goes_on() -> None:
    async def play(stage: Stage) -> None:
        first = await stage.running("1")
        second, third = stage.pod.run("2"), stage.pod.run("3")
        for _ in range(3):
            stage.answer()
        results = await asyncio.gather(first, second, third)
        assert [r.text for r in results] == ["a", "b", "c"]
        assert texts(await stage.pod.history()) == ["1", "a", "2", "b", "3", "c"]

    on_stage([say("a"), say("b"), say("c")], play)


def test_a_busy_pod_rejects_a_run_that_would_not_wait() -> None:
    async def play(stage: Stage) -> None:
        first = await stage.running()
        with pytest.raises(PodBusy):
            await stage.pod.run("no", busy="reject")
        stage.answer()
        assert (await first).outcome == "finished"

    on_stage([say("a")], play)


def test_the_33rd_waiting_run_is_refused() -> None:
    async def play(stage: Stage) -> None:
        first = await stage.running()
        waiting = [stage.pod.run("more") for _ in range(32)]
        with pytest.raises(PodBusy):
            await stage.pod.run("one too many")
        for _ in range(33):
            stage.answer()
        await first
        await asyncio.gather(*waiting)

    on_stage([say("a")] * 33, play)


def test_a_run_result_says_text_outcome_usage_and_ids() -> None:
    async def play(stage: Stage) -> None:
        stage.answer()
        result = await stage.pod.run("go")
        described = await stage.pod.describe()
        assert (result.text, result.outcome) == ("a", "finished")
        assert (result.usage.input_tokens, result.usage.output_tokens) == (7, 2)
        assert result.session_id == described.session_id
        assert described.usage == result.usage
        assert result.run_id

    on_stage([say("a", input_tokens=7, output_tokens=2)], play)


async def test_a_client_error_fails_the_run_with_its_cause_and_the_pod_lives_on() -> None:
    client = ScriptedClient([ValueError("broken"), say("fine")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        with pytest.raises(RunFailed, match="broken") as caught:
            await pod.run("go")
        assert isinstance(caught.value.cause, ValueError)
        assert (await pod.run("again")).text == "fine"


async def test_a_tool_that_exits_the_interpreter_ends_nothing_but_its_call() -> None:
    @tool
    async def leave() -> str:
        raise SystemExit(3)

    client = ScriptedClient([call("leave"), say("still here")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[leave])
        assert (await pod.run("go")).text == "still here"


# -- steer and notify ----------------------------------------------------------------------------


def test_steering_an_idle_pod_is_an_error() -> None:
    async def play(stage: Stage) -> None:
        with pytest.raises(NotRunning):
            await stage.pod.steer("left")

    on_stage([], play)


def test_steered_words_come_before_the_next_request_and_force_one() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("go")
        steered = stage.pod.steer("left")
        stage.answer()
        await stage.client.asked.acquire()
        await steered
        stage.answer()
        assert (await run).text == "b"
        assert texts(await stage.pod.history()) == ["go", "a", "left", "b"]
        assert texts(list(stage.client.requests[1].items)) == ["go", "a", "left"]

    on_stage([say("a"), say("b")], play)


def test_steered_words_never_part_a_call_from_its_result() -> None:
    @tool
    async def look() -> str:
        return "seen"

    async def play(stage: Stage) -> None:
        run = await stage.running("go")
        stage.pod.steer("left")
        stage.answer()
        stage.answer()
        await run
        kinds = [type(item) for item in await stage.pod.history()]
        assert kinds == [UserItem, AssistantItem, ToolResult, UserItem, AssistantItem]

    on_stage([call("look"), say("b")], play, tools=[look])


def test_a_notification_to_an_idle_pod_starts_a_run() -> None:
    async def play(stage: Stage) -> None:
        async with stage.pod.subscribe([RunStart, RunEnd]) as events:
            stage.answer()
            await stage.pod.notify("news")
            start = await anext(events)
            end = await anext(events)
        assert isinstance(start, RunStart)
        assert start.reason == "notify"
        assert isinstance(end, RunEnd)
        assert texts(await stage.pod.history()) == ["news", "a"]

    on_stage([say("a")], play)


def test_a_notification_after_the_last_request_of_a_run_is_not_stranded() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("go")
        published = stage.pod.notify("late")
        stage.answer()
        stage.answer()
        await published
        assert (await run).text == "b"
        assert texts(await stage.pod.history()) == ["go", "a", "late", "b"]

    on_stage([say("a"), say("b")], play)


# -- cancel, pause, resume, stop -----------------------------------------------------------------


def test_cancelling_an_idle_pod_does_nothing() -> None:
    async def play(stage: Stage) -> None:
        assert await stage.pod.cancel() is None
        assert (await stage.pod.describe()).state is PodState.IDLE

    on_stage([], play)


def test_cancel_ends_this_run_and_the_queued_ones_stay() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("1")
        queued = stage.pod.run("2")
        await stage.pod.cancel()
        assert (await run).outcome == "cancelled"
        await stage.client.asked.acquire()
        stage.answer()
        assert (await queued).text == "a"

    on_stage([say("a")], play)


async def test_a_call_that_was_cancelled_is_answered_and_never_run_again() -> None:
    began = asyncio.Event()
    count = 0

    @tool
    async def hang() -> str:
        nonlocal count
        count += 1
        began.set()
        await asyncio.Event().wait()
        return ""

    client = ScriptedClient([call("hang"), say("ok")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[hang])
        run = pod.run("go")
        await began.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        assert (await pod.run("next")).text == "ok"
        result = (await pod.history())[2]
        assert isinstance(result, ToolResult)
        assert result.is_error
        assert "outcome unknown" in result.text
    assert count == 1


def test_a_paused_run_resumes_with_the_same_id_and_its_own_result() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("go")
        await stage.pod.pause()
        paused = await run
        assert paused.outcome == "paused"
        assert (await stage.pod.describe()).state is PodState.PAUSED
        stage.answer()
        result = await stage.pod.resume()
        assert (result.outcome, result.text, result.run_id) == ("finished", "a", paused.run_id)
        assert texts(await stage.pod.history()) == ["go", "a"]

    on_stage([say("a")], play)


def test_pausing_twice_and_resuming_what_is_not_paused() -> None:
    async def play(stage: Stage) -> None:
        with pytest.raises(NotPaused):
            await stage.pod.resume()
        run = await stage.running("go")
        await stage.pod.pause()
        await stage.pod.pause()
        assert (await run).outcome == "paused"
        await stage.pod.cancel()
        assert (await stage.pod.describe()).state is PodState.IDLE
        with pytest.raises(NotPaused):
            await stage.pod.resume()

    on_stage([], play)


def test_a_run_on_a_paused_pod_closes_the_old_one_and_starts_anew() -> None:
    async def play(stage: Stage) -> None:
        await (await _paused(stage))
        stage.answer()
        result = await stage.pod.run("new")
        assert result.outcome == "finished"
        with stage.system.subscribe("p", RunEnd, since=0) as events:
            outcomes = [event.outcome for event in await all_of(events) if isinstance(event, RunEnd)]
        assert outcomes == ["paused", "cancelled", "finished"]

    on_stage([say("a")], play)


async def _paused(stage: Stage) -> Any:
    run = await stage.running("old")
    await stage.pod.pause()
    return run


def test_stop_cancels_the_run_and_fails_the_queued_ones() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("1")
        queued = stage.pod.run("2")
        steered = stage.pod.steer("words")
        assert await stage.pod.stop() is True
        assert (await run).outcome == "cancelled"
        await steered  # the words are in the log, for whoever resumes the session
        for lost in (queued, stage.pod.run("3"), stage.pod.describe()):
            with pytest.raises(PodStopped):
                await lost
        assert await stage.pod.stop() is False
        assert stage.system.pods() == []

    on_stage([], play)


# -- at once, or between two requests ------------------------------------------------------------


def test_pushed_items_join_at_once_when_idle_and_between_requests_when_running() -> None:
    async def play(stage: Stage) -> None:
        await stage.pod.push_item(SystemItem.of("note"))
        run = await stage.running("go")
        pushed = stage.pod.push_item(UserItem.of("more"))
        stage.answer()
        await pushed
        await run
        assert texts(await stage.pod.history()) == ["note", "go", "a", "more"]

    on_stage([say("a")], play)


def test_describe_and_history_are_answered_while_a_turn_runs() -> None:
    async def play(stage: Stage) -> None:
        run = await stage.running("go")
        assert (await stage.pod.describe()).state is PodState.RUNNING
        assert texts(await stage.pod.history()) == ["go"]
        stage.answer()
        await run

    on_stage([say("a")], play)


def test_a_fork_goes_on_from_the_head_or_from_an_entry() -> None:
    async def play(stage: Stage) -> None:
        stage.answer()
        await stage.pod.run("1")
        at = (await stage.pod.describe()).head
        stage.answer()
        await stage.pod.run("2")
        early, late = await stage.pod.fork(at=at), await stage.pod.fork()
        for session, expected in ((early, ["1", "a"]), (late, ["1", "a", "2", "b"])):
            branch = await stage.system.spawn(PodManifest.of(name="b"), client=stage.client, resume=session)
            assert texts(await branch.history()) == expected
            info = await settled(stage.system.store.info(session))
            assert info.parent is not None
            assert info.parent.kind == "forked_from"
        with pytest.raises(UnknownEntry) as unknown:
            await stage.pod.fork(at="00" * 32)
        session = (await stage.pod.describe()).session_id
        assert unknown.value.hint == f"list its entries with polypod log {session}"
        with pytest.raises(UnknownEntry):
            await stage.pod.fork(at="not hex")

    on_stage([say("a"), say("b")], play)


# -- limits --------------------------------------------------------------------------------------


async def test_max_steps_is_counted_for_each_run_anew() -> None:
    @tool
    async def look() -> str:
        return "seen"

    client = ScriptedClient([call("look"), call("look"), say("done"), say("again")])
    manifest = PodManifest.of(max_steps=2)
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client, tools=[look])
        assert (await pod.run("1")).outcome == "limit_reached"
        assert (await pod.run("2")).text == "done"
        assert (await pod.run("3")).text == "again"


async def test_a_text_cut_by_max_tokens_ends_the_run_with_limit_reached() -> None:
    client = ScriptedClient([say("half a sen", stop_reason="max_tokens")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        result = await pod.run("go")
        assert (result.outcome, result.text) == ("limit_reached", "half a sen")


async def test_a_budget_of_tokens_ends_the_run_before_the_call_that_would_break_it() -> None:
    client = ScriptedClient([say("a", input_tokens=50, output_tokens=10)])
    manifest = PodManifest.of(tokens=100, max_tokens=50)
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client)
        assert (await pod.run("1")).outcome == "finished"
        assert (await pod.run("2")).outcome == "budget"
        assert len(client.requests) == 1


def test_a_budget_of_seconds_ends_a_run_that_hangs() -> None:
    async def play(stage: Stage) -> None:
        pod = await stage.system.spawn(PodManifest.of(name="q", seconds=0.05), client=stage.client)
        assert (await pod.run("go")).outcome == "budget"

    on_stage([], play)


# -- events --------------------------------------------------------------------------------------


def test_all_events_of_a_run_are_queued_before_its_future_resolves() -> None:
    async def play(stage: Stage) -> None:
        with stage.pod.subscribe() as events:
            stage.answer()
            await stage.pod.run("go")
            kinds = [type(event).__name__ for event in events.drain()]
        assert kinds[0] == "StateChanged"
        assert kinds[-2:] == ["RunEnd", "StateChanged"]

    on_stage([say("a")], play)


def test_a_subscription_since_zero_replays_every_durable_event_and_goes_on() -> None:
    async def play(stage: Stage) -> None:
        stage.answer()
        await stage.pod.run("go")
        with stage.pod.subscribe(UserMessage, since=0) as events:
            stage.answer()
            await stage.pod.run("more")
            published = [event.item.text for event in events.drain() if isinstance(event, UserMessage)]
        assert published == ["go", "more"]

    on_stage([say("a"), say("b")], play)


def test_a_stream_ends_with_the_end_of_its_run_and_text_gives_text_alone() -> None:
    async def play(stage: Stage) -> None:
        stage.answer()
        events: list[Event] = [event async for event in stage.pod.stream("go")]
        assert isinstance(events[-1], RunEnd)
        assert isinstance(events[0], StateChanged)
        stage.answer()
        assert [piece async for piece in stage.pod.stream("more").text()] == ["hel", "lo"]

    on_stage([say("a"), say("hello", chunks=2)], play)


def test_leaving_a_stream_cancels_its_run_and_breaking_out_does_not() -> None:
    async def play(stage: Stage) -> None:
        async with stage.pod.stream("1") as events:
            async for event in events:
                if isinstance(event, RunStart):
                    break
        assert (await events.result).outcome == "cancelled"
        stream = stage.pod.stream("2")
        async for event in stream:
            if isinstance(event, RunStart):
                break
        stage.answer()
        assert (await stream.result).outcome == "finished"

    on_stage([say("a")], play)


async def test_a_stream_of_a_failed_run_ends_and_its_text_raises() -> None:
    client = ScriptedClient([ValueError("x"), ValueError("y")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        ends = [e async for e in pod.stream("go") if isinstance(e, RunEnd)]
        assert [e.outcome for e in ends] == ["failed"]
        with pytest.raises(RunFailed):
            _ = [piece async for piece in pod.stream("go").text()]


def test_a_queued_run_in_a_stream_shows_only_its_own_events() -> None:
    async def play(stage: Stage) -> None:
        first = await stage.running("1")
        stream = stage.pod.stream("2")
        stage.answer()
        stage.answer()
        run_ids = {event.run_id async for event in stream}
        assert run_ids == {(await stream.result).run_id}
        assert (await first).run_id not in run_ids

    on_stage([say("a"), say("b")], play)


def test_pykkas_own_operations_work_on_a_pod() -> None:
    with PodSystem() as system:
        client = ScriptedClient([say("a")])
        pod = system.spawn(PodManifest.of(name="p"), client=client).get(timeout=60)
        result = pod.ref.ask(commands.Run.of("go"), timeout=60)
        assert result.text == "a"
        pod.ref.tell(commands.PushItem(UserItem.of("told")))
        assert texts(pod.history().get(timeout=60)) == ["go", "a", "told"]
        assert pod.ref.stop(timeout=60) is True
        assert not pod.ref.is_alive()


async def test_tools_start_in_order_of_their_calls() -> None:
    @tool(concurrency="read_only")
    async def look(n: int) -> str:
        return str(n)

    calls = call("look", {"n": 1}) + call("look", {"n": 2}) + call("look", {"n": 3})
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([calls, say("x")]), tools=[look])
        starts = [e.arguments["n"] async for e in pod.stream("go") if isinstance(e, ToolStart)]
        results = [item.text for item in await pod.history() if isinstance(item, ToolResult)]
    assert starts == [1, 2, 3]
    assert results == ["1", "2", "3"]


def test_what_tries_never_raises_also_where_the_pod_has_stopped():
    async def play(stage):
        await stage.pod.stop()
        assert await stage.pod.try_pre_run_compact() is None
        assert await stage.pod.try_post_run_extract() is None
        assert await asyncio.gather(stage.pod.try_pre_run_compact()) == [None]

    on_stage([], play)


def test_every_command_of_the_schema_is_handled() -> None:
    assert set(COMMANDS) <= set(_HANDLERS)


@pytest.mark.parametrize("passive", [False, True])
async def test_the_command_stop_ends_a_pod_as_its_handle_does(passive: bool) -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([say("a")]))
        await pod.run("go")
        if passive:
            assert await pod.passivate()
        with system.subscribe(pod="p") as events:
            assert await pod.ref.ask(Stop(), block=False) is None
            assert not pod.ref.is_alive()
            assert PodEnded in map(type, events.drain())
        with pytest.raises(PodStopped):
            await pod.run("more")
        assert await pod.stop() is False
        with pytest.raises(PodNotFound):
            system.get("p")
