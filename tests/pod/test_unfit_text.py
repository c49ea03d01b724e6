"""Text that no UTF-8 can hold, and values that no JSON has, never fail a run, an answer or a session."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.llm.base import Block, CallChunk, CallEnd, CallStart, End, Request, TextChunk, UsageReport
from actors.llm.scripted import ScriptedClient, say
from actors.system import PodSystem
from actors.tools.base import ToolContext, tool
from protocol.errors import RunFailed
from protocol.events import TextDelta, ThinkingDelta, ToolProgress
from protocol.items import AssistantItem, SystemItem, TextPart, ToolCall, ToolResult, UserItem
from protocol.manifest import PodManifest
from protocol.usage import Usage
from protocol.wire import encode

BAD, GOOD = "x\ud800y", "x\ufffdy"


@pytest.mark.parametrize("how", ["run", "steer", "notify", "push"])
async def test_words_of_a_user_are_cleaned_and_kept(how: str, tmp_path: Path) -> None:
    @tool
    async def steered(ctx: ToolContext) -> str:
        """Steer the pod."""
        pods[0].steer(BAD)
        return "ok"

    pods: list[Any] = []
    call_it: list[Any] = [CallStart(0, "1", "steered"), CallChunk(0, "{}"), CallEnd(0), End("tool_use")]

    store = f"sqlite:{tmp_path / 'a.db'}"
    async with PodSystem(store) as system:
        # What is steered comes before the second request or behind it, as the loop starts tasks.
        said = [TextChunk("a"), End("end_turn")]
        answers = [call_it, said, said] if how == "steer" else None
        client = Raw(*answers) if answers else ScriptedClient([] if how == "push" else [say("a")])
        pod = await system.spawn(PodManifest.of(), client=client, tools=[steered])
        pods.append(pod)
        with pod.subscribe() as events:
            if how == "push":
                await pod.push_item(SystemItem.of(BAD))
            elif how == "notify":
                await pod.notify(BAD)
            else:
                await pod.run("go" if how == "steer" else BAD)
        history = await pod.history()
        assert GOOD in [item.text for item in history]
        session = (await pod.describe()).session_id
        [encode(event) for event in events.drain()]
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]), resume=session)
        assert (await pod.history())[: len(history)] == history


class Raw:
    """Plays blocks as they are, as a client of a user's own may give them."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        for block in self.answers.pop(0):
            yield block


def answered(blocks: list[Any], tmp_path: Path, tools: Any = ()) -> tuple[list[Any], list[Any], Usage]:
    """The history after an answer of ``blocks`` and one more, which a second life reads back alike."""

    async def main() -> tuple[list[Any], list[Any], Usage]:
        store = f"sqlite:{tmp_path / 'a.db'}"
        last = [TextChunk("done"), End("end_turn")]
        async with PodSystem(store) as system:
            pod = await system.spawn(PodManifest.of(), client=Raw(blocks, last), tools=list(tools))
            with pod.subscribe() as events:
                session = (await pod.run("go")).session_id
                seen = events.drain()
            history, usage = await pod.history(), (await pod.describe()).usage
        async with PodSystem(store) as system:
            pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]), resume=session)
            assert await pod.history() == history
            assert (await pod.describe()).usage == usage
            with pod.subscribe(since=0) as events:
                events.drain()
        for event in seen:
            encode(event)
        return history, seen, usage

    return asyncio.run(main())


def test_an_answer_with_half_a_character_is_cleaned_counted_and_kept(tmp_path: Path) -> None:
    blocks = [
        TextChunk("a\ud83d"),
        TextChunk("\ude00b\ud800"),
        UsageReport(Usage(100, 50)),
        End("end_turn", f"m{BAD}"),
    ]
    history, seen, usage = answered(blocks, tmp_path)
    assert history[1].text == "a😀b\ufffd"
    assert usage == Usage(100, 50)
    assert [event.text for event in seen if isinstance(event, TextDelta | ThinkingDelta)]


@tool
async def echo(s: str = "") -> str:
    """Say it again."""
    return s


