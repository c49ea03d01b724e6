"""How an actor is reached: its reference, its inbox, and the flag that says it has stopped."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pykka
from pykka import messages
from pykka._envelope import Envelope

from actors.runtime.future import AsyncFuture
from actors.runtime.loop import Mailroom

if TYPE_CHECKING:
    from actors.runtime.actor import AsyncActor


def _after_fork_in_child() -> None:
    StopFlag._making = threading.Lock()  # another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

A = TypeVar("A", bound="AsyncActor")


class StopFlag:
    """Stands in for the ``threading.Event`` that pykka gives each actor, at a tenth of its size."""

    __slots__ = ("_event", "_set")

    #: Two threads that wait must wait for one event.
    _making = threading.Lock()

    def __init__(self) -> None:
        self._set = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        if self._event is not None:
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the actor has stopped, at most ``timeout`` seconds."""
        with self._making:
            if self._event is None:
                self._event = threading.Event()
        if self._set:  # looked at after the event stands: who set the flag before saw none
            self._event.set()
        return self._event.wait(timeout)


class Inbox:
    """Where an actor's messages arrive: they wait in the mail room of its loop, and here only while
    the actor is busy with an ``async`` handler.
    """

    __slots__ = ("actor", "backlog", "mailroom")

    #: Whose inbox it is; it keeps the actor alive.
    actor: AsyncActor
    #: Where the messages wait.
    mailroom: Mailroom
    backlog: deque[tuple[Any, Any]] | None

    def put(self, envelope: Envelope[Any], /) -> None:
        """Deliver a message, from any thread. Raises pykka.ActorDeadError if the loop is closed."""
        if isinstance(envelope.reply_to, AsyncFuture):
            envelope.reply_to._loop = self.mailroom.loop
        self.mailroom.send(self.actor, envelope.message, envelope.reply_to)

    def get(self) -> Envelope[Any]:
        """The oldest message that waits behind an ``async`` handler."""
        if self.backlog is None:
            raise IndexError("the inbox is empty")
        return Envelope(*self.backlog.popleft())

    def empty(self) -> bool:
        """Whether no message waits behind an ``async`` handler."""
        return not self.backlog


class AsyncActorRef(pykka.ActorRef[A]):
    """A reference to an AsyncActor: pykka's, with futures that can be awaited."""

    actor_inbox: Inbox
    actor_stopped: StopFlag  # type: ignore[assignment]

    def __init__(self, actor: A) -> None:
        self.actor_inbox = actor.actor_inbox
        self.actor_stopped = actor.actor_stopped

    @property
    def actor_class(self) -> type[A]:  # type: ignore[override]
        """The actor's class."""
        return type(self.actor)

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """A universally unique name of the actor."""
        return self.actor.actor_urn

    @property
    def actor(self) -> A:
        """The actor itself, for who lives with it on its loop."""
        return cast("A", self.actor_inbox.actor)

    def _actor_weakref(self) -> A:  # type: ignore[override]
        """The actor, for pykka's proxies; the inbox keeps it alive, so nothing here need be weak."""
        return self.actor

    def is_alive(self) -> bool:
        """Whether the actor has neither stopped nor lost its event loop."""
        return not (self.actor_stopped._set or self.actor_inbox.mailroom.loop.is_closed())

    def tell(self, message: Any) -> None:
        """Send ``message`` and do not wait. Raises pykka.ActorDeadError."""
        if self.actor_stopped._set:
            raise pykka.ActorDeadError(f"{self} not found")
        inbox = self.actor_inbox
        try:
            inbox.mailroom.send(inbox.actor, message, None)
        except pykka.ActorDeadError:
            inbox.actor._end()
            raise

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send ``message``; its reply if ``block`` (at most ``timeout`` seconds), or a future of it.

        Raises WouldDeadlock, before anything is sent, if ``block`` on the actor's own loop.
        """
        future: AsyncFuture[Any] = AsyncFuture()
        future._loop = self.actor_inbox.mailroom.loop
        if block and not self.actor_stopped._set:
            future._refuse_deadlock()
        self.send(message, future)
        return future._got(timeout) if block else future

    def send(self, message: Any, reply_to: AsyncFuture[Any]) -> None:
        """Send ``message``, to be answered on ``reply_to``: also if the actor is dead."""
        inbox = self.actor_inbox
        reply_to._loop = inbox.mailroom.loop
        if self.actor_stopped._set:
            reply_to.set_exception(pykka.ActorDeadError(f"{self} not found"))
            return
        try:
            inbox.mailroom.send(inbox.actor, message, reply_to)
        except pykka.ActorDeadError as error:
            inbox.actor._end()
            reply_to.set_exception(error)

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Ask the actor to stop: True once it has, False if it was dead; a future if not ``block``.

        Raises WouldDeadlock, before the actor is asked, if ``block`` on its own loop.
        """
        if block:
            try:
                self.ask(messages._ActorStop(), timeout=timeout)
            except pykka.ActorDeadError:
                return False
            return True
        return self.stop_by(messages._ActorStop())

    def stop_by(self, message: Any) -> AsyncFuture[bool]:
        """Have the actor end by a message of its own: a future of True once it has, False if it was dead."""
        asked = self.ask(message, block=False)
        return AsyncFuture.derived([asked], lambda _: True, _false_if_dead)


def _false_if_dead(error: BaseException) -> bool:
    if isinstance(error, pykka.ActorDeadError):
        return False
    raise error
