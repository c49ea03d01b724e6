"""What sources of tools are owed by their system, and owe it: the same tests over each kind of source."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from documented import TableTools
from pod_stage import GatedClient
from pykka.messages import ProxyCall
from store_kit import AwaitedStore

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.memory.store import MemoryStore
from actors.system import PodSystem
from actors.tools.base import tool
from actors.tools.source import ToolSource
from protocol.errors import (
    RunFailed,
    SessionNotFound,
    StoreError,
    ToolDefinitionError,
    ToolError,
    ToolSourceError,
)
from protocol.events import Alert, RunEnd, RunStart
from protocol.items import ToolResult
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")
EMPTY = PodManifest.of(name="q")
_whose = ContextVar("whose", default="nobody")


class PlugIns:
    """A source whose tools are bare functions in a dict: what a test puts there and takes out."""

    name = "plug-ins"

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}

    async def open(self) -> None:
        await asyncio.sleep(0)

    def tools(self) -> list[Callable[..., Any]]:
        return list(self.functions.values())

    async def close(self) -> None:
        await asyncio.sleep(0)


class Kind:
    """A kind of source, and how its tools come and go from outside."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shop.db"
        self.start()

    def start(self) -> None:
        """Have what the sources are made of."""

    def made(self) -> ToolSource:
        raise NotImplementedError

    def appear(self, name: str) -> None:
        raise NotImplementedError

    def vanish(self, name: str) -> None:
        raise NotImplementedError


class Tables(Kind):
    """The example of the documentation: a tool for each table."""

    def start(self) -> None:
        sqlite3.connect(self.path).close()
        self.path.touch()

    def made(self) -> ToolSource:
        source: ToolSource = TableTools(self.path)
        return source

    def appear(self, name: str) -> None:
        self._do(f"CREATE TABLE {name} AS SELECT '{name}' AS word")

    def vanish(self, name: str) -> None:
        self._do(f"DROP TABLE {name}")

    def _do(self, text: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            db.execute(text)


class Functions(Kind):
    """The tools of ``PlugIns``."""

    def start(self) -> None:
        self.source = PlugIns()

    def made(self) -> ToolSource:
        return self.source

    def appear(self, name: str) -> None:
        async def find() -> str:
            return f"the {name}"

        find.__name__ = f"find_{name}"
        self.source.functions[name] = find

    def vanish(self, name: str) -> None:
        del self.source.functions[name]


@pytest.fixture(params=[Tables, Functions], ids=["example", "plug-ins"])
def kind(request, tmp_path) -> Kind:
    made: Kind = request.param(tmp_path)
    made.appear("boats")
    return made


class Watched:
    """A source, what is asked of it, and what keeps it from that."""

    def __init__(self, inner: ToolSource) -> None:
        self.inner = inner
        self.name = f"watched {getattr(inner, 'name', '')}"
        self.log: list[str] = []
        self.tasks: list[Any] = []
        self.asked = 0
        #: Raised by the next ``open``, or by each ``tools`` for as long as it is set.
        self.refusal: BaseException | None = None
        self.listing: BaseException | None = None
        #: Set where ``open`` and ``close`` may go on.
        self.may_open, self.may_close = asyncio.Event(), asyncio.Event()
        self.may_open.set()
        self.may_close.set()
        self.opening, self.closing, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def open(self) -> None:
        self.log.append("opening")
        self.tasks.append((asyncio.current_task(), _whose.get()))
        self.opening.set()
        try:
            await self.may_open.wait()
            await self.inner.open() if self.refusal is None else self.refuse()
        except BaseException as error:
            self.log.append(f"not open: {type(error).__name__}")
            raise
        self.log.append("open")

    def refuse(self) -> None:
        refusal, self.refusal = self.refusal, None
        assert refusal is not None
        raise refusal

    def tools(self) -> Any:
        self.asked += 1
        if self.listing is not None:
            raise self.listing
        return self.inner.tools()

    async def close(self) -> None:
        self.log.append("closing")
        self.tasks.append((asyncio.current_task(), _whose.get()))
        self.closing.set()
        try:
            await self.may_close.wait()
            await self.inner.close()
        except BaseException as error:
            self.log.append(f"not closed: {type(error).__name__}")
            raise
        self.log.append("closed")
        self.closed.set()


@pytest.fixture
def source(kind) -> Watched:
    return Watched(kind.made())


OPENED = ["opening", "open"]
CLOSED = ["closing", "closed"]


def names(client: Any, request: int = -1) -> list[str]:
    return [spec.name for spec in client.requests[request].tools]


def results(client: Any) -> list[ToolResult]:
    return [item for item in client.requests[-1].items if isinstance(item, ToolResult)]


def playing(play: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(play(), 20))


@asynccontextmanager
async def pod_with(
    system: PodSystem, replies: list[Reply], *tools: Any, **options: Any
) -> AsyncIterator[tuple[Pod, GatedClient]]:
    """A pod over a gated client, which stops in the end."""
    client = GatedClient(replies)
    pod = await system.spawn(options.pop("manifest", PLAIN), client=client, tools=tools, **options)
    try:
        yield pod, client
    finally:
        await pod.stop()


# -- the life of a source ------------------------------------------------------------------------


async def test_it_is_opened_when_a_run_needs_it_and_closed_when_its_last_pod_has_gone(source) -> None:
    async with PodSystem() as system:
        for _ in range(2):
            source.log.clear()
            source.closed.clear()
            client = ScriptedClient([say("one"), say("two")])
            pod = await system.spawn(PLAIN, client=client, tools=[source])
            assert source.log == []
            await pod.run("go")
            await pod.run("go")
            assert source.log == OPENED
            assert names(client) == ["find_boats"]
            await pod.stop()
            await source.closed.wait()
            assert source.log == [*OPENED, *CLOSED]


async def test_pods_that_never_ran_have_nothing_opened(source) -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), tools=[source])
        await system.spawn(PLAIN, client=ScriptedClient([]), tools=[source])
        await pod.stop()
    assert source.log == []


