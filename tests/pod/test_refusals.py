"""A refusal is an outcome of its own; what was refused is not run and not sent again. A pause goes on, or fails once."""

import asyncio
import contextlib
from typing import Any

import pytest

from actors import PodManifest, PodSystem, ScriptedClient, call, say, tool
from actors.compaction.compose import split
from actors.compaction.cut import Cut
from actors.compaction.refused import LEFT_OUT, refused_turn, without_refused
from actors.llm.base import End, Request, VendorChunk
from protocol.errors import CompactionFailed, ModelError, RunFailed
from protocol.events import RunEnd
from protocol.items import AssistantItem, SystemItem, ToolCall, ToolResult, UserItem


def texts(request: Request) -> str:
    return " | ".join(item.text for item in request.items)


async def ended(pod: Any, system: PodSystem, words: str) -> tuple[Any, RunEnd]:
    with system.subscribe(pod=pod.name, kinds=[RunEnd]) as events:
        result = await pod.run(words)
        (end,) = events.drain()
    return result, end


async def test_a_refused_turn_ends_the_run_as_refused_with_its_words_and_is_not_sent_again():
    client = ScriptedClient(
        [say("fine"), say("I cannot help with that.", stop_reason="refusal"), say("four"), say("five")]
    )

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        await pod.run("hello")
        result, end = await ended(pod, system, "how to build a bomb")
        assert (result.outcome, result.text) == ("refused", "I cannot help with that.")
        assert end.outcome == "refused"
        assert end.error is not None
        assert "I cannot help" in end.error
        assert (await pod.run("what is 2+2?")).text == "four"
        assert texts(client.requests[2]) == "hello | fine | what is 2+2?"
        assert any("bomb" in item.text for item in await pod.history())
        await pod.run("on")
        assert texts(client.requests[3]) == "hello | fine | what is 2+2? | four | on"


async def test_a_refused_turn_stays_left_out_after_a_resume(tmp_path):
    store = f"sqlite:{tmp_path / 'pods.db'}"
    later = ScriptedClient([say("four")])

    async with PodSystem(store=store) as system:
        client = ScriptedClient([say("no", stop_reason="content_filter")])
        pod = await system.spawn(PodManifest.of(), client=client)
        session = (await pod.run("how to build a bomb")).session_id
    async with PodSystem(store=store) as system:
        pod = await system.spawn(PodManifest.of(), client=later, resume=session)
        await pod.run("what is 2+2?")
        assert texts(later.requests[0]) == "what is 2+2?"


def test_calls_of_a_refused_answer_are_not_run_and_leave_nothing_open():
    ran = []

    @tool
    def shell(command: str) -> str:
        ran.append(command)
        return "ok"

    refused = call("shell", {"command": "x"}, id="1")
    client = ScriptedClient([type(refused)(refused.blocks, refused.usage, "refusal"), say("done")])

    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(), client=client, tools=[shell])
            assert (await pod.run("go")).outcome == "refused"
            assert (await pod.run("again")).text == "done"
            assert texts(client.requests[1]) == "again"

    asyncio.run(main())
    assert ran == []


async def test_a_prompt_that_the_provider_filters_fails_and_is_left_out_of_later_runs():
    client = ScriptedClient([ModelError("filtered", kind="content_filter"), say("fine")])

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        with pytest.raises(RunFailed) as failed:
            await pod.run("how to build a bomb")
        assert isinstance(failed.value.cause, ModelError)
        assert failed.value.cause.kind == "content_filter"
        assert (await pod.run("what is 2+2?")).text == "fine"
        assert texts(client.requests[1]) == "what is 2+2?"


async def test_a_refused_turn_is_in_no_summary():
    client = ScriptedClient([say("fine"), say("no", stop_reason="refusal"), say("four")])

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        await pod.run("hello")
        await pod.run("how to build a bomb")
        with contextlib.suppress(CompactionFailed):  # whatever the summariser makes of it
            await pod.compact(0)
        assert all("bomb" not in texts(request) for request in client.requests[2:])


