"""What keeps compaction from bricking a session: breaker, thrash, the emergency, and a context that is small."""

from __future__ import annotations

from typing import Any

import pytest
from compaction_stage import OVERFLOW, SUMMARY, of_compactions, play_script

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import CompactionFailed, ModelError, RunFailed
from protocol.events import CompactDone, CompactStart
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem

REFUSED = ModelError("no", kind="invalid_request")


async def break_it(pod: Pod, events: Any) -> None:
    """Three automatic compactions fail."""
    await pod.run("remember the number 4711")
    for _ in range(3):
        await pod.try_pre_run_compact()
    assert of_compactions(events.drain()) == ["CompactStart", "CompactFailed"] * 3


BROKEN = [say("I have decided to go on"), *[ValueError("no summariser")] * 3]


def test_an_overflow_with_the_breaker_open_is_folded_without_a_model_and_the_run_goes_on() -> None:
    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        await break_it(pod, events)
        asked = len(client.requests)
        assert (await pod.run("go on")).text == "on I went"
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"]
        assert len(client.requests) == asked + 2, "the request that overflowed, and the one after"
        summary = (await pod.history())[0]
        assert isinstance(summary, SystemItem)
        assert "4711" in summary.text
        assert "I have decided to go on" in summary.text

    play_script([*BROKEN, OVERFLOW, say("on I went")], play, compact_threshold=5)


def test_the_emergency_without_a_model_leaves_the_breaker_open_and_a_compaction_by_hand_closes_it() -> None:
    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        await break_it(pod, events)
        for words in ("go on", "and on"):  # each of them overflows once
            await pod.run(words)
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"] * 2
        await pod.try_pre_run_compact()
        assert of_compactions(events.drain()) == []
        await pod.compact(retained_tokens=0)
        await pod.run("now then, with a few more words than before")
        await pod.try_pre_run_compact()
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"] * 2

    again = [OVERFLOW, say("on I went"), OVERFLOW, say("and on"), *SUMMARY, say("well"), *SUMMARY]
    play_script([*BROKEN, *again], play, compact_threshold=5)


def test_a_second_overflow_of_one_request_ends_the_run_with_the_breaker_open_too() -> None:
    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        await break_it(pod, events)
        with pytest.raises(RunFailed) as caught:
            await pod.run("go on")
        assert caught.value.failure.details["kind"] == "context_overflow"
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"]

    play_script([*BROKEN, OVERFLOW, OVERFLOW], play, compact_threshold=5)


def test_a_failed_emergency_ends_the_run_with_its_error_and_leaves_the_session() -> None:
    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        await pod.run("1")
        session = (await pod.describe()).session_id
        with pytest.raises(RunFailed, match="could not be compacted"):
            await pod.run("2")
        assert of_compactions(events.drain()) == ["CompactStart", "CompactFailed"]
        assert (await pod.describe()).session_id == session
        assert [item.text for item in await pod.history()] == ["1", "a", "2"]

    play_script([say("a"), OVERFLOW, REFUSED], play)


def test_after_three_failed_emergencies_the_next_one_does_without_a_model() -> None:
    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        await pod.run("1")
        for _ in range(3):
            with pytest.raises(RunFailed):
                await pod.run("again")
        assert (await pod.run("once more")).text == "at last"

    play_script([say("a"), *[OVERFLOW, REFUSED] * 3, OVERFLOW, say("at last")], play)


def test_a_long_run_is_compacted_as_often_as_it_fills_up() -> None:
    """A compaction that silenced the checks until the run ends would let a long run overflow."""

    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        assert (await pod.run("a long task")).text == "done"
        seen = events.drain()
        assert of_compactions(seen) == ["CompactStart", "CompactDone"] * 3
        assert {each.reason for each in seen if isinstance(each, CompactStart)} == {"request_threshold"}

    turns = [call("nonesuch", input_tokens=50), call("nonesuch", input_tokens=2000), *SUMMARY]
    play_script([*turns * 3, say("done")], play, compact_request_threshold=1000, compact_retained_tokens=50)


def test_thrash_ends_the_run_with_that_error() -> None:
    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        with pytest.raises(
            RunFailed, match="compaction thrash: context still exceeds threshold immediately after"
        ):
            await pod.run("a long task")
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"]
        assert isinstance((await pod.history())[-1], ToolResult), "what was done is kept"

    full = call("nonesuch", input_tokens=2000)
    play_script([full, *SUMMARY, full], play, compact_request_threshold=1000)


def test_an_overflow_is_no_reason_to_send_the_same_request_again() -> None:
    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        await pod.run("1")
        await pod.run("2")
        lengths = [len(request.items) for request in client.requests if not request.tools]
        first, too_long, after = lengths
        assert (first, too_long) == (1, 3)
        assert client.requests[-1].items[0].text.startswith("[Compacted context summary]")
        assert after == 3, "summary, the newest words, the tasks"

    play_script([say("a " * 400), OVERFLOW, *SUMMARY, say("b")], play)


def test_in_a_small_context_what_a_compaction_leaves_has_room() -> None:
    """Budgets that do not know the window wrote summaries that were longer than all of it."""

    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        for number in range(60):
            await pod.push_item(UserItem.of(f"{number}: " + "never do that again, please. " * 20))
            await pod.push_item(AssistantItem.of("I decided so because. " * 40))
        with pytest.raises(RunFailed):  # no words of the script are left for the request after
            await pod.run("go on")
        (done,) = [each for each in events.drain() if isinstance(each, CompactDone)]
        assert (done.before or 0) > 15_000
        assert (done.after or 0) < 4096 * 3 // 4

    full = ModelError("too long", kind="context_overflow", context_window=4096)
    play_script([full, *[OVERFLOW] * 6], play)


def test_a_compaction_by_hand_of_a_history_that_fails_says_why() -> None:
    async def play(pod: Pod, events: Any, client: ScriptedClient, system: PodSystem) -> None:
        await pod.run("1")
        with pytest.raises(CompactionFailed, match="could not be compacted: no"):
            await pod.compact()

    play_script([say("a"), REFUSED], play)


@tool
def look() -> str:
    return "ok"


@tool
def read() -> str:
    return "much " * 3000


@pytest.mark.parametrize(
    ("words", "replies"),
    [
        ("much " * 3000, [say("answered")]),
        ("go", [call("read"), say("answered")]),
        ("go", [call("look"), call("read"), say("answered")]),
    ],
)
def test_what_has_to_stay_is_sent_though_it_alone_is_above_the_threshold(
    words: str, replies: list[Reply]
) -> None:
    """To fold the little that is left could only fail, and the run with it."""

    async def play(pod: Pod, events: Any, client: Any, system: PodSystem) -> None:
        assert (await pod.run(words)).text == "answered"
        assert of_compactions(events.drain()) == []

    play_script(replies, play, tools=[look, read], compact_request_threshold=2500)


def test_what_was_too_much_in_one_turn_is_folded_in_the_next() -> None:
    async def play(pod: Pod, events: Any, client: Any, system: PodSystem) -> None:
        assert (await pod.run("go")).text == "answered"
        assert of_compactions(events.drain()) == ["CompactStart", "CompactDone"]

    script = [call("read"), call("look"), *SUMMARY, say("answered")]
    play_script(script, play, tools=[look, read], compact_request_threshold=2500)
