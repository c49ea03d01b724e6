"""``serve_pod``: has a pod carry out commands from a stream, and sends back answers and events."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine, Iterable
from itertools import chain
from typing import Any

from msgspec import Raw

from actors.pod.handle import Pod
from actors.runtime.events.subscription import Feed
from actors.runtime.future import AsyncFuture
from actors.runtime.read_frame import read_frame
from protocol import channel, commands
from protocol.channel import Ask, Follow, Followed, FromPod, Refusal, Reply, ToPod
from protocol.errors import Failure, WireError
from protocol.events import EVENTS
from protocol.wire import encode

#: Events are sent together up to so many bytes.
_TOGETHER = 1 << 16
_KINDS = {kind.__name__: kind for kind in EVENTS}


async def serve_pod(pod: Pod, reader: StreamReader, writer: StreamWriter) -> None:
    """Have ``pod`` carry out the commands that arrive on ``reader`` until that ends; the pod, and what it was
    asked to do, live on. Raises WireError for anything that is not a command.
    """
    service = Service(pod, writer)
    try:
        await service.serve(reader)
    finally:
        await service.close()


class Service:
    """Has a pod carry out commands, and sends back their answers and the events that are subscribed to."""

    def __init__(self, pod: Pod, writer: StreamWriter) -> None:
        self._pod = pod
        self._writer = writer
        self._tasks: set[asyncio.Task[None]] = set()
        self._follows: dict[int, Feed] = {}

    async def serve(self, reader: StreamReader) -> None:
        """Take commands until the stream ends. Raises WireError."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                self._take(channel.decode_to_pod(await read_frame(reader)))
                await self._writer.drain()  # who reads no answers is not listened to

    def send_events(self, follow: int, feed: Feed) -> None:
        """Send the events of ``feed``, from what it holds now, under that number."""
        self._follows[follow] = feed
        self._publish(follow, feed.there(sys.maxsize))
        self._begin(self._follow_on(follow, feed))

    async def finish(self) -> None:
        """Send the answers still to come, and the events up to the end of their feeds."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Send nothing more; the pod's work continues."""
        for feed in self._follows.values():
            feed.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writer.close()

    def _take(self, message: ToPod) -> None:
        if isinstance(message, Ask):
            address, command = self._pod.address, message.command
            stops = isinstance(command, commands.Stop)
            asked = address.stop(self._pod) if stops else address.ask(self._pod, command)
            self._begin(self._answer(message.id, asked))
        elif isinstance(message, Follow):
            self._follow(message)
        elif (feed := self._follows.get(message.id)) is not None:
            feed.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, future: AsyncFuture[Any]) -> None:
        try:
            reply: FromPod = Reply(number, Raw(encode(await future)))
        except Exception as error:  # noqa: BLE001 - goes to who asked
            reply = Refusal(number, Failure.of(error))
        # What was published before the answer comes before it.
        for follow, feed in list(self._follows.items()):
            self._publish(follow, feed.there(sys.maxsize))
        await self.send(reply)

    def _follow(self, follow: Follow) -> None:
        if follow.id in self._follows:
            raise WireError(f"two subscriptions of the number {follow.id}")
        try:
            kinds = None if follow.kinds is None else [_KINDS[name] for name in follow.kinds]
            feed = self._pod.address.feed(self._pod, kinds, follow.since, children=follow.children)
        except Exception as error:  # noqa: BLE001 - goes to who asked
            self._begin(self.send(Refusal(follow.id, Failure.of(error))))
            return
        self.send_events(follow.id, feed)

    async def _follow_on(self, follow: int, feed: Feed) -> None:
        try:
            async for event in feed:
                if follow not in self._follows:
                    return
                self._publish(follow, chain((event,), feed.there(_TOGETHER - len(event))))
                with contextlib.suppress(OSError):
                    await self._writer.drain()
        except Exception as error:  # noqa: BLE001 - of a replay
            self._refuse(follow, error)
        if self._follows.pop(follow, None) is not None:
            await self.send(Followed(follow))

    def _publish(self, follow: int, events: Iterable[bytes]) -> None:
        """Send events, small ones together in one write."""
        parts, size = list[bytes](), 0
        try:
            for event in events:
                parts += channel.event_frame(follow, event)
                size += len(event)
                if size >= _TOGETHER:
                    self._writer.write(b"".join(parts))
                    parts, size = [], 0
        except Exception as error:  # noqa: BLE001 - of a replay, behind what came before
            self._writer.write(b"".join(parts))
            self._refuse(follow, error)
        else:
            self._writer.write(b"".join(parts))

    def _refuse(self, follow: int, error: Exception) -> None:
        feed = self._follows.pop(follow, None)
        if feed is not None:
            feed.close()
            self._writer.write(channel.frame(Refusal(follow, Failure.of(error))))

    async def send(self, message: FromPod) -> None:
        """Send a message, and wait until the other end can take more."""
        with contextlib.suppress(OSError):  # the reader notices the end too
            self._writer.write(channel.frame(message))
            await self._writer.drain()