async def test_pods_that_are_given_the_same_source_share_it(source) -> None:
    async with PodSystem() as system:
        source.may_open.clear()
        pods, runs = [], []
        for manifest in (PLAIN, EMPTY, PLAIN):
            client = ScriptedClient([say("done"), *([say("again")] if len(pods) == 2 else [])])
            pods.append(await system.spawn(manifest, client=client, tools=[source, source]))
            runs.append(pods[-1].run("go"))
        await source.opening.wait()
        source.may_open.set()
        assert [(await run).text for run in runs] == ["done"] * 3
        for pod in pods[:2]:
            await pod.stop()
        assert (await pods[2].run("go")).text == "again"
        assert source.log == OPENED
    assert source.log == [*OPENED, *CLOSED]


async def test_leaving_the_system_closes_it_behind_its_pods(source) -> None:
    async with PodSystem() as system:
        client = GatedClient([say("never")])
        pod = await system.spawn(PLAIN, client=client, tools=[source])
        run = pod.run("go")
        await client.asked.acquire()
    assert (await run).outcome == "paused"
    assert source.log == [*OPENED, *CLOSED]


async def test_leaving_the_system_while_it_is_opened_pauses_the_run_and_cancels_that(source) -> None:
    source.may_open.clear()
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), tools=[source])
        run = pod.run("go")
        await source.opening.wait()
    assert (await run).outcome == "paused"
    assert source.log == ["opening", "not open: CancelledError"]


def test_a_loop_that_ends_closes_it_though_nobody_has_left_the_system(kind) -> None:
    sources: list[Watched] = []

    async def play() -> None:
        source = Watched(kind.made())
        sources.append(source)
        system = await PodSystem().__aenter__()
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=[source])
        await pod.run("go")

    playing(play)
    assert sources[0].log == [*OPENED, *CLOSED]


