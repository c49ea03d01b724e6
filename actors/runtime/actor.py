"""``AsyncActor``: a pykka actor whose messages are handled on an event loop, not on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Protocol, Self, TypeVar, cast

import pykka
from pykka import messages
from pykka._envelope import Envelope

from actors.runtime.future import AsyncFuture
from actors.runtime.loop import BURST, Mailroom, mailroom_here

logger = logging.getLogger("pykka")

A = TypeVar("A", bound="AsyncActor")

_PYKKA_MESSAGES = frozenset(
    {
        messages._ActorStop,
        messages.ProxyCall,
        messages.ProxyGetAttr,
        messages.ProxySetAttr,
    }
)

#: What ends not only an actor but its loop.
_FATAL = (KeyboardInterrupt, SystemExit)
#: In the place of an actor's task: it has not begun, or handles what waited behind an ``async`` handler.
_NOT_BEGUN = "not begun"
_CATCHING_UP = "catching up"


class _Deferred:
    """What a handler returns when it took the reply to give it later."""


DEFERRED = _Deferred()


class Registry(Protocol):
    """Where actors are known while they live; pykka's own registry is one."""

    def register(self, actor_ref: pykka.ActorRef[Any], /) -> None:
        """Know the actor from now on."""

    def unregister(self, actor_ref: pykka.ActorRef[Any], /) -> None:
        """Forget the actor; unknown ones are ignored."""


class _StopFlag:
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
    actor_stopped: _StopFlag  # type: ignore[assignment]

    def __init__(self, actor: A) -> None:
        self._actor_weakref = weakref.ref(actor)
        self.actor_class = actor.__class__
        self.actor_inbox = actor.actor_inbox
        self.actor_stopped = actor.actor_stopped

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """A universally unique name of the actor."""
        return self.actor_inbox.actor.actor_urn

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
        inbox = self.actor_inbox
        future: AsyncFuture[Any] = AsyncFuture()
        future._loop = inbox.mailroom.loop
        if self.actor_stopped._set:
            future.set_exception(pykka.ActorDeadError(f"{self} not found"))
        else:
            if block:
                future._refuse_deadlock()
            try:
                inbox.mailroom.send(inbox.actor, message, future)
            except pykka.ActorDeadError as error:
                inbox.actor._end()
                future.set_exception(error)
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
        asked = self.ask(messages._ActorStop(), block=False)
        return AsyncFuture.derived([asked], lambda _: True, _false_if_dead)


def _false_if_dead(error: BaseException) -> bool:
    if isinstance(error, pykka.ActorDeadError):
        return False
    raise error


