"""``ToolRunner``: the one pipeline of a tool call: policy, hooks, the tool, hooks, its recorded result."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from actors.tools.base import Tool, ToolContext
from actors.tools.output import limited, size
from actors.tools.schedule import kind_of, run_in_groups
from actors.tools.scope import fenced, resolved
from actors.tools.toolbox import Checked, Toolbox
from protocol.items import TextPart, ToolCall, ToolResult
from protocol.manifest import PodManifest
from protocol.scope import Rule, Scope

if TYPE_CHECKING:
    from actors.tools.hooks import Hooks

#: The result of a call that never began. Repetitions are counted by these words, which old sessions have too.
NOT_RUN = "not run: the run ended before this call was started"


class Batch(Protocol):
    """Receives the results of the calls of one answer; the pod implements it."""

    #: The pod's name, and what its tools are handed.
    pod: str
    deps: Any

    def check(self) -> None:
        """Raise what ended the batch, if it has ended."""

    def begin(self, call: ToolCall) -> None:
        """Note that a call is about to begin. Raises what ends the batch."""

    async def record(
        self,
        result: ToolResult,
        seconds: float | None = None,
        waited: float | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Record the result of a call, with its seconds if it ran, the seconds it waited for a thread, and
        the arguments that it ran with if they were changed.

        No later call begins before that. Raises what ends the batch.
        """

    async def alert(self, text: str) -> None:
        """Record an alert. Raises what ends the batch."""

    def take_answers(self) -> None:
        """Record the answers of other processes to calls that wait for approval."""

    def expect_more(self) -> None:
        """From now on make every result durable at once, since other calls may join the batch."""

    def report_progress(self, call: ToolCall, text: str) -> None:
        """Publish how far a call is; from any thread."""

    def report_late(self, call: ToolCall, result: ToolResult) -> None:
        """Take the result of a call that had been given up; on the loop."""


#: A call that has begun, its batch, words for a person, and the JSON Schema of the answer that is wanted.
AskForm = Callable[[ToolCall, Batch, str, dict[str, Any]], Awaitable[dict[str, Any] | None]]