async def test_a_source_that_pods_of_other_tools_use_in_turn_is_never_opened_while_it_is_closed(
    source,
) -> None:
    @tool
    def other() -> str:
        return "other"

    async with PodSystem() as system:
        for number in range(3):
            client = ScriptedClient([say("done")])
            pod = await system.spawn(PLAIN, client=client, tools=[source] * (number % 2 + 1))
            await pod.run("go")
            await pod.stop()
            await system.spawn(EMPTY, client=ScriptedClient([]), tools=[other])  # a template of its own
            gc.collect()
    assert source.log == [*OPENED, *CLOSED] * 3


def test_a_system_in_a_thread_of_its_own_opens_and_closes_it_there(source) -> None:
    with PodSystem() as system:
        client = ScriptedClient([call("find_boats"), say("done")])
        pod = system.spawn(PLAIN, client=client, tools=[source]).get(timeout=10)
        assert pod.run("go").get(timeout=10).text == "done"
    assert "boats" in results(client)[0].text
    assert source.log == [*OPENED, *CLOSED]


async def test_it_is_opened_and_closed_in_one_task_that_knows_nothing_of_its_pods(source) -> None:
    _whose.set("a pod's caller")
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=[source])
        await pod.run("go")
    (opened_in, opened_for), (closed_in, closed_for) = source.tasks
    assert opened_in is closed_in
    assert opened_for == closed_for == "nobody"


async def test_a_pod_that_never_started_uses_nothing(source) -> None:
    async with PodSystem() as system:
        with pytest.raises(SessionNotFound):
            await system.spawn(PLAIN, client=ScriptedClient([]), tools=[source], resume="none")
        async with pod_with(system, [say("done")], source) as (pod, client):
            client.gate.release()
            await pod.run("go")
        await source.closed.wait()
        assert source.log == [*OPENED, *CLOSED]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_pod_that_a_defect_ends_uses_it_no_more(source) -> None:
    async with PodSystem() as system:
        client = GatedClient([say("never")])
        pod = await system.spawn(PLAIN, client=client, tools=[source])
        run = pod.run("go")
        await client.asked.acquire()
        pod.ref.tell(ProxyCall(attr_path=["nothing"], args=(), kwargs={}))  # a defect
        with pytest.raises(RunFailed):
            await run
        await source.closed.wait()


async def test_a_passive_pod_keeps_it_open(source) -> None:
    async with PodSystem() as system:
        client = ScriptedClient([say("one"), say("two")])
        pod = await system.spawn(PLAIN, client=client, tools=[source])
        await pod.run("go")
        assert await pod.passivate()
        assert (await pod.run("go")).text == "two"
        assert source.log == OPENED


# -- the list ------------------------------------------------------------------------------------


async def test_its_tools_stand_behind_the_plain_ones_wherever_it_is_given(kind) -> None:
    @tool
    def plain() -> str:
        return "plain"

    kind.appear("cars")
    async with PodSystem() as system:
        client = ScriptedClient([say("done")])
        pod = await system.spawn(PLAIN, client=client, tools=[kind.made(), plain])
        await pod.run("go")
        assert names(client) == ["plain", "find_boats", "find_cars"]


async def test_the_specs_of_requests_change_only_with_the_list(kind, source) -> None:
    async with PodSystem() as system:
        replies = [call("find_boats"), call("find_boats"), say("done"), say("again"), call("find_cars")]
        async with pod_with(system, [*replies, say("done")], source) as (pod, client):
            client.gate.release()
            run = pod.run("go")
            for _ in range(2):
                await client.asked.acquire()
                client.gate.release()
            assert (await run).text == "done"
            client.gate.release()
            assert (await pod.run("go")).text == "again"
            assert source.asked == 6, "once for each request, and once for each answer with calls"
            first, *others = [request.tools for request in client.requests]
            assert all(each is first for each in others)
            run = pod.run("go")
            kind.appear("cars")
            client.gate.release()
            client.gate.release()
            assert (await run).text == "done"
            assert names(client) == ["find_boats", "find_cars"]