def test_the_refused_turn_begins_with_the_users_words_behind_the_last_answer():
    looked = AssistantItem((), (ToolCall("1", "look"),))
    refused = AssistantItem(refused=True)
    before = [UserItem.of("a"), AssistantItem.of("b")]
    turn = [UserItem.of("c"), looked, ToolResult.of(looked.calls[0], "x"), UserItem.of("d"), refused]
    after = [UserItem.of("e")]
    assert refused_turn([*before, *turn], 6) == range(2, 7)
    notice = SystemItem.of(f"{LEFT_OUT}look.")
    assert without_refused([*before, *turn, *after]) == [*before, notice, *after]
    assert without_refused(before) is before
    parted = split([*before, *turn, *after], Cut(len(before)))
    assert (parted.folded, parted.kept) == (before, [notice, *after])


async def test_what_tools_had_done_in_a_refused_turn_is_said_from_then_on_and_stays_as_it_is():
    @tool
    def write(path: str) -> str:
        if path == "c":
            raise OSError("disk full")
        return "written"

    client = ScriptedClient(
        [
            call("write", {"path": "a"}),
            call("write", {"path": "c"}),
            say("I cannot go on.", stop_reason="refusal"),
            say("yes"),
            say("five"),
        ]
    )

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[write])
        assert (await pod.run("write the bad files")).outcome == "refused"
        await pod.run("did you write anything?")
        await pod.run("on")
        published = client.requests[3].items[0]
        assert published == SystemItem.of(f"{LEFT_OUT}write (2 times, 1 of them with an error).")
        assert texts(client.requests[3]) == f"{published.text} | did you write anything?"
        assert list(client.requests[4].items)[:2] == list(client.requests[3].items)


async def test_a_run_that_was_cut_off_before_a_refused_one_stays_unless_that_is_refused_again():
    begun = asyncio.Event()

    @tool
    async def wait() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    no = say("no", stop_reason="refusal")
    client = ScriptedClient([call("wait", {}), no, say("four")])

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[wait])
        run = pod.run("first")
        await begun.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        assert (await pod.run("how to build a bomb")).outcome == "refused"
        assert (await pod.run("what is 2+2?")).text == "four"
        asked = texts(client.requests[2])
        assert asked.startswith("first | ")
        assert "bomb" not in asked


def test_words_that_were_never_answered_are_left_out_where_two_runs_behind_them_were_refused():
    no = AssistantItem(refused=True, refused_items=1)
    history = [UserItem.of("a"), AssistantItem.of("b"), UserItem.of("the cause"), UserItem.of("c"), no]
    assert without_refused(history) == history[:3]
    assert without_refused([*history, UserItem.of("d"), no, UserItem.of("e")]) == [
        *history[:2],
        UserItem.of("e"),
    ]


def paused(data: dict[str, Any] | None) -> Any:
    class Pause:
        def stream(self, request: Request) -> Any:
            return self._blocks()

        async def _blocks(self) -> Any:
            if data is not None:
                yield VendorChunk(data, 0, "block")
            yield End("pause", None, "anthropic:here")

    return Pause()


def outcome_of(client: Any) -> RunFailed:
    async def main() -> RunFailed:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(), client=client)
            try:
                await pod.run("go")
            except RunFailed as failed:
                return failed
            raise AssertionError("it went on for ever")

    return asyncio.run(main())


def test_a_pause_with_nothing_to_go_on_with_fails_at_once():
    assert "paused" in str(outcome_of(paused(None)))


def test_a_pause_with_the_same_blocks_again_and_again_fails():
    assert "paused" in str(outcome_of(paused({"type": "server_tool_use", "id": "s"})))


async def test_an_answer_of_nothing_ends_the_run_with_words():
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("")]))
        result, end = await ended(pod, system, "go")
        assert (result.outcome, result.text) == ("finished", "")
        assert end.error is not None
        assert "empty" in end.error
