"""Waits for a pod's next run that its run does not wait for in turn: none is refused, whatever stands beside it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio.to_thread
import pykka
import pytest
from warm import Popen

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.runtime import awaited
from actors.runtime.circles import MOMENT, AnyWait
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import PodBusy, RunFailed
from protocol.events import ToolResulted
from protocol.items import ToolResult
from protocol.manifest import PodManifest

#: So long that a wait is looked at meanwhile, in seconds.
LOOKED_AT = 3 * MOMENT


def read(pod: Pod) -> None:
    list(pod.stream("again", busy="reject"))


async def ask_again(pod: Pod) -> str:
    return (await pod.run("again")).text


class Jobs:
    """Jobs of a program; it is notified of their ends, and knows the one that was begun last."""

    def __init__(self) -> None:
        self.last: asyncio.Task[Any] | None = None

    def begin(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        self.last = task = asyncio.create_task(job)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, _: object) -> None:
        pass


async def by_methods(pod: Pod) -> Awaitable[str]:
    jobs = Jobs()
    asked = jobs.begin(ask_again(pod))
    await jobs.begin(asyncio.sleep(LOOKED_AT))
    return asked


async def by_closures(pod: Pod) -> Awaitable[str]:
    asked, beside = asyncio.create_task(ask_again(pod)), asyncio.create_task(asyncio.sleep(LOOKED_AT))
    asked.add_done_callback(lambda _: beside.cancel())
    asked.add_done_callback(partial(print, beside))
    await beside
    return asked


async def by_a_cancel(pod: Pod) -> Awaitable[str]:
    asked, beside = asyncio.create_task(ask_again(pod)), asyncio.create_task(asyncio.sleep(LOOKED_AT))
    asked.add_done_callback(beside.cancel)
    await beside
    return asked


async def for_a_while(pod: Pod) -> Awaitable[str]:
    asked = asyncio.create_task(ask_again(pod))
    _, pending = await asyncio.wait({asked}, timeout=LOOKED_AT)
    assert pending
    return asked


async def first_of_several(pod: Pod) -> Awaitable[str]:
    asked, beside = asyncio.create_task(ask_again(pod)), asyncio.create_task(asyncio.sleep(LOOKED_AT))
    done, _ = await asyncio.wait({asked, beside}, return_when=asyncio.FIRST_COMPLETED)
    assert done == {beside}
    return asked


async def first_that_completes(pod: Pod) -> Awaitable[str]:
    asked = asyncio.create_task(ask_again(pod))
    for each in asyncio.as_completed([asked, asyncio.sleep(LOOKED_AT)]):
        assert await each is None
        break
    return asked


async def shielded(pod: Pod) -> Awaitable[str]:
    asked = asyncio.create_task(ask_again(pod))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asked), LOOKED_AT)
    return asked


async def shielded_in_time(pod: Pod) -> Awaitable[str]:
    asked = asyncio.create_task(ask_again(pod))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LOOKED_AT):
            await asyncio.shield(asked)
    return asked


class Enough(Exception):  # noqa: N818 - it is not an error
    """Ends what waits for several."""


async def raise_enough() -> None:
    await asyncio.sleep(LOOKED_AT)
    raise Enough


async def gathered_beside_an_error(pod: Pod) -> Awaitable[str]:
    asked = asyncio.create_task(ask_again(pod))
    with pytest.raises(Enough):
        await asyncio.gather(asked, raise_enough())
    return asked


async def in_a_group_beside_an_error(pod: Pod) -> Awaitable[str]:
    asked = pod.run("again")
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.wait_for(asked, None))
            group.create_task(raise_enough())
    assert not asked.done()
    return asked.map(lambda result: result.text)


async def in_a_group_of_anyio_that_is_cancelled(pod: Pod) -> Awaitable[str]:
    asked = pod.run("again")

    async def cancel() -> None:
        await asyncio.sleep(LOOKED_AT)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(asyncio.wait_for, asked, None)
        group.start_soon(cancel)
    return asked.map(lambda result: result.text)


async def for_all_in_time(pod: Pod) -> Awaitable[str]:
    asked = asyncio.create_task(ask_again(pod))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LOOKED_AT):
            await asyncio.wait({asked})
    return asked


async def as_completed_in_time(pod: Pod) -> Awaitable[str]:
    asked = asyncio.create_task(ask_again(pod))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOKED_AT):
            for each in asyncio.as_completed([asked]):
                await each
    assert not asked.done()
    return asked


async def beside_a_group(pod: Pod) -> Awaitable[str]:
    asked = pod.run("again")

    async def watch() -> None:
        await asked

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await asyncio.sleep(LOOKED_AT)
        watching.cancel()
    return asked.map(lambda result: result.text)


def thread_in_context(work: Callable[[], Any]) -> Future[Any]:
    """As a library that hands its context variables on to threads begins one."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - goes to who waits
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


