"""``Channel``: reaches a pod at the other end of two streams, where ``serve_pod`` serves it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import pykka
from msgspec import Raw
from msgspec.structs import replace

from actors.llm.output import Fit, parse_output
from actors.pod.address import Kinds, Since
from actors.pod.handle import Pod
from actors.pod.runs.options import resume_for_wire, run_for_wire
from actors.pod.runs.run_state import ResumeHere, RunHere
from actors.runtime.bus import Bus, kinds_of
from actors.runtime.encoded import EncodedEvent
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import mailroom_here
from actors.runtime.on_loop import future_of
from actors.runtime.subscription import Feed, Subscription
from protocol import channel, commands
from protocol.channel import Ask, Follow, Followed, FromPod, Published, Refusal, Reply, ToPod, Unfollow
from protocol.error_of import error_of
from protocol.errors import (
    Failure,
    InvalidInput,
    OutputInvalid,
    PodUnreachable,
    PolypodError,
    RunFailed,
    WireError,
)
from protocol.events import EVENTS, Lagged
from protocol.recordable import UNFIT, recordable
from protocol.results import RunResult
from protocol.wire import decode_event, encode

_log = logging.getLogger("polypod.channel")
#: What reads of open connections: streams hold on to nobody, and an answer may be all that is waited for.
_open: set[asyncio.Task[None]] = set()
#: How long an end that closes the connection waits for the other to take what was sent, in seconds.
_PATIENCE = 1.0
#: Events are sent together up to so many bytes.
_TOGETHER = 1 << 16
_LOOP_CLOSED = "the event loop of its handle is closed"
_KINDS = {kind.__name__: kind for kind in EVENTS}


async def connect(reader: StreamReader, writer: StreamWriter) -> Pod:
    """The handle of the pod that the other end serves; the connection lasts until ``pod.address.close()``.

    Raises PodUnreachable, and what ``describe`` does: then, or where it is cancelled, it is closed at once.
    """
    address = Channel(reader, writer)
    try:
        address.pod.name = (await address.pod.describe()).name
    except BaseException:
        writer.transport.abort()
        await address.close()
        raise
    return address.pod


class Channel:
    """Asks a pod in another process, or on another machine, over two streams; see ``connect``.

    A run's ``output`` is made here of what the pod answered, and is not asked for anew where it does not
    fit; of its options objects and functions cannot travel. What is under way when the connection ends raises
    PodUnreachable; the pod lives on.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        #: The handle of the pod; ``connect`` gives it its name.
        self.pod = Pod("at the other end", self)
        self._reader = reader
        self._writer = writer
        self._mailroom = mailroom_here()
        self._ids = itertools.count(1)
        self._asked: dict[int, tuple[commands.Command, AsyncFuture[Any]]] = {}
        self._followed: dict[int, Bus] = {}
        #: Why nothing can be asked any more.
        self._lost: str | None = None
        self._reading = asyncio.create_task(self._read())
        _open.add(self._reading)
        self._reading.add_done_callback(_open.discard)

    def is_alive(self, _: Pod) -> bool:
        return self._lost is None and not self._mailroom.loop.is_closed()

    def ask(self, _: Pod, command: commands.Command) -> AsyncFuture[Any]:
        kind = None
        if isinstance(command, RunHere | ResumeHere):
            kind = command.output
            try:
                command = run_for_wire(command) if isinstance(command, RunHere) else resume_for_wire(command)
            except InvalidInput as error:
                return AsyncFuture.failed(error)
        answer = self._send(command)
        return answer if kind is None else answer.map(partial(_with_output, kind))

    def stop(self, _: Pod) -> AsyncFuture[bool]:
        return self._send(commands.Stop())

    def subscribe(self, _: Pod, kinds: Kinds, since: Since | None, *, children: bool) -> Subscription:
        bus, chosen = Bus(), _chosen(kinds)
        subscription = bus.subscribe(self.pod.name, chosen, children=children)
        self._begin(bus, kinds, since, children=children)
        return subscription

    def feed(self, _: Pod, kinds: Kinds, since: Since | None, *, children: bool) -> Feed:
        bus, chosen = Bus(), _chosen(kinds)
        feed = bus.feed(self.pod.name, chosen, children=children)
        self._begin(bus, kinds, since, children=children)
        return feed

    def _begin(self, bus: Bus, kinds: Kinds, since: Since | None, *, children: bool) -> None:
        """Have the other end send what ``bus`` publishes."""
        bus.loop = self._mailroom.loop
        names = None if kinds is None else tuple(sorted(kind.__name__ for kind in kinds_of(kinds)))
        after = dict(since) if isinstance(since, Mapping) else since
        follow = Follow(next(self._ids), names, after, children)
        self._on_loop(partial(self._follow, follow, bus), bus.close)

    async def close(self) -> None:
        """End the connection; the pod at the other end lives on. What was asked last is still sent, unless
        the other end takes nothing for a second.
        """
        self._writer.close()
        await asyncio.wait({self._reading}, timeout=_PATIENCE)
        if not self._reading.done():
            self._writer.transport.abort()
            await asyncio.wait({self._reading})

    # -- on its loop -----------------------------------------------------------------------------

    def _send(self, command: commands.Command) -> AsyncFuture[Any]:
        future = future_of(self._mailroom)
        ask = Ask(next(self._ids), command)
        try:
            frame = _frame(ask)
        except (PolypodError, TypeError, ValueError) as error:
            return AsyncFuture.failed(
                InvalidInput(f"{type(command).__name__} holds what no JSON can: {error}")
            )
        try:
            channel.decode_to_pod(frame[channel.HEAD :])
        except WireError as error:  # the other end ends the connection for that, and a process with it
            return AsyncFuture.failed(
                InvalidInput(f"{type(command).__name__} cannot be asked so: {error.message}")
            )
        self._on_loop(partial(self._post, ask, frame, future), lambda: self._refuse(future, _LOOP_CLOSED))
        return future

    def _on_loop(self, work: Callable[[], None], otherwise: Callable[[], object]) -> None:
        if self._mailroom.here():
            work()
            return
        try:
            self._mailroom.post(lambda _: work())
        except pykka.ActorDeadError:
            otherwise()

    def _post(self, ask: Ask, frame: bytes, future: AsyncFuture[Any]) -> None:
        if self._lost is not None:
            self._refuse(future, self._lost)
            return
        self._asked[ask.id] = (ask.command, future)
        self._writer.write(frame)

    def _follow(self, follow: Follow, bus: Bus) -> None:
        if self._lost is not None:
            bus.close()
            return
        for number, other in list(self._followed.items()):
            self._let_go(number, other)
        self._followed[follow.id] = bus
        self._writer.write(channel.frame(follow))

    async def _read(self) -> None:
        why = "the other end has closed it"
        try:
            while True:
                self._take(channel.decode_from_pod(await read_frame(self._reader)))
        except asyncio.IncompleteReadError:
            pass
        except (OSError, WireError) as error:
            why = str(error)
        finally:
            self._lose(why)

    def _take(self, message: FromPod) -> None:
        if isinstance(message, Published):
            self._publish(message)
        elif isinstance(message, Followed):
            self._end(message.id)
        elif message.id in self._followed and isinstance(message, Refusal):
            _log.warning("pod %r refused a subscription: %s", self.pod.name, message.failure)
            self._end(message.id)
        elif (asked := self._asked.pop(message.id, None)) is not None:
            command, future = asked
            if isinstance(message, Refusal):
                future.set_exception(error_of(message.failure))
                return
            try:
                future.set(channel.decode_result(command, message.value))
            except WireError as error:
                future.set_exception(error)

    def _publish(self, message: Published) -> None:
        bus = self._followed.get(message.id)
        if bus is None:
            return
        body = bytes(message.event)
        try:
            event = decode_event(body)
        except WireError as error:  # of a later version
            _log.warning("an event of pod %r is passed over: %s", self.pod.name, error)
        else:
            if event.pod != self.pod.name:
                bus.adopt(event.pod, self.pod.name)
            if bus.fed:
                bus.publish_encoded(EncodedEvent(event, body))
            else:
                bus.publish((event,))
        self._let_go(message.id, bus)

    def _let_go(self, follow: int, bus: Bus) -> None:
        """Have no more events sent to a subscription that nobody holds any more."""
        if bus.silent:
            del self._followed[follow]
            self._writer.write(channel.frame(Unfollow(follow)))

    def _end(self, follow: int) -> None:
        bus = self._followed.pop(follow, None)
        if bus is not None:
            bus.close()

    def _lose(self, why: str) -> None:
        self._lost = why
        self._writer.close()
        asked, self._asked = self._asked, {}
        for _, future in asked.values():
            self._refuse(future, why)
        for follow in list(self._followed):
            self._end(follow)

    def _refuse(self, future: AsyncFuture[Any], why: str) -> None:
        future.set_exception(
            PodUnreachable(
                f"the connection to pod {self.pod.name!r} has ended: {why}",
                hint="what it was asked may have been done: connect again and look at its history",
            )
        )


