"""``Channel``: the address of a pod at the other end of two streams, where ``serve_pod`` serves it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pykka
from msgspec.structs import replace

from actors.pod.address import Kinds, Since
from actors.pod.checks import check_command
from actors.pod.handle import Pod
from actors.pod.runs.options import resume_for_wire, run_for_wire
from actors.pod.runs.output_check import OutputCheck, OutputChecks, TypeCheck
from actors.pod.runs.run_state import ResumeHere, RunHere
from actors.runtime.events.bus import Bus, kinds_of
from actors.runtime.events.encoded import EncodedEvent
from actors.runtime.events.subscription import Feed, Subscription
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import mailroom_here
from actors.runtime.on_loop import future_of
from actors.runtime.read_frame import read_frame
from protocol import channel, commands
from protocol.channel import Ask, Check, Checked, Follow, Followed, FromPod, Published, Refusal, Unfollow
from protocol.error_of import error_of
from protocol.errors import (
    InvalidInput,
    PodUnreachable,
    PolypodError,
    RunFailed,
    WireError,
)
from protocol.events import Lagged
from protocol.recordable import UNFIT, recordable
from protocol.results import RunResult
from protocol.text import encodable
from protocol.wire import decode_event

_log = logging.getLogger("polypod.channel")
#: What reads of open connections: streams hold on to nobody, and an answer may be all that is waited for.
_open: set[asyncio.Task[None]] = set()
#: How long an end that closes the connection waits for the other to take what was sent, in seconds.
_PATIENCE = 1.0
_LOOP_CLOSED = "the event loop of its handle is closed"


async def connect(reader: StreamReader, writer: StreamWriter) -> Pod:
    """The handle of the pod that the other end serves; the connection lasts until ``pod.address.close()``.

    Raises PodUnreachable, and what ``describe`` does; in that case, or if it is cancelled, the connection is
    closed at once.
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
    """Reaches a pod in another process, or on another machine, over two streams; see ``connect``.

    A run's ``output`` is made here from the pod's answer: the pod has each answer checked here, and asks the
    model again if it does not fit. Options of a run that are objects or functions cannot travel. Whatever is
    under way when the connection ends raises PodUnreachable; the pod lives on.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        #: The handle of the pod; ``connect`` gives it its name.
        self.pod = Pod("at the other end", self)
        self._reader = reader
        self._writer = writer
        self._mailroom = mailroom_here()
        self._ids = itertools.count(1)
        self._asked: dict[int, tuple[commands.Command, AsyncFuture[Any]]] = {}
        self._checks = OutputChecks()
        #: The looks at answers that have not been sent yet.
        self._looks: set[asyncio.Task[None]] = set()
        self._followed: dict[int, Bus] = {}
        #: Why nothing can be asked any more.
        self._lost: str | None = None
        #: Whether this end has said all that it says; the other may still answer.
        self._has_left = False
        self._reading = asyncio.create_task(self._read())
        _open.add(self._reading)
        self._reading.add_done_callback(_open.discard)

    def is_alive(self, _: Pod) -> bool:
        return self._lost is None and not self._mailroom.loop.is_closed()

    def ask(self, _: Pod, command: commands.Command) -> AsyncFuture[Any]:
        check: OutputCheck | None = None
        try:
            check_command(command)  # with the words of a pod that lives here
            if isinstance(command, RunHere | ResumeHere):
                if command.output is not None:
                    check = TypeCheck(command.output)
                elif command.own is not None:
                    check = command.own.check  # of who has asked from elsewhere for a pod that is elsewhere
                command = run_for_wire(command) if isinstance(command, RunHere) else resume_for_wire(command)
        except (InvalidInput, ValueError) as error:
            return AsyncFuture.failed(error)
        return self._send(command, check)

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
        the other end reads nothing for a second.
        """
        self._writer.close()
        await asyncio.wait({self._reading}, timeout=_PATIENCE)
        if not self._reading.done():
            self._writer.transport.abort()
            await asyncio.wait({self._reading})

    # -- on its loop -----------------------------------------------------------------------------

    def _send(self, command: commands.Command, check: OutputCheck | None = None) -> AsyncFuture[Any]:
        future = future_of(self._mailroom)
        ask = Ask(next(self._ids), command, check is not None)
        try:
            frame = _frame(ask)
        except (PolypodError, TypeError, ValueError) as error:
            return AsyncFuture.failed(
                InvalidInput(f"{type(command).__name__} has a value that JSON cannot represent: {error}")
            )
        try:
            channel.decode_to_pod(frame[channel.HEAD :])
        except WireError as error:  # the other end ends the connection for that, and a process with it
            return AsyncFuture.failed(InvalidInput(f"{type(command).__name__} is invalid: {error.message}"))
        self._on_loop(
            partial(self._post, ask, frame, future, check), lambda: self._refuse(future, _LOOP_CLOSED)
        )
        return future

    def _on_loop(self, work: Callable[[], None], otherwise: Callable[[], object]) -> None:
        if self._mailroom.here():
            work()
            return
        try:
            self._mailroom.post(lambda _: work())
        except pykka.ActorDeadError:
            otherwise()

    def _post(self, ask: Ask, frame: bytes, future: AsyncFuture[Any], check: OutputCheck | None) -> None:
        if self._lost is not None or self._has_left:
            self._refuse(future, self._lost or "this handle is closed")
            return
        self._asked[ask.id] = (ask.command, future)
        if check is not None:
            self._checks.add(ask.id, check)
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
        why = "the other end closed it"
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
        elif isinstance(message, Check):
            look = self._mailroom.loop.create_task(self._look(message))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)
        elif (asked := self._asked.pop(message.id, None)) is not None:
            command, future = asked
            if isinstance(message, Refusal):
                self._checks.drop(message.id)
                future.set_exception(error_of(message.failure))
                return
            try:
                result = channel.decode_result(command, message.value)
                future.set(self._checks.complete(message.id, result) if type(result) is RunResult else result)
            except (WireError, RunFailed) as error:
                future.set_exception(error)

    async def _look(self, message: Check) -> None:
        """Look at an answer, and say what is wrong with it."""
        why = await self._checks.why_not(message.id, message.text)
        if not self._has_left:
            self._writer.write(channel.frame(Checked(message.check, why if why is None else encodable(why))))

    def _publish(self, message: Published) -> None:
        bus = self._followed.get(message.id)
        if bus is None:
            return
        body = bytes(message.event)
        try:
            event = decode_event(body)
        except WireError as error:  # of a later version
            _log.warning("an event of pod %r is skipped: %s", self.pod.name, error)
        else:
            if event.pod != self.pod.name:
                bus.adopt(event.pod, self.pod.name)
            if bus.fed:
                bus.publish_encoded(EncodedEvent(event, body))
            else:
                bus.publish((event,))
        self._let_go(message.id, bus)

    def _let_go(self, follow: int, bus: Bus) -> None:
        """Stop the events of a subscription that nobody holds any more."""
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
                hint="the command may have been carried out: reconnect and look at its history",
            )
        )


def _frame(ask: Ask) -> bytes:
    try:
        return channel.frame(ask)
    except UNFIT:
        return channel.frame(replace(ask, command=recordable(ask.command)))


def _chosen(kinds: Kinds) -> Kinds:
    """The kinds to subscribe to for ``kinds``: ``Lagged`` is always among them, since events may be lost at
    the other end too.
    """
    return None if kinds is None else kinds_of(kinds) | {Lagged}