async def test_a_tool_that_comes_in_the_middle_of_a_run_is_there_at_the_next_step(kind) -> None:
    async with PodSystem() as system:
        replies = [call("find_boats"), call("find_cars"), say("done")]
        async with pod_with(system, replies, kind.made()) as (pod, client):
            run = pod.run("go")
            await client.asked.acquire()
            kind.appear("cars")
            client.gate.release()
            client.gate.release()
            client.gate.release()
            assert (await run).text == "done"
            assert [names(client, 0), names(client, 1)] == [["find_boats"], ["find_boats", "find_cars"]]
            assert ["boats" in results(client)[0].text, "cars" in results(client)[1].text] == [True, True]


async def test_a_call_of_a_tool_that_has_vanished_is_answered_in_words_and_the_run_goes_on(kind) -> None:
    kind.appear("cars")
    client = GatedClient([call("find_cars"), say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, tools=[kind.made()])
        run = pod.run("go")
        await client.asked.acquire()
        kind.vanish("cars")
        client.gate.release()
        client.gate.release()
        assert (await run).text == "done"
    assert [names(client, 0), names(client, 1)] == [["find_boats", "find_cars"], ["find_boats"]]
    [result] = results(client)
    assert result.is_error
    assert result.text == "the tool 'find_cars' no longer exists: it was removed; the tools are: find_boats"


async def test_a_tool_that_comes_back_is_a_tool_like_others(kind) -> None:
    async with PodSystem() as system:
        replies = [say("one"), say("two"), call("find_boats"), say("done")]
        async with pod_with(system, replies, kind.made()) as (pod, client):
            for _ in replies:
                client.gate.release()
            await pod.run("go")
            kind.vanish("boats")
            await pod.run("go")
            assert names(client) == []
            kind.appear("boats")
            await pod.run("go")
            assert "boats" in results(client)[0].text


async def test_of_two_tools_of_one_name_the_first_stands_and_people_learn_of_the_other_once(kind) -> None:
    @tool(name="find_boats")
    def other() -> str:
        return "mine"

    async with PodSystem() as system:
        source = Watched(kind.made())
        client = ScriptedClient([call("find_boats"), say("done"), say("again")])
        pod = await system.spawn(PLAIN, client=client, tools=[source, other])
        with pod.subscribe(kinds=[Alert]) as alerts:
            await pod.run("go")
            assert results(client)[0].text == "mine"
            await pod.run("go")
            [reported] = alerts.drain()
        assert "'find_boats'" in reported.text
        assert source.name in reported.text


# -- slow, failing, and ending sources -----------------------------------------------------------


async def test_while_it_is_opened_only_runs_that_need_it_wait(source) -> None:
    source.may_open.clear()
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=[source])
        other = await system.spawn(EMPTY, client=ScriptedClient([say("other")]))
        with pod.subscribe(kinds=[RunStart, RunEnd]) as events:
            run = pod.run("go")
            await source.opening.wait()
            assert (await other.run("go")).text == "other"
            assert (await pod.describe()).state is PodState.RUNNING
            assert [type(event) for event in events.drain()] == [RunStart], "what is asked for is durable"
            source.may_open.set()
            assert (await run).text == "done"


@pytest.mark.parametrize("store", [MemoryStore, AwaitedStore])
@pytest.mark.parametrize("ending", ["cancelled", "paused"])
async def test_a_run_that_waits_for_it_can_be_ended_and_others_go_on_waiting(
    source, ending: str, store: Any
) -> None:
    source.may_open.clear()
    async with PodSystem(store()) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=[source])
        other = await system.spawn(EMPTY, client=ScriptedClient([say("other")]), tools=[source])
        run, others = pod.run("go"), other.run("go")
        await source.opening.wait()
        await (pod.cancel() if ending == "cancelled" else pod.pause())
        assert (await run).outcome == ending
        source.may_open.set()
        assert (await others).text == "other"
        run = pod.resume() if ending == "paused" else pod.run("again")
        assert (await run).text == "done"
        assert source.log == OPENED


async def test_it_is_not_opened_for_words_that_the_store_refuses(kind) -> None:
    class Full(MemoryStore):
        full = False

        def append(self, *args: Any, **options: Any) -> None:
            if self.full:
                raise StoreError("the disk is full")
            super().append(*args, **options)

    source, store = Watched(kind.made()), Full()
    async with PodSystem(store) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=[source])
        store.full = True
        with pytest.raises(RunFailed, match="the disk is full"):
            await pod.run("go")
        assert source.log == []
        store.full = False
        assert (await pod.run("again")).text == "done"


