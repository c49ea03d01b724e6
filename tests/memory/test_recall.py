"""Lasting memory at hand: the tool that searches it, and what is brought into the start of a new session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_kit import memory_in, put, put_note

from actors.compaction.tokens import text_tokens
from actors.llm.scripted import ScriptedClient, call, say
from actors.memory.notes_folder import NotesFolder
from actors.memory.recall import RECALLED, recall_notes
from actors.pod.local import actor_of
from actors.pod.memory import recall
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from actors.tools.builtin import builtin
from protocol.errors import ManifestError
from protocol.events import Alert, RunStart, SystemMessage, UserMessage
from protocol.items import UserItem
from protocol.manifest import PodManifest


@pytest.fixture
def memory(tmp_path: Path) -> NotesFolder:
    memory = memory_in(tmp_path)
    put_note(memory, "Parser", "- the parser is in src/parse.py", kind="summary")
    put_note(memory, "Use tabs", "- tabs, said the user", kind="decisions")
    return memory


def played(
    memory: NotesFolder, replies: list[Any], play: Callable[..., Any], **settings: Any
) -> ScriptedClient:
    client = ScriptedClient(replies)
    manifest = PodManifest.of(name="p", **{"recall_tokens": 300, **settings})

    async def main() -> None:
        async with PodSystem(memory=memory.folder) as system:
            pod = await system.spawn(manifest, client=client)
            with system.subscribe("p", [RunStart, SystemMessage, UserMessage, Alert]) as events:
                await asyncio.wait_for(play(pod, events, system), 60)

    asyncio.run(main())
    return client


def test_what_memory_holds_of_the_first_words_is_brought_before_them_and_stays(memory: NotesFolder) -> None:
    async def play(pod: Any, events: Any, _: Any) -> None:
        await pod.run("How do I fix the parser?")
        assert [type(event).__name__ for event in events.drain()] == [
            "RunStart",
            "SystemMessage",
            "UserMessage",
        ]
        await pod.run("And tabs?")
        assert [type(event).__name__ for event in events.drain()] == ["RunStart", "UserMessage"]

    client = played(memory, [say("so"), say("no")], play)
    first, second = (request.items for request in client.requests)
    assert first[0].text.startswith(RECALLED)
    assert "# Parser (summary/parser.md)\n- the parser is in src/parse.py" in first[0].text
    assert "tabs" not in first[0].text
    assert list(second[:2]) == list(first)


async def test_a_resumed_session_is_brought_nothing_anew(memory: NotesFolder, tmp_path: Path) -> None:
    manifest = PodManifest.of(name="p", recall_tokens=300)
    url = f"sqlite:{tmp_path / 'pods.db'}"

    async def life(words: str, resume: str | None) -> tuple[str, list[Any]]:
        async with PodSystem(url, memory=memory.folder) as system:
            pod = await system.spawn(manifest, client=ScriptedClient([say("so")]), resume=resume)
            await pod.run(words)
            return (await pod.describe()).session_id, await pod.history()

    session, items = await life("nothing of that kind", None)
    assert len(items) == 2
    _, items = await life("the parser", session)
    assert len(items) == 4


def test_a_compacted_session_is_brought_nothing(memory: NotesFolder) -> None:
    async def play(pod: Any, events: Any, _: Any) -> None:
        await pod.push_item(UserItem.of("hello"))
        await pod.compact()
        await pod.run("the parser")
        assert RECALLED not in "".join(item.text for item in await pod.history())

    played(memory, [call("write_summary", {"text": "s"}), say("ok"), say("so")], play)


def test_without_the_key_or_without_notes_nothing_is_brought(memory: NotesFolder, tmp_path: Path) -> None:
    async def play(pod: Any, events: Any, _: Any) -> None:
        await pod.run("the parser")
        assert len(await pod.history()) == 2

    played(memory, [say("so")], play, recall_tokens=0)
    played(NotesFolder(tmp_path / "none"), [say("so")], play)
    with pytest.raises(ManifestError, match=r"memory\.recall_tokens: expected 0 or more"):
        PodManifest.of(recall_tokens=-1)


@pytest.mark.parametrize("budget", [40, 80, 200, 1000])
def test_what_is_brought_keeps_to_its_budget(memory: NotesFolder, budget: int) -> None:
    for number in range(6):
        put_note(memory, f"Parser {number}", "- parser\n" * 40)
    item = recall_notes(memory, "parser", budget)
    assert item is None or text_tokens(item.text) <= budget
    assert (item is None) == (budget == 40)


def test_common_words_bring_no_notes(memory: NotesFolder) -> None:
    assert recall_notes(memory, "what is in the user?", 300) is not None  # a word that a note says
    assert recall_notes(memory, "What is in the…", 300) is None


def test_what_is_staged_is_brought_too(memory: NotesFolder) -> None:
    put(memory, "Never deploy on Fridays")
    item = recall_notes(memory, "shall we deploy?", 300)
    assert item is not None
    assert "# Never deploy on Fridays (decisions)" in item.text


def test_a_memory_that_cannot_be_searched_fails_no_run(
    memory: NotesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "RECALL_SECONDS", 0.0)

    async def play(pod: Any, events: Any, _: Any) -> None:
        assert (await pod.run("the parser")).text == "so"
        (alert,) = [event for event in events.drain() if isinstance(event, Alert)]
        assert alert.text == "memory could not be searched"

    played(memory, [say("so")], play)


def test_a_run_that_is_cancelled_while_memory_is_searched_keeps_its_words(memory: NotesFolder) -> None:
    async def play(pod: Any, events: Any, _: Any) -> None:
        running = pod.run("the parser")
        await pod.cancel()
        assert (await running).outcome == "cancelled"
        assert [item.text for item in await pod.history()][-1] == "the parser"

    played(memory, [], play)


async def test_while_memory_is_searched_no_start_of_a_run_without_its_words_is_durable(
    memory: NotesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, go_on = asyncio.Event(), asyncio.Event()

    async def search(*_: object) -> None:
        searched.set()
        await go_on.wait()

    monkeypatch.setattr(recall, "_search", search)
    store = MemoryStore()
    async with asyncio.timeout(60), PodSystem(store, memory=memory.folder) as system:
        pod = await system.spawn(PodManifest.of(recall_tokens=300), client=ScriptedClient([say("so")]))
        run = pod.run("the parser")
        await searched.wait()
        journal = actor_of(pod).journal
        journal.alert("something else")
        await journal.commit()
        kept = b"".join(entry.body for entry in store.read(journal.head.session_id))
        assert b"something else" in kept
        assert b'"RunStart"' not in kept
        go_on.set()
        assert (await run).text == "so"


def test_the_tool_finds_notes_of_a_kind_with_where_they_stand(memory: NotesFolder) -> None:
    async def play(pod: Any, events: Any, _: Any) -> None:
        await pod.run("go")

    client = played(
        memory,
        [
            call("memory_search", {"query": 'the "parser" AND tabs*'}),
            call("memory_search", {"query": "parser tabs", "kind": "decisions", "limit": 3}),
            call("memory_search", {"query": "nobody wrote this", "kind": "poems"}),
            call("memory_search", {"query": "zzz"}),
            say("done"),
        ],
        play,
        tools={"builtin": ["memory"]},
        recall_tokens=0,
    )
    results = [item for item in client.requests[-1].items if hasattr(item, "is_error")]
    assert "summary/parser.md" in results[0].text
    assert "decisions/use-tabs.md" in results[0].text
    assert "parser.md" not in results[1].text
    assert '"snippet"' in results[1].text
    assert results[2].is_error
    assert results[3].text == "nothing found"


def test_the_tool_reads_only_and_says_so(memory: NotesFolder) -> None:
    (tool,) = builtin(["memory"])
    assert (tool.name, tool.concurrency) == ("memory_search", "read_only")
    assert set(tool.input_schema["properties"]) == {"query", "kind", "limit"}
