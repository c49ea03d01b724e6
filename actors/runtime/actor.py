"""``AsyncActor``: a pykka actor whose messages are handled on an event loop, not in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Protocol, Self

import pykka
from pykka import messages

from actors.runtime.future import AsyncFuture
from actors.runtime.loop import BURST, Mailroom, mailroom_here
from actors.runtime.ref import AsyncActorRef, Inbox, StopFlag

logger = logging.getLogger("pykka")

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
    """Returned by a handler that has taken the reply, to give it later."""


DEFERRED = _Deferred()


class Registry(Protocol):
    """Where actors are registered while they live."""

    def register(self, actor: Any, /) -> None:
        """Add the actor."""

    def unregister(self, actor: Any, /) -> None:
        """Remove the actor; unknown ones are ignored."""


class Unregistered:
    """A registry that keeps nothing, for actors that only their maker knows."""

    def register(self, actor: Any, /) -> None:
        """Do nothing: nobody looks for it."""

    def unregister(self, actor: Any, /) -> None:
        """Do nothing: nobody looked for it."""


class PykkasRegistry:
    """The registry of actors that pykka lists."""

    def register(self, actor: pykka.Actor, /) -> None:
        """Add it to pykka's list."""
        pykka.ActorRegistry.register(actor.actor_ref)

    def unregister(self, actor: pykka.Actor, /) -> None:
        """Remove it from pykka's list."""
        pykka.ActorRegistry.unregister(actor.actor_ref)


UNREGISTERED = Unregistered()
PYKKAS_REGISTRY = PykkasRegistry()