async def test_a_budget_of_seconds_bounds_the_wait(source) -> None:
    source.may_open.clear()
    async with PodSystem() as system:
        manifest = PodManifest.of(name="p", budget={"seconds": 0.05})
        pod = await system.spawn(manifest, client=ScriptedClient([]), tools=[source])
        assert (await pod.run("go")).outcome == "budget"


async def test_what_it_fails_with_at_its_opening_names_it_and_the_next_run_tries_again(source) -> None:
    source.refusal = OSError("nobody there")
    async with PodSystem() as system:
        client = ScriptedClient([say("done")])
        pod = await system.spawn(PLAIN, client=client, tools=[source])
        with pytest.raises(RunFailed, match="could not be opened: OSError: nobody there") as failed:
            await pod.run("go")
        assert isinstance(failed.value.cause, ToolSourceError)
        assert failed.value.cause.source == failed.value.details()["source"] == source.name
        assert repr(source.name) in str(failed.value)
        assert (await pod.run("again")).text == "done"
        assert source.log == ["opening", "not open: OSError", *OPENED]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_whatever_it_raises_at_its_opening_only_runs_fail(source, error: BaseException) -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=[source])
        source.refusal = error
        with pytest.raises(RunFailed) as failed:
            await pod.run("go")
        assert isinstance(failed.value.cause, ToolSourceError)
        assert (await pod.run("again")).text == "done"


async def test_of_several_the_one_that_fails_is_named_and_the_others_are_opened_at_the_same_time(
    kind,
) -> None:
    first, second = Watched(kind.made()), Watched(kind.made())
    second.name = "the second"
    second.refusal = OSError("nobody there")
    first.may_open.clear()
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), tools=[first, second])
        run = pod.run("go")
        await second.opening.wait()
        first.may_open.set()
        with pytest.raises(RunFailed, match="the second"):
            await run
    assert first.log == [*OPENED, *CLOSED]
    assert second.log == ["opening", "not open: OSError"]


async def test_where_the_last_pod_goes_meanwhile_the_opening_is_cancelled_and_nothing_closed(source) -> None:
    source.may_open.clear()
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), tools=[source])
        run = pod.run("go")
        await source.opening.wait()
        await pod.stop()
        assert (await run).outcome == "cancelled"
    assert source.log == ["opening", "not open: CancelledError"]


async def test_one_that_opens_though_that_was_cancelled_is_closed(kind) -> None:
    class Stubborn(Watched):
        async def open(self) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await super().open()
            await self.inner.open()

    source = Stubborn(kind.made())
    source.may_open.clear()
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), tools=[source])
        run = pod.run("go")
        await source.opening.wait()
        await pod.stop()
        assert (await run).outcome == "cancelled"
        await source.closed.wait()


async def test_one_that_does_not_say_which_tools_it_has_fails_the_run_that_is_the_first_to_ask(
    source,
) -> None:
    source.listing = OSError("no list")
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=[source])
        with pytest.raises(RunFailed, match="cannot list its tools: OSError: no list") as failed:
            await pod.run("go")
        assert isinstance(failed.value.cause, ToolSourceError)
        source.listing = None
        assert (await pod.run("again")).text == "done"
        assert source.log == OPENED


@pytest.mark.parametrize(
    "error",
    [
        OSError("no list"),
        SystemExit("no list"),
        asyncio.CancelledError("no list"),
        GeneratorExit("no list"),
    ],
)
async def test_later_the_tools_that_were_there_stay_and_people_learn_of_it_once(
    source, error: BaseException
) -> None:
    async with PodSystem() as system:
        replies = [call("find_boats"), call("find_boats"), say("done"), say("well"), say("ill")]
        client = ScriptedClient([say("first"), *replies])
        pod = await system.spawn(PLAIN, client=client, tools=[source])
        with pod.subscribe(kinds=[Alert]) as alerts:
            await pod.run("go")
            source.listing = error
            assert (await pod.run("go")).text == "done"
            assert ["boats" in result.text for result in results(client)] == [True, True]
            [reported] = alerts.drain()
            assert source.name in reported.text
            assert "no list" in reported.text
            source.listing = None
            await pod.run("go")
            assert not alerts.drain()
            source.listing = error
            await pod.run("go")
            assert len(alerts.drain()) == 1
    assert len({id(request.tools) for request in client.requests}) == 1


