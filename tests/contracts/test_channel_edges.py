"""The edges of a connection to a pod: slow readers, cut and strange bytes, ends in the middle."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self

import pykka
import pytest

from actors.llm.scripted import ScriptedClient, say
from actors.pod.channel import Channel, connect
from actors.pod.handle import Pod
from actors.pod.service import serve_pod
from actors.system import PodSystem
from protocol import channel
from protocol.channel import Ask, Follow, Followed, Published, Reply, Unfollow
from protocol.commands import Cancel, Describe, History
from protocol.errors import InvalidInput, PodUnreachable, WireError
from protocol.events import Lagged, RunEnd, TextDelta
from protocol.items import AssistantItem, UserItem
from protocol.manifest import PodManifest
from protocol.wire import encode

Streams = tuple[StreamReader, StreamWriter]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    gc.collect()  # a task or a socket that leaked warns


async def pair() -> tuple[Streams, Streams]:
    near, far = socket.socketpair()
    return await asyncio.open_connection(sock=near), await asyncio.open_connection(sock=far)


def with_pod(scene: Callable[[PodSystem, Pod], Coroutine[Any, Any, None]], *texts: str) -> None:
    async def main() -> None:
        async with PodSystem() as system, asyncio.timeout(60):
            client = ScriptedClient([say(text) for text in texts])
            await scene(system, await system.spawn(PodManifest.of(name="p"), client=client))
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def read(reader: StreamReader) -> Any:
    length = channel.frame_length(await reader.readexactly(channel.HEAD))
    return channel.decode_from_pod(await reader.readexactly(length))


class Played:
    """The other end of a handle, played frame by frame."""

    async def __aenter__(self) -> Self:
        near, (self.reader, self.writer) = await pair()
        connecting = asyncio.create_task(connect(*near))
        ask = await self.asked()
        async with PodSystem() as system:
            described = await (
                await system.spawn(PodManifest.of(name="p"), client=ScriptedClient([]))
            ).describe()
        self.writer.write(channel.frame(Reply(ask.id, channel.Raw(encode(described)))))
        self.pod = await connecting
        return self

    async def __aexit__(self, *_: object) -> None:
        assert isinstance(self.pod.address, Channel)
        await self.pod.address.close()
        self.writer.close()

    async def asked(self) -> Any:
        length = channel.frame_length(await self.reader.readexactly(channel.HEAD))
        return channel.decode_to_pod(await self.reader.readexactly(length))

    def tell(self, *messages: channel.FromPod) -> None:
        for message in messages:
            self.writer.write(channel.frame(message))


def play_scene(scene: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Played() as there:
            await scene(there)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def test_a_connection_that_is_not_answered_and_given_up_leaves_nothing() -> None:
    near, (reader, writer) = await pair()
    connecting = asyncio.create_task(connect(*near))
    await reader.readexactly(4)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert await reader.read() != b""  # and then the end
    assert asyncio.all_tasks() == {asyncio.current_task()}
    writer.close()


def test_a_connection_is_closed_though_the_other_end_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.pod.channel._PATIENCE", 0.05)

    async def scene(there: Played) -> None:
        pod = there.pod
        asked = pod.push_item(UserItem.of("x" * 40_000_000))
        assert isinstance(pod.address, Channel)
        await pod.address.close()
        with pytest.raises(PodUnreachable):
            await asked

    play_scene(scene)


@pytest.mark.slow
def test_a_large_item_goes_there_and_back() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        near, far = await pair()
        serving = asyncio.create_task(serve_pod(pod, *far))
        reached = await connect(*near)
        item = UserItem.of("ü" * 5_000_000)
        await reached.push_item(item)
        assert await reached.history() == [item]
        await reached.address.close()  # type: ignore[attr-defined]
        await serving

    with_pod(scene)


def test_what_the_other_end_could_not_read_is_an_error_of_who_asks_and_ends_no_connection() -> None:
    async def scene(_: PodSystem, pod: Pod) -> None:
        here, there = await pair()
        serving = asyncio.create_task(serve_pod(pod, *there))
        handle = await connect(*here)
        asked: dict[str, Any] = {
            "retained_tokens": lambda: handle.compact("x"),  # type: ignore[arg-type]
            "timeout": lambda: handle.wait_for_sub_agents("5"),  # type: ignore[arg-type]
            "at: expected": lambda: handle.fork(5),  # type: ignore[arg-type]
            "item": lambda: handle.push_item(5),  # type: ignore[arg-type]
            "content": lambda: handle.run([1]),  # type: ignore[list-item]
            "note": lambda: handle.deny("a", note=5),  # type: ignore[arg-type]
        }
        for words, ask in asked.items():
            with pytest.raises(InvalidInput, match=words):
                await ask()
        assert (await handle.run("hello")).text == "fine"
        await handle.address.close()  # type: ignore[attr-defined]
        await serving

    with_pod(scene, "fine")


def test_a_connection_that_is_cut_at_any_byte_ends_and_the_pod_lives_on() -> None:
    frames = channel.frame(Ask(1, Describe())) + channel.frame(Follow(2)) + channel.frame(Unfollow(2))

    async def scene(system: PodSystem, pod: Pod) -> None:
        for end in range(len(frames) + 1):
            (_, writer), far = await pair()
            serving = asyncio.create_task(serve_pod(pod, *far))
            writer.write(frames[:end])
            await writer.drain()
            writer.close()
            await serving
        assert system.statistics()["subscriptions"] == 0

    with_pod(scene)


async def test_answers_that_are_cut_at_any_byte_are_refused() -> None:
    answer = channel.frame(Reply(2, channel.Raw(encode([UserItem.of("x")]))))

    async def cut(end: int) -> None:
        async with Played() as there:
            asked = there.pod.history()
            await there.asked()
            there.writer.write(answer[:end])
            there.writer.close()
            with pytest.raises(PodUnreachable):
                await asked

    async with asyncio.timeout(60):
        for end in range(0, len(answer), 7):
            await cut(end)


def test_answers_in_another_order_of_unknown_numbers_and_of_wrong_types() -> None:
    async def scene(there: Played) -> None:
        pod, deep = there.pod, b'{"a":' * 5000 + b"1" + b"}" * 5000
        one, two, three = pod.history(), pod.fork(), pod.history()
        ids = [(await there.asked()).id for _ in range(3)]
        there.tell(Reply(99, channel.Raw(b"1")), Followed(98), Published(97, channel.Raw(b"{}")))
        there.tell(Reply(ids[1], channel.Raw(b'"s"')), Reply(ids[1], channel.Raw(b'"again"')))
        there.tell(Reply(ids[0], channel.Raw(b'{"no": "list"}')), Reply(ids[2], channel.Raw(deep)))
        assert await two == "s"
        with pytest.raises(WireError):
            await one
        with pytest.raises((WireError, PodUnreachable)):  # how deep is too deep is up to the interpreter
            await three

    play_scene(scene)


def test_events_of_unknown_kinds_are_passed_over_and_an_answer_is_no_event() -> None:
    async def scene(there: Played) -> None:
        with there.pod.subscribe(RunEnd) as events:
            follow = (await there.asked()).id
            end = RunEnd("p", "s", 3, 1.0, "r", outcome="finished")
            there.tell(
                Published(follow, channel.Raw(b'{"type":"Unheard of"}')), Reply(follow, channel.Raw(b"1"))
            )
            there.tell(
                Published(follow, channel.Raw(encode(Lagged("p", "s", 2, 1.0, None, missed=5, since=1))))
            )
            there.tell(Published(follow, channel.Raw(encode(end))))
            there.tell(Followed(follow))
            published = [event async for event in events]
        assert [type(event) for event in published] == [Lagged, RunEnd]
        assert published[-1] == end

    play_scene(scene)


def test_a_slow_reader_learns_what_it_missed_as_of_its_pod() -> None:
    async def scene(there: Played) -> None:
        with there.pod.subscribe(TextDelta) as events:
            follow = (await there.asked()).id
            for number in range(10_005):
                there.tell(
                    Published(follow, channel.Raw(encode(TextDelta("p", "s", 7, 1.0, "r", text=str(number)))))
                )
            there.tell(Followed(follow))
            await there.writer.drain()
            published = [event async for event in _after_the_end(events, there)]
        assert isinstance(published[0], Lagged)
        assert (published[0].pod, published[0].missed, published[0].since) == ("p", 5, 7)
        assert len(published) == 10_001

    async def _after_the_end(events: Any, there: Played) -> Any:
        asked = there.pod.fork()
        ask = await there.asked()
        there.tell(Reply(ask.id, channel.Raw(b'"s"')))
        await asked
        async for event in events:
            yield event

    play_scene(scene)


def test_who_reads_no_answers_is_not_listened_to_for_ever() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        await pod.push_item(AssistantItem.of("x" * 1_000_000))
        (reader, writer), (far_reader, far_writer) = await pair()
        serving = asyncio.create_task(serve_pod(pod, far_reader, far_writer))
        for number in range(200):
            writer.write(channel.frame(Ask(number, History())))
            for _ in range(3):
                await asyncio.sleep(0)
        assert far_writer.transport.get_write_buffer_size() < 20_000_000
        seen = {(await read(reader)).id for _ in range(200)}
        assert seen == set(range(200))
        writer.close()
        await serving

    with_pod(scene)


def test_thousands_of_subscriptions_that_nobody_holds_are_given_up_at_either_end() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        near, far = await pair()
        serving = asyncio.create_task(serve_pod(pod, *far))
        reached = await connect(*near)
        for _ in range(2000):
            reached.subscribe().close()
            reached.subscribe(RunEnd)
        gc.collect()
        events = reached.subscribe()
        await reached.fork()
        assert system.statistics()["subscriptions"] == 1
        assert (await reached.run("go")).text == "hi"
        assert RunEnd in {type(event) for event in events.drain()}
        await reached.address.close()  # type: ignore[attr-defined]
        await serving

    with_pod(scene, "hi")


def test_a_number_that_is_used_twice_ends_the_connection() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        (_, writer), far = await pair()
        serving = asyncio.create_task(serve_pod(pod, *far))
        writer.write(channel.frame(Follow(1)) * 2)
        with pytest.raises(WireError, match="two subscriptions"):
            await serving
        assert system.statistics()["subscriptions"] == 0
        writer.close()

    with_pod(scene)


def test_two_connections_to_one_pod_and_an_end_with_asks_under_way() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        connections = [await pair() for _ in range(2)]
        serving = [asyncio.create_task(serve_pod(pod, *far)) for _, far in connections]
        one, two = [await connect(*near) for near, _ in connections]
        results = await asyncio.gather(*[each.run("go") for each in (one, two, one, two)])
        assert sorted(result.text for result in results) == ["1", "2", "3", "4"]
        asked = [one.history() for _ in range(100)]
        await one.address.close()  # type: ignore[attr-defined]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {list, PodUnreachable}
        assert len(await two.history()) == 8
        await two.address.close()  # type: ignore[attr-defined]
        await asyncio.gather(*serving)

    with_pod(scene, "1", "2", "3", "4")


def test_a_handle_whose_loop_is_closed_says_so_on_any_thread() -> None:
    kept: list[Pod] = []

    async def scene(there: Played) -> None:
        kept.append(there.pod)

    play_scene(scene)
    got: list[Any] = []

    def use() -> None:
        pod = kept[0]
        got.extend((repr(pod), list(pod.subscribe())))
        try:
            pod._ask(Cancel()).get(timeout=60)
        except (PodUnreachable, pykka.ActorDeadError) as error:
            got.append(type(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(60)
    assert got == ["<Pod p stopped>", [], PodUnreachable]


def test_an_answer_and_events_come_though_nobody_holds_the_handle() -> None:
    async def scene(system: PodSystem, pod: Pod) -> None:
        near, far = await pair()
        serving = asyncio.create_task(serve_pod(pod, *far))
        asked, events = _asked(await connect(*near))
        del near
        gc.collect()
        assert (await asked).text == "hi"
        assert (await anext(events)).outcome == "finished"
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert [event async for event in events] == []

    def _asked(reached: Pod) -> tuple[Any, Any]:
        return reached.run("go"), reached.subscribe(RunEnd)

    with_pod(scene, "hi")
