"""``AsyncActor``: a pykka actor whose messages are handled on an event loop, not on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Protocol, Self, TypeVar, cast

import pykka
from pykka import messages
from pykka._envelope import Envelope

from actors.runtime.future import AsyncFuture
from actors.runtime.loop import Mailroom, mailroom_here

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
        if self._event is None:
            self._event = threading.Event()
        if self._set:
            self._event.set()
        return self._event.wait(timeout)


class Inbox:
    """Where an actor's messages arrive: they wait in the mail room of its loop, and here only while
    the actor is busy with an ``async`` handler.
    """

    __slots__ = ("_actor", "_mailroom", "backlog")

    def __init__(self) -> None:
        self.backlog: deque[Envelope[Any]] | None = None

    def bind(self, actor: AsyncActor, mailroom: Mailroom) -> None:
        """Make this the inbox of ``actor``, which it keeps alive."""
        self._actor = actor
        self._mailroom = mailroom

    @property
    def actor(self) -> AsyncActor:
        """Whose inbox it is."""
        return self._actor

    @property
    def mailroom(self) -> Mailroom:
        """Where the messages wait."""
        return self._mailroom

    def put(self, envelope: Envelope[Any], /) -> None:
        """Deliver a message, from any thread. Raises pykka.ActorDeadError if the loop is closed."""
        mailroom = self._mailroom
        if envelope.reply_to is not None:
            envelope.reply_to._loop = mailroom.loop  # type: ignore[attr-defined]
        mailroom.post(self._actor._receive, envelope)

    def get(self) -> Envelope[Any]:
        """The oldest message that waits behind an ``async`` handler."""
        if self.backlog is None:
            raise IndexError("the inbox is empty")
        return self.backlog.popleft()

    def empty(self) -> bool:
        """Whether no message waits behind an ``async`` handler."""
        return not self.backlog


class AsyncActorRef(pykka.ActorRef[A]):
    """A reference to an AsyncActor: pykka's, with futures that can be awaited."""

    def tell(self, message: Any) -> None:
        """Send ``message`` and do not wait. Raises pykka.ActorDeadError."""
        if self.actor_stopped.is_set():
            raise pykka.ActorDeadError(f"{self} not found")
        self.actor_inbox.put(Envelope(message))

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send ``message``; its reply if ``block`` (at most ``timeout`` seconds), or a future of it."""
        future: AsyncFuture[Any] = AsyncFuture()
        if self.actor_stopped.is_set():
            future.set_exception(pykka.ActorDeadError(f"{self} not found"))
        else:
            try:
                self.actor_inbox.put(Envelope(message, future))
            except pykka.ActorDeadError as error:
                future.set_exception(error)
        return future.get(timeout=timeout) if block else future

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Ask the actor to stop: True once it has, False if it was dead; a future if not ``block``."""
        asked = self.ask(messages._ActorStop(), block=False)
        future = AsyncFuture.derived([asked], lambda _: True, _false_if_dead)
        return future.get(timeout=timeout) if block else future


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
    """

    _mailroom: Mailroom | None = None
    _registry: Registry = cast("Registry", pykka.ActorRegistry)
    _task: asyncio.Task[Any] | None = None
    _reply_to: AsyncFuture[Any] | None = None
    _urn: str | None = None

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        if self._mailroom is None:
            self._mailroom = mailroom_here()
        inbox = Inbox()
        inbox.bind(self, self._mailroom)
        self.actor_inbox = inbox
        self.actor_stopped = _StopFlag()  # type: ignore[assignment]
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
            self._mailroom.post(lambda _: self._begin(), Envelope(None))

    def _begin(self) -> None:
        if type(self).on_start is pykka.Actor.on_start:
            return
        try:
            response = cast("Callable[[], Any]", self.on_start)()
        except Exception:  # noqa: BLE001 - pykka's rule: logged, and the actor is gone
            self._handle_failure(*sys.exc_info())
            return
        if isinstance(response, CoroutineType):
            self._await(self._await_start(response), None)

    async def _await_start(self, hook: Coroutine[Any, Any, None]) -> None:
        try:
            await hook
        except Exception:  # noqa: BLE001
            self._handle_failure(*sys.exc_info())

    # -- one message ---------------------------------------------------------------------------

    def _receive(self, envelope: Envelope[Any]) -> None:
        """Handle a message on the loop, or keep it until the handler that waits has ended."""
        if self._task is not None:
            inbox = cast("Inbox", self.actor_inbox)
            if inbox.backlog is None:
                inbox.backlog = deque()
            inbox.backlog.append(envelope)
        elif self.actor_stopped.is_set():
            self._refuse(envelope)
        else:
            self._handle(envelope)

    def _handle(self, envelope: Envelope[Any]) -> None:
        reply_to = self._reply_to = cast("AsyncFuture[Any] | None", envelope.reply_to)
        try:
            message = envelope.message
            if type(message) in _PYKKA_MESSAGES:
                response = self._handle_receive(message)
            else:
                response = self.on_receive(message)
            if type(response) is CoroutineType:
                self._await(response, reply_to)
            elif reply_to is not None and response is not DEFERRED:
                reply_to.set(response)
        except Exception as error:  # noqa: BLE001 - goes to who asked, or ends the actor
            self._failed(error, reply_to)
        except BaseException as error:
            self._failed(error, reply_to)
            self._fail(error)
            raise

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
        except asyncio.CancelledError as error:
            if reply_to is not None and not reply_to.done():
                reply_to.set_exception(error)
            raise
        except Exception as error:  # noqa: BLE001
            self._failed(error, reply_to)
        except BaseException as error:
            self._failed(error, reply_to)
            self._fail(error)
            raise
        finally:
            self._task = None
            self._catch_up()

    def _catch_up(self) -> None:
        """Handle what waited behind an ``async`` handler."""
        inbox = cast("Inbox", self.actor_inbox)
        while inbox.backlog and self._task is None:
            self._receive(inbox.backlog.popleft())
        if not inbox.backlog:
            inbox.backlog = None

    # -- ends ----------------------------------------------------------------------------------

    def _failed(self, error: BaseException, reply_to: AsyncFuture[Any] | None) -> None:
        if reply_to is None:
            self._fail(error)
        elif not reply_to.done():
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("Exception returned from %s to caller:", self, exc_info=error)
            reply_to.set_exception(error)

    def _fail(self, error: BaseException) -> None:
        """End the actor because of a defect."""
        if self.actor_stopped.is_set():
            return
        info = (type(error), error, error.__traceback__)
        self._handle_failure(*info)
        self._hook(lambda: self.on_failure(*info))

    def _handle_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        logger.error(
            "Unhandled exception in %s:", self, exc_info=(exception_type, exception_value, traceback)
        )
        self._registry.unregister(self._actor_ref)
        self.actor_stopped.set()

    def _stop(self) -> Any:
        """Stop without handling the messages that still wait; they are answered with ActorDeadError."""
        self._registry.unregister(self._actor_ref)
        self.actor_stopped.set()
        return self._hook(self.on_stop)

    def _hook(self, hook: Any) -> Any:
        """Run a hook of the actor's end; a coroutine it gives is waited for by who asked to stop."""
        try:
            response = hook()
        except Exception:  # noqa: BLE001 - pykka's rule: logged
            self._handle_failure(*sys.exc_info())
            return None
        if not isinstance(response, CoroutineType):
            return None
        if self._reply_to is not None:
            return self._await_end(response)
        self._await(self._await_end(response), None)
        return None

    async def _await_end(self, hook: Coroutine[Any, Any, None]) -> None:
        try:
            await hook
        except Exception:  # noqa: BLE001
            self._handle_failure(*sys.exc_info())

    def _refuse(self, envelope: Envelope[Any]) -> None:
        reply_to = envelope.reply_to
        if reply_to is None:
            return
        if isinstance(envelope.message, messages._ActorStop):
            reply_to.set(None)
        else:
            dead = pykka.ActorDeadError(f"{self.actor_ref} stopped before handling the message")
            cast("AsyncFuture[Any]", reply_to).set_exception(dead)
