"""What a run is given and gives: results, streams in threads, output of streams and of runs that go on."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.cli.sessions.store_reader import Reading
from actors.llm.prices import Price, Prices
from actors.llm.scripted import ScriptedClient, call, say
from actors.sessions.answers import wait
from actors.system import PodSystem
from actors.tools.base import ToolContext, tool
from protocol.errors import (
    InvalidInput,
    NameTaken,
    RunFailed,
    SessionInUse,
    SessionNotFound,
    SystemNotRunning,
)
from protocol.events import RunEnd, RunStart, TextDelta
from protocol.items import AssistantItem, UserItem
from protocol.manifest import PodManifest


class City(msgspec.Struct):
    name: str


def where() -> str:
    """Where it is."""
    return "here"


SUMMARY = [call("write_summary", {"text": "they counted"}), say("done")]
BERGEN = '{"name": "Bergen"}'


class Gated:
    """A client that answers once it may, and says when it was asked."""

    def __init__(self, *texts: str) -> None:
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.script = ScriptedClient([say(text) for text in texts])

    async def stream(self, request: Any) -> Any:
        self.asked.set()
        await self.may_answer.wait()
        async for block in self.script.stream(request):
            yield block


@tool
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


async def test_a_result_says_what_the_run_took() -> None:
    script = [
        call("add", {"a": 1, "b": 2}, input_tokens=1000, output_tokens=0),
        say("3", input_tokens=2000, output_tokens=100),
    ]
    prices = Prices({"openai/m": Price(input=1.0, output=10.0)})
    async with PodSystem(prices=prices) as system:
        client = ScriptedClient([*script, *script])
        pod = await system.spawn(PodManifest.of(model="openai/m"), client=client, tools=[add])
        first, second = await pod.run("1 + 2?"), await pod.run("again")
        assert (await pod.describe()).cost == pytest.approx(0.008)
    for result in (first, second):
        assert result.steps == 2
        assert result.cost == pytest.approx(0.004)
        assert result.limit is None
        assert result.seconds > 0


async def test_a_result_says_which_limit_it_reached() -> None:
    async with PodSystem() as system:
        client = ScriptedClient([call("add", {"a": 1, "b": 2})])
        pod = await system.spawn(PodManifest.of(max_steps=1), client=client, tools=[add])
        result = await pod.run("1 + 2?")
    assert result.outcome == "limit_reached"
    assert result.limit is not None
    assert "max_steps" in result.limit.message


async def test_a_system_runs_a_manifest_and_keeps_no_pod() -> None:
    async with PodSystem() as system:
        result = await system.run(
            PodManifest.of(), "where?", client=ScriptedClient([say(BERGEN)]), output=City
        )
        assert result.output == City("Bergen")
        assert system.pods() == []
        with pytest.raises(RunFailed):
            await system.run(PodManifest.of(), "where?", client=ScriptedClient([]))
        assert system.pods() == []
    with pytest.raises(SystemNotRunning):
        system.run(PodManifest.of(), "where?")


async def test_a_run_of_a_system_sees_its_callers_context() -> None:
    who: ContextVar[str] = ContextVar("who")

    @tool
    def me(ctx: ToolContext[str]) -> str:
        return f"{who.get()} with {ctx.deps}"

    who.set("Ada")
    async with PodSystem() as system:
        client = ScriptedClient([call("me"), say("done")])
        await system.run(PodManifest.of(), "who?", client=client, tools=[me], deps="a database")
    assert client.requests[1].items[-1].text == "Ada with a database"


@pytest.mark.parametrize("kind", ["memory", "sqlite", "jsonl"])
async def test_a_session_of_a_name_is_made_once_and_then_gone_on_with(kind: str, tmp_path: Path) -> None:
    store = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/pods.db", "jsonl": f"jsonl:{tmp_path}/pods"}[
        kind
    ]
    manifest, name = PodManifest.of(), "customer 42 / Åse"
    async with PodSystem(store) as system:
        first = await system.run(manifest, "one", client=ScriptedClient([say("1")]), session=name)
        assert first.session_id == name
        client = ScriptedClient([say("2"), *SUMMARY, say("3")])
        pod = await system.spawn(manifest, client=client, session=name)
        assert [item.text for item in await pod.history()] == ["one", "1"]
        with pytest.raises(SessionInUse):
            await system.spawn(manifest, client=ScriptedClient([]), session=name)
        await pod.run("two")
        compacted = await pod.compact(0)
        await pod.stop()
        assert compacted != name
        pod = await system.spawn(manifest, client=client, session=name)  # the tip of its compactions
        assert (await pod.describe()).session_id == compacted
        assert (await pod.run("three")).text == "3"


async def test_a_session_that_a_pod_of_the_same_program_has_is_found_by_what_the_error_says():
    async with PodSystem() as system:
        first = await system.spawn(PodManifest.of(name="chat", model="offline"), session="ada")
        with pytest.raises(SessionInUse, match=r"get\('chat'\)") as caught:
            await system.spawn(PodManifest.of(name="chat", model="offline"), session="ada")
        assert system.get(caught.value.pod) is first


async def test_of_two_who_make_a_session_of_one_name_at_once_one_is_turned_away() -> None:
    async with PodSystem() as system:
        spawned = [
            system.spawn(PodManifest.of(), client=ScriptedClient([]), session="both") for _ in range(2)
        ]
        outcomes = await asyncio.gather(*spawned, return_exceptions=True)
        assert sorted(isinstance(each, SessionInUse) for each in outcomes) == [False, True]


async def test_a_session_cannot_be_called_anything() -> None:
    async with PodSystem() as system:
        for name in ("", " ", "a\nb", "x" * 201, 7):
            with pytest.raises(InvalidInput, match="session"):
                system.spawn(PodManifest.of(), session=name)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="not both"):
            system.spawn(PodManifest.of(), session="a", resume="b")


async def test_a_stream_has_the_output_that_was_asked_for() -> None:
    async with PodSystem() as system:
        client = ScriptedClient([say("no city"), say(BERGEN, chunks=3)])
        pod = await system.spawn(PodManifest.of(), client=client)
        stream = pod.stream("where?", output=City)
        assert "".join([piece async for piece in stream.text()]).endswith(BERGEN)
        assert (await stream.result).output == City("Bergen")


async def test_the_text_of_a_stream_begins_a_paragraph_behind_a_call() -> None:
    async with PodSystem() as system:
        first = say("I look.", chunks=2) + call("where")
        client = ScriptedClient([first, call("where"), say("Here.", chunks=2)])
        pod = await system.spawn(PodManifest.of(), client=client, tools=[where])
        assert "".join([piece async for piece in pod.stream("?").text()]) == "I look.\n\nHere."


def test_a_stream_is_read_by_plain_code() -> None:
    with PodSystem() as system:
        client = ScriptedClient([say("ab", chunks=2), say("cd", chunks=2), say("ef")])
        pod = system.spawn(PodManifest.of(), client=client).get()
        events = list(pod.stream("1"))
        assert RunStart in map(type, events[:2])
        assert type(events[-1]) is RunEnd
        assert [each.text for each in events if isinstance(each, TextDelta)] == ["a", "b"]
        with pod.stream("2", output=str) as stream:
            assert list(stream.text()) == ["c", "d"]
            assert stream.result.get().output == "cd"
        for _ in pod.stream("3"):
            break  # detaches
        assert pod.history().get()[-1].text in {"3", "ef"}


def test_leaving_the_with_of_a_stream_cancels_its_run() -> None:
    with PodSystem() as system:
        pod = system.spawn(PodManifest.of(), client=ScriptedClient([say("ab", chunks=2)])).get()
        with pod.stream("1") as stream:
            next(stream)
        assert stream.result.get().outcome in {"cancelled", "finished"}


def test_a_stream_in_plain_code_raises_why_its_run_failed() -> None:
    with PodSystem() as system:
        pod = system.spawn(PodManifest.of(), client=ScriptedClient([])).get()
        with pytest.raises(RunFailed, match="script"):
            list(pod.stream("1").text())


async def test_a_paused_run_goes_on_with_its_output_and_a_restored_one_with_what_it_is_given() -> None:
    async with PodSystem() as system:
        client = Gated("no city", BERGEN)
        pod = await system.spawn(PodManifest.of(), client=client)
        run = pod.run("where?", output=City)
        await client.asked.wait()
        await pod.pause()
        assert (await run).outcome == "paused"
        client.may_answer.set()
        assert (await pod.resume()).output == City("Bergen")

        client = Gated("no city", BERGEN)
        pod = await system.spawn(PodManifest.of(), client=client, session="restored")
        pod.run("where?", output=City)
        await client.asked.wait()
        await pod.pause()
        await pod.stop()
        client.may_answer.set()
        pod = await system.spawn(PodManifest.of(), client=client, session="restored")
        assert (await pod.resume(output=City)).output == City("Bergen")


async def test_cancelling_who_awaits_cancels_the_run_where_that_was_asked_for() -> None:
    async with PodSystem() as system:
        client = Gated("done")
        pod = await system.spawn(PodManifest.of(), client=client)
        run = pod.run("1", cancel_on_abandon=True)
        waiting = asyncio.ensure_future(run)
        await client.asked.wait()
        queued = pod.run("2", cancel_on_abandon=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(queued, 0.01)
        assert (await queued).outcome == "cancelled"
        assert not run.done()  # another's run is let be
        waiting.cancel()
        assert (await run).outcome == "cancelled"
        client.may_answer.set()
        assert (await pod.run("3")).text == "done"


async def test_cancelling_who_awaits_cancels_a_run_that_goes_on_and_one_of_a_system() -> None:
    async with PodSystem() as system:
        client = Gated()
        pod = await system.spawn(PodManifest.of(), client=client)
        run = pod.run("1")
        await client.asked.wait()
        await pod.pause()
        assert (await run).outcome == "paused"
        client.asked.clear()
        resumed = pod.resume(cancel_on_abandon=True)
        waiting = asyncio.ensure_future(resumed)
        await client.asked.wait()
        waiting.cancel()
        assert (await resumed).outcome == "cancelled"

        client = Gated()
        single = system.run(PodManifest.of(), "1", client=client, cancel_on_abandon=True)
        waiting = asyncio.ensure_future(single)
        await client.asked.wait()
        waiting.cancel()
        assert (await single).outcome == "cancelled"


async def test_an_option_that_there_is_not_is_an_error() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        with pytest.raises(TypeError, match="buzy"):
            pod.run("1", buzy="reject")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="busy"):
            pod.resume(busy="reject")  # type: ignore[call-overload]


def test_a_system_is_started_and_stopped_without_with() -> None:
    system = PodSystem().start()
    pod = system.spawn(PodManifest.of(), client=ScriptedClient([say("hello")])).get()
    assert pod.run("hi").get(timeout=30).text == "hello"
    thread = system._thread
    assert thread is not None
    system.stop().get(timeout=30)
    thread._thread.join(30)
    assert not thread.alive


async def test_a_system_is_started_in_one_task_and_used_from_others() -> None:
    async def start() -> PodSystem:  # as each cell of a notebook is a task of its own
        return PodSystem().start()

    system = await asyncio.create_task(start())
    client = Gated("hello")
    pod = await system.spawn(PodManifest.of(), client=client)
    run = pod.run("hi")
    await client.asked.wait()
    client.may_answer.set()
    assert (await run).text == "hello"
    assert [type(item) for item in await pod.history()] == [UserItem, AssistantItem]
    await system.stop()
    assert not system.running


@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/s.db", "jsonl:{}/s"])
async def test_a_name_is_one_session_however_its_marks_are_written(tmp_path: Path, url: str) -> None:
    """Names of files on macOS have accents as characters of their own, and what people type has not."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    async with PodSystem(url.format(tmp_path)) as system:
        manifest = PodManifest.of(name="p", model="offline")
        for name, resume in (apart, None), (composed, None), (None, apart):
            pod = await system.spawn(manifest, session=name, resume=resume)
            await pod.run("hello")
            with pytest.raises(SessionInUse):
                await system.spawn(manifest, session=apart, name="other")
            await pod.stop()
        assert [each.session_id for each in wait(system.store.sessions())] == [composed]
        assert len([each for each in wait(system.store.read(composed)) if b'"RunEnd"' in each.body]) == 3
        if url != "memory:":
            with Reading(url.format(tmp_path)) as reading:
                assert reading.find(apart).session_id == composed
        with pytest.raises(SessionNotFound, match="no session nai\u0308f"):
            await system.spawn(manifest, resume="nai\u0308f")


async def test_a_name_is_one_pod_however_its_marks_are_written(tmp_path: Path) -> None:
    composed, apart, url = "caf\u00e9", "cafe\u0301", f"sqlite:{tmp_path}/s.db"
    manifest = PodManifest.of(name=apart, model="offline")
    async with PodSystem(url) as system:
        async with system.subscribe(apart, [RunEnd]) as events:
            pod = await system.spawn(manifest)
            assert (pod.name, system.get(apart), system.get(composed)) == (composed, pod, pod)
            with pytest.raises(NameTaken):
                await system.spawn(manifest, name=apart)
            assert (await system.spawn(manifest)).name == f"{composed}-2"
            await pod.run("hello")
            assert (await anext(events)).pod == composed
        await pod.stop()
        async with system.subscribe(apart, [RunEnd], since={apart: 0}) as events:
            assert (await anext(events)).pod == composed
    with Reading(url) as reading:
        assert [each.pod for each in reading.sessions(apart)] == [composed]
