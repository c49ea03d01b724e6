"""``Address``: how the handle of a pod reaches it; ``Mailboxes``: the address of the pods of this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from actors.pod.local import actor_of
from actors.runtime.events.subscription import Feed, Subscription
from actors.runtime.future import AsyncFuture
from actors.runtime.ref import stop_by
from protocol.commands import Command
from protocol.errors import PodStopped
from protocol.events import EventKind

if TYPE_CHECKING:
    from actors.pod.handle import Pod

Kinds = Collection[EventKind] | EventKind | None
#: The number of an entry, or such numbers by the names of pods.
Since = int | Mapping[str, int]


class Address(Protocol):
    """How pods are reached, from any thread and any event loop: here by the mailboxes of their actors."""

    def is_alive(self, pod: Pod, /) -> bool:
        """Whether the pod takes commands, as far as is known here."""

    def ask(self, pod: Pod, command: Command, /) -> AsyncFuture[Any]:
        """Send a command: a future of what it resolves with."""

    def stop(self, pod: Pod, /) -> AsyncFuture[bool]:
        """End the pod: a future of whether it was alive."""

    def subscribe(self, pod: Pod, kinds: Kinds, since: Since | None, /, *, children: bool) -> Subscription:
        """The pod's events from now on, or all durable ones after number ``since`` first; with ``children``
        those of its sub-agents too.
        """

    def feed(self, pod: Pod, kinds: Kinds, since: Since | None, /, *, children: bool) -> Feed:
        """As ``subscribe``, but each event as its encoded bytes, for whoever forwards them."""


T_co = TypeVar("T_co", covariant=True)


class Subscribe(Protocol[T_co]):
    """Subscribes to the events of a pod, by its name."""

    def __call__(self, pod: str, kinds: Kinds, since: Since | None, /, *, children: bool) -> T_co: ...


class Mailboxes:
    """The address of all pods of one system: what belongs to one pod is found through its actor."""

    __slots__ = ("_feed", "_subscribe")

    def __init__(self, subscribe: Subscribe[Subscription], feed: Subscribe[Feed]) -> None:
        self._subscribe = subscribe
        self._feed = feed

    def is_alive(self, pod: Pod) -> bool:
        return actor_of(pod).actor_lives()

    def ask(self, pod: Pod, command: Command) -> AsyncFuture[Any]:
        actor = actor_of(pod)
        if not actor.actor_lives():
            stopped = PodStopped(f"pod {pod.name!r} has stopped", hint="spawn it again with resume=")
            return AsyncFuture.failed(stopped)
        future: AsyncFuture[Any] = AsyncFuture()
        future.caller = copy_context()
        actor.actor_send(command, future)
        return future

    def stop(self, pod: Pod) -> AsyncFuture[bool]:
        return stop_by(actor_of(pod))

    def subscribe(self, pod: Pod, kinds: Kinds, since: Since | None, *, children: bool) -> Subscription:
        return self._subscribe(pod.name, kinds, since, children=children)

    def feed(self, pod: Pod, kinds: Kinds, since: Since | None, *, children: bool) -> Feed:
        return self._feed(pod.name, kinds, since, children=children)
