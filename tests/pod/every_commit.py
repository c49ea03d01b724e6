"""Scenes whose every commit can be made to fail, or to be the moment of a kill, and what must hold after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from pod_stage import check_pairs
from store_kit import Interposed

from actors.llm.base import Block, Request
from actors.llm.scripted import Reply, call, say
from actors.pod.handle import Pod
from actors.pod.runs.tool_runner import NOT_RUN
from actors.pod.session.past_events import entries_after
from actors.runtime.future import AsyncFuture
from actors.sessions.answers import wait
from actors.sessions.memory.store import MemoryStore
from actors.sessions.repair import check
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from actors.tools.base import Tool, ToolContext, tool
from protocol.errors import ModelError, PodError, PolypodError, StoreError
from protocol.events import (
    ApprovalRequested,
    AssistantMessage,
    ChildEnded,
    ChildStarted,
    DurableEvent,
    Event,
    ExtractDone,
    RunEnd,
    RunStart,
    SessionForked,
    ToolResulted,
)
from protocol.hooks import Deny, Inject, ModelView, Replace
from protocol.items import Item, SystemItem, ToolCall, ToolResult, UserItem
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest
from protocol.results import RunResult
from protocol.wire import decode_entry

#: Seconds that nothing here may take.
PATIENCE = 60


class Model:
    """Does what the last words of the user name; its helpers do their errand in one call."""

    model = "named"

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._full = True
        self._number = 0

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        names = {each.name for each in request.tools}
        helper = next((name for name in HELPS if name in names), "")
        self.asked[helper] += 1
        reply = self._help(helper, request) if helper else self._reply(list(request.items))
        async for block in reply.stream():
            yield block

    def _id(self) -> str:
        self._number += 1
        return f"c{os.getpid()}-{self._number}"

    def _help(self, name: str, request: Request) -> Reply:
        if isinstance(request.items[-1], ToolResult):
            return say("done", input_tokens=10)
        return call(name, HELPS[name], id=self._id(), input_tokens=10)

    def _reply(self, items: list[Item]) -> Reply:
        words = next((item.text for item in reversed(items) if isinstance(item, UserItem)), "")
        if isinstance(items[-1], ToolResult):
            return say("used them", input_tokens=250)
        if "tools" in words:
            return (
                call("look", {"n": 1}, id=self._id())
                + call("look", {"n": 2}, id=self._id())
                + call("act", {"n": 3}, id=self._id())
                + call("weigh", {"n": 4}, id=self._id(), input_tokens=200)
            )
        if "delegate" in words:
            asked = {"name": "helper", "instruction": "help", "task": "hello", "scope": WRITES}
            return call("spawn_pod", asked, id=self._id())
        if "overflow" in words and self._full:
            self._full = False
            raise ModelError("too long", kind="context_overflow", context_window=4000)
        return say("I see", input_tokens=150)


#: The tool of each helper, and what it is called with.
HELPS: dict[str, dict[str, Any]] = {
    "write_summary": {"text": "they talked"},
    "write_extracted": {"decisions": [{"chosen": "Use tabs", "rationale": "they work"}]},
    "write_memory": {"kind": "decisions", "title": "Use tabs", "text": "- Use tabs\n  Why: they work"},
}


def tools(ran: Callable[[str], None]) -> list[Tool]:
    """Three tools that say which call they do, one of them a plain function."""

    @tool(concurrency="read_only")
    async def look(n: int, ctx: ToolContext) -> str:
        ran(ctx.call_id)
        return "seen"

    @tool
    async def act(n: int, ctx: ToolContext) -> str:
        ran(ctx.call_id)
        return "done"

    @tool
    def weigh(n: int, ctx: ToolContext) -> str:
        ran(ctx.call_id)
        return "heavy"

    return [look, act, weigh]


class Hook:
    """Says something different of each call: denies one, replaces arguments, and fails before and after one. Changes
    each request, and fails at each run's end.
    """

    async def before_request(self, view: ModelView) -> Replace:
        """Say what is not recorded."""
        await asyncio.sleep(0)
        return Replace(ModelView(view.items, "Be kind.", view.tools))

    async def on_run_end(self, result: RunResult) -> None:
        """Fail, which is recorded behind the end."""
        await asyncio.sleep(0)
        raise LookupError("no such end")

    async def before_tool(self, call: ToolCall) -> Deny | Replace | None:
        """Deny the second look, and have the weight be another."""
        await asyncio.sleep(0)
        if call.arguments["n"] == 2:
            return Deny("not that one")
        return Replace({"n": 40}) if call.arguments["n"] == 4 else None

    async def after_tool(self, call: ToolCall, result: ToolResult) -> Inject:
        """Fail at what was done, and say something of the rest."""
        await asyncio.sleep(0)
        if call.name == "act":
            raise LookupError("no such act")
        return Inject("looked through")


def hooks(scene: str) -> list[Any]:
    """Those that the pods of a scene have."""
    return [Hook()] if scene == "hooks" else []


class Scene(Protocol):
    """What is done with a pod; each thing is awaited, whatever comes of it."""

    def __call__(self, system: PodSystem, pod: Pod) -> Iterable[Callable[[], Awaitable[Any]]]: ...


def _tools(system: PodSystem, pod: Pod) -> Iterable[Callable[[], Awaitable[Any]]]:
    async def queue() -> None:
        await asyncio.gather(pod.run("tools"), pod.run("hello"), pod.notify("and this"))

    async def steer() -> None:
        run = pod.run("tools once more")
        await asyncio.gather(run, pod.steer("be quick"), return_exceptions=True)

    return [lambda: pod.run("tools"), queue, steer]


def _compactions(system: PodSystem, pod: Pod) -> Iterable[Callable[[], Awaitable[Any]]]:
    return [
        lambda: pod.run("hello " * 60),
        lambda: pod.compact(retained_tokens=0),
        lambda: pod.run("overflow"),
        lambda: pod.push_item(SystemItem.of("long " * 700)),
        lambda: pod.run("before the run"),
        lambda: pod.run("tools in the middle " * 60),
        pod.compact,
    ]


def _memory(system: PodSystem, pod: Pod) -> Iterable[Callable[[], Awaitable[Any]]]:
    return [
        lambda: pod.run("hello"),
        lambda: pod.wait_for_memory_jobs(timeout=PATIENCE),
        lambda: pod.run("tools"),
        pod.try_post_run_extract,
        pod.spawn_memory_jobs,
        lambda: pod.wait_for_memory_jobs(timeout=PATIENCE),
    ]


def _moments(system: PodSystem, pod: Pod) -> Iterable[Callable[[], Awaitable[Any]]]:
    async def pause() -> None:
        run = pod.run("tools")
        await asyncio.gather(run, pod.pause(), return_exceptions=True)
        await pod.notify("meanwhile")
        await pod.resume()

    async def cancel() -> None:
        await asyncio.gather(pod.run("tools"), pod.run("hello"), pod.cancel(), return_exceptions=True)

    async def fork_in_a_run() -> None:
        await asyncio.gather(pod.run("tools"), pod.fork(), return_exceptions=True)

    return [
        lambda: pod.run("hello"),
        pod.fork,
        pod.passivate,
        lambda: pod.push_item(SystemItem.of("mind that")),
        pause,
        cancel,
        fork_in_a_run,
    ]


def _approvals(system: PodSystem, pod: Pod) -> Iterable[Callable[[], Awaitable[Any]]]:
    async def run(words: str, answer: Callable[[str], Awaitable[Any]]) -> None:
        with pod.subscribe(ApprovalRequested) as asked:
            run = pod.run(words)
            run.when_done(asked.close)
            async for event in asked:
                await answer(event.approval_id)
            await run

    async def pause(approval_id: str) -> None:
        await pod.pause()
        await pod.approve(approval_id, arguments={"n": 5})
        await pod.resume()

    return [
        lambda: run("tools", pod.deny),
        lambda: run("tools", lambda _: pod.steer("do no such thing")),
        lambda: run("tools", pause),
        lambda: run("tools", lambda _: pod.cancel()),
        lambda: run("tools", lambda each: pod.approve(each, note="fine")),
    ]


def _delegation(system: PodSystem, pod: Pod) -> Iterable[Callable[[], Awaitable[Any]]]:
    async def others_gone() -> None:
        while len(living := system.pods()) > 1:  # what records an end may be refused
            with contextlib.suppress(PodError):
                await living[-1].describe()

    async def pause() -> None:
        run = pod.run("delegate")
        await asyncio.gather(run, pod.pause(), return_exceptions=True)
        await pod.resume()

    return [
        lambda: pod.run("delegate"),
        others_gone,
        pause,
        pod.compact,
        lambda: pod.run("hello"),
        others_gone,
    ]


async def alone(system: PodSystem, pod: Pod) -> None:
    """Wait until the pod has no sub-agents, which report their ends with its runs."""
    delegation = pod.ref.actor.delegation  # type: ignore[attr-defined]
    with system.subscribe(pod.name, (ChildEnded, RunEnd)) as events:
        while delegation is not None and delegation.has_any:
            await anext(events)


def _stop(system: PodSystem, pod: Pod) -> Iterable[Callable[[], Awaitable[Any]]]:
    async def stop() -> None:
        run = pod.run("tools")
        await asyncio.gather(run, pod.stop(), return_exceptions=True)

    return [lambda: pod.run("hello"), stop]


#: What sub-agents of a scene are given.
WRITES = {"allow": [{"target": "/work/part", "permission": "write"}]}

SCENES: dict[str, tuple[Scene, dict[str, Any]]] = {
    "tools": (_tools, {}),
    "hooks": (_tools, {}),
    "approvals": (_approvals, {"approval": [{"tool": "act", "policy": "ask"}]}),
    "compactions": (
        _compactions,
        {"compact_threshold": 800, "compact_request_threshold": 550, "compact_retained_tokens": 100},
    ),
    "extractions": (_memory, {"extract_threshold": 1}),
    "memory": (_memory, {"extract_threshold": 1, "consolidate_files": 1}),
    "moments": (_moments, {}),
    "delegation": (
        _delegation,
        {"tools": {"builtin": ["pods"]}, "scope": {"allow": [{"target": "/work", "permission": "write"}]}},
    ),
    "stop": (_stop, {"extract_threshold": 1}),
}


# -- stores --------------------------------------------------------------------------------------


class Refusing(Interposed, MemoryStore):
    """Counts commits, and refuses those whose numbers (from 1) ``refuses`` says; at once, or ``later``."""

    def __init__(self, refuses: Callable[[int], bool], *, later: bool = False) -> None:
        super().__init__()
        self.refuses, self._later, self.commits = refuses, later, 0
        self._last: Future[None] | None = None

    async def settle(self) -> None:
        """Wait until every commit that was given has its answer."""
        while (last := self._last) is not None and not last.done():
            await asyncio.wait({asyncio.wrap_future(last)})

    def _commit(self, keep: Callable[[], Future[None] | None]) -> Future[None] | None:
        self.commits += 1
        refused = StoreError("the disk is full") if self.refuses(self.commits) else None
        if not self._later:
            if refused is not None:
                raise refused
            return keep()
        future: Future[None] = Future()
        self._last = future

        def end() -> None:
            if refused is not None:
                future.set_exception(refused)
                return
            try:
                keep()
            except PolypodError as error:
                future.set_exception(error)
            else:
                future.set_result(None)

        asyncio.get_running_loop().call_soon(end)
        return future


class Killing(Interposed, SQLiteStore):
    """Counts commits, and kills its process right before or right after one of them."""

    def __init__(self, path: Path, at: int, *, after: bool) -> None:
        super().__init__(path)
        self._at, self._after, self.commits = at, after, 0

    def _commit(self, keep: Callable[[], Future[None] | None]) -> Future[None] | None:
        self.commits += 1
        now = self.commits == self._at
        if now and not self._after:
            _die()
        pending = keep()
        if now and pending is None:
            _die()
        if now and isinstance(pending, AsyncFuture):
            pending.when_done(_die)
        elif now and pending is not None:
            pending.add_done_callback(lambda _: _die())
        return pending


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# -- playing -------------------------------------------------------------------------------------


def manifest(scene: str) -> PodManifest:
    """What the pod of a scene is asked to be."""
    return PodManifest.of(name="p", **SCENES[scene][1])


async def play_scene(scene: str, system: PodSystem, pod: Pod) -> None:
    """Do all that a scene does; a store that refuses may fail any of it, but nothing may wait for ever."""
    for act in SCENES[scene][0](system, pod):
        try:
            async with asyncio.timeout(PATIENCE):
                await act()
        except TimeoutError as error:
            raise AssertionError("something waits for ever") from error
        except PolypodError:
            pass  # the store refused, or the pod was not in a state for it


async def lives_on(system: PodSystem, pod: Pod) -> None:
    """The pod does its next run, its memory jobs come to an end, and it can be left."""
    async with asyncio.timeout(PATIENCE):
        for request in await system.approvals():
            await pod.deny(request.approval_id)
        if (await pod.describe()).state is PodState.PAUSED:
            await pod.resume()
        assert (await pod.run("and now")).text == "I see"
        assert await pod.wait_for_memory_jobs() is True
        await alone(system, pod)
        check_pairs(await pod.history())
        await pod.stop()


# -- what must hold ------------------------------------------------------------------------------


def check_ends(events: Iterable[Event]) -> None:
    """Every start has its one end, in order, and every run its end."""
    open_: dict[str, str] = {}
    run: str | None = None
    seqs: list[int] = []
    for event in events:
        if not isinstance(event, DurableEvent):
            continue
        seqs.append(event.seq)
        if event.starts is not None:
            assert event.starts not in open_, f"{type(event).__name__} though one is open"
            open_[event.starts] = type(event).__name__
        elif event.ends is not None:
            assert open_.pop(event.ends, None), f"{type(event).__name__} without its start"
        elif isinstance(event, RunStart):
            assert run is None or event.reason == "resume"
            run = event.run_id
        elif isinstance(event, RunEnd):
            assert run == event.run_id, "a run's end without its start"
            run = None if event.outcome != "paused" else run
    assert not open_, f"without an end: {open_}"
    assert run is None, "a run without an end"
    assert seqs == sorted(set(seqs)), "entries are told once, in order"


def check_children(events: Iterable[Event]) -> None:
    """Every sub-agent that was reported to have started has its one end, and no other has any."""
    open_: set[str] = set()
    for event in events:
        if isinstance(event, ChildStarted):
            open_.add(event.child_session)
        elif isinstance(event, ChildEnded):
            assert event.child_session in open_, "an end of a sub-agent that did not start, or another end"
            open_.remove(event.child_session)
    assert not open_, f"sub-agents without an end: {open_}"


def check_staged(folder: Path, events: Collection[Event]) -> None:
    """What is staged was reported; nothing is left of what was not."""
    published = sum(1 for event in events if isinstance(event, ExtractDone) and event.staged)
    files = sorted(path.name for path in (folder / "staging").glob("*")) if folder.exists() else []
    assert all(name.endswith(".json") for name in files)
    assert len(files) <= published, f"{len(files)} staged files of {published} extractions"


def check_store(store: SessionStore) -> None:
    """All that is kept is sound."""
    assert list(check(store)) == []


def check_branches(store: SessionStore, events: Iterable[Event]) -> None:
    """Every branch was reported, and its own record has an end of all that its parent had under way."""
    published = {each.new_session_id for each in events if isinstance(each, SessionForked)}
    for info in store.sessions():
        if info.parent is not None and info.parent.kind == "forked_from":
            assert info.session_id in published, "a branch that nobody was told of"
            entries = wait(entries_after(store, info.session_id, 0, info.head.seq, 10_000))
            decoded = (decode_entry(entry.body) for entry in entries)
            check_ends([event for event in decoded if isinstance(event, DurableEvent)])


def check_once(ran: Sequence[str], events: Sequence[Event]) -> None:
    """No call ran twice, unlogged, or though its result says that it did not; and what has a result ran."""
    asked = {call.id for event in events if isinstance(event, AssistantMessage) for call in event.item.calls}
    assert [each for each, times in Counter(ran).items() if times > 1] == []
    assert set(ran) <= asked
    for event in events:
        if isinstance(event, ToolResulted) and event.item.name in {"look", "act", "weigh"}:
            if not event.item.is_error:
                assert event.item.call_id in ran, "a result of a call that did not run"
            elif event.item.text == NOT_RUN:
                assert event.item.call_id not in ran, "said not to have run, and did"
