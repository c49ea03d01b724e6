"""``Subscriptions``: subscribes to the events of a system's pods, past ones from the store first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from actors.pod.address import Kinds, Since
from actors.runtime.events.bus import Bus
from actors.runtime.events.prefetch import Source
from actors.runtime.events.subscription import Feed, Subscription
from actors.runtime.on_loop import call_on
from actors.sessions.head import composed
from actors.sessions.store import SessionStore
from actors.swarm.roster import Roster
from protocol.entries import StoredEntry
from protocol.errors import SystemNotRunning
from protocol.events import Lagged
from protocol.foreign import shown

if TYPE_CHECKING:
    from actors.runtime.loop import Mailroom

S = TypeVar("S", Subscription, Feed)
T = TypeVar("T")

Past = Source[StoredEntry | Lagged]


class Subscriptions:
    """Makes the subscriptions to one system. Used on any thread, also once the system has been left: then
    they are at their end.
    """

    __slots__ = ("_bus", "_roster", "mailroom", "store")

    def __init__(self, bus: Bus, roster: Roster) -> None:
        self._bus = bus
        self._roster = roster
        #: Set when the system is entered.
        self.mailroom: Mailroom | None = None
        self.store: SessionStore | None = None

    def subscribe(
        self, pod: str | None, kinds: Kinds, since: Since | None, *, children: bool = False
    ) -> Subscription:
        """As ``PodSystem.subscribe``."""
        numbers = since.values() if isinstance(since, Mapping) else () if since is None else (since,)
        if not all(isinstance(number, int) for number in numbers):
            raise TypeError(
                "since: expected the number of an entry, or a dict of names and such "
                f"numbers, got {shown(since)}"
            )
        return self._from(since, pod, self._bus.subscribe(pod, kinds, children=children), children=children)

    def feed(self, pod: str, kinds: Kinds, since: Since | None, *, children: bool = False) -> Feed:
        """Events as ``subscribe`` gives them, but as bytes, for callers that send them on."""
        return self._from(since, pod, self._bus.feed(pod, kinds, children=children), children=children)

    def _from(self, since: Since | None, pod: str | None, subscription: S, *, children: bool) -> S:
        """The subscription, with what is to come first."""
        if since is not None:
            try:
                subscription.replay(self._past(pod, since, children=children), self._on_loop)
            except BaseException:
                subscription.close()
                raise
        return subscription

    def _past(self, pod: str | None, since: Since, *, children: bool) -> Past:
        """The past that is asked for."""
        assert self.store is not None
        if isinstance(since, Mapping):
            since = {composed(str(name)): number for name, number in since.items()}
        started, position = self._roster.wait_until_started, self._roster.position
        if children and pod is not None:
            from actors.pod.session.past_tree import PastTree  # noqa: PLC0415 - paid for by whoever asks for the past

            return PastTree(self.store, pod, since, started, lambda: self._living(pod))
        from actors.pod.session.past_events import PastEvents  # noqa: PLC0415 - paid for by whoever asks for the past

        names = list(self._roster.pods) if pod is None else [pod]
        after = {each: since if isinstance(since, int) else since.get(each, 0) for each in names}
        return PastEvents(self.store, after, started, position)

    def _living(self, pod: str) -> dict[str, tuple[str, int]]:
        """The pods that live of one and all below it, with their sessions and last durable entries."""
        positions = {each: self._roster.position(each) for each in (pod, *self._bus.below(pod))}
        return {each: position for each, position in positions.items() if position is not None}

    def _on_loop(self, work: Callable[[], T]) -> T:
        if self.mailroom is None:
            raise SystemNotRunning("the PodSystem was not entered")
        return call_on(self.mailroom, work)
