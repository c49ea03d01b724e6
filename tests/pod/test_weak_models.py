"""Helper agents whose model answers in words where it was to call a tool, as small models do: the words count."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from actors.compaction.policy import NOTES_TOKENS
from actors.llm.base import CallChunk, CallStart, TextChunk, ThinkingChunk
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.memory.findings import Extracted
from actors.memory.helper_words import extracted_in_words, notes_in_words, summary_in_words
from actors.memory.notes import notes_of
from actors.memory.staging import read_staged
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import CompactionFailed, ModelError
from protocol.events import CompactDone, CompactFailed, ConsolidateDone, Event, ExtractDone, ExtractFailed
from protocol.items import ToolResult
from protocol.manifest import PodManifest
from protocol.usage import Usage

KINDS = [CompactDone, CompactFailed, ExtractDone, ExtractFailed, ConsolidateDone]


def played(
    replies: list[Any], play: Any, folder: Path | None = None, **settings: Any
) -> tuple[list[Any], ScriptedClient]:
    """What was reported while a pod over these replies was played with, and the client."""
    client = ScriptedClient(replies)

    async def main() -> list[Event]:
        async with PodSystem(memory=folder) as system:
            manifest = PodManifest.of(name="p", **{"schedule": "manual", **settings})
            pod = await system.spawn(manifest, client=client)
            with pod.subscribe(KINDS) as events:
                await asyncio.wait_for(play(pod), 60)
                return events.drain()

    return asyncio.run(main()), client


def refused(reply: Reply) -> Reply:
    """A reply that ends as refused by the model's provider."""
    return Reply(reply.blocks, reply.usage, "refusal")


async def compact_it(pod: Pod) -> None:
    await pod.run("The code is 4711.")
    await pod.compact(retained_tokens=0)


async def remember(pod: Pod) -> None:
    await pod.run("tabs or spaces?")
    await pod.spawn_memory_jobs()
    assert await pod.wait_for_memory_jobs(timeout=60)


# -- compactions ---------------------------------------------------------------------------------


def test_a_summary_that_is_given_in_words_after_the_reminder_is_the_summary() -> None:
    history: list[str] = []

    async def play(pod: Pod) -> None:
        await compact_it(pod)
        history.extend(item.text for item in await pod.history())

    (done,), client = played([say("a"), say("They talked."), say("They talked of a code.")], play)
    assert done.source == "words"
    assert "They talked of a code." in history[0]
    assert any("The code is 4711." in text for text in history)
    reminded = client.requests[-1]
    assert reminded.forced_tool == "write_summary"
    assert [each.name for each in reminded.tools] == ["write_summary"]
    assert all(request.forced_tool is None for request in client.requests[:-1])


@pytest.mark.parametrize("answer", ["I have written it above.", "Done."])
def test_a_summary_in_words_stands_though_the_reminder_is_answered_by_less(answer: str) -> None:
    history: list[str] = []

    async def play(pod: Pod) -> None:
        await compact_it(pod)
        history.extend(item.text for item in await pod.history())

    (done,), _ = played([say("a"), say("## Completed Tasks\nThey found a code."), say(answer)], play)
    assert done.source == "words"
    assert "They found a code." in history[0]


def test_words_that_only_announce_a_summary_are_none() -> None:
    (done,), _ = played(
        [say("a"), say("I shall write the summary now."), say(""), say("b")],
        _two_runs,
        compact_threshold=1,
    )
    assert done.source == "extractive"


async def _two_runs(pod: Pod) -> None:
    await pod.run("The code is 4711.")
    await pod.run("go on")


def test_a_summary_by_the_tool_after_the_reminder_is_reported_as_such() -> None:
    (done,), _ = played([say("a"), say("well"), call("write_summary", {"text": "s"}), say("ok")], compact_it)
    assert done.source == "tool"


@pytest.mark.parametrize("nothing", ["", "  \n", "<think>what now</think>"])
def test_a_summariser_without_a_word_fails_only_what_was_asked_for_by_hand(nothing: str) -> None:
    async def by_hand(pod: Pod) -> None:
        with pytest.raises(CompactionFailed, match=r"write_summary was never called"):
            await compact_it(pod)

    async def by_threshold(pod: Pod) -> None:
        await pod.run("The code is 4711.")
        assert (await pod.run("go on")).text == "b"
        assert any("4711" in item.text for item in await pod.history())

    (failed,), _ = played([say("a"), say(nothing), say(nothing)], by_hand)
    assert isinstance(failed, CompactFailed)
    (done,), _ = played([say("a"), say(nothing), say(nothing), say("b")], by_threshold, compact_threshold=1)
    assert done.source == "extractive"


