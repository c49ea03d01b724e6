"""What is done in a run of a pod must not wait for the pod's next turn: it is refused at once, in every form."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.swarm.agents.swarm import Swarm
from actors.system import PodSystem
from actors.tools.base import tool
from actors.tools.thread_pool import shared_threads
from actors.tools.user_functions import call_function
from protocol.errors import NotPaused, PodBusy, RunFailed, WouldDeadlock
from protocol.items import SystemItem, ToolResult, UserItem
from protocol.manifest import PodManifest

REFUSED = "would wait for itself"


def play_of(*words: str) -> ScriptedClient:
    return ScriptedClient([call("ask", {}), *map(say, words or ["end"])])


class Calls:
    """A client that calls one tool, and ends all else."""

    model = "calls"

    def __init__(self, name: str) -> None:
        self._next = [call(name, {})]

    async def stream(self, _request: Request) -> AsyncIterator[Block]:
        answer = self._next.pop() if self._next else say("end")
        async for block in answer.stream():
            yield block


async def results(pod: Pod) -> list[str]:
    return [item.text for item in await pod.history() if isinstance(item, ToolResult)]


async def words(pod: Pod) -> list[str]:
    return [item.text for item in await pod.history() if isinstance(item, UserItem)]


async def read(pod: Pod) -> None:
    async for _ in pod.stream("again"):
        pass


async def read_text(pod: Pod) -> None:
    async with pod.stream("again") as events:
        async for _ in events.text():
            pass


async def in_group(pod: Pod) -> None:
    async def ask() -> None:
        await pod.run("again")

    async with asyncio.TaskGroup() as group:
        group.create_task(ask())


async def as_completed(pod: Pod) -> None:
    for each in asyncio.as_completed([pod.run("again")]):
        await each


async def in_time(pod: Pod) -> None:
    async with asyncio.timeout(60):
        await pod.run("again")


@contextmanager
def loop_of_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def in_other_loop(pod: Pod) -> None:
    with loop_of_a_thread() as loop:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(read(pod), loop))


async def in_thread_that_asks_a_loop(pod: Pod) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(read(pod), loop).result())


async def await_it_later(pod: Pod) -> None:
    task = asyncio.create_task(asyncio.to_thread(pod.run("again").get))
    await asyncio.sleep(0.03)  # so long that the wait is looked at before anyone waits for it
    await task


#: Forms of a wait for the next turn of the own pod, on its loop.
AWAITED: dict[str, Callable[[Pod], Awaitable[Any]]] = {
    "run": lambda pod: pod.run("again"),
    "typed": lambda pod: pod.run("again", output=int),
    "map": lambda pod: pod.run("again").map(lambda result: result.text),
    "stream": read,
    "text": read_text,
    "gather": lambda pod: asyncio.gather(pod.run("again"), asyncio.sleep(0)),
    "wait_for": lambda pod: asyncio.wait_for(pod.run("again"), 60),
    "timeout": in_time,
    "group": in_group,
    "as_completed": as_completed,
    "other loop": in_other_loop,
    "thread": lambda pod: asyncio.to_thread(pod.run("again").get),
    "thread of its own loop": lambda pod: asyncio.to_thread(asyncio.run, read(pod)),
    "thread that asks a loop": in_thread_that_asks_a_loop,
    "thread awaited later": await_it_later,
    "executor": lambda pod: asyncio.get_running_loop().run_in_executor(None, pod.run("again").get),
    "steer": lambda pod: pod.steer("words"),
    "notify": lambda pod: pod.notify("words"),
    "push": lambda pod: pod.push_item(SystemItem.of("words")),
    "compact": lambda pod: pod.compact(),
    "fork": lambda pod: pod.fork(),
}


@pytest.mark.parametrize("form", list(AWAITED))
async def test_an_async_tool_that_waits_for_its_own_pod_is_refused(form: str) -> None:
    async def ask() -> str:
        """Ask."""
        return repr(await AWAITED[form](pod))

    client = play_of("end")
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=client, tools=[ask])
        assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
        [said] = await results(pod)
        assert REFUSED in said
        assert "notify() or steer()" in said
        # What was refused does not come later; words do, since they were on their way.
        assert (await words(pod))[1:] == (["words"] if form in {"steer", "notify"} else [])


async def gather_two(pod: Pod) -> None:
    await asyncio.gather(pod.run("again"), pod.run("again"))


async def gather_threads(pod: Pod) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(None, pod.run("again").get) for _ in range(2)))


async def group_of_two(pod: Pod) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.wait_for(pod.run("again"), None))
        group.create_task(asyncio.to_thread(pod.run("again").get))


async def first_of_two(pod: Pod) -> None:
    tasks = {asyncio.ensure_future(pod.run("again")) for _ in range(2)}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*tasks)


async def beside_what_ends(pod: Pod) -> None:
    await asyncio.gather(pod.run("again"), asyncio.sleep(0.02))


async def beside_what_cannot_end_it(pod: Pod) -> None:
    endless = asyncio.get_running_loop().create_future()
    asked = asyncio.ensure_future(pod.run("again"))
    asked.add_done_callback(endless.set_result)
    for value in await asyncio.gather(asked, endless, return_exceptions=True):
        if isinstance(value, WouldDeadlock):
            raise value


async def in_a_thread_of_anyio(pod: Pod) -> None:
    await anyio.to_thread.run_sync(pod.run("again").get)


async def in_a_group_of_anyio(pod: Pod) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(first_of_two, pod)


@pytest.mark.parametrize(
    "form",
    [
        gather_two,
        gather_threads,
        group_of_two,
        first_of_two,
        beside_what_ends,
        beside_what_cannot_end_it,
        in_a_thread_of_anyio,
        in_a_group_of_anyio,
    ],
)
async def test_a_tool_that_waits_for_its_own_pod_beside_others_is_refused(
    form: Callable[[Pod], Awaitable[None]],
) -> None:
    async def ask() -> str:
        """Ask."""
        said = "not refused"
        try:
            await form(pod)
        except* WouldDeadlock as refused:
            said = repr(refused.exceptions)
        return said

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=Calls("ask"), tools=[ask])
        assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
        assert REFUSED in (await results(pod))[0]


loop_of_pods: list[asyncio.AbstractEventLoop] = []


@pytest.mark.parametrize("concurrency", ["exclusive", "read_only"])
@pytest.mark.parametrize(
    "ask_pod",
    [
        lambda pod: pod.run("again").get(),
        lambda pod: pod.run("again").get(timeout=60),
        lambda pod: list(pod.stream("again")),
        lambda pod: pod.steer("words").get(),
        lambda pod: asyncio.run(read(pod)),
        lambda pod: pod.fork().get(),
        lambda pod: asyncio.run_coroutine_threadsafe(read(pod), loop_of_pods[0]).result(),
    ],
)
async def test_a_plain_tool_that_waits_for_its_own_pod_is_refused(ask_pod: Any, concurrency: Any) -> None:
    @tool(concurrency=concurrency)
    def ask() -> str:
        """Ask."""
        return repr(ask_pod(pod))

    client = ScriptedClient([call("ask", {}) + call("ask", {}), say("end")])
    loop_of_pods[:] = [asyncio.get_running_loop()]
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=client, tools=[ask])
        assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
        assert all(REFUSED in said for said in await results(pod))


class WaitsBefore:
    async def before_request(self, _view: Any) -> None:
        await of_hooks[0].run("again")


class WaitsInThread:
    def before_request(self, _view: Any) -> None:
        of_hooks[0].run("again").get()


of_hooks: list[Pod] = []


class AsksItsPod:
    """A client that waits for its own pod."""

    model = "asks"

    async def stream(self, _request: Request) -> AsyncIterator[Block]:
        await of_hooks[0].run("again")
        async for block in say("end").stream():
            yield block


async def wait_for_pod(*_: object) -> None:
    await of_hooks[0].run("again")


def wait_in_thread(*_: object) -> None:
    of_hooks[0].run("again").get()


@pytest.mark.parametrize(
    ("given", "of_run"),
    [
        ({"hooks": [WaitsBefore()]}, {}),
        ({"hooks": [WaitsInThread()]}, {}),
        ({"client": AsksItsPod()}, {}),
        ({}, {"output_validator": wait_for_pod}),
        ({}, {"output_validator": wait_in_thread}),
        ({}, {"system_prompt": wait_for_pod}),
    ],
)
async def test_hooks_validators_prompts_and_clients_that_wait_for_their_pod_are_refused(
    given: dict[str, Any], of_run: dict[str, Any]
) -> None:
    async with PodSystem() as system:
        client = ScriptedClient([say("end")] if "output_validator" in of_run else [])
        pod = await system.spawn(PodManifest.of(name="p"), **({"client": client} | given))
        of_hooks[:] = [pod]
        with pytest.raises(RunFailed, match=REFUSED):
            await asyncio.wait_for(pod.run("go", **of_run), 30)
        assert (await pod.describe()).state == "idle"
        assert await words(pod) in ([], ["go"])  # a prompt is made before anything is recorded


async def test_a_hook_that_waits_for_its_pod_at_a_runs_end_is_refused_and_the_run_stands() -> None:
    class Asks:
        async def on_run_end(self, _result: Any) -> None:
            try:
                await pod.run("again")
            except WouldDeadlock as error:
                refused.append(error)

    refused: list[WouldDeadlock] = []
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("end")]), hooks=[Asks()])
        assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
        assert len(refused) == 1


@pytest.mark.parametrize("how", ["run", "stream", "gather", "single", "threads"])
async def test_two_pods_that_wait_for_each_other_are_refused(how: str) -> None:
    async def ask_parent() -> str:
        """Ask."""
        return (await parent.run("?")).text

    async def ask_child() -> str:
        """Ask."""
        if how == "stream":
            await read(child)
        elif how == "gather":
            await asyncio.gather(child.run("do"))
        elif how == "single":
            client = ScriptedClient([call("ask_parent", {}), say("told")])
            await system.run(PodManifest.of(name="child"), "do", client=client, tools=[ask_parent])
        else:
            await child.run("do")
        return "asked"

    def ask_parent_in_thread() -> str:
        """Ask."""
        return parent.run("?").get().text

    def ask_child_in_thread() -> str:
        """Ask."""
        return child.run("do").get().text

    plain = how == "threads"
    asks_child = tool(name="ask_child")(ask_child_in_thread if plain else ask_child)
    asks_parent = tool(name="ask_parent")(ask_parent_in_thread if plain else ask_parent)
    of_child = ScriptedClient([] if how == "single" else [call("ask_parent", {}), say("told")])
    async with PodSystem() as system:
        client = ScriptedClient([call("ask_child", {}), say("end")])
        parent = await system.spawn(PodManifest.of(name="parent"), client=client, tools=[asks_child])
        child = await system.spawn(PodManifest.of(name="child"), client=of_child, tools=[asks_parent])
        # Whoever comes second is refused, so both come to their ends, with nothing left to do.
        assert (await asyncio.wait_for(parent.run("go"), 30)).text == "end"
        assert await words(parent) == ["go"]


@pytest.mark.parametrize("form", ["gather", "wait", "threads", "stream"])
async def test_pods_that_all_wait_for_who_waits_for_them_all_are_refused(form: str) -> None:
    async def ask_children() -> str:
        """Ask."""
        if form == "threads":
            await asyncio.gather(*(asyncio.to_thread(child.run("do").get) for child in children))
        elif form == "wait":
            await asyncio.wait([asyncio.ensure_future(child.run("do")) for child in children])
        else:
            ask = read if form == "stream" else ask_child
            await asyncio.gather(*map(ask, children))
        return "asked"

    async def ask_child(child: Pod) -> None:
        await child.run("do")

    async def ask_parent() -> str:
        """Ask."""
        return (await parent.run("?")).text

    async with PodSystem() as system:
        parent = await system.spawn(PodManifest.of(), client=Calls("ask_children"), tools=[ask_children])
        children = [
            await system.spawn(PodManifest.of(), client=Calls("ask_parent"), tools=[ask_parent])
            for _ in range(2)
        ]
        assert (await asyncio.wait_for(parent.run("go"), 30)).text == "end"
        assert await results(parent) == ["asked"]
        for child in children:
            assert "which waits for this" in (await results(child))[0]


async def test_a_wait_that_lasts_is_refused_though_a_shorter_one_leads_the_same_way() -> None:
    async def ask_others() -> str:
        """Ask."""
        briefly = asyncio.ensure_future(asyncio.wait({asyncio.ensure_future(second.run("x"))}, timeout=0.05))
        await asyncio.wait({briefly, asyncio.ensure_future(third.run("x"))})
        return "asked"

    async def ask_first() -> str:
        """Ask."""
        return (await first.run("?")).text

    async def ask_second() -> str:
        """Ask."""
        return (await second.run("y")).text

    async with PodSystem() as system:
        first = await system.spawn(PodManifest.of(), client=Calls("ask_others"), tools=[ask_others])
        second = await system.spawn(PodManifest.of(), client=Calls("ask_first"), tools=[ask_first])
        third = await system.spawn(PodManifest.of(), client=Calls("ask_second"), tools=[ask_second])
        assert (await asyncio.wait_for(first.run("go"), 30)).text == "end"
        refused = [said for pod in (second, third) for said in await results(pod) if "WouldDeadlock" in said]
        assert len(refused) == 1


async def test_a_compaction_that_has_begun_is_not_taken_back_where_it_waits_for_itself() -> None:
    class Compacts:
        """A client that waits for the compaction it is asked for, and answers all the same."""

        model = "compacts"

        async def stream(self, _request: Request) -> AsyncIterator[Block]:
            if asked:
                with pytest.raises(WouldDeadlock):
                    await asked[0]
            async for block in say("words").stream():
                yield block

    asked: list[Any] = []
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=Compacts())
        await pod.run("go")
        asked.append(pod.compact(retained_tokens=0))
        await asyncio.wait_for(asked[0], 30)


async def test_an_agent_that_waits_for_its_own_task_is_refused(tmp_path: Path) -> None:
    async def ask() -> str:
        """Ask."""
        return (await agent.wait()).text

    async with PodSystem() as system:
        swarm = Swarm(system, tmp_path)
        gate = asyncio.Event()

        async def ready() -> str:
            """Wait until the test has the handle."""
            await gate.wait()
            return "ready"

        client = ScriptedClient([call("ready", {}), call("ask", {}), say("end")])
        agent = await swarm.start("go", client=client, tools=[ask, ready])
        gate.set()
        assert (await asyncio.wait_for(agent.wait(), 30)).text == "end"
        assert REFUSED in (await results(system.get(f"{agent.id}.pod")))[1]


# -- no false alarms ---------------------------------------------------------------------------------


async def test_a_task_beside_the_tool_may_wait_for_the_pods_next_run() -> None:
    beside: list[asyncio.Task[str]] = []
    began = asyncio.Event()

    async def later() -> str:
        began.set()
        return (await pod.run("again")).text

    async def ask() -> str:
        """Ask."""
        beside.append(asyncio.create_task(later()))
        await began.wait()
        await asyncio.sleep(0.03)  # so long that the wait is looked at while the call goes on
        return "begun"

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=play_of("end", "later"), tools=[ask])
        assert (await pod.run("go")).text == "end"
        assert await beside[0] == "later"


async def test_another_loop_may_wait_for_the_pods_next_run_beside_the_tool() -> None:
    beside: list[Any] = []

    async def later() -> str:
        return (await pod.run("again")).text

    async def ask() -> str:
        """Ask."""
        beside.append(asyncio.run_coroutine_threadsafe(later(), loop))
        await asyncio.sleep(0.03)  # so long that the wait is looked at while the call goes on
        return "begun"

    with loop_of_a_thread() as loop:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(), client=play_of("end", "later"), tools=[ask])
            assert (await pod.run("go")).text == "end"
            assert await asyncio.wait_for(asyncio.wrap_future(beside[0]), 30) == "later"


@pytest.mark.parametrize("form", ["get", "loop", "asks"])
async def test_a_thread_that_the_tool_leaves_behind_may_wait_for_the_pods_next_run(form: str) -> None:
    beside: list[asyncio.Task[str]] = []

    async def later() -> str:
        return (await pod.run("again")).text

    def in_thread(loop: asyncio.AbstractEventLoop) -> str:
        if form == "get":
            return pod.run("again").get().text
        if form == "loop":
            return asyncio.run(later())
        asked = asyncio.run_coroutine_threadsafe(later(), loop)
        free.wait()  # a thread that blocks on it is taken for one that the tool waits for
        return asked.result()

    async def ask() -> str:
        """Ask."""
        beside.append(asyncio.create_task(asyncio.to_thread(in_thread, asyncio.get_running_loop())))
        await asyncio.sleep(0.05)  # so long that the wait is looked at while the call goes on
        return "begun"

    free = threading.Event()
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=play_of("end", "later"), tools=[ask])
        assert (await pod.run("go")).text == "end"
        free.set()
        assert await asyncio.wait_for(beside[0], 30) == "later"


async def test_a_thread_of_another_task_may_wait_for_the_pods_next_run() -> None:
    async def ask() -> str:
        """Ask."""
        begun.set()
        await asyncio.sleep(0.05)  # so long that the wait is looked at while the call goes on
        return "slept"

    begun = asyncio.Event()
    async with PodSystem() as system:
        client = play_of("end", "later", "later")
        pod = await system.spawn(PodManifest.of(), client=client, tools=[ask])
        first = pod.run("go")
        await begun.wait()
        loop = asyncio.get_running_loop()
        in_executor = loop.run_in_executor(None, pod.run("again").get)
        in_own_thread = call_function(lambda: pod.run("again").get(), shared_threads(), 30)
        ends = await asyncio.wait_for(asyncio.gather(first, in_executor, in_own_thread), 30)
        assert [each.text for each in ends] == ["end", "later", "later"]


def test_threads_that_wait_for_runs_of_one_pod_may_be_waited_for_by_a_thread() -> None:
    async def wait() -> str:
        """Wait so long that who waits for this run, and who for the next, is looked at."""
        await asyncio.sleep(0.03)
        return "waited"

    client = ScriptedClient([call("wait", {}), say("1"), call("wait", {}), say("2")])
    with PodSystem() as system, ThreadPoolExecutor() as threads:
        pod = system.spawn(PodManifest.of(), client=client, tools=[wait]).get()
        ends = list(threads.map(lambda _: pod.run("go").get(timeout=30), range(2)))
    assert sorted(end.text for end in ends) == ["1", "2"]


async def test_words_and_runs_that_nobody_waits_for_are_no_deadlock() -> None:
    async def ask() -> str:
        """Ask."""
        pod.notify("noted")
        asked.append(pod.run("again"))
        return "sent"

    asked: list[Any] = []
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=play_of("end", "later"), tools=[ask])
        assert (await pod.run("go")).text == "end"
        assert (await asked[0]).text == "later"
        assert await words(pod) == ["go", "noted", "again"]


async def test_a_tool_may_wait_for_another_pod_whoever_waits_for_that() -> None:
    async def ask() -> str:
        """Ask."""
        return " and ".join(each.text for each in await asyncio.gather(other.run("a"), other.run("b")))

    async with PodSystem() as system:
        other = await system.spawn(PodManifest.of(), client=ScriptedClient([say("1"), say("2")]))
        pods = [await system.spawn(PodManifest.of(), client=play_of(), tools=[ask])]
        await asyncio.wait_for(asyncio.gather(*(pod.run("go") for pod in pods)), 30)
        assert await results(pods[0]) == ["1 and 2"]


def _ignore(*_: object) -> None:
    pass


class Hostile:
    """What raises whatever is asked of it, as the proxy of a request that has ended."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


