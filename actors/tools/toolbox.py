"""``Toolbox``: a pod's tools, which checks and runs calls and turns whatever happens into a result."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.arguments import several
from actors.runtime.in_thread import in_thread
from actors.runtime.tasks import is_being_cancelled
from actors.tools.base import OUTPUT_CAP, Tool, ToolContext
from actors.tools.invoke import Unfinished, finish, invoke, invoke_async
from actors.tools.output import Output, capped, parts_from, size
from actors.tools.own_task import Outcome, run_alone
from actors.tools.thread_pool import ToolThreads, shared_threads
from protocol.closest import closest
from protocol.errors import ToolArgumentsInvalid, ToolDefinitionError, ToolError, ToolTimeout
from protocol.foreign import named_words
from protocol.items import Part, ToolCall, ToolResult
from protocol.text import encodable

#: From how long on a function that was said not to block is complained of, in seconds.
HELD = 0.05
#: How many tools are named to a model that has called one that is not there.
_NAMED = 100
#: The result of a call that was begun and whose end nobody saw.
INTERRUPTED = (
    "interrupted, outcome unknown: the tool may or may not have taken effect; check before calling it again"
)

_log = logging.getLogger("polypod.tools")
_log.addHandler(logging.NullHandler())  # a tool's traceback is for a log, never for a person's terminal


class Checked(Struct, frozen=True):
    """A call that can be run: its tool, and its arguments as that takes them."""

    call: ToolCall
    tool: Tool
    arguments: dict[str, Any]


class Toolbox:
    """The tools of a pod.

    Contract of ``run``, which is ``check`` and ``carry_out``: called on an event loop, any number of times at
    once; what goes wrong is a result for the model. Text beyond ``output_cap`` bytes is cut, and kept whole
    in ``keep_in``.
    """

    def __init__(
        self,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        *,
        threads: ToolThreads | None = None,
        output_cap: int = OUTPUT_CAP,
        keep_in: Path | None = None,
        gone: Collection[str] = (),
    ) -> None:
        """Bare functions become exclusive tools; ``threads`` defaults to a pool for the process. ``gone`` are
        names of tools that were there before.

        Raises ToolDefinitionError where two tools have one name.
        """
        self._tools: dict[str, Tool] = {}
        for each in several("tools", tools):
            made = each if isinstance(each, Tool) else Tool(each)
            if made.name in self._tools:
                raise ToolDefinitionError(
                    f"two tools have the name {made.name!r}", hint="pass name=… for one of them"
                )
            self._tools[made.name] = made
        self.specs = tuple(each.spec for each in self._tools.values())
        self.output_cap = output_cap
        self.keep_in = keep_in
        self._gone = gone
        self.threads = shared_threads() if threads is None else threads

    def __repr__(self) -> str:
        return f"<Toolbox {', '.join(self._tools) or 'empty'}>"

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def get(self, name: str) -> Tool | None:
        """The tool of that name."""
        return self._tools.get(name)

    def check(self, call: ToolCall) -> Checked | ToolResult:
        """``call`` with its tool and its arguments as that takes them, or the result that says why it is not
        run.
        """
        chosen = self._tools.get(call.name)
        if chosen is None:
            return _failed(call, self._unknown(call.name))
        if call.invalid is not None:
            return _failed(call, ToolArgumentsInvalid(_why_invalid(call.invalid)))
        try:
            return Checked(call, chosen, chosen.arguments.convert(call.arguments))
        except (Exception, SystemExit, GeneratorExit, asyncio.CancelledError) as error:  # noqa: BLE001 - its own
            return _failed(call, error)

    async def run(self, call: ToolCall, ctx: ToolContext) -> ToolResult:
        """The result of ``call``; of exceptions only ``asyncio.CancelledError`` leaves."""
        checked = self.check(call)
        return checked if isinstance(checked, ToolResult) else await self.carry_out(checked, ctx)

    async def carry_out(self, checked: Checked, ctx: ToolContext) -> ToolResult:
        """The result of a call that was checked; of exceptions only ``asyncio.CancelledError`` leaves.

        Whatever the tool raises, and a time-out, is a result with ``is_error`` that shows the model what to
        do better. After a cancel or a time-out ``ctx.cancel`` is set, for a thread that is still at work.
        """
        call, chosen, arguments = checked.call, checked.tool, checked.arguments
        try:
            if chosen.arguments.context is not None:
                ctx.output_cap, ctx.keep_in = self.output_cap, self.keep_in
                arguments[chosen.arguments.context] = ctx
            if not (chosen.blocking or chosen.is_async):
                return await self._run_at_once(call, chosen, arguments, ctx)
            begin = invoke_async if chosen.is_async else invoke
            run = functools.partial(begin, chosen.function, arguments, chosen.arguments.returns)
            if chosen.is_async:
                return await self._run_on_loop(call, run, chosen.timeout, ctx)
            result = await self.threads.call(
                functools.partial(self._run_in_thread, call, run, ctx),
                seconds=chosen.timeout,
                late=functools.partial(_report_late, call, ctx),
            )
            return (
                await self._finish_on_loop(call, chosen, result, ctx)
                if type(result) is Unfinished
                else result
            )
        except asyncio.CancelledError as error:
            ctx.cancel.set()
            if is_being_cancelled():
                raise
            return self.limit(_failed(call, error))
        except ToolTimeout as error:
            ctx.cancel.set()
            return self.limit(_failed(call, error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the model gets it, whatever it is
            return self.limit(_failed(call, error))

    async def _run_at_once(
        self, call: ToolCall, chosen: Tool, arguments: dict[str, Any], ctx: ToolContext
    ) -> ToolResult:
        """The result of a function that does not block, called here and now, in a context of its own."""
        began = time.perf_counter()
        run = contextvars.copy_context().run
        try:
            value = run(invoke, chosen.function, arguments, chosen.arguments.returns, on_loop=True)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a CancelledError of the tool's own included
            return self.limit(_failed(call, error))
        finally:
            if (held := time.perf_counter() - began) > HELD:
                _log.warning("tool %s (blocking=False) blocked the event loop for %.2f s", call.name, held)
        if type(value) is Unfinished:
            return await self._finish_on_loop(call, chosen, value, ctx)
        return self._whole_output(call, value) or await self._cut_output(call, value)

    async def _finish_on_loop(
        self, call: ToolCall, chosen: Tool, unfinished: Unfinished, ctx: ToolContext
    ) -> ToolResult:
        ctx.seconds = None  # it is not done
        run = functools.partial(finish, unfinished, chosen.arguments.returns)
        return await self._run_on_loop(call, run, chosen.timeout, ctx)

    async def _run_on_loop(
        self, call: ToolCall, work: Callable[[], Awaitable[Any]], seconds: float | None, ctx: ToolContext
    ) -> ToolResult:
        outcome = await run_alone(work, seconds, lambda outcome: ctx.late(_ended(call, outcome)))
        if outcome.interrupted or outcome.error is not None:
            return self.limit(_ended(call, outcome))
        return self._whole_output(call, outcome.value) or await self._cut_output(call, outcome.value)

    def limit(self, result: ToolResult, least: int = 0) -> ToolResult:
        """The result with its text cut to ``output_cap`` bytes, or ``least`` where that is more. What is
        cut is not kept.
        """
        cap = max(self.output_cap, least)
        if size(result.content) <= cap:
            return result
        return replace(result, content=capped(result.content, cap, directory=None, stem="").parts)

    def _whole_output(self, call: ToolCall, value: Any) -> ToolResult | None:
        """The result of a call that gave ``value``; None where that is too long for it."""
        if type(value) is Output:  # of a tool that limits its output itself
            return ToolResult(call.id, call.name, value.parts, kept=value.kept)
        parts = parts_from(value)
        return ToolResult(call.id, call.name, parts) if size(parts) <= self.output_cap else None

    async def _cut_output(self, call: ToolCall, value: Any) -> ToolResult:
        # What is cut is also written to a disk: not on the loop, nor in a thread that may wait for tools.
        return await in_thread(self._result, call, parts_from(value))

    def _run_in_thread(
        self, call: ToolCall, work: Callable[[], Any], ctx: ToolContext
    ) -> ToolResult | Unfinished:
        began = ctx.began = time.perf_counter()
        try:
            value = work()
            return value if isinstance(value, Unfinished) else self._result(call, parts_from(value))
        except BaseException as error:  # noqa: BLE001 - a CancelledError of the tool's own included
            return self.limit(_failed(call, error))
        finally:
            ctx.seconds = time.perf_counter() - began

    def _result(self, call: ToolCall, parts: tuple[Part, ...]) -> ToolResult:
        output: Output = capped(parts, self.output_cap, directory=self.keep_in, stem=call.name)
        return ToolResult(call.id, call.name, output.parts, kept=output.kept)

    def _unknown(self, name: str) -> ToolError:
        more = len(self._tools) - _NAMED
        names = [*islice(self._tools, _NAMED), *([f"and {more:,} more"] if more > 0 else [])]
        known = ", ".join(names) or "none"
        if name in self._gone:
            return ToolError(f"the tool {name!r} no longer exists: it was removed; the tools are: {known}")
        near = closest(name, self._tools)
        guess = f", did you mean {near!r}?" if near else ""
        return ToolError(f"there is no tool {encodable(name)!r}{guess}; the tools are: {known}")


def _ended(call: ToolCall, outcome: Outcome) -> ToolResult:
    """The result of an async tool, uncut."""
    if outcome.interrupted:
        return ToolResult.of(call, INTERRUPTED, is_error=True)
    if outcome.error is not None:
        return _failed(call, outcome.error)
    return ToolResult(call.id, call.name, parts_from(outcome.value))


def _report_late(call: ToolCall, ctx: ToolContext, result: ToolResult | Unfinished) -> None:
    if isinstance(result, Unfinished):
        result.drop()
        result = ToolResult.of(call, INTERRUPTED, is_error=True)
    ctx.late(result)


def _failed(call: ToolCall, error: BaseException) -> ToolResult:
    """The result that gives the model ``error``: a ToolError's words, of others type and words."""
    if isinstance(error, ToolArgumentsInvalid):
        text = f"invalid arguments for {call.name}: {error}"
    elif isinstance(error, ToolTimeout):
        text = f"{call.name} took too long: {error}"
    elif isinstance(error, ToolError):
        text = str(error)
    else:
        _log.warning("tool %s failed", call.name, exc_info=error)
        text = f"{call.name} failed: {named_words(error)}"
    return ToolResult.of(call, encodable(text), is_error=True)


def _why_invalid(text: str) -> str:
    shown = text if len(text) <= 200 else f"{text[:120]}…{text[-60:]}"
    return (
        "they are not a complete JSON object; nothing was run. Send the whole call again. "
        f"Received: {encodable(shown)}"
    )