def test_a_summariser_that_only_ever_calls_other_tools_does_not_open_the_breaker() -> None:
    async def play(pod: Pod) -> None:
        for number in range(5):
            await pod.run(f"go on {number}")

    replies: list[Any] = [say("a")]
    for _ in range(4):
        replies += [call("add_reference", {"path": "a.txt"}) for _ in range(16)] + [say("b")]
    published, _ = played(replies, play, compact_threshold=1)
    assert [each.source for each in published] == ["extractive"] * 4


@pytest.mark.parametrize(
    "words",
    [
        '{"name": "write_summary", "arguments": {"text": "They talked."}}',
        '<tool_call>\n{"name": "write_summary", "parameters": {"text": "They talked."}}\n</tool_call>',
        'Here it is:\n```json\n{"text": "They talked."}\n```',
        "They talked.",
        "<think>hm</think>\nThey talked.\n",
    ],
)
def test_a_call_that_is_written_down_is_read_for_what_it_says(words: str) -> None:
    assert summary_in_words(words) == "They talked."


# -- extractions and consolidations --------------------------------------------------------------


FOUND = {"decisions": [{"chosen": "Use tabs", "rationale": "taste"}], "requests": []}


@pytest.mark.parametrize(
    "words",
    [
        json.dumps(FOUND),
        f"I noted: ```json\n{json.dumps(FOUND)}\n``` That is all.",
        json.dumps({"name": "write_extracted", "arguments": FOUND}),
    ],
)
def test_findings_that_are_written_down_as_json_are_findings(words: str) -> None:
    assert extracted_in_words(words).decisions[0].chosen == "Use tabs"


@pytest.mark.parametrize(
    "words", ["", "Nothing of note.", "done", "There is nothing to note here.", "{}", '{"decisions": []}']
)
def test_words_that_say_that_there_is_nothing_are_no_findings(words: str) -> None:
    assert extracted_in_words(words) == Extracted()


def test_findings_in_words_are_staged_as_they_are(tmp_path: Path) -> None:
    words = "The user prefers tabs, since they are shorter.\nNo port was named."
    (done,), client = played([say("a"), say(words)], remember, tmp_path, extract_threshold=1)
    assert (done.staged, done.pointer) == (1, 2)
    (path,) = (tmp_path / "staging").iterdir()
    (discussion,) = read_staged(path).found.discussions
    assert discussion.points == (words,)
    assert discussion.topic == "The user prefers tabs, since they are shorter."
    assert client.requests[-1].forced_tool == "write_extracted"


def test_notes_that_are_written_down_are_written() -> None:
    one = {"kind": "decisions", "title": "Use tabs", "text": "- tabs"}
    assert [each.title for each in notes_in_words(json.dumps([one, {**one, "title": "Two"}]))] == [
        "Use tabs",
        "Two",
    ]
    assert notes_in_words(json.dumps({"name": "write_memory", "arguments": one}))[0].text == "- tabs"
    assert notes_in_words("I would write that down.") == []


@pytest.mark.parametrize("written", [True, False])
def test_a_consolidation_in_words_loses_nothing(tmp_path: Path, written: bool) -> None:
    one = {"kind": "decisions", "title": "Tabs", "text": "- Use tabs, by taste"}
    words = json.dumps(one) if written else "I would write that the user likes tabs."
    replies = [say("a"), call("write_extracted", FOUND), say("ok"), say(words), say(words)]
    published, _ = played(replies, remember, tmp_path, extract_threshold=1, consolidate_files=1)
    done = published[-1]
    assert isinstance(done, ConsolidateDone)
    assert done.mechanical is not written
    notes = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.md")}
    assert list(notes) == ["decisions/tabs.md"] if written else "Use tabs" in notes["decisions/use-tabs.md"]
    assert not list((tmp_path / "staging").iterdir())