async def test_what_is_no_tool_in_its_list_is_reported_as_what_it_is() -> None:
    inner = PlugIns()
    inner.functions["odd"] = "no function"  # type: ignore[assignment]
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), tools=[inner])
        with pytest.raises(RunFailed, match=r"'plug-ins' cannot list its tools: .*cannot be a tool"):
            await pod.run("go")


async def test_its_end_in_the_middle_of_a_call_is_an_error_for_the_model() -> None:
    source = Watched(PlugIns())
    calling, ended = asyncio.Event(), asyncio.Event()

    async def lookup() -> str:
        calling.set()
        await ended.wait()
        raise ToolError("the server has gone")

    source.inner.functions["lookup"] = lookup  # type: ignore[attr-defined]
    async with PodSystem() as system:
        client = ScriptedClient([call("lookup"), say("done")])
        pod = await system.spawn(PLAIN, client=client, tools=[source])
        with pod.subscribe(kinds=[Alert]) as alerts:
            run = pod.run("go")
            await calling.wait()
            source.listing = OSError("the server has gone")
            ended.set()
            assert (await run).text == "done"
            assert [result.text for result in results(client)] == ["the server has gone"]
            assert len(alerts.drain()) == 1


# -- closing -------------------------------------------------------------------------------------


async def test_it_is_closed_though_a_call_that_was_cancelled_goes_on() -> None:
    source = Watched(PlugIns())
    calling, may_end = asyncio.Event(), asyncio.Event()
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def stubborn() -> str:
        calling.set()
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()
        ended.set_result("it was " + source.log[-1])
        return "late"

    source.inner.functions["stubborn"] = stubborn  # type: ignore[attr-defined]
    async with PodSystem(grace=0.01) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([call("stubborn")]), tools=[source])
        run = pod.run("go")
        await calling.wait()
        await pod.stop()
        assert (await run).outcome == "cancelled"
        await source.closed.wait()
        may_end.set()
        assert await ended == "it was closed"


async def test_a_pod_that_comes_while_it_is_closed_has_it_opened_again_behind_that(source) -> None:
    async with PodSystem() as system:
        async with pod_with(system, [say("done")], source) as (pod, client):
            client.gate.release()
            await pod.run("go")
            source.may_close.clear()
        await source.closing.wait()
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("again")]), tools=[source])
        with pod.subscribe(kinds=[RunStart]) as events:
            run = pod.run("go")
            async for _ in events:
                break
        assert source.log == [*OPENED, "closing"]
        source.may_close.set()
        assert (await run).text == "again"
        assert source.log == [*OPENED, *CLOSED, *OPENED]


def test_one_that_does_not_close_is_cancelled_and_keeps_nobody(kind, caplog) -> None:
    async def play() -> None:
        source = Watched(kind.made())
        source.may_close.clear()
        async with PodSystem(grace=0.01) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=[source])
            await pod.run("go")
        assert source.log == [*OPENED, "closing", "not closed: CancelledError"]
        await source.inner.close()

    with caplog.at_level(logging.WARNING, "polypod.tools"):
        playing(play)
    assert "failed while closing" in caplog.text


def test_one_that_goes_on_though_its_closing_is_cancelled_is_left_to_itself(kind, caplog) -> None:
    class Stubborn(Watched):
        async def close(self) -> None:
            while not self.may_close.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.may_close.wait()
            await super().close()

    async def play() -> None:
        source = Stubborn(kind.made())
        source.may_close.clear()
        async with PodSystem(grace=0.01) as system:
            async with pod_with(system, [say("done")], source) as (pod, client):
                client.gate.release()
                await pod.run("go")
            pod = await system.spawn(PLAIN, client=ScriptedClient([]), tools=[source])
            with pytest.raises(RunFailed, match="it is still being closed"):
                await pod.run("go")
        source.may_close.set()
        await source.closed.wait()

    with caplog.at_level(logging.WARNING, "polypod.tools"):
        playing(play)
    assert "was abandoned" in caplog.text