@pytest.mark.parametrize(
    "arguments",
    [
        json.dumps({"s": "a\ud800"}),
        '{"s": "a\ud800"}',
        json.dumps({"s": math.nan}),
        "{\ud800",
        '{"s": 1e999}',
    ],
)
def test_arguments_of_a_call_are_cleaned_or_the_call_is_invalid(arguments: str, tmp_path: Path) -> None:
    blocks = [CallStart(0, BAD, "echo"), CallChunk(0, arguments), CallEnd(0), End("tool_use")]
    history, _, _ = answered(blocks, tmp_path, [echo])
    (made,) = history[1].calls
    assert made.id == history[2].call_id == GOOD
    assert made.invalid is not None or made.arguments["s"].startswith("a")
    assert history[-1].text == "done"


@pytest.mark.parametrize(
    "usage",
    [Usage(12.0, 3.0), Usage(math.nan, 3), Usage("12", None), Usage(True, math.inf), {"input_tokens": 1}],  # type: ignore[arg-type]
)
def test_usage_that_is_no_whole_number_bricks_no_session(usage: Any, tmp_path: Path) -> None:
    history, _, published = answered([TextChunk("a"), UsageReport(usage), End("end_turn")], tmp_path)
    assert history[-1].text == "a"
    assert published.input_tokens in {12, None}


@pytest.mark.parametrize("model", [5, None, b"m", BAD])
def test_a_model_without_a_proper_name_bricks_no_session(model: Any, tmp_path: Path) -> None:
    answered([TextChunk("a"), End("end_turn", model)], tmp_path)


@pytest.mark.parametrize(
    "block",
    [
        TextChunk(None),  # type: ignore[arg-type]
        TextChunk(b"bytes"),  # type: ignore[arg-type]
        CallStart(0, None, "f"),  # type: ignore[arg-type]
        CallChunk(7, "{}"),
        {"text": "a"},
        None,
    ],
)
async def test_a_block_that_is_none_fails_the_run_and_what_the_answer_took_counts(block: Any) -> None:
    broken = [UsageReport(Usage(10, 5)), block, End("end_turn")]
    async with PodSystem(budget={"tokens": 1000}) as system:
        client = Raw(broken, [TextChunk("fine"), End("end_turn")])
        pod = await system.spawn(PodManifest.of(), client=client)
        with pytest.raises(RunFailed, match="the client yielded"):
            await pod.run("go")
        assert (await pod.describe()).usage == system.totals.usage == Usage(10, 5)
        assert (await pod.run("go")).text == "fine"


async def test_a_pushed_item_is_in_memory_what_the_log_says(tmp_path: Path) -> None:
    pushed = [
        AssistantItem((), (ToolCall("1", "f", {"x": math.nan, 1: b"\xff", "y": (1, 2)}),)),  # type: ignore[dict-item]
        ToolResult("1", "f", (TextPart(BAD),)),
        UserItem.of("ok"),
    ]

    store = f"sqlite:{tmp_path / 'a.db'}"
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        for item in pushed:
            await pod.push_item(item)
        history = await pod.history()
        session = (await pod.describe()).session_id
    assert history[0].calls[0].arguments == {"x": None, "1": "\ufffd", "y": [1, 2]}  # type: ignore[union-attr]
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]), resume=session)
        assert await pod.history() == history


async def test_progress_with_half_a_character_is_reported_cleaned() -> None:
    @tool
    def work(ctx: ToolContext) -> str:
        """Work."""
        ctx.progress(BAD)
        return "done"

    blocks = [CallStart(0, "1", "work"), CallChunk(0, "{}"), CallEnd(0), End("tool_use")]

    async with PodSystem() as system:
        client = Raw(blocks, [TextChunk("a"), End("end_turn")])
        pod = await system.spawn(PodManifest.of(), client=client, tools=[work])
        with pod.subscribe(ToolProgress) as events:
            await pod.run("go")
            assert [event.text for event in events.drain()] == [GOOD]  # type: ignore[attr-defined]


async def test_a_working_directory_and_a_prompt_with_half_a_character_start_a_pod(tmp_path: Path) -> None:
    folder = str(tmp_path / os.fsdecode(b"dir\xff"))
    Path(folder).mkdir()

    client = ScriptedClient([say("ok")])
    async with PodSystem(f"sqlite:{tmp_path / 'a.db'}") as system:
        manifest = PodManifest.of(pwd=folder, system_prompt=BAD)
        assert manifest.pod.pwd == folder
        pod = await system.spawn(manifest, client=client)
        assert (await pod.run("go")).text == "ok"
        assert client.requests[0].system == GOOD
