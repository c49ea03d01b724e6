"""``serve_pod``: has a pod carry out commands from a stream, and sends back answers and events."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine, Iterable
from functools import partial
from itertools import chain
from typing import Any

import pykka
from msgspec import Raw

from actors.pod.handle import Pod
from actors.pod.runs.options import resume_from_wire, run_from_wire
from actors.pod.runs.output_check import OutputCheck
from actors.pod.runs.own_options import SECONDS
from actors.runtime.events.subscription import Feed
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import mailroom_here
from actors.runtime.on_loop import ask_on
from actors.runtime.read_frame import read_frame
from protocol import channel, commands
from protocol.channel import Ask, Check, Checked, Follow, Followed, FromPod, Refusal, Reply, ToPod
from protocol.errors import Failure, InvalidInput, ManifestError, WireError
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
        self._mailroom = mailroom_here()
        self._numbers = itertools.count(1)
        #: The answers that were sent to be checked, by number: a future of what is wrong with each.
        self._looked_at: dict[int, asyncio.Future[str | None]] = {}
        self._closed = False

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
        """Send nothing more; the pod's work continues, and its answers are accepted unchecked."""
        self._closed = True
        for looked_at in self._looked_at.values():
            if not looked_at.done():
                looked_at.set_result(None)
        for feed in self._follows.values():
            feed.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writer.close()

    def _take(self, message: ToPod) -> None:
        if isinstance(message, Ask):
            self._begin(self._answer(message.id, self._ask(message)))
        elif isinstance(message, Follow):
            self._follow(message)
        elif isinstance(message, Checked):
            looked_at = self._looked_at.get(message.id)
            if looked_at is not None and not looked_at.done():
                looked_at.set_result(message.why)
        elif (feed := self._follows.get(message.id)) is not None:
            feed.close()

    def _ask(self, message: Ask) -> AsyncFuture[Any]:
        """Ask the pod."""
        address, command = self._pod.address, message.command
        if isinstance(command, commands.Stop):
            return address.stop(self._pod)
        if message.checks:
            check = _CheckElsewhere(self, message.id)
            try:
                if isinstance(command, commands.Run):
                    command = run_from_wire(command, check)
                elif isinstance(command, commands.Resume):
                    command = resume_from_wire(command, check)
            except (InvalidInput, ManifestError) as error:
                return AsyncFuture.failed(error)
        return address.ask(self._pod, command)

    def look_at(self, ask: int, text: str) -> AsyncFuture[str | None]:
        """Have an answer of the run that this ``Ask`` began checked by whoever sent the ``Ask``."""
        return ask_on(self._mailroom, partial(self._look_at, ask, text))

    async def _look_at(self, ask: int, text: str) -> str | None:
        if self._closed:
            return None
        number = next(self._numbers)
        looked_at: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._looked_at[number] = looked_at
        try:
            async with asyncio.timeout(SECONDS):
                await self.send(Check(ask, number, text))
                return await looked_at
        except TimeoutError:  # a connection that is lost may stay open, and who has stopped says nothing
            return None
        finally:
            del self._looked_at[number]

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
            raise WireError(f"two subscriptions have the id {follow.id}")
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


class _CheckElsewhere(OutputCheck):
    """Has answers checked by whoever asked for the run. Where they are gone, or say nothing for SECONDS, an
    answer is accepted.
    """

    def __init__(self, service: Service, ask: int) -> None:
        self._service, self._ask = service, ask

    async def why_not(self, text: str) -> str | None:
        try:
            return await self._service.look_at(self._ask, text)
        except pykka.ActorDeadError:
            return None
