"""How an actor is reached: its reference, its inbox, and the flag that says it has stopped."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

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
    """Stands in for the ``threading.Event`` that pykka gives each actor: made when somebody looks at it."""

    __slots__ = ("_actor",)

    #: Two threads that wait must wait for one event.
    _making = threading.Lock()

    def __init__(self, actor: AsyncActor) -> None:
        self._actor = actor

    def is_set(self) -> bool:
        return self._actor._stopped

    def set(self) -> None:
        self._actor._note_stopped()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the actor has stopped, at most ``timeout`` seconds."""
        actor = self._actor
        with self._making:
            event = actor._stop_event = actor._stop_event or threading.Event()
        if actor._stopped:  # looked at after the event stands: who stopped it before saw none
            event.set()
        return event.wait(timeout)


class Inbox:
    """What pykka knows as the place where an actor's messages arrive: they wait in the mail room of its
    loop, and in its backlog while it is busy with an ``async`` handler. Made when somebody looks at it.
    """

    __slots__ = ("actor",)

    def __init__(self, actor: AsyncActor) -> None:
        self.actor = actor

    @property
    def mailroom(self) -> Mailroom:
        """Where the messages wait."""
        return self.actor._mailroom

    @property
    def backlog(self) -> deque[tuple[Any, Any]] | None:
        """The messages that wait behind an ``async`` handler, each with its reply; None where none does."""
        return self.actor._backlog

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

    def __init__(self, actor: A) -> None:
        #: The actor itself, for who lives with it on its loop.
        self.actor = actor

    @property
    def actor_inbox(self) -> Inbox:  # type: ignore[override]
        """Where pykka puts its messages."""
        return self.actor.actor_inbox

    @property
    def actor_stopped(self) -> StopFlag:  # type: ignore[override]
        """Pykka's flag that says it has stopped."""
        return self.actor.actor_stopped

    @property
    def actor_class(self) -> type[A]:  # type: ignore[override]
        """The actor's class."""
        return type(self.actor)

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """A universally unique name of the actor."""
        return self.actor.actor_urn

    def _actor_weakref(self) -> A:  # type: ignore[override]
        """The actor, for pykka's proxies; this reference keeps it alive, so nothing here need be weak."""
        return self.actor

    def is_alive(self) -> bool:
        """Whether the actor has neither stopped nor lost its event loop."""
        return self.actor.actor_lives()

    def tell(self, message: Any) -> None:
        """Send ``message`` and do not wait. Raises pykka.ActorDeadError."""
        actor = self.actor
        if actor._stopped:
            raise pykka.ActorDeadError(f"{self} not found")
        try:
            actor._mailroom.send(actor, message, None)
        except pykka.ActorDeadError:
            actor._end()
            raise

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send ``message``; its reply if ``block`` (at most ``timeout`` seconds), or a future of it.

        Raises WouldDeadlock, before anything is sent, if ``block`` on the actor's own loop.
        """
        future: AsyncFuture[Any] = AsyncFuture()
        future._loop = self.actor._mailroom.loop
        if block and not self.actor._stopped:
            future._refuse_deadlock()
        self.actor.actor_send(message, future)
        return future._got(timeout) if block else future

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
        return stop_by(self.actor)


def stop_by(actor: AsyncActor, message: Any = None) -> AsyncFuture[bool]:
    """Have an actor end, by pykka's message or one of its own: a future of True once it has, False if it
    was dead.
    """
    asked: AsyncFuture[Any] = AsyncFuture()
    actor.actor_send(messages._ActorStop() if message is None else message, asked)
    return AsyncFuture.derived([asked], lambda _: True, _false_if_dead)


def _false_if_dead(error: BaseException) -> bool:
    if isinstance(error, pykka.ActorDeadError):
        return False
    raise error