def test_what_was_said_stands_though_the_reminder_fails(tmp_path: Path) -> None:
    replies = [
        say("a"),
        call("write_extracted", FOUND),
        say("ok"),
        say("I would rather talk."),
        ValueError("no"),
    ]
    published, _ = played(replies, remember, tmp_path, extract_threshold=1, consolidate_files=1)
    assert isinstance(published[-1], ConsolidateDone)


NOTE_IN_WORDS = json.dumps({"kind": "decisions", "title": "Tabs", "text": "- Use tabs, by taste"})


@pytest.mark.parametrize(
    "answers",
    [
        (NOTE_IN_WORDS, "Done."),
        (NOTE_IN_WORDS, "I wrote it above."),
        ("I shall merge the findings into notes, each by its subject. " * 5, NOTE_IN_WORDS),
    ],
)
def test_notes_in_words_stand_whether_before_the_reminder_or_after(
    tmp_path: Path, answers: tuple[str, str]
) -> None:
    replies = [say("a"), call("write_extracted", FOUND), say("ok"), *map(say, answers)]
    published, _ = played(replies, remember, tmp_path, extract_threshold=1, consolidate_files=1)
    done = published[-1]
    assert isinstance(done, ConsolidateDone)
    assert not done.mechanical
    assert [path.name for path in tmp_path.rglob("*.md")] == ["tabs.md"]


def test_no_answer_of_a_helper_agent_goes_on_until_the_context_is_full(tmp_path: Path) -> None:
    """A weak model that repeats itself would write for minutes."""
    replies = [say("a"), call("write_extracted", FOUND), say("ok"), say("I would rather talk."), say("again")]
    settings = {"extract_threshold": 1, "consolidate_files": 1, "context_window": 2048}
    _, client = played(replies, remember, tmp_path, **settings)
    assert [request.max_tokens for request in client.requests if request.tools] == [2048 // 6] * 4


@pytest.mark.parametrize(
    "cut",
    [
        Reply((ThinkingChunk("Let me see."),), None, "max_tokens"),
        Reply((TextChunk("<think>Let me see"),), None, "max_tokens"),
        Reply((CallStart(0, "c1", "write_summary"), CallChunk(0, '{"text": "They')), None, "max_tokens"),
    ],
)
def test_a_helper_whose_reasoning_takes_its_whole_answer_is_given_longer_ones(cut: Reply) -> None:
    replies = [say("a"), cut, cut, call("write_summary", {"text": "They talked."}), say("ok")]
    (done,), client = played(replies, compact_it)
    assert done.source == "tool"
    usual, *longer = [request.max_tokens for request in client.requests if request.is_of_helper]
    assert longer == [2 * usual, 4 * usual, 4 * usual]
    assert len({len(request.items) for request in client.requests[1:4]}) == 1  # it is asked the same


def test_a_helper_whose_model_cannot_write_so_much_is_asked_for_less_again() -> None:
    cut = Reply((ThinkingChunk("Let me see."),), None, "max_tokens")
    refused = ModelError("the valid range of max_tokens is [1, 8192]", kind="invalid_request")
    replies = [say("a"), cut, cut, refused, call("write_summary", {"text": "They talked."}), say("ok")]
    (done,), client = played(replies, compact_it)
    assert done.source == "tool"
    usual, *longer = [request.max_tokens for request in client.requests if request.is_of_helper]
    assert longer == [2 * usual, 4 * usual, 2 * usual, 2 * usual]


def test_a_helper_asks_for_no_longer_answer_than_the_budget_pays_for(tmp_path: Path) -> None:
    cut = Reply((ThinkingChunk("Let me see."),), Usage(100, 50), "max_tokens")
    replies = [say("a"), cut, call("write_extracted", FOUND), say("ok"), say("well"), say("again")]
    settings = {"extract_threshold": 1, "consolidate_files": 1, "budget": {"tokens": 7000}}
    published, client = played(replies, remember, tmp_path, **settings)
    assert isinstance(published[-1], ConsolidateDone)
    assert {request.max_tokens for request in client.requests if request.is_of_helper} == {NOTES_TOKENS}


def test_a_helper_that_only_ever_reasons_is_asked_a_bounded_number_of_times() -> None:
    cut = Reply((ThinkingChunk("Let me see."),), None, "max_tokens")
    (done,), _ = played([say("a"), *[cut] * 4, say("b")], _two_runs, compact_threshold=1)
    assert done.source == "extractive"


# -- what is no help -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        say("I cannot help with that.", stop_reason="refusal"),
        say("I cannot", stop_reason="content_filter"),
        refused(call("write_summary", {"text": "half a summ"})),
        ModelError("the prompt was filtered", kind="content_filter"),
    ],
)
def test_a_refusal_is_no_summary(refusal: Any) -> None:
    async def by_hand(pod: Pod) -> None:
        with pytest.raises(CompactionFailed, match=r"refused|filtered"):
            await compact_it(pod)
        assert [item.text for item in await pod.history()] == ["The code is 4711.", "a"]

    async def by_threshold(pod: Pod) -> None:
        await pod.run("The code is 4711.")
        assert (await pod.run("go on")).text == "b"
        texts = [item.text for item in await pod.history()]
        assert any("4711" in text for text in texts)
        assert not any("cannot" in text or "half a" in text for text in texts)

    (failed,), _ = played([say("a"), refusal], by_hand)
    assert isinstance(failed, CompactFailed)
    (done,), _ = played([say("a"), refusal, say("b")], by_threshold, compact_threshold=1)
    assert done.source == "extractive"


