"""Any commands in any order, over a model, tools and a store that answer, wait or refuse at any moment."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import operator
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pod_stage import check_pairs
from store_kit import AwaitedStore, Interposed

from actors.llm.base import Block, CallStart, Request
from actors.llm.scripted import Reply, call, say
from actors.pod.handle import Pod
from actors.runtime.future import AsyncFuture
from actors.sessions.chain import verified
from actors.sessions.memory.store import MemoryStore
from actors.sessions.replay import replay
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.entries import StoredEntry
from protocol.errors import HeadConflict, ModelError, PolypodError, StoreError
from protocol.events import (
    CompactDone,
    CompactFailed,
    CompactStart,
    Event,
    PodFailed,
    RunEnd,
    RunStart,
    StateChanged,
)
from protocol.items import AssistantItem, Item, SystemItem, UserItem
from protocol.lifecycle import MOVES as STATE_MOVES
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest
from protocol.results import RunResult

#: How many turns of the loop are enough for all that nobody holds up.
PATIENCE = 1000


class MoodyStore(Interposed, MemoryStore):
    """Keeps a batch at once, or when the test says so, or refuses it; always in order."""

    def __init__(self) -> None:
        super().__init__()
        self.late = False
        self.refused = False
        self.refusals: list[Exception] = []
        self.unreadable = False
        self._waiting: list[Callable[[], None]] = []

    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        if self.unreadable:
            raise StoreError("unreadable")
        return super().read(session_id, after=after, limit=limit)

    def _commit(self, keep: Callable[[], None]) -> Future[None] | None:
        if not self.late:
            self._keep(keep)
            return None
        future: Future[None] = Future()

        def later() -> None:
            wanted = future.set_running_or_notify_cancel()
            try:
                self._keep(keep)
            except (StoreError, HeadConflict) as error:
                if wanted:
                    future.set_exception(error)
            else:
                if wanted:
                    future.set_result(None)

        self._waiting.append(later)
        return future

    def _keep(self, keep: Callable[[], None]) -> None:
        if self.refusals:
            self.refused = True
            raise self.refusals.pop()
        keep()

    def copy(self) -> MoodyStore:
        """The sessions as they are kept now, held by nobody."""
        other = MoodyStore()
        for info in self.sessions():
            batch = super().read(info.session_id)
            other.create(info.session_id, info.pod, info.parent, batch, claim=False)
        return other

    def end_one(self) -> None:
        if self._waiting:
            self._waiting.pop(0)()

    def behave(self) -> None:
        """Keep all that waits and all that comes, and be read."""
        self.late, self.unreadable, self.refusals = False, False, []
        while self._waiting:
            self.end_one()


class MoodyClient:
    """Answers when the test says so, with what the test said; what it is sent must be whole."""

    model = "moody"

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(0)
        self.moods: list[Reply | Exception] = []
        self.calls = 0

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        check_pairs(request.items)
        await self.gate.acquire()
        mood = self.moods.pop(0) if self.moods else obliging(request)
        if isinstance(mood, Exception):
            raise mood
        async for block in mood.stream():
            yield block


def obliging(request: Request) -> Reply:
    """What a model answers that does as it is asked: a summariser first writes its summary."""
    summarises = any(each.name == "write_summary" for each in request.tools)
    if summarises and isinstance(request.items[-1], UserItem):
        return numbered(call("write_summary", {"text": "they talked"}))
    return say("fine", input_tokens=5, output_tokens=1)


def numbered(reply: Reply) -> Reply:
    """The reply with ids for its calls that no other reply has."""
    blocks = [replace(b, id=f"c{next(_ids)}") if isinstance(b, CallStart) else b for b in reply.blocks]
    return Reply(tuple(blocks), reply.usage, reply.stop_reason)


_ids = itertools.count()


class Scene:
    """One pod, its moody surroundings, and all that was asked of it."""

    def __init__(self, system: PodSystem, store: MoodyStore, client: MoodyClient, pod: Pod) -> None:
        self.system, self.store, self.client, self.pod = system, store, client, pod
        self.tool_gate = asyncio.Semaphore(0)
        self.tool_runs: Counter[str] = Counter()
        self.asked: list[tuple[str, str, AsyncFuture[Any]]] = []
        self.words = 0
        #: What a crash would have left in the store, at moments of the play.
        self.crashes: list[MoodyStore] = []

    def ask(self, name: str, *arguments: Any, **options: Any) -> None:
        """Send a command; those that bring words bring ones that nobody else brings."""
        said = ""
        if name in {"run", "steer", "notify", "push_item"}:
            self.words += 1
            said = f"words {self.words}"
            arguments = ((arguments[0] if arguments else str)(said),)
        self.asked.append((name, said, getattr(self.pod, name)(*arguments, **options)))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- what may happen -----------------------------------------------------------------------------


def answer(mood: Callable[[], Reply | Exception]) -> Callable[[Scene], None]:
    """The model answers the request that waits, or the next one."""

    def move(scene: Scene) -> None:
        scene.client.moods.append(mood())
        scene.client.gate.release()

    return move


def calls(*names: str) -> Callable[[], Reply]:
    """An answer that calls tools."""
    return lambda: numbered(functools.reduce(operator.add, map(call, names)))


def refuse(kind: type[Exception]) -> Callable[[Scene], None]:
    return lambda scene: scene.store.refusals.append(kind("refused"))


#: What may happen, by name: commands to the pod, and moods of what is around it.
MOVES: dict[str, Callable[[Scene], None]] = {
    **{
        name: lambda scene, name=name: scene.ask(name)
        for name in (
            "run",
            "steer",
            "notify",
            "cancel",
            "pause",
            "resume",
            "fork",
            "history",
            "describe",
            "passivate",
        )
    },
    "run again": lambda scene: scene.ask("run"),
    "run or reject": lambda scene: scene.ask("run", busy="reject"),
    "push words": lambda scene: scene.ask("push_item", UserItem.of),
    "push a note": lambda scene: scene.ask("push_item", SystemItem.of),
    "push an answer": lambda scene: scene.ask("push_item", AssistantItem.of),
    "compact": lambda scene: scene.ask("compact"),
    "compact if due": lambda scene: scene.ask("try_pre_run_compact"),
    "model says": answer(lambda: say("done", input_tokens=5, output_tokens=1)),
    "model is cut": answer(lambda: say("cut", stop_reason="max_tokens")),
    "model calls one": answer(calls("look")),
    "model calls a slow one": answer(calls("wait")),
    "model calls three": answer(calls("look", "wait", "look")),
    "model calls nothing there": answer(calls("nonesuch")),
    "model refuses": answer(lambda: ModelError("no", kind="invalid_request")),
    "model is full": answer(lambda: ModelError("full", kind="context_overflow")),
    "client breaks": answer(lambda: RuntimeError("a client's own")),
    "tool ends": lambda scene: scene.tool_gate.release(),
    "store is slow": lambda scene: setattr(scene.store, "late", True),
    "store keeps one": lambda scene: scene.store.end_one(),
    "store behaves": lambda scene: scene.store.behave(),
    "store refuses": refuse(StoreError),
    "store is taken": refuse(HeadConflict),
    "store cannot be read": lambda scene: setattr(scene.store, "unreadable", True),
    "crash": lambda scene: scene.crashes.append(scene.store.copy()),
}

moments = st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 6))


# -- what must hold ------------------------------------------------------------------------------


def check_events(events: list[Event], *, refused: bool) -> None:
    """Numbers rise; states move as they may; runs and compactions that begin end at most once."""
    durable = [event.seq for event in events if event.durable]
    assert durable == sorted(set(durable))
    state = PodState.IDLE
    open_runs: set[str | None] = set()
    ended: set[str | None] = set()
    compacting = False
    for event in events:
        if isinstance(event, StateChanged):
            assert event.old is state
            assert event.new in STATE_MOVES[state]
            state = event.new
        elif isinstance(event, RunStart):
            assert event.run_id not in open_runs | ended
            open_runs.add(event.run_id)
        elif isinstance(event, RunEnd):
            if event.outcome != "paused":
                assert event.run_id not in ended
                ended.add(event.run_id)
            open_runs.discard(event.run_id)
        elif isinstance(event, CompactStart):
            assert refused or not compacting
            compacting = True
        elif isinstance(event, CompactDone | CompactFailed):
            assert compacting
            compacting = False
    assert not any(isinstance(event, PodFailed) for event in events)


def check_replies(scene: Scene, history: list[Item]) -> None:
    """Every command was answered, by its result or by an error of ours; what was accepted is there."""
    said = Counter(item.text for item in history)
    folded = any(each.parent is not None for each in scene.store.sessions())
    for name, words, future in scene.asked:
        assert future.done(), f"{name} was never answered"
        try:
            result = future.get(timeout=0)
        except PolypodError:
            continue
        dropped = isinstance(result, RunResult) and not result.run_id
        if words and not dropped and not folded:
            assert said[words] == 1, f"the words of a {name} stand {said[words]} times"


def check_sessions(store: MoodyStore, session_id: str, history: list[Item]) -> None:
    """Every log is sound, and the pod's own replays to its history."""
    for info in store.sessions():
        entries = store.read(info.session_id)
        verified(info.session_id, entries)
        state = replay(entries)
        if info.session_id == session_id:
            assert state.items == history
            assert state.open_run is None or store.refused