async def read_frame(reader: StreamReader) -> bytes:
    """The body of the next frame. Raises IncompleteReadError at the end, OSError, WireError."""
    return await reader.readexactly(channel.frame_length(await reader.readexactly(channel.HEAD)))


def _frame(ask: Ask) -> bytes:
    try:
        return channel.frame(ask)
    except UNFIT:
        return channel.frame(replace(ask, command=recordable(ask.command)))


def _chosen(kinds: Kinds) -> Kinds:
    """The kinds to subscribe to for ``kinds``: ``Lagged`` also reports what was lost at the other end."""
    return None if kinds is None else kinds_of(kinds) | {Lagged}


def _with_output(kind: Any, result: RunResult[Any]) -> RunResult[Any]:
    """The result with the instance that was asked for. Raises RunFailed where the answer is none."""
    if result.outcome != "finished":
        return result
    read = parse_output(result.text, kind)
    if isinstance(read, Fit):
        return replace(result, output=read.value)
    raise RunFailed(OutputInvalid(f"the model did not answer as asked: {read.why}"), run_id=result.run_id)


# -- the other end -------------------------------------------------------------------------------


async def serve_pod(pod: Pod, reader: StreamReader, writer: StreamWriter) -> None:
    """Have ``pod`` follow the commands that come over ``reader``, until that ends; the pod lives on, and so
    does what it was asked to do. Raises WireError for what is no command.
    """
    service = Service(pod, writer)
    try:
        await service.serve(reader)
    finally:
        await service.close()


class Service:
    """Has a pod follow commands, and sends what they come to, with the events that are followed."""

    def __init__(self, pod: Pod, writer: StreamWriter) -> None:
        self._pod = pod
        self._writer = writer
        self._tasks: set[asyncio.Task[None]] = set()
        self._follows: dict[int, Feed] = {}

    async def serve(self, reader: StreamReader) -> None:
        """Take commands until no more come. Raises WireError."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                self._take(channel.decode_to_pod(await read_frame(reader)))
                await self._writer.drain()  # who reads no answers is not listened to

    def send_events(self, follow: int, feed: Feed) -> None:
        """Send the events of ``feed``, from what is there now, under that number."""
        self._follows[follow] = feed
        self._publish(follow, feed.there(sys.maxsize))
        self._begin(self._follow_on(follow, feed))

    async def finish(self) -> None:
        """Send the answers that are still to come, and the events up to the end of their feeds."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Send nothing more; the pod's work goes on."""
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
        """Send events, small ones together."""
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
        """Send a message, and wait until the other end takes more."""
        with contextlib.suppress(OSError):  # the reader notices the end too
            self._writer.write(channel.frame(message))
            await self._writer.drain()