@pytest.mark.parametrize("text", ["", " \n "])
def test_an_empty_summary_is_none_and_the_model_learns_so(text: str) -> None:
    replies = [
        say("a"),
        call("write_summary", {"text": text}),
        say("ok"),
        call("write_summary", {"text": "T."}),
        say("ok"),
    ]
    (done,), client = played(replies, compact_it)
    assert done.source == "tool"
    results = [item.text for item in client.requests[-1].items if isinstance(item, ToolResult)]
    assert "empty" in results[0]
    assert results[1] == "written"


@pytest.mark.parametrize("words", ["Done.", "OK", "Nothing to summarise."])
def test_words_that_say_nothing_are_no_summary(words: str) -> None:
    async def by_threshold(pod: Pod) -> None:
        await pod.run("The code is 4711.")
        assert (await pod.run("go on")).text == "b"
        assert any("4711" in item.text for item in await pod.history())

    (done,), _ = played([say("a"), say(words), say(words), say("b")], by_threshold, compact_threshold=1)
    assert done.source == "extractive"


@pytest.mark.parametrize(
    "replies",
    [
        [say("I cannot help with that.", stop_reason="refusal")],
        [refused(call("write_extracted", {"decisions": [{"chosen": "x"}]}))],
        [call("write_notes", {"text": "x"}) for _ in range(8)],
        [call("write_extracted", {"decisions": ["just words"]}) for _ in range(8)],
        [call("write_extracted", '{"decisions": [') for _ in range(8)],
    ],
)
def test_a_reading_that_came_to_nothing_is_reported_as_failed_and_is_read_again(
    tmp_path: Path, replies: list[Any]
) -> None:
    async def play(pod: Pod) -> None:
        await remember(pod)
        assert (await pod.describe()).extract_pointer is None

    (failed,), _ = played([say("tabs"), *replies], play, tmp_path, extract_threshold=1)
    assert isinstance(failed, ExtractFailed)
    assert not list((tmp_path / "staging").glob("*.json"))


def test_a_find_without_a_title_is_kept() -> None:
    found = extracted_in_words(
        json.dumps(
            {
                "decisions": [{"chosen": "", "rationale": "tabs are wider"}],
                "discussions": [{"topic": " ", "points": ["the port is 8080"]}],
                "attempts": [{"action": "", "result": "the build broke"}],
                "requests": [{"intent": "", "target": "README.md"}],
            }
        )
    )
    published = "\n".join(
        f"{note.title} {note.body}" for note in notes_of(found, source="s", date="2026-01-31")
    )
    for words in ("tabs are wider", "the port is 8080", "the build broke", "README.md"):
        assert words in published


def test_a_summary_stands_though_the_closing_call_fails() -> None:
    failing = ModelError("bad gateway", kind="auth")
    (done,), _ = played([say("a"), call("write_summary", {"text": "They talked."}), failing], compact_it)
    assert done.source == "tool"