class ToolRunner:
    """The tools of pods of one manifest, and how their calls are run."""

    __slots__ = (
        "_extras",
        "_fence",
        "_fenced",
        "_parallel",
        "_pwd",
        "ask_form",
        "hooks",
        "keeps_tasks",
        "note_call",
        "runs_commands",
        "scope",
        "scope_of",
        "toolbox",
    )

    def __init__(
        self,
        toolbox: Toolbox,
        manifest: PodManifest,
        extras: dict[str, Any] | None = None,
        hooks: Hooks | None = None,
        *,
        keeps_tasks: bool = False,
        runs_commands: bool = False,
        scope_of: Callable[[str], Scope] | None = None,
        note_call: Callable[[str, str, ToolContext], object] | None = None,
        fence: tuple[Rule, ...] = (),
    ) -> None:
        self.toolbox = toolbox
        #: Who is asked about calls, requests and ends of runs; None where nobody is.
        self.hooks = hooks
        self._pwd = Path(manifest.pod.pwd)
        #: What all these pods may touch.
        self.scope = resolved(manifest.scope)
        #: What polypod keeps for itself, which no scope reaches.
        self._fence = fence
        self._fenced = fenced(self.scope, fence)
        #: What the pod of that name may touch now, where pods give some of it away.
        self.scope_of = scope_of
        #: Gets the pod, tool and context of each call that begins in a thread, where pods have sub-agents.
        self.note_call = note_call
        self._parallel = manifest.worker.parallel_tools
        self._extras = extras or {}
        #: Asks a person for the tool of a call that has begun; None where nobody is asked.
        self.ask_form: AskForm | None = None
        #: Whether any of the tools keeps a task list.
        self.keeps_tasks = keeps_tasks
        #: Whether any of them runs commands.
        self.runs_commands = runs_commands

    def with_tools(self, tools: Iterable[Tool], gone: Collection[str]) -> ToolRunner:
        """A runner with other tools; ``gone`` are the names of tools that no longer exist."""
        old, runner = self.toolbox, self._copy()
        runner.toolbox = Toolbox(
            tools, threads=old.threads, output_cap=old.output_cap, keep_in=old.keep_in, gone=gone
        )
        return runner

    def past_hooks(self) -> ToolRunner:
        """A runner for calls that hooks have already seen: it asks them about results only."""
        runner = self._copy()
        if self.hooks is not None:
            runner.hooks = self.hooks.after_only()
        return runner

    def _copy(self) -> ToolRunner:
        from copy import copy  # noqa: PLC0415 - paid for by pods with sources or approvals

        return copy(self)

    def context(self, pod: str, deps: Any = None) -> ToolContext:
        """The context of a call outside a batch, for the helper agents and hooks of ``pod``."""
        return ToolContext(pwd=self._pwd, scope=self.scope_for(pod), pod=pod, extras=self._extras, deps=deps)

    def run(self, calls: list[ToolCall], batch: Batch) -> Coroutine[Any, Any, None]:
        """Run a batch of calls; a cancel ends it and interrupts every tool that is at work."""
        return self.run_call(calls[0], batch) if len(calls) == 1 else self._run_several(calls, batch)

    async def _run_several(self, calls: list[ToolCall], batch: Batch) -> None:
        def run_one(number: int) -> Coroutine[Any, Any, None]:
            return self.run_call(calls[number], batch)

        await run_in_groups([kind_of(self.toolbox, call) for call in calls], run_one, self._parallel)

    async def run_call(
        self, call: ToolCall, batch: Batch, texts: tuple[str, ...] = (), asked: ToolCall | None = None
    ) -> None:
        """Run one call: policy -> hooks before -> policy of what they changed -> the tool -> hooks after
        -> record its result. Raises what the batch does, and CancelledError.

        ``texts`` go behind its result. ``asked`` is the call as the model made it, where its arguments were
        changed since.
        """
        checked = self.toolbox.check(call)
        if not isinstance(checked, Checked):
            batch.begin(call)
            await batch.record(with_texts(checked, texts))
            return
        hooks, ctx = self.hooks, self._context(call, batch)
        injected: tuple[str, ...] = ()
        if hooks is not None and hooks.asks_before:
            checked, injected = await self._ask_before(hooks, checked, ctx, batch)
            if isinstance(checked, ToolResult):
                await batch.record(with_texts(checked, injected))
                return
        batch.begin(checked.call)
        since = time.perf_counter()
        if self.note_call is not None and checked.tool.blocking:
            self.note_call(batch.pod, checked.call.name, ctx)
        result = await self.toolbox.carry_out(checked, ctx)
        seconds, waited = _timed(ctx, since)
        if hooks is not None and hooks.asks_after:
            result = await self._ask_after(hooks, checked.call, result, ctx, batch)
        changed = None if asked is None and checked.call is call else checked.call.arguments
        await batch.record(with_texts(result, injected + texts), seconds, waited, changed)

    async def _ask_before(
        self, hooks: Hooks, checked: Checked, ctx: ToolContext, batch: Batch
    ) -> tuple[Checked | ToolResult, tuple[str, ...]]:
        """The call to run, or the result if it is not to run; and the texts to append to the result."""
        said = await hooks.before(checked.call, ctx)
        for failed in said.failed:
            await batch.alert(failed.message)
        texts = self._limited(said.injected)
        if said.denied is not None:
            return self.toolbox.limit(ToolResult.of(checked.call, said.denied, is_error=True)), texts
        return checked if said.replaced is None else self.toolbox.check(said.replaced), texts

    async def _ask_after(
        self, hooks: Hooks, call: ToolCall, result: ToolResult, ctx: ToolContext, batch: Batch
    ) -> ToolResult:
        """The result of a call that has run, as the model sees it."""
        said = await hooks.after(call, result, ctx)
        for failed in said.failed:
            await batch.alert(failed.message)
        if said.denied is not None:
            result = self.toolbox.limit(ToolResult.of(call, said.denied, is_error=True))
        elif said.replaced is not None:  # what was cut before says so, and is not cut again for that
            result = self.toolbox.limit(said.replaced, least=size(result.content))
        return with_texts(result, self._limited(said.injected))

    def _limited(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Texts to add to a result, each as long as a result may be at most."""
        return tuple(limited(text, self.toolbox.output_cap) for text in texts)

    def scope_for(self, pod: str) -> Scope:
        """What a pod may touch now, without the places that polypod keeps for itself."""
        return self._fenced if self.scope_of is None else fenced(self.scope_of(pod), self._fence)

    def _context(self, call: ToolCall, batch: Batch) -> ToolContext:
        ctx = ToolContext(  # without keywords, since these take as long as all the rest
            self._pwd,
            self.scope_for(batch.pod),
            None,
            batch.pod,
            call.id,
            partial(batch.report_progress, call),
            self._extras,
            partial(batch.report_late, call),
            batch.deps,
        )
        if self.ask_form is not None:
            ctx.ask_person = partial(self.ask_form, call, batch)
        return ctx


def with_texts(result: ToolResult, texts: tuple[str, ...]) -> ToolResult:
    """``result`` with texts appended."""
    if not texts:
        return result
    return replace(result, content=(*result.content, *(TextPart(f"\n{text}") for text in texts)))


def _timed(ctx: ToolContext, since: float) -> tuple[float, float | None]:
    """How long a call has taken since it was asked for, and how long it waited for a thread
    before it began.
    """
    if ctx.began is None:
        return time.perf_counter() - since, None
    seconds = time.perf_counter() - ctx.began if ctx.seconds is None else ctx.seconds
    return seconds, ctx.began - since
