"""``Subscriptions``: subscribes to the events of a system's pods, past ones from the store first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from actors.pod.address import Kinds
from actors.runtime.bus import Bus
from actors.runtime.on_loop import call_on
from actors.runtime.subscription import Feed, Subscription
from actors.sessions.store import SessionStore
from actors.swarm.roster import Roster
from protocol.errors import SystemNotRunning

if TYPE_CHECKING:
    from actors.runtime.loop import Mailroom

S = TypeVar("S", Subscription, Feed)
T = TypeVar("T")

#: The number of an entry, or such numbers by the names of pods.
Since = int | Mapping[str, int]


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
        if not isinstance(since, int | Mapping | None):
            raise TypeError(f"since: expected the number of an entry, or names with such, got {since!r}")
        return self._from(since, pod, self._bus.subscribe(pod, kinds, children=children), children=children)

    def feed(self, pod: str, kinds: Kinds, since: int | None) -> Feed:
        """The same for who sends the events of one pod on, as bytes."""
        return self._from(since, pod, self._bus.feed(pod, kinds))

    def _from(self, since: Since | None, pod: str | None, subscription: S, *, children: bool = False) -> S:
        """The subscription, with what is to come first."""
        if since is not None:
            try:
                self._replay(subscription, self._named(pod, children=children), since)
            except BaseException:
                subscription.close()
                raise
        return subscription

    def _named(self, pod: str | None, *, children: bool) -> list[str]:
        """The pods whose past is asked for."""
        if pod is None:
            return list(self._roster.pods)
        return [pod, *self._bus.below(pod)] if children else [pod]

    def _replay(self, subscription: Subscription | Feed, names: list[str], since: Since) -> None:
        after = {each: since if isinstance(since, int) else since.get(each, 0) for each in names}
        assert self.store is not None
        from actors.pod.session.past_events import PastEvents  # noqa: PLC0415 - paid for by who asks for the past

        past = PastEvents(self.store, after, self._roster.wait_until_started, self._roster.position)
        subscription.replay(past, self._on_loop)

    def _on_loop(self, work: Callable[[], T]) -> T:
        if self.mailroom is None:
            raise SystemNotRunning("the PodSystem was not entered")
        return call_on(self.mailroom, work)