class AsyncActor(pykka.Actor):
    """A pykka actor on an event loop: the running one, or one that serves the whole process.

    ``on_receive``, proxied methods and the life-cycle hooks may be plain or ``async def``. An actor handles
    one message at a time, in order of arrival; while an ``async`` handler waits, its next messages wait too.
    An exception goes to whoever asked; if the message was a ``tell``, it ends the actor.
    ``KeyboardInterrupt`` and ``SystemExit`` from a handler end this actor and propagate to the loop. A loop
    that ends takes with it the actors whose handlers it cancels.
    """

    # Many actors are made, and quickly: what each message looks at has a slot; the rest stands in the class
    # until it is set.
    __slots__ = ("_mailroom", "_registry", "_reply_to", "_stopped", "_task")

    _mailroom: Mailroom
    _registry: Registry
    #: The handler that waits, or why else messages have to; None for an actor that takes them.
    _task: asyncio.Task[Any] | str | None
    #: Where the answer to the message that is being handled goes; None where nobody waits for it.
    _reply_to: AsyncFuture[Any] | None
    _stopped: bool
    #: What threads wait for that wait for the actor's end.
    _stop_event: threading.Event | None = None
    #: The messages that wait behind an ``async`` handler, each with its reply.
    _backlog: deque[tuple[Any, Any]] | None = None
    _ref: AsyncActorRef[Any] | None = None
    _urn: str | None = None

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """There is nothing to do: ``make`` has done it."""

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> AsyncActorRef[Self]:
        """Start an actor on the running loop, or else on the one that serves the whole process, and register
        it with pykka.
        """
        actor = cls.make(mailroom_here(), PYKKAS_REGISTRY, *args, **kwargs)
        actor.begin()
        return actor.actor_ref

    @classmethod
    def make(cls, mailroom: Mailroom, registry: Registry, *args: Any, **kwargs: Any) -> Self:
        """An actor on the loop of ``mailroom``, registered with ``registry`` instead of pykka's list, which
        is searched from its front at every stop; ``begin`` starts it.
        """
        actor = cls.__new__(cls)
        actor._mailroom = mailroom
        actor._registry = registry
        actor._task = _NOT_BEGUN
        actor._reply_to = None
        actor._stopped = False
        actor.__init__(*args, **kwargs)  # type: ignore[misc]
        return actor

    # -- as pykka sees it ------------------------------------------------------------------------

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """A universally unique name, made when it is first asked for."""
        if self._urn is None:
            self._urn = uuid.uuid4().urn
        return self._urn

    @property
    def actor_ref(self) -> AsyncActorRef[Self]:
        """The reference by which the actor is reached, made when it is first asked for."""
        if self._ref is None:
            self._ref = AsyncActorRef(self)
        return self._ref

    @property
    def actor_inbox(self) -> Inbox:  # type: ignore[override]
        """Where pykka puts its messages."""
        return Inbox(self)

    @property
    def actor_stopped(self) -> StopFlag:  # type: ignore[override]
        """Pykka's flag for a stopped actor."""
        return StopFlag(self)

    def actor_lives(self) -> bool:
        """Whether it has neither stopped nor lost its event loop."""
        return not (self._stopped or self._mailroom.loop.is_closed())

    def actor_send(self, message: Any, reply_to: AsyncFuture[Any]) -> None:
        """Send the actor a message, to be answered on ``reply_to``, even if it is dead. From any thread."""
        reply_to._loop = self._mailroom.loop
        if self._stopped:
            reply_to.set_exception(pykka.ActorDeadError(f"{self.actor_ref} not found"))
            return
        try:
            self._mailroom.send(self, message, reply_to)
        except pykka.ActorDeadError as error:
            self._end()
            reply_to.set_exception(error)

    def begin(self) -> None:
        """Start an actor that was made by ``make``."""
        self._registry.register(self)
        self._start_actor_loop()

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        raise NotImplementedError  # pykka's own constructor asks for it, which is not called

    @staticmethod
    def _create_future() -> AsyncFuture[Any]:
        return AsyncFuture()

    def _start_actor_loop(self) -> None:
        if self._mailroom.here():
            self._begin()
        else:
            self._mailroom.post(self._begin)

    def _begin(self, _: object = None) -> None:
        """Call ``on_start``, then take messages, including those that came while the actor was made."""
        hook = None
        try:
            if type(self).on_start is not pykka.Actor.on_start:
                hook = self._hook(self.on_start)
        finally:
            if hook is None:
                self._catch_up()
            else:
                self._await(hook, None)

    # -- one message ---------------------------------------------------------------------------

    def _arrive(self, message: Any, reply_to: Any) -> None:
        """Handle a message, or keep it until the handler that is waiting has ended."""
        if self._task is not None:
            if self._backlog is None:
                self._backlog = deque()
            self._backlog.append((message, reply_to))
            self._on_waiting(message)
            return
        if self._stopped:
            self._refuse(message, reply_to)
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
            self._handle_error(error, reply_to)

    def _on_waiting(self, message: Any) -> None:
        """Note that a message has to wait for an ``async`` handler, which may be asked to end soon."""

    def _handle_error(self, error: BaseException, reply_to: AsyncFuture[Any] | None) -> None:
        """Answer a message whose plain handler raised ``error``."""
        self._reply_to = None
        hook = self._report_error(error, reply_to)
        if hook is not None:
            self._await(hook, None)
        if isinstance(error, _FATAL):
            raise error

    def defer_reply(self) -> AsyncFuture[Any]:
        """Take the reply of the message being handled, to give it later; the handler then returns
        ``DEFERRED``. For a ``tell``, what is set on it reaches nobody.
        """
        return AsyncFuture() if self._reply_to is None else self._reply_to

    def _await(self, handler: Coroutine[Any, Any, Any], reply_to: AsyncFuture[Any] | None) -> None:
        # Not ``create_task``, since a task that its loop's factory starts at once ends within this call.
        self._task = asyncio.Task(self._await_reply(handler, reply_to), loop=self._mailroom.loop)

    async def _await_reply(
        self, handler: Coroutine[Any, Any, Any], reply_to: AsyncFuture[Any] | None
    ) -> None:
        try:
            response = await handler
            if reply_to is not None and response is not DEFERRED:
                reply_to.set(response)
        except BaseException as error:
            if _loop_ends(error):
                self._lose_loop(reply_to)
                raise
            hook = self._report_error(error, reply_to)
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
        backlog = self._backlog
        if backlog is None:
            return
        for _ in range(min(len(backlog), BURST)):
            self._arrive(*backlog.popleft())
            if self._task is not None:
                return
        if backlog:
            self._task = _CATCHING_UP
            self._mailroom.loop.call_soon(self._catch_up)
        else:
            self._backlog = None

    # -- ends ----------------------------------------------------------------------------------

    def _report_error(
        self, error: BaseException, reply_to: AsyncFuture[Any] | None
    ) -> Coroutine[Any, Any, None] | None:
        """Handle the error of a handler: reply with it, or end the actor. Returns what is left to
        be awaited.
        """
        if isinstance(error, _FATAL):
            if reply_to is not None and not reply_to.done():
                reply_to.set_exception(_ended_by(self, error))
        elif reply_to is not None:
            self._send_error(error, reply_to)
            return None
        if self._stopped:
            return None
        info = (type(error), error, error.__traceback__)
        self._handle_failure(*info)
        return self._hook(lambda: self.on_failure(*info))

    def _send_error(self, error: BaseException, reply_to: AsyncFuture[Any]) -> None:
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
        self._registry.unregister(self)
        self._note_stopped()

    def _note_stopped(self) -> None:
        self._stopped = True
        if self._stop_event is not None:
            self._stop_event.set()

    def _stop(self) -> Any:
        """Stop without handling the messages that still wait; they are answered with ActorDeadError."""
        self._end()
        return self._hook(self.on_stop)

    def _lose_loop(self, reply_to: AsyncFuture[Any] | None) -> None:
        """End the actor in the middle of a message, because its loop ends: no hook can be awaited."""
        self._end()
        if reply_to is not None and not reply_to.done():
            reply_to.set_exception(pykka.ActorDeadError(f"the event loop of {self} ended before it answered"))
        backlog = self._backlog
        while backlog:
            self._refuse(*backlog.popleft())

    def _hook(self, hook: Callable[[], Any]) -> Coroutine[Any, Any, None] | None:
        """Call a life-cycle hook; returns what is left to be awaited of an ``async`` one. As in pykka, an
        error in it is logged and ends the actor.
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
            if isinstance(error, _FATAL) or _loop_ends(error):
                raise
            self._handle_failure(type(error), error, error.__traceback__)

    def _refuse(self, message: Any, reply_to: AsyncFuture[Any] | None) -> None:
        """Answer a message that came too late."""
        if reply_to is None:
            return
        if isinstance(message, messages._ActorStop):
            reply_to.set(None)
        else:
            dead = f"{self.actor_ref} stopped before handling the message"
            reply_to.set_exception(pykka.ActorDeadError(dead))


def _ended_by(actor: AsyncActor, error: BaseException) -> pykka.ActorDeadError:
    dead = pykka.ActorDeadError(f"{actor} was ended by {type(error).__name__}")
    dead.__cause__ = error
    return dead


def _loop_ends(error: BaseException) -> bool:
    """Whether the handler's own task was cancelled, or discarded with its loop, rather than something that
    the handler waited for.
    """
    if isinstance(error, GeneratorExit):
        return True
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