async def test_what_stands_beside_a_wait_is_looked_at_with_care(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> str:
        """Ask."""
        task = asyncio.ensure_future(other.run("a"))
        task.add_done_callback(lambda _: later if task.cancelled() else None)
        task.add_done_callback(partial(_ignore, Hostile()))
        later = (await task).text
        return later

    async def wait() -> str:
        """Wait so long that the wait for it is looked at."""
        await asyncio.sleep(0.03)
        return "waited"

    async with PodSystem() as system:
        client = ScriptedClient([call("wait", {}), say("done")])
        other = await system.spawn(PodManifest.of(), client=client, tools=[wait])
        pod = await system.spawn(PodManifest.of(), client=play_of(), tools=[ask])
        assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
        assert await results(pod) == ["done"]
    assert caplog.messages == []  # of the loop, for what a look at a wait has raised


async def test_what_the_pod_answers_at_once_is_no_deadlock() -> None:
    def ask() -> str:
        """Ask."""
        with pytest.raises(PodBusy):
            pod.run("again", busy="reject").get()
        with pytest.raises(NotPaused):
            pod.resume().get()
        pod.history().get()
        return str(pod.describe().get().state)

    async def ask_async() -> str:
        """Ask."""
        with pytest.raises(PodBusy):
            await pod.run("again", busy="reject")
        with pytest.raises(NotPaused):
            await pod.resume()
        await pod.try_pre_run_compact()
        return str(await pod.wait_for_memory_jobs())

    client = ScriptedClient([call("ask", {}) + call("ask_async", {}), say("end")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[ask, ask_async])
        assert (await asyncio.wait_for(pod.run("go"), 30)).text == "end"
        assert await results(pod) == ["running", "True"]


async def test_a_tool_whose_time_is_up_may_wait_for_the_next_run() -> None:
    free = threading.Event()
    said: list[str] = []
    done = asyncio.Event()

    @tool(timeout=0.01)
    def ask() -> str:
        """Ask."""
        free.wait(30)
        said.append(pod.run("again").get().text)
        loop.call_soon_threadsafe(done.set)
        return ""

    @tool
    async def let_go() -> str:
        """Free the thread, and go on while it asks."""
        free.set()
        await asyncio.sleep(0.05)
        return "free"

    loop = asyncio.get_running_loop()
    client = ScriptedClient([call("ask", {}), call("let_go", {}), say("end"), say("later")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[ask, let_go])
        assert (await pod.run("go")).text == "end"
        await asyncio.wait_for(done.wait(), 30)
        assert said == ["later"]


@pytest.mark.parametrize("plain", [True, False])
async def test_a_tool_whose_time_is_up_waits_for_nobody_as_others_see_it(plain: bool) -> None:
    time_is_up = asyncio.Event()

    def ask_child() -> str:
        """Ask, until the time is up."""
        return child.run("do").get().text

    async def ask_child_and_go_on() -> str:
        """Ask, though the time is up."""
        asked = child.run("do")
        while True:
            try:
                return (await asked).text
            except asyncio.CancelledError:
                continue

    @tool
    async def look() -> str:
        """Go on while the other pod asks."""
        time_is_up.set()
        await asyncio.sleep(0.05)
        return "looked"

    async def ask_parent() -> str:
        """Ask."""
        await time_is_up.wait()
        return (await parent.run("?")).text

    asks = tool(name="ask_child", timeout=0.02)(ask_child if plain else ask_child_and_go_on)
    of_parent = ScriptedClient([call("ask_child", {}), call("look", {}), say("end"), say("answer")])
    of_child = ScriptedClient([call("ask_parent", {}), say("told"), say("done")])
    async with PodSystem(grace=0.02) as system:
        parent = await system.spawn(PodManifest.of(), client=of_parent, tools=[asks, look])
        child = await system.spawn(PodManifest.of(), client=of_child, tools=[ask_parent])
        assert (await asyncio.wait_for(parent.run("go"), 30)).text == "end"
        assert (await asyncio.wait_for(child.run("and?"), 30)).text == "done"  # behind the one before
        assert await results(child) == ["answer"]