# -- the play ------------------------------------------------------------------------------------


async def settle(scene: Scene) -> None:
    """Nobody holds anything up any more: all that was asked comes to its end."""
    scene.store.behave()
    for _ in range(PATIENCE):
        answered = all(future.done() for _, _, future in scene.asked)
        state = (await scene.pod.describe()).state
        if state is PodState.PAUSED:
            scene.ask("cancel")
        elif state is PodState.IDLE and answered:
            return
        scene.client.gate.release()
        scene.tool_gate.release()
        await asyncio.to_thread(int)  # threads that read and compose have their turn too
    raise AssertionError([name for name, _, future in scene.asked if not future.done()])


MANIFESTS = (
    PodManifest.of(name="p", max_steps=6),
    PodManifest.of(name="p", max_steps=6, compact_threshold=20, compact_retained_tokens=5),
    PodManifest.of(name="p", max_steps=6, compact_request_threshold=20, compact_retained_tokens=5),
    PodManifest.of(name="p", max_steps=6, tokens=100, seconds=1000),
)


async def resume_after(crash: MoodyStore, session_id: str) -> None:
    """Whatever the moment, the session can be taken up again and goes on whole."""
    client = MoodyClient()
    for _ in range(20):
        client.gate.release()
    async with PodSystem(crash) as system:
        pod = await system.spawn(MANIFESTS[0], client=client, resume=session_id)
        result = await pod.run("after the crash")
        history = await pod.history()
        assert [item.text for item in history][-2:] == ["after the crash", result.text]
        check_pairs(history)
        check_sessions(crash, result.session_id, history)