class AsyncActor(pykka.Actor):
    """A pykka actor on an event loop: the running one, or one that serves the whole process.

    ``on_receive``, proxied methods and the life-cycle hooks may be plain or ``async def``. An actor
    handles one message at a time, in order of arrival, and while an ``async`` handler waits its next
    messages wait too. An exception goes to who asked; of a message that was told it ends the actor.
    ``KeyboardInterrupt`` and ``SystemExit`` out of a handler end this actor and go on to the loop.
    A loop that ends takes the actors with it whose handlers it cancels.
    """

    actor_inbox: Inbox
    actor_stopped: _StopFlag  # type: ignore[assignment]

    _mailroom: Mailroom | None = None
    _registry: Registry = cast("Registry", pykka.ActorRegistry)
    #: The handler that waits, or why else messages have to; None for an actor that takes them.
    _task: asyncio.Task[Any] | str | None = _NOT_BEGUN
    _reply_to: AsyncFuture[Any] | None = None
    _urn: str | None = None

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        inbox = self.actor_inbox = Inbox()
        inbox.actor = self
        inbox.mailroom = self._mailroom = self._mailroom or mailroom_here()
        inbox.backlog = None
        self.actor_stopped = _StopFlag()
        self._actor_ref = AsyncActorRef(self)

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """A universally unique name, made when somebody first asks."""
        if self._urn is None:
            self._urn = uuid.uuid4().urn
        return self._urn

    @classmethod
    def make(cls, mailroom: Mailroom, registry: Registry, *args: Any, **kwargs: Any) -> Self:
        """An actor on the loop of ``mailroom``, known to ``registry`` instead of pykka's list, which is
        searched from its front at every stop; ``begin`` starts it.
        """
        actor = cls.__new__(cls)
        actor._mailroom = mailroom
        actor._registry = registry
        actor.__init__(*args, **kwargs)  # type: ignore[misc]
        return actor

    def begin(self) -> None:
        """Start an actor that was made by ``make``."""
        self._registry.register(self._actor_ref)
        self._start_actor_loop()

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox()

    @staticmethod
    def _create_future() -> AsyncFuture[Any]:
        return AsyncFuture()

    def _start_actor_loop(self) -> None:
        assert self._mailroom is not None
        if self._mailroom.here():
            self._begin()
        else:
            self._mailroom.post(self._begin)

    def _begin(self, _: object = None) -> None:
        """Call ``on_start``, then take messages: also those that came while the actor was made."""
        if type(self).on_start is not pykka.Actor.on_start:
            hook = self._hook(self.on_start)
            if hook is not None:
                self._await(hook, None)
                return
        self._task = None
        if self.actor_inbox.backlog:
            self._catch_up()

    # -- one message ---------------------------------------------------------------------------

    def _receive(self, envelope: Envelope[Any]) -> None:
        """Take a message on the loop, ahead of those that wait in the mail room."""
        self._arrive(envelope.message, envelope.reply_to)

    def _arrive(self, message: Any, reply_to: Any) -> None:
        """Handle a message, or keep it until the handler that waits has ended."""
        if self._task is not None:
            inbox = self.actor_inbox
            if inbox.backlog is None:
                inbox.backlog = deque()
            inbox.backlog.append((message, reply_to))
            return
        if self.actor_stopped._set:
            self._refuse(Envelope(message, reply_to))
            return
        self._reply_to = reply_to
        try:
            if type(message) in _PYKKA_MESSAGES:
                response = self._handle_receive(message)
            else:
                response = self.on_receive(message)
            if type(response) is CoroutineType:
                self._await(response, reply_to)
                return
            if reply_to is not None:
                self._reply_to = None
                if response is not DEFERRED:
                    reply_to.set(response)
        except BaseException as error:  # noqa: BLE001 - goes to who asked, or ends the actor
            self._raised(error, reply_to)

    def _raised(self, error: BaseException, reply_to: AsyncFuture[Any] | None) -> None:
        """A plain handler raised ``error``."""
        self._reply_to = None
        hook = self._failed(error, reply_to)
        if hook is not None:
            self._await(hook, None)
        if isinstance(error, _FATAL):
            raise error

    def defer_reply(self) -> AsyncFuture[Any]:
        """Take the reply of the message being handled, to give it later; the handler then returns
        ``DEFERRED``. Of a message that was told, what is set on it reaches nobody.
        """
        return AsyncFuture() if self._reply_to is None else self._reply_to

    def _await(self, handler: Coroutine[Any, Any, Any], reply_to: AsyncFuture[Any] | None) -> None:
        assert self._mailroom is not None
        self._task = self._mailroom.loop.create_task(self._await_reply(handler, reply_to))

    async def _await_reply(
        self, handler: Coroutine[Any, Any, Any], reply_to: AsyncFuture[Any] | None
    ) -> None:
        try:
            response = await handler
            if reply_to is not None and response is not DEFERRED:
                reply_to.set(response)
        except BaseException as error:
            if _cancelled_from_outside(error):
                self._lose_loop(reply_to)
                raise
            hook = self._failed(error, reply_to)
            if hook is not None:
                await hook
            if isinstance(error, _FATAL):
                raise
        finally:
            self._reply_to = None
            self._catch_up()

    def _catch_up(self) -> None:
        """Handle what waited behind an ``async`` handler, as far as the loop's fairness allows."""
        self._task = None
        inbox = self.actor_inbox
        backlog = inbox.backlog
        if backlog is None:
            return
        for _ in range(min(len(backlog), BURST)):
            self._arrive(*backlog.popleft())
            if self._task is not None:
                return
        if backlog:
            self._task = _CATCHING_UP
            inbox.mailroom.loop.call_soon(self._catch_up)
        else:
            inbox.backlog = None

    # -- ends ----------------------------------------------------------------------------------

    def _failed(
        self, error: BaseException, reply_to: AsyncFuture[Any] | None
    ) -> Coroutine[Any, Any, None] | None:
        """A handler failed: tell who asked, or end the actor; what is left to be awaited of that."""
        if isinstance(error, _FATAL):
            if reply_to is not None and not reply_to.done():
                reply_to.set_exception(_ended_by(self, error))
        elif reply_to is not None:
            self._tell_error(error, reply_to)
            return None
        if self.actor_stopped._set:
            return None
        info = (type(error), error, error.__traceback__)
        self._handle_failure(*info)
        return self._hook(lambda: self.on_failure(*info))

    def _tell_error(self, error: BaseException, reply_to: AsyncFuture[Any]) -> None:
        if reply_to.done():
            logger.error("Unhandled exception in %s after its reply:", self, exc_info=error)
            return
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("Exception returned from %s to caller:", self, exc_info=error)
        reply_to.set_exception(error)

    def _handle_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Log a failure and end the actor."""
        logger.error(
            "Unhandled exception in %s:", self, exc_info=(exception_type, exception_value, traceback)
        )
        self._end()

    def _end(self) -> None:
        self._registry.unregister(self._actor_ref)
        self.actor_stopped.set()

    def _stop(self) -> Any:
        """Stop without handling the messages that still wait; they are answered with ActorDeadError."""
        self._end()
        return self._hook(self.on_stop)

    def _lose_loop(self, reply_to: AsyncFuture[Any] | None) -> None:
        """The loop ends in the middle of a message: so does the actor, and no hook can be awaited."""
        self._end()
        if reply_to is not None and not reply_to.done():
            reply_to.set_exception(pykka.ActorDeadError(f"the event loop of {self} ended before it answered"))

    def _hook(self, hook: Callable[[], Any]) -> Coroutine[Any, Any, None] | None:
        """Call a life-cycle hook; what is left to be awaited of an ``async`` one. An error in it is
        logged and ends the actor, by pykka's rule.
        """
        try:
            response = hook()
        except BaseException as error:
            self._handle_failure(type(error), error, error.__traceback__)
            if isinstance(error, _FATAL):
                raise
            return None
        return self._await_hook(response) if isinstance(response, CoroutineType) else None

    async def _await_hook(self, hook: Coroutine[Any, Any, None]) -> None:
        try:
            await hook
        except BaseException as error:
            if isinstance(error, _FATAL) or _cancelled_from_outside(error):
                raise
            self._handle_failure(type(error), error, error.__traceback__)

    def _refuse(self, envelope: Envelope[Any]) -> None:
        """Answer a message that came too late."""
        reply_to = cast("AsyncFuture[Any] | None", envelope.reply_to)
        if reply_to is None:
            return
        if isinstance(envelope.message, messages._ActorStop):
            reply_to.set(None)
        else:
            dead = f"{self.actor_ref} stopped before handling the message"
            reply_to.set_exception(pykka.ActorDeadError(dead))


def _ended_by(actor: AsyncActor, error: BaseException) -> pykka.ActorDeadError:
    dead = pykka.ActorDeadError(f"{actor} was ended by {type(error).__name__}")
    dead.__cause__ = error
    return dead


def _cancelled_from_outside(error: BaseException) -> bool:
    """Whether the handler's own task was cancelled, not something that it waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