async def in_a_thread(pod: Pod) -> Awaitable[str]:
    asked = thread_in_context(lambda: pod.run("again").get().text)
    await asyncio.sleep(LOOKED_AT)
    return asyncio.wrap_future(asked)


async def in_a_thread_of_a_stream(pod: Pod) -> Awaitable[str]:
    asked = thread_in_context(lambda: "".join(pod.stream("again").text()))
    await asyncio.sleep(LOOKED_AT)
    return asyncio.wrap_future(asked)


async def in_a_thread_with_an_executor(pod: Pod) -> Awaitable[str]:
    context = contextvars.copy_context()

    def work() -> str:
        with ThreadPoolExecutor() as threads:
            return threads.submit(context.copy().run, lambda: pod.run("again").get().text).result()

    asked = thread_in_context(work)
    await asyncio.sleep(LOOKED_AT)
    return asyncio.wrap_future(asked)


async def in_a_thread_by_the_loop(pod: Pod) -> Awaitable[str]:
    loop = asyncio.get_running_loop()
    asked = thread_in_context(lambda: asyncio.run_coroutine_threadsafe(ask_again(pod), loop).result())
    await asyncio.sleep(LOOKED_AT)
    return asyncio.wrap_future(asked)


async def in_a_thread_for_a_while(pod: Pod) -> Awaitable[str]:
    asked: Future[str] = Future()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            asyncio.to_thread(lambda: asked.set_result(pod.run("again").get().text)), LOOKED_AT
        )
    return asyncio.wrap_future(asked)


async def in_a_thread_of_anyio_for_a_while(pod: Pod) -> Awaitable[str]:
    asked: Future[str] = Future()
    with anyio.move_on_after(LOOKED_AT):
        await anyio.to_thread.run_sync(
            lambda: asked.set_result(pod.run("again").get().text), abandon_on_cancel=True
        )
    return asyncio.wrap_future(asked)


async def in_a_thread_until_a_timer_cancels(pod: Pod) -> Awaitable[str]:
    asked: Future[str] = Future()
    waits = asyncio.create_task(asyncio.to_thread(lambda: asked.set_result(pod.run("again").get().text)))
    asyncio.get_running_loop().call_later(LOOKED_AT, lambda: waits.cancel("time is up"))
    with pytest.raises(asyncio.CancelledError):
        await waits
    return asyncio.wrap_future(asked)


async def beside_the_main_task_of_a_thread(pod: Pod) -> Awaitable[str]:
    asked = []

    async def beside() -> None:
        asked.append(pod.run("again"))
        await asked[0]

    async def main() -> None:
        task = asyncio.create_task(beside())
        await asyncio.sleep(LOOKED_AT)
        assert not task.done()

    await asyncio.to_thread(asyncio.run, main())
    return asked[0].map(lambda result: result.text)


