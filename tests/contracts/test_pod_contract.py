"""What the handle of a pod owes, whether the pod lives here or at the other end of a connection."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from channel_kit import REACHES, Reached, at_the_other_end
from msgspec import Struct
from pod_processes import SystemOn
from pod_stage import GatedClient
from process_doubles import gated, scripted, where

from actors.llm.function_client import FunctionClient
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.channel import Channel, connect
from actors.pod.handle import Pod
from actors.pod.service import serve_pod
from actors.runtime.read_frame import read_frame
from actors.system import PodSystem
from protocol.channel import Ask, Check, decode_from_pod, frame
from protocol.commands import Run
from protocol.errors import (
    InvalidInput,
    ModelError,
    NotPaused,
    NotRunning,
    OutputInvalid,
    PodBusy,
    PodError,
    PodStopped,
    PodUnreachable,
    RunFailed,
    UnknownEntry,
    WireError,
)
from protocol.events import RunEnd, RunStart, TextDelta, UserMessage
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem, parts_of
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest
from protocol.model_settings import ModelSettings

Scene = Callable[[Pod], Coroutine[Any, Any, None]]
#: Settings that are refused once they have come to where the pod lives, which has no such tool.
DEMANDED = {"tool_choice": "sub"}


async def in_a_process(
    system_on: SystemOn, client: Any, settings: dict[str, Any], scene: Scene, store: Path
) -> None:
    """Play with a pod that is a process; where the client has gates, they are those of its double."""
    replies = client._script._replies if isinstance(client, GatedClient) else client._replies
    async with AsyncExitStack() as stack:
        if isinstance(client, GatedClient):
            path, gate = await stack.enter_async_context(gated(replies))
            client.asked, client.gate = gate.asked, gate.gate
        else:
            path = stack.enter_context(scripted(replies))
        system = await stack.enter_async_context(system_on(f"sqlite:{store / 'pods.db'}"))
        await stack.enter_async_context(asyncio.timeout(60))
        manifest = PodManifest.of(name="p", **settings)
        pod = await system.spawn(manifest, client=path, tools=["process_doubles:where"], process=True)
        await scene(pod)


@pytest.fixture(params=[*REACHES, pytest.param(in_a_process, id="in a process")])
def reach(request: pytest.FixtureRequest, system_on: SystemOn) -> Reached:
    return partial(in_a_process, system_on) if request.param is in_a_process else request.param


def play(reach: Reached, client: Any, scene: Scene, **settings: Any) -> None:
    async def main() -> None:
        tools = settings.pop("tools", ())
        if isinstance(reach, partial):
            with TemporaryDirectory() as folder:
                await reach(client, settings, scene, Path(folder))
            return
        async with PodSystem() as system, asyncio.timeout(60):
            pod = await system.spawn(PodManifest.of(name="p", **settings), client=client, tools=tools)
            async with reach(pod) as reached:
                await scene(reached)

    asyncio.run(main())


def test_a_run_gives_its_result_and_the_history_its_items(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        assert pod.name == "p"
        result = await pod.run("Grüße")
        assert (result.text, result.outcome) == ("hello", "finished")
        assert (result.usage.input_tokens, result.usage.output_tokens) == (7, 2)
        assert await pod.history() == [UserItem.of("Grüße"), AssistantItem.of("hello")]
        described = await pod.describe()
        assert (described.name, described.state) == ("p", PodState.IDLE)
        assert described.session_id == result.session_id
        assert described.usage == result.usage

    play(reach, ScriptedClient([say("hello", input_tokens=7, output_tokens=2)]), scene)


def test_a_stream_has_the_events_of_its_run_and_ends_with_its_end(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        async with pod.stream("go") as events:
            published = [event async for event in events]
        assert RunStart in {type(event) for event in published}
        assert type(published[-1]) is RunEnd
        assert "".join(event.text for event in published if isinstance(event, TextDelta)) == "one two three"
        assert (await events.result).text == "one two three"

    play(reach, ScriptedClient([say("one two three", chunks=3)]), scene)


def test_a_subscription_begins_where_it_is_asked_to(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        await pod.run("first")
        with pod.subscribe({UserMessage, RunEnd}, since=0) as events:
            await pod.run("second")
            published = [await anext(events) for _ in range(4)]
        kinds = [type(event) for event in published]
        assert kinds == [UserMessage, RunEnd, UserMessage, RunEnd]
        assert [event.item.text for event in published[::2]] == ["first", "second"]  # type: ignore[attr-defined]

    play(reach, ScriptedClient([say("1"), say("2")]), scene)


def test_a_subscription_learns_of_what_is_asked_after_it_and_before_the_answer(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        for _ in range(3):
            with pod.subscribe() as events:
                await pod.run("go")
                published = events.drain()
            assert [type(event) for event in published if type(event) in {RunStart, RunEnd}] == [
                RunStart,
                RunEnd,
            ]

    play(reach, ScriptedClient([say("x")] * 3), scene)


def test_words_join_and_runs_are_interrupted_and_resumed(reach: Reached) -> None:
    client = GatedClient([say("never said"), say("went on")])

    async def scene(pod: Pod) -> None:
        run = pod.run("go")
        await client.asked.acquire()
        with pytest.raises(PodBusy):
            await pod.run("another", busy="reject")
        steered = pod.steer("faster")
        await pod.pause()
        assert (await run).outcome == "paused"
        client.gate.release()
        client.gate.release()
        assert (await pod.resume()).text in {"never said", "went on"}
        await asyncio.gather(steered, return_exceptions=True)
        await pod.notify("note")

    play(reach, client, scene)


def test_a_run_is_cancelled(reach: Reached) -> None:
    client = GatedClient([say("never said")])

    async def scene(pod: Pod) -> None:
        run = pod.run("go")
        await client.asked.acquire()
        await pod.cancel()
        assert (await run).outcome == "cancelled"

    play(reach, client, scene)


def test_errors_have_their_types_and_what_they_say(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        with pytest.raises(NotRunning):
            await pod.steer("nobody hears")
        with pytest.raises(NotPaused, match="no paused run"):
            await pod.resume()
        with pytest.raises(UnknownEntry):
            await pod.fork("ab" * 32)
        with pytest.raises(RunFailed, match="script") as failed:
            await pod.run("go")
        assert isinstance(failed.value.cause, ModelError)
        assert failed.value.cause.kind == "protocol"
        assert failed.value.failure.kind == "ScriptExhausted"
        assert failed.value.run_id

    play(reach, ScriptedClient([]), scene)


UNUSABLE: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda pod: pod.run([5]), InvalidInput, "content: expected text, image or thinking parts, got int"),
    (lambda pod: pod.notify([5]), InvalidInput, "content: expected text, image or thinking parts, got int"),
    (lambda pod: pod.push_item("x"), InvalidInput, "str is not an item of a conversation"),
    (
        lambda pod: pod.compact(-1),
        ValueError,
        "retained_tokens must be a number of tokens, 0 or more, not -1",
    ),
    (lambda pod: pod.compact(1.5), InvalidInput, "retained_tokens: expected a number of tokens, got 1.5"),
    (lambda pod: pod.wait_for_memory_jobs("x"), InvalidInput, "timeout: expected a number of seconds"),
    (lambda pod: pod.wait_for_sub_agents(float("nan")), InvalidInput, "timeout: .*, got nan"),
    (lambda pod: pod.fork(5), InvalidInput, "at: expected a string, got 5"),
    (lambda pod: pod.approve(5), InvalidInput, "approval_id: expected a string, got 5"),
    (
        lambda pod: pod.approve("a", arguments=[1]),
        InvalidInput,
        "arguments: expected a dict with their names as keys",
    ),
    (lambda pod: pod.approve("a", always="no"), InvalidInput, "always: expected True or False, got 'no'"),
    (lambda pod: pod.deny("a", by="me"), InvalidInput, "by: expected 'person' or 'nobody', got 'me'"),
    (lambda pod: pod.deny("a", by=["me"]), InvalidInput, "by: expected 'person' or 'nobody', got"),
    (lambda pod: pod.deny("a", note=5), InvalidInput, "note: expected a string, got 5"),
]


def test_an_argument_that_cannot_be_used_is_refused_in_the_same_words(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        for ask, kind, words in UNUSABLE:
            with pytest.raises(kind, match=f"^{words}"):
                await ask(pod)

    play(reach, ScriptedClient([]), scene)


def test_a_fork_a_pushed_item_and_giving_up_memory(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        await pod.push_item(UserItem.of("pushed"))
        assert len(await pod.fork()) > 10
        assert await pod.passivate() is True
        assert await pod.history() == [UserItem.of("pushed")]
        await pod.spawn_memory_jobs()
        assert await pod.wait_for_memory_jobs(timeout=60) is True
        assert await pod.try_pre_run_compact() is None

    play(reach, ScriptedClient([]), scene)


class Point(Struct):
    x: int
    y: int


def test_a_typed_run_gives_the_instance(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        result = await pod.run("where", output=Point)
        assert result.output == Point(1, 2)

    play(reach, ScriptedClient([say('{"x": 1, "y": 2}')]), scene)


def test_a_typed_run_whose_answer_never_fits_fails(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        with pytest.raises(RunFailed, match="it holds no JSON") as failed:
            await pod.run("where", output=Point)
        assert isinstance(failed.value.cause, OutputInvalid)

    play(reach, ScriptedClient([say("nowhere")] * 3), scene)


class Even(Struct):
    """More than its schema says."""

    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("n is odd")


@pytest.mark.parametrize(
    ("kind", "answers", "corrections", "output"),
    [
        (Point, ['{"x": 1}', '{"x": 1, "y": 2}'], ["missing required field `y`"], Point(1, 2)),
        (Even, ['{"n": 1}', '{"n": 2}'], ["n is odd"], Even(2)),
        (Point, ['{"x": 1, "y": 2} {"x": 3, "y": 4}', '{"x": 3, "y": 4}'], ["several values"], Point(3, 4)),
        (int, ["none", "nil", "3"], ["it holds no JSON"] * 2, 3),
    ],
)
def test_a_model_whose_answer_is_not_of_the_type_is_asked_again(
    reach: Reached, kind: Any, answers: list[str], corrections: list[str], output: Any
) -> None:
    async def scene(pod: Pod) -> None:
        result = await pod.run("which", output=kind)
        assert (result.output, result.steps) == (output, len(answers))
        asked = [item.text for item in await pod.history() if isinstance(item, SystemItem)]
        assert all(
            why in text and "JSON Schema" in text for why, text in zip(corrections, asked, strict=True)
        )

    play(reach, ScriptedClient([say(answer) for answer in answers]), scene)


def test_a_typed_run_that_is_resumed_is_still_asked_for_its_type(reach: Reached) -> None:
    client = GatedClient([say("never said"), say('{"x": 1}'), say('{"x": 1, "y": 2}')])

    async def scene(pod: Pod) -> None:
        run = pod.run("where", output=Point)
        await client.asked.acquire()
        await pod.pause()
        assert (await run).outcome == "paused"
        for _ in range(4):
            client.gate.release()
        result = await pod.resume()
        assert result.output == Point(1, 2)

    play(reach, client, scene)


def test_a_paused_run_keeps_its_type_though_one_behind_it_is_cancelled(reach: Reached) -> None:
    client = GatedClient([say("never said"), say('{"x": 1}'), say('{"x": 1, "y": 2}')])

    async def scene(pod: Pod) -> None:
        run = pod.run("where", output=Point)
        await client.asked.acquire()
        behind = asyncio.ensure_future(pod.run("and then", cancel_on_abandon=True))
        await pod.pause()
        assert (await run).outcome == "paused"
        behind.cancel()
        with pytest.raises(asyncio.CancelledError):
            await behind
        await pod.describe()  # which comes after that
        for _ in range(4):
            client.gate.release()
        result = await pod.resume()
        assert result.output == Point(1, 2)

    play(reach, client, scene)


def test_a_handle_is_used_from_other_threads(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        got = await asyncio.to_thread(lambda: [pod.run("go").get(timeout=60).text for _ in range(3)])
        assert got == ["a", "b", "c"]

    play(reach, ScriptedClient([say("a"), say("b"), say("c")]), scene)


def test_text_that_no_utf8_can_hold_is_mended_on_its_way(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        await pod.run("half a \ud83d pair")
        assert (await pod.history())[0] == UserItem.of("half a \ufffd pair")

    play(reach, ScriptedClient([say("so be it")]), scene)


def test_a_stopped_pod_says_so(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        assert await pod.stop() is True
        with pytest.raises(PodStopped):
            await pod.run("go")

    play(reach, ScriptedClient([]), scene)


def test_ten_runs_at_once_have_each_its_own_answer(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        results = await asyncio.gather(*[pod.run(f"number {n}") for n in range(10)])
        assert [result.text for result in results] == [f"answer {n}" for n in range(10)]

    play(reach, ScriptedClient([say(f"answer {n}") for n in range(10)]), scene)


def test_a_tool_of_the_pod_is_run_where_the_pod_lives(reach: Reached) -> None:
    async def scene(pod: Pod) -> None:
        assert (await pod.run("go")).text == "there"
        shown = (await pod.history())[2]
        assert isinstance(shown, ToolResult)
        assert (shown.text == str(os.getpid())) is (not isinstance(reach, partial))

    play(reach, ScriptedClient([call("where"), say("there")]), scene, tools=[where])


def test_a_run_has_a_model_settings_and_a_prompt_of_its_own(reach: Reached) -> None:
    client = ScriptedClient([say("a"), say("b")])

    async def scene(pod: Pod) -> None:
        await pod.run("1", model_settings={"seed": 7, "stop": "END"}, system_prompt="Be brief.")
        assert "offline model" in (await pod.run("hello", model="offline")).text
        assert (await pod.run("3")).text == "b"
        for own, says in ({"model": "ollma/qwen3"}, "did you mean"), ({"model_settings": DEMANDED}, "'sub'"):
            with pytest.raises(RunFailed, match=says):
                await pod.run("4", **own)

    play(reach, client, scene)
    if not isinstance(reach, partial):  # there the client has been made where the pod lives
        first, last = client.requests
        assert (first.settings, first.system) == (ModelSettings(seed=7, stop="END"), "Be brief.")
        assert (last.settings, last.system) == (None, None)


def test_a_paused_run_goes_on_with_options_of_its_own(reach: Reached) -> None:
    client = GatedClient([say("never said"), say("went on")])

    async def scene(pod: Pod) -> None:
        run = pod.run("hello")
        await client.asked.acquire()
        await pod.pause()
        assert (await run).outcome == "paused"
        assert "offline model" in (await pod.resume(model="offline")).text

    play(reach, client, scene)


# -- what only a connection has ------------------------------------------------------------------


def elsewhere(replies: list[Reply], scene: Callable[[Pod], Coroutine[Any, Any, None]]) -> None:
    play(at_the_other_end, ScriptedClient(replies), scene)


def test_a_pod_elsewhere_has_no_actor_here_and_takes_no_deps() -> None:
    async def scene(pod: Pod) -> None:
        with pytest.raises(PodError, match="another process"):
            _ = pod.ref
        for name, given, says in (
            ("deps", object(), "deps"),
            ("model", ScriptedClient([]), "client.*scheme/model_id"),
            ("tools", [len], "tools.*module:name"),
            ("output_validator", len, "output_validator"),
            ("system_prompt", dict, "system_prompt.*pass the text"),
        ):
            with pytest.raises(InvalidInput, match=says):
                await pod.run("go", **{name: given})
        assert repr(pod) == "<Pod p alive>"

    elsewhere([], scene)


async def test_answers_are_looked_at_across_two_connections() -> None:
    replies = [say("no"), say('{"x": 1, "y": 2}')]
    async with PodSystem() as system, asyncio.timeout(60):
        pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient(replies))
        async with at_the_other_end(pod) as near, at_the_other_end(near) as reached:
            result = await reached.run("where", output=Point)
    assert (result.output, result.steps) == (Point(1, 2), 2)


async def test_an_answer_that_nobody_is_left_to_look_at_ends_its_run() -> None:
    client = GatedClient([say("no")])
    async with PodSystem() as system, asyncio.timeout(60):
        pod = await system.spawn(PodManifest.of(name="p"), client=client)
        near, far = socket.socketpair()
        serving = asyncio.create_task(serve_pod(pod, *await asyncio.open_connection(sock=far)))
        reached = await connect(*await asyncio.open_connection(sock=near))
        with pod.subscribe(RunEnd) as ends:
            run = reached.run("where", output=Point)
            await client.asked.acquire()
            near.shutdown(socket.SHUT_RDWR)
            with pytest.raises(PodUnreachable):
                await run
            await serving
            client.gate.release()
            assert (await anext(ends)).outcome == "finished"  # type: ignore[attr-defined]


async def test_an_answer_that_nobody_says_anything_about_ends_its_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.pod.service.SECONDS", 0.05)
    async with PodSystem() as system, asyncio.timeout(60):
        pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([say("no")]))
        near, far = socket.socketpair()
        serving = asyncio.create_task(serve_pod(pod, *await asyncio.open_connection(sock=far)))
        reader, writer = await asyncio.open_connection(sock=near)
        with pod.subscribe(RunEnd) as ends:
            writer.write(frame(Ask(1, Run(parts_of("where")), checks=True)))
            assert isinstance(decode_from_pod(await read_frame(reader)), Check)
            assert (await anext(ends)).outcome == "finished"  # type: ignore[attr-defined]
        writer.close()
        await serving


def test_a_run_elsewhere_is_cancelled_with_who_awaits_it() -> None:
    async def scene(pod: Pod) -> None:
        with pod.subscribe([RunStart, RunEnd]) as events:
            waiting = asyncio.ensure_future(pod.run("go", cancel_on_abandon=True, output=str))
            assert isinstance(await anext(events), RunStart)
            waiting.cancel()
            end = await anext(events)
        assert isinstance(end, RunEnd)
        assert end.outcome == "cancelled"

    async def never(_: object) -> str:
        await asyncio.Event().wait()
        return ""

    play(at_the_other_end, FunctionClient(never), scene)


def test_who_asks_over_a_connection_that_has_ended_learns_that() -> None:
    async def scene(pod: Pod) -> None:
        address = pod.address
        assert isinstance(address, Channel)
        events = pod.subscribe()
        await address.close()
        with pytest.raises(PodUnreachable, match="'p' has ended"):
            await pod.run("go")
        assert [event async for event in events] == []
        assert [event async for event in pod.subscribe()] == []
        assert repr(pod) == "<Pod p stopped>"

    elsewhere([], scene)


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x03\xff\xfe\x00", b"GET / HTTP/1.1\r\n\r\n"],
)
async def test_garbage_ends_a_connection_at_either_end_and_the_pod_lives_on(garbage: bytes) -> None:
    async with PodSystem() as system, asyncio.timeout(60):
        pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([say("still here")]))
        near, far = socket.socketpair()
        serving = asyncio.create_task(serve_pod(pod, *await asyncio.open_connection(sock=far)))
        _, writer = await asyncio.open_connection(sock=near)
        writer.write(garbage)
        with pytest.raises(WireError):
            await serving
        writer.close()

        near, far = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=far)
        connecting = asyncio.create_task(connect(*await asyncio.open_connection(sock=near)))
        await reader.readexactly(4)
        writer.write(garbage)
        with pytest.raises(PodUnreachable):
            await connecting
        writer.close()
        assert (await pod.run("there?")).text == "still here"


async def test_a_run_goes_on_when_who_asked_for_it_is_gone() -> None:
    client = GatedClient([say("done")])

    async with PodSystem() as system, asyncio.timeout(60):
        pod = await system.spawn(PodManifest.of(name="p"), client=client)
        async with at_the_other_end(pod) as reached:
            asked = reached.run("go")
            await client.asked.acquire()
        with pytest.raises(PodUnreachable):
            await asked
        with pod.subscribe(RunEnd) as ends:
            client.gate.release()
            assert (await anext(ends)).outcome == "finished"  # type: ignore[attr-defined]


_CHILD = """
import asyncio, socket, sys
from actors.llm.scripted import ScriptedClient, say
from actors.pod.service import serve_pod
from actors.system import PodSystem
from protocol.manifest import PodManifest

async def main():
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="child"), client=ScriptedClient([say("from afar")]))
        await serve_pod(pod, *await asyncio.open_connection(sock=socket.socket(fileno=int(sys.argv[1]))))

asyncio.run(main())
"""


async def test_a_pod_in_a_child_process_answers_and_its_death_is_noticed() -> None:
    near, far = socket.socketpair()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD, str(far.fileno()), pass_fds=[far.fileno()]
    )
    far.close()
    async with asyncio.timeout(60):
        pod = await connect(*await asyncio.open_connection(sock=near))
        assert pod.name == "child"
        assert (await pod.run("hello?")).text == "from afar"
        with pod.subscribe() as events:
            child.send_signal(signal.SIGKILL)
            await child.wait()
            assert [event async for event in events] == []
        with pytest.raises(PodUnreachable):
            await pod.run("and now?")