async def play(
    moves: list[tuple[str, int]], manifest: PodManifest, *, stop: bool, keen: bool, awaited: bool
) -> None:
    before = asyncio.all_tasks()
    store, client = MoodyStore(), MoodyClient()

    @tool(concurrency="read_only")
    async def look() -> str:
        return "seen"

    @tool
    async def wait() -> str:
        await scene.tool_gate.acquire()
        return "waited"

    async with PodSystem(AwaitedStore(store) if awaited else store) as system:
        pod = await system.spawn(manifest, client=client, tools=[look, wait])
        session_id = (await pod.describe()).session_id
        scene = Scene(system, store, client, pod)
        with system.subscribe(pod) as published:
            for move, pause in moves:
                MOVES[move](scene)
                await turns(pause)
                if keen:  # whenever it can, the pod leaves its history to the store
                    scene.ask("passivate")
            if stop:
                scene.ask("stop")
                await turns(moves[0][1] if moves else 0)
                scene.store.behave()
                await scene.asked[-1][2]
                events = published.drain()
                last = [event.session_id for event in events if event.durable]
                history = replay(store.read(last[-1])).items if last else []
            else:
                await settle(scene)
                history = await pod.history()
                described = await pod.describe()
                check_sessions(store, described.session_id, history)
                await pod.stop()
                events = published.drain()
        if not store.refused:
            check_pairs(history)
        check_replies(scene, history)
        check_events(events, refused=store.refused)
    for crash in scene.crashes[:2]:
        await resume_after(crash, session_id)
    assert asyncio.all_tasks() == before


class NoDefects(logging.Handler):
    """Fails where an actor or a future reports an error that nobody handled."""

    def emit(self, record: logging.LogRecord) -> None:
        self.found = self.format(record)

    found = ""


def run(
    moves: list[tuple[str, int]], manifest: PodManifest, *, stop: bool, keen: bool, awaited: bool
) -> None:
    watch = NoDefects(logging.ERROR)
    for name in ("pykka", "asyncio"):
        logging.getLogger(name).addHandler(watch)
    try:
        asyncio.run(asyncio.wait_for(play(moves, manifest, stop=stop, keen=keen, awaited=awaited), 60))
    finally:
        for name in ("pykka", "asyncio"):
            logging.getLogger(name).removeHandler(watch)
    assert not watch.found


@settings(max_examples=times(60))
@given(st.lists(moments, max_size=40), st.sampled_from(MANIFESTS), st.booleans(), st.booleans())
def test_any_commands_in_any_order_end_well(
    moves: list[tuple[str, int]], manifest: PodManifest, keen: bool, awaited: bool
) -> None:
    run(moves, manifest, stop=False, keen=keen, awaited=awaited)


@settings(max_examples=times(40))
@given(st.lists(moments, max_size=25), st.sampled_from(MANIFESTS), st.booleans(), st.booleans())
def test_a_stop_at_any_moment_answers_everybody(
    moves: list[tuple[str, int]], manifest: PodManifest, keen: bool, awaited: bool
) -> None:
    run(moves, manifest, stop=True, keen=keen, awaited=awaited)
