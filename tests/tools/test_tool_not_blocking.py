"""Plain functions with ``blocking=False``: called by the event loop itself, and in all else like any tool."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.system import PodSystem
from actors.tools.base import Tool, ToolContext, tool
from actors.tools.thread_pool import ToolThreads
from actors.tools.toolbox import Toolbox
from bench.models import Caller, manifest
from protocol.errors import ToolDefinitionError, ToolError
from protocol.items import ToolCall, ToolResult
from protocol.scope import Scope

SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("SEEN", default="nothing")


async def called(function: Any, arguments: dict[str, Any] | None = None, **options: Any) -> ToolResult:
    toolbox = Toolbox([tool(blocking=False)(function)], **options)
    call = ToolCall("c1", toolbox.specs[0].name, arguments or {})
    return await toolbox.run(call, ToolContext(pwd=Path("/"), scope=Scope()))


def run(function: Any, arguments: dict[str, Any] | None = None, **options: Any) -> ToolResult:
    return asyncio.run(called(function, arguments, **options))


def test_it_runs_on_the_loop_and_needs_no_thread() -> None:
    threads = ToolThreads(1)

    def where(add: int, ctx: ToolContext) -> str:
        assert asyncio.get_running_loop().is_running()
        return f"{threading.current_thread() is threading.main_thread()} {ctx.pwd} {add + 1}"

    assert run(where, {"add": 41}, threads=threads).text == "True / 42"
    assert "<ToolThreads 0 of 1" in repr(threads)


def test_what_it_raises_is_the_models_to_read() -> None:
    def fail(kind: str) -> str:
        raise {"told": ToolError("no such order"), "bug": KeyError("x"), "cancel": asyncio.CancelledError()}[
            kind
        ]

    reported = [run(fail, {"kind": kind}) for kind in ("told", "bug", "cancel")]
    assert all(result.is_error for result in reported)
    assert [reported[0].text, reported[1].text] == ["no such order", "fail failed: KeyError: 'x'"]
    assert run(fail, {}).is_error


def test_an_exit_is_a_failure_and_ctrl_c_is_the_programs() -> None:
    def leave(code: int) -> str:
        raise SystemExit(code) if code else KeyboardInterrupt

    assert run(leave, {"code": 3}).is_error
    with pytest.raises(KeyboardInterrupt):
        run(leave, {"code": 0})


def test_its_context_variables_are_its_own() -> None:
    def change() -> str:
        before = SEEN.get()
        SEEN.set("the tool's")
        return before

    async def main() -> tuple[str, str]:
        SEEN.set("the caller's")
        result = await called(change)
        return result.text, SEEN.get()

    assert asyncio.run(main()) == ("the caller's", "the caller's")


async def later() -> str:
    await asyncio.sleep(0)
    return "awaited"


async def counted() -> AsyncIterator[int]:
    for each in range(3):
        yield each


def test_what_is_not_finished_is_finished_on_the_loop() -> None:
    def generate() -> Iterator[int]:
        yield from range(3)

    def wrapped() -> Any:
        return later()

    def streamed() -> Any:
        return counted()

    assert [run(each).text for each in (generate, wrapped, streamed)] == ["[0,1,2]", "awaited", "[0,1,2]"]


async def test_what_is_awaited_may_be_cancelled() -> None:
    def forever() -> Any:
        return asyncio.Event().wait()

    task = asyncio.create_task(called(forever))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_long_result_is_cut_and_kept_whole(tmp_path: Path) -> None:
    def long() -> str:
        return "x" * 5_000

    result = run(long, output_cap=1_000, keep_in=tmp_path)
    assert len(result.text.encode()) <= 1_200
    assert result.kept is not None
    assert Path(result.kept).read_text() == "x" * 5_000


def test_one_that_blocks_after_all_is_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    def busy() -> str:
        until = time.perf_counter() + 0.06
        while time.perf_counter() < until:
            pass
        return "done"

    with caplog.at_level(logging.WARNING, "polypod.tools"):
        assert run(busy).text == "done"
    assert "busy (blocking=False) blocked the event loop" in caplog.text


def test_a_bound_that_cannot_hold_is_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="timeout=5 does not work with blocking=False"):
        tool(blocking=False, timeout=5)(len)
    with pytest.raises(ToolDefinitionError, match="blocking: expected True or False, got 1"):
        tool(blocking=1)(len)  # type: ignore[call-overload]


def test_an_async_function_never_blocks() -> None:
    assert not Tool(later).blocking
    assert run(later).text == "awaited"


def test_a_pod_calls_it_and_records_the_call_as_any_other() -> None:
    @tool(concurrency="read_only", blocking=False)
    def count_words(text: str) -> int:
        """Count."""
        return len(text.split())

    async def main() -> list[Any]:
        async with PodSystem() as system:
            pod = await system.spawn(
                manifest(), client=Caller("count_words", '{"text":"a b c"}'), tools=[count_words]
            )
            await pod.run("How many?")
            return [item for item in (await pod.history()) if isinstance(item, ToolResult)]

    (result,) = asyncio.run(main())
    assert (result.text, result.is_error) == ("3", False)