@pytest.mark.parametrize(
    "form",
    [
        by_methods,
        by_closures,
        by_a_cancel,
        for_a_while,
        first_of_several,
        first_that_completes,
        shielded,
        shielded_in_time,
        gathered_beside_an_error,
        in_a_group_beside_an_error,
        in_a_group_of_anyio_that_is_cancelled,
        for_all_in_time,
        as_completed_in_time,
        beside_a_group,
        in_a_thread,
        in_a_thread_of_a_stream,
        in_a_thread_with_an_executor,
        in_a_thread_by_the_loop,
        in_a_thread_for_a_while,
        in_a_thread_of_anyio_for_a_while,
        in_a_thread_until_a_timer_cancels,
        beside_the_main_task_of_a_thread,
    ],
)
async def test_what_a_tool_does_not_wait_for_may_wait_for_the_pods_next_run(
    form: Callable[[Pod], Awaitable[Awaitable[str]]],
) -> None:
    asked: list[Awaitable[str]] = []

    async def ask() -> str:
        """Ask."""
        asked.append(await form(pod))
        return "begun"

    client = ScriptedClient([call("ask", {}), say("end"), say("later")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[ask])
        assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
        assert [item.text for item in await pod.history() if isinstance(item, ToolResult)] == ["begun"]
        assert await asyncio.wait_for(asked[0], 30) == "later"


@pytest.mark.parametrize("form", ["plain", "async", "executor"])
async def test_a_run_that_others_have_asked_for_comes_though_a_tool_waits_for_it_too(form: str) -> None:
    asked: list[Any] = []

    async def ask() -> str:
        """Wait for what the program has asked for."""
        if form == "executor":
            return str(await asyncio.get_running_loop().run_in_executor(None, asked[0].get))
        return str(await asked[0])

    def ask_in_thread() -> str:
        """Wait for what the program has asked for."""
        return str(asked[0].get())

    client = ScriptedClient([call("ask", {}), say("end"), say("later")])
    async with PodSystem() as system:
        asks = tool(name="ask")(ask_in_thread if form == "plain" else ask)
        pod = await system.spawn(PodManifest.of(), client=client, tools=[asks])
        first = pod.run("go")
        asked.append(pod.run("again"))
        assert (await asyncio.wait_for(first, 30)).text == "end"
        [result] = [item for item in await pod.history() if isinstance(item, ToolResult)]
        assert "would wait for itself" in result.text
        assert (await asyncio.wait_for(asked[0], 30)).text == "later"


async def test_a_run_that_a_tool_has_asked_for_comes_where_others_wait_for_it_too() -> None:
    asked: list[Any] = []
    is_asked = asyncio.Event()

    async def ask() -> str:
        """Ask, and wait for it as others do."""
        asked.append(pod.run("again"))
        is_asked.set()
        await asyncio.sleep(0)
        return str(await asked[0])

    client = ScriptedClient([call("ask", {}), say("end"), say("later")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[ask])
        first = pod.run("go")
        await is_asked.wait()
        assert (await asyncio.wait_for(asked[0], 30)).text == "later"
        assert (await first).text == "end"
        [result] = [item for item in await pod.history() if isinstance(item, ToolResult)]
        assert "would wait for itself" in result.text


async def test_a_context_that_was_kept_says_nothing_of_the_thread_that_uses_it() -> None:
    kept: list[contextvars.Context] = []
    has_asked = asyncio.Event()

    async def keep() -> str:
        """Keep the context, as what is notified of something does."""
        kept.append(contextvars.copy_context())
        await has_asked.wait()
        await asyncio.sleep(LOOKED_AT)
        return "kept"

    def use() -> str:
        """Wait in it for the other pod."""
        asked = kept[0].run(pod.run, "again")
        loop.call_soon_threadsafe(has_asked.set)
        return kept[0].run(asked.get).text

    loop = asyncio.get_running_loop()
    async with PodSystem() as system:
        client = ScriptedClient([call("keep", {}), say("end"), say("later")])
        pod = await system.spawn(PodManifest.of(), client=client, tools=[keep])
        other = await system.spawn(
            PodManifest.of(), client=ScriptedClient([call("use", {}), say("used")]), tools=[use]
        )
        ends = await asyncio.wait_for(asyncio.gather(pod.run("go"), other.run("go")), 30)
        assert [each.text for each in ends] == ["end", "used"]
        [result] = [item for item in await other.history() if isinstance(item, ToolResult)]
        assert result.text == "later"


@pytest.mark.parametrize("form", ["get", "stream"])
async def test_what_the_pod_answers_at_once_is_no_deadlock_where_its_loop_is_busy(form: str) -> None:
    is_waiting, may_go_on = threading.Event(), threading.Event()

    def block() -> None:
        is_waiting.set()
        may_go_on.wait(30)

    @tool(concurrency="read_only")
    def ask() -> str:
        """Ask for a run that is refused while this one goes on; the loop has no time meanwhile."""
        loop.call_soon_threadsafe(block)
        is_waiting.wait(30)
        threading.Timer(LOOKED_AT, may_go_on.set).start()
        ask_pod = pod.run("again", busy="reject").get if form == "get" else partial(read, pod)
        with pytest.raises(PodBusy):
            ask_pod()
        return "busy"

    loop = asyncio.get_running_loop()
    async with PodSystem() as system:
        pod = await system.spawn(
            PodManifest.of(), client=ScriptedClient([call("ask", {}), say("end")]), tools=[ask]
        )
        assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
        [result] = [item for item in await pod.history() if isinstance(item, ToolResult)]
        assert result.text == "busy"


class Timers(list[Any]):
    """The timers of a loop; counts how often all are looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Any]:
        self.looks += 1
        return super().__iter__()


async def test_waits_of_which_none_leads_back_look_at_no_timers() -> None:
    async def ask_second() -> str:
        """Ask."""
        return (await second.run("do")).text

    async def ask_third() -> str:
        """Ask."""
        return (await third.run("do")).text

    async def wait() -> str:
        """Wait so long that who waits for this is looked at."""
        await asyncio.sleep(LOOKED_AT)
        return "waited"

    loop: Any = asyncio.get_running_loop()
    timers = loop._scheduled = Timers(loop._scheduled)
    async with PodSystem() as system:

        async def spawn(asks: Any, name: str) -> Pod:
            client = ScriptedClient([call(name, {}), say("end")])
            return await system.spawn(PodManifest.of(), client=client, tools=[asks])

        third = await spawn(wait, "wait")
        second = await spawn(ask_third, "ask_third")
        first = await spawn(ask_second, "ask_second")
        assert (await asyncio.wait_for(first.run("go"), 30)).text == "end"
    assert timers.looks == 0


async def test_a_wait_of_which_none_leads_back_is_looked_at_once() -> None:
    async def ask_second() -> str:
        """Ask."""
        return (await second.run("do")).text

    async def wait() -> str:
        """Wait so long that who waits for this would be looked at again."""
        await asyncio.sleep(10 * MOMENT)
        return "waited"

    looks = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal looks
        looks += event == "call" and frame.f_code is AnyWait.look.__code__

    async with PodSystem() as system:
        client = ScriptedClient([call("wait", {}), say("end")])
        second = await system.spawn(PodManifest.of(), client=client, tools=[wait])
        client = ScriptedClient([call("ask_second", {}), say("end")])
        first = await system.spawn(PodManifest.of(), client=client, tools=[ask_second])
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            assert (await asyncio.wait_for(first.run("go"), 30)).text == "end"
        finally:
            sys.setprofile(before)
    assert looks == 1


async def ask_within_timeout(pod: Pod) -> None:
    async with asyncio.timeout(LOOKED_AT):
        await pod.run("?")


async def cancel_by_timer(pod: Pod) -> None:
    asked = asyncio.create_task(ask_again(pod))
    asyncio.get_running_loop().call_later(LOOKED_AT, lambda: asked.cancel("time is up"))
    with pytest.raises(asyncio.CancelledError):
        await asked
    raise TimeoutError


class Cancels:
    """Cancels tasks, whose attributes stand in a dictionary of its own."""

    def __init__(self, *tasks: asyncio.Task[Any]) -> None:
        self.tasks = set(tasks)
        assert vars(self)

    def cancel_all(self) -> None:
        for each in self.tasks:
            each.cancel()


async def cancel_by_method(pod: Pod) -> None:
    asked = asyncio.create_task(ask_again(pod))
    asyncio.get_running_loop().call_later(LOOKED_AT, Cancels(asked).cancel_all)
    with pytest.raises(asyncio.CancelledError):
        await asked
    raise TimeoutError


by_name: dict[str, asyncio.Task[Any]] = {}


def cancel_named() -> None:
    by_name.pop("asked").cancel()


async def cancel_by_global(pod: Pod) -> None:
    asked = by_name["asked"] = asyncio.create_task(ask_again(pod))
    asyncio.get_running_loop().call_later(LOOKED_AT, cancel_named)
    with pytest.raises(asyncio.CancelledError):
        await asked
    raise TimeoutError


async def cancel_by_anyio(pod: Pod) -> None:
    with anyio.fail_after(LOOKED_AT):
        await pod.run("?")


async def gather_beside_error(pod: Pod) -> None:
    try:
        await asyncio.gather(asyncio.gather(pod.run("?"), asyncio.sleep(0)), raise_enough())
    except Enough:
        raise TimeoutError from None


async def group_beside_error(pod: Pod) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask_again(pod))
            group.create_task(raise_enough())
    except* Enough:
        raise TimeoutError from None


#: Forms of a wait for another pod that ends by itself.
TIMED: dict[str, Callable[[Pod], Awaitable[Any]]] = {
    "timeout": ask_within_timeout,
    "wait_for": lambda pod: asyncio.wait_for(pod.run("?"), LOOKED_AT),
    "task": lambda pod: asyncio.wait_for(asyncio.create_task(ask_again(pod)), LOOKED_AT),
    "thread": lambda pod: asyncio.to_thread(partial(pod.run("?").get, timeout=LOOKED_AT)),
    "timer": cancel_by_timer,
    "method": cancel_by_method,
    "global": cancel_by_global,
    "anyio": cancel_by_anyio,
    "gather": gather_beside_error,
    "group": group_beside_error,
}


@pytest.mark.parametrize("form", list(TIMED))
@pytest.mark.parametrize("of_child", [True, False])
async def test_pods_of_which_one_waits_for_some_time_only_are_let_be(form: str, of_child: bool) -> None:
    async def ask_parent() -> str:
        """Ask."""
        if of_child:
            with pytest.raises((TimeoutError, pykka.Timeout)):
                await TIMED[form](parent)
            return "it is busy"
        return (await parent.run("?")).text

    async def ask_child() -> str:
        """Ask."""
        if of_child:
            return (await child.run("do")).text
        with pytest.raises((TimeoutError, pykka.Timeout)):
            await TIMED[form](child)
        return "it takes long"

    async with PodSystem() as system:
        of_parent = ScriptedClient([call("ask_child", {}), say("end"), say("answer")])
        parent = await system.spawn(PodManifest.of(), client=of_parent, tools=[ask_child])
        of_child_pod = ScriptedClient([call("ask_parent", {}), say("done"), say("later")])
        child = await system.spawn(PodManifest.of(), client=of_child_pod, tools=[ask_parent])
        assert (await asyncio.wait_for(parent.run("go"), 30)).text == "end"
        [result] = [item for item in await parent.history() if isinstance(item, ToolResult)]
        assert result.text == ("done" if of_child else "it takes long")
        assert (await asyncio.wait_for(child.run("and?"), 30)).text == "later"  # behind the one before
        [result] = [item for item in await child.history() if isinstance(item, ToolResult)]
        assert result.text == ("it is busy" if of_child else "answer")


class AsksInTime:
    """A hook with little time that waits for another pod."""

    timeout = LOOKED_AT

    def __init__(self, ask: Callable[[], Awaitable[Any]]) -> None:
        self._ask = ask

    async def before_request(self, _view: Any) -> None:
        await self._ask()


@pytest.mark.parametrize("form", ["async", "plain", "thread", "hook", "budget"])
async def test_pods_of_which_one_has_only_some_time_are_let_be(form: str) -> None:
    async def ask() -> str:
        """Ask."""
        if form == "thread":
            return (await asyncio.to_thread(child.run("do").get)).text
        return (await child.run("do")).text

    def ask_in_thread() -> str:
        """Ask."""
        return child.run("do").get().text

    async def ask_parent() -> str:
        """Ask."""
        try:
            return (await parent.run("?")).outcome
        except RunFailed:
            return "failed"

    timeout = LOOKED_AT if form in {"async", "plain", "thread"} else None
    asks = tool(name="ask", timeout=timeout)(ask_in_thread if form == "plain" else ask)
    manifest = PodManifest.of(seconds=LOOKED_AT) if form == "budget" else PodManifest.of()
    async with PodSystem() as system:
        client = ScriptedClient(
            [call("ask", {}), say("end"), say("answer")][: {"budget": 1, "hook": 0}.get(form)]
        )
        hooks = [AsksInTime(ask)] if form == "hook" else []
        parent = await system.spawn(manifest, client=client, tools=[asks], hooks=hooks)
        of_child = ScriptedClient([call("ask_parent", {}), *[say("done")] * (3 if form == "hook" else 2)])
        child = await system.spawn(PodManifest.of(), client=of_child, tools=[ask_parent])
        if form == "hook":
            with pytest.raises(RunFailed, match="not done after"):
                await asyncio.wait_for(parent.run("go"), 30)
        else:
            ended = await asyncio.wait_for(parent.run("go"), 30)
            assert ended.outcome == ("budget" if form == "budget" else "finished")
        assert (await asyncio.wait_for(child.run("and?"), 30)).text == "done"  # behind the one before
        [result] = [item for item in await child.history() if isinstance(item, ToolResult)]
        assert result.text == {"budget": "budget", "hook": "failed"}.get(form, "finished")


async def test_a_pod_that_reads_anothers_events_until_one_of_its_calls_ends_is_let_be() -> None:
    async def read_child() -> str:
        """Read."""
        async for event in child.stream("do"):
            if isinstance(event, ToolResulted):
                break
        return "read"

    @tool(concurrency="read_only")
    async def ask_parent() -> str:
        """Ask."""
        return (await parent.run("?")).text

    @tool(concurrency="read_only")
    async def wait() -> str:
        """Wait so long that who waits is looked at."""
        await asyncio.sleep(LOOKED_AT)
        return "waited"

    async with PodSystem() as system:
        client = ScriptedClient([call("read_child", {}), say("end"), say("answer")])
        parent = await system.spawn(PodManifest.of(), client=client, tools=[read_child])
        of_child = ScriptedClient([call("ask_parent", {}) + call("wait", {}), say("done"), say("later")])
        child = await system.spawn(PodManifest.of(), client=of_child, tools=[ask_parent, wait])
        assert (await asyncio.wait_for(parent.run("go"), 30)).text == "end"
        assert (await asyncio.wait_for(child.run("and?"), 30)).text == "later"
        results = [item.text for item in await child.history() if isinstance(item, ToolResult)]
        assert sorted(results) == ["answer", "waited"]


async def test_what_is_about_to_be_cancelled_waits_for_nothing() -> None:
    waits = asyncio.create_task(asyncio.sleep(30))
    await asyncio.sleep(0)
    assert not awaited.Timers().may_end([asyncio.current_task()])
    asyncio.get_running_loop().call_soon(lambda: waits.cancel("time is up"))
    assert awaited.Timers().may_end([waits])
    await asyncio.wait({waits})


async def test_a_pod_goes_on_though_the_threads_of_its_loop_all_wait_for_it(tmp_path: Path) -> None:
    async def ask() -> str:
        """Ask."""
        return await asyncio.to_thread(lambda: other.run("?").get().text)

    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        async with PodSystem() as system:
            client = ScriptedClient([call("shell", {"command": "echo heard"}), say("done")])
            manifest = PodManifest.of(builtin=["shell"], pwd=str(tmp_path))
            other = await system.spawn(manifest, client=client)
            pod = await system.spawn(
                PodManifest.of(), client=ScriptedClient([call("ask", {}), say("end")]), tools=[ask]
            )
            assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
            [result] = [item for item in await other.history() if isinstance(item, ToolResult)]
            assert "heard" in result.text


async def test_a_system_is_left_though_the_threads_of_its_loop_are_all_held(tmp_path: Path) -> None:
    held = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(held.wait)
        asyncio.get_running_loop().set_default_executor(threads)
        try:
            async with asyncio.timeout(30), PodSystem(f"sqlite:{tmp_path}/pods.db") as system:
                pod = await system.spawn(
                    PodManifest.of(builtin=["shell"], pwd=str(tmp_path)),
                    client=ScriptedClient([call("shell", {"command": "true"}), say("end")]),
                )
                assert (await pod.run("go")).text == "end"
        finally:
            held.set()


def test_a_system_is_left_and_its_store_closed_where_no_thread_can_be_started(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, threading
from actors.runtime.in_thread import end_threads
from polypod import PodManifest, PodSystem, ScriptedClient, call, say

async def main():
    async with PodSystem("sqlite:{tmp_path}/pods.db") as system:
        client = ScriptedClient([call("shell", dict(command="true")), say("end")])
        pod = await system.spawn(PodManifest.of(builtin=["shell"], pwd="{tmp_path}"), client=client)
        print((await pod.run("go")).text)
        end_threads()
        threading.stack_size(1 << 46)  # more than there is
    print(any("pods.db" in os.path.realpath(each.path) for each in os.scandir("/dev/fd")))

asyncio.run(main())
"""
    with Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate()
    assert said.split() == ["end", "False"]