def test_what_it_raises_when_it_is_closed_is_in_the_log_and_nothing_else_is_kept_from_closing(
    kind, caplog
) -> None:
    class Broken(Watched):
        async def close(self) -> None:
            await super().close()
            raise OSError("it broke")

    async def play() -> None:
        broken, sound = Broken(kind.made()), Watched(PlugIns())
        async with PodSystem() as system:
            tools = [broken, sound]
            pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), tools=tools)
            await pod.run("go")
        assert sound.log == [*OPENED, *CLOSED]

    with caplog.at_level(logging.WARNING, "polypod.tools"):
        playing(play)
    assert "it broke" in caplog.text


class Grouped(PlugIns):
    """A source with a task group, whose one task ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.ill = asyncio.Event()

    async def open(self) -> None:
        self.ill.clear()
        self.stack = contextlib.AsyncExitStack()
        group = await self.stack.enter_async_context(asyncio.TaskGroup())
        self.following = group.create_task(self.follow())

    async def follow(self) -> None:
        await self.ill.wait()
        raise OSError("the connection broke")

    async def close(self) -> None:
        self.following.cancel()
        await self.stack.aclose()


def test_one_that_ends_by_itself_is_closed_and_opened_again_for_the_next_request(caplog) -> None:
    async def play() -> None:
        source = Watched(Grouped())
        inner: Any = source.inner

        async def lookup() -> str:
            inner.ill.set()
            await source.closing.wait()
            return "found"

        inner.functions["lookup"] = lookup
        async with PodSystem() as system:
            client = ScriptedClient([call("lookup"), say("done")])
            pod = await system.spawn(PLAIN, client=client, tools=[source])
            assert (await pod.run("go")).text == "done"
            assert results(client)[0].text == "found"
            assert names(client) == ["lookup"]
            assert source.log[:4] == [*OPENED, "closing", "not closed: ExceptionGroup"]
            assert source.log[4:] == OPENED

    with caplog.at_level(logging.WARNING, "polypod.tools"):
        playing(play)
    assert "the connection broke" in caplog.text


# -- sessions ------------------------------------------------------------------------------------


async def test_a_restored_pod_is_given_its_source_anew_like_any_tool(kind) -> None:
    store = MemoryStore()
    async with PodSystem(store) as system:
        client = GatedClient([call("find_boats"), say("never")])
        pod = await system.spawn(PLAIN, client=client, tools=[kind.made()])
        run = pod.run("go")
        await client.asked.acquire()
        client.gate.release()
        await client.asked.acquire()
    paused = await run
    kind.vanish("boats")
    kind.appear("cars")
    async with PodSystem(store) as system:
        [left] = await system.interrupted()
        assert left.session_id == paused.session_id
        again = ScriptedClient([call("find_boats"), say("done")])
        source = Watched(kind.made())
        pod = await system.spawn(PLAIN, client=again, tools=[source], resume=left.session_id)
        assert source.log == []
        assert (await pod.resume()).text == "done"
        assert names(again) == ["find_cars"]
        before, now = results(again)
        assert "boats" in before.text
        assert now.text.startswith("there is no tool 'find_boats'")
        assert now.text.endswith("the tools are: find_cars")


# -- what is not a source ---------------------------------------------------------------------------


async def test_what_has_no_such_methods_is_a_tool_or_an_error() -> None:
    class Door:
        def open(self) -> str:
            return "open"

    async with PodSystem() as system:
        with pytest.raises(ToolDefinitionError):
            await system.spawn(PLAIN, client=ScriptedClient([]), tools=[Door()])
        with pytest.raises(ToolDefinitionError):
            await system.spawn(PLAIN, client=ScriptedClient([]), tools=[None])
