"""``Journal``: commits what a pod records, in order, then publishes it; forks if its session was taken."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import AT_ONCE, DirectWait, to_its_end
from actors.sessions.answers import Kept, durable, release_session, store_failure
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from protocol.entries import Parent
from protocol.errors import HeadConflict, SessionError, SessionInUse, SessionNotFound, StoreError
from protocol.events import Alert, Event

if TYPE_CHECKING:
    from actors.pod.resources import PodResources
    from actors.runtime.loop import Mailroom


#: What was given to the store; it is answered on any thread, or on the loop.
Pending = AsyncFuture[None] | Future[None] | asyncio.Future[None]

_NOTHING: frozenset[type[Event]] = frozenset()  # one for all: Python makes a new one each time


class Owner(Protocol):
    """The pod, as its journal needs it."""

    def carried(self) -> dict[str, Any]:
        """What a session that takes the place of the pod's inherits."""

    def store_refused(self, error: BaseException) -> None:
        """Undo what the store did not keep; the log is back at what is durable."""


class Journal:
    """A pod's session log, and when what is recorded in it becomes durable and is published.

    One commit at a time; what is recorded meanwhile goes with the next. If the store refuses, the log goes
    back to what is durable, its owner is notified, then the waiting commits raise. Ends of activities whose
    start is durable are recorded again, for the next commit.
    """

    __slots__ = (
        "_alone",
        "_branching",
        "_given",
        "_kinds",
        "_kinds_at",
        "_left",
        "_mailroom",
        "_owner",
        "_refused_again",
        "_template",
        "_under_way",
        "_waiting",
        "bus",
        "closed",
        "head",
        "log",
        "run_id",
    )

    def __init__(self, resources: PodResources, mailroom: Mailroom, owner: Owner) -> None:
        self._template = resources.template
        self.bus = resources.template.bus
        #: The transient kinds that have a subscriber, as of the bus's change of that number.
        self._kinds = _NOTHING
        self._kinds_at = -1
        self._mailroom = mailroom
        #: None once the pod has ended: it has this journal, and a circle is found late.
        self._owner: Owner | None = owner
        self.log: SessionLog = resources.log
        self.head: SessionHead = resources.log.head
        #: The run that transient events belong to.
        self.run_id: str | None = None
        #: What was given to the store and is not kept yet, and who waits for that.
        self._under_way: Pending | None = None
        self._given: DirectWait | None = None
        #: Whether only who gave it gets the error of a refusal.
        self._alone = False
        #: Who waits for that to be over, with something of their own to commit.
        self._waiting: list[DirectWait] | None = None
        #: Whether no session of our own is to be gone on in, since that is done already or the pod ends.
        self._branching = False
        #: Whether the pod has ended: then the store may or may not keep what it was given last.
        self.closed = False
        #: The session that is being branched from.
        self._left = ""
        #: Whether the ends that the store refused were refused once more.
        self._refused_again = False

    # -- publishing ------------------------------------------------------------------------------

    def has_subscriber(self, kind: type[Event]) -> bool:
        """Whether this pod has a subscriber to transient events of that kind."""
        if self._kinds_at != self.bus.changes:
            self._refresh_kinds()
        return kind in self._kinds

    def has_subscribers(self) -> bool:
        """Whether this pod has a subscriber to any transient event."""
        bus = self.bus
        if bus.silent:
            return False
        if self._kinds_at != bus.changes:
            self._refresh_kinds()
        return bool(self._kinds)

    def _refresh_kinds(self) -> None:
        self._kinds_at, self._kinds = self.bus.subscribed_kinds(self.log.pod)

    def publish(self, kind: type[Event], **fields: Any) -> None:
        """Publish a transient event, behind the durable ones that were recorded before it."""
        if not self.bus.silent and self.has_subscriber(kind):
            head = self.head
            event = kind(self.log.pod, head.session_id, head.seq, time.time(), self.run_id, **fields)
            self.log.publish_transient(event)

    # -- committing ------------------------------------------------------------------------------

    def alert(self, text: str) -> None:
        """Record an ``Alert``, which a person should see."""
        self.log.record(Alert, self.run_id, text=text)

    @property
    def at_rest(self) -> bool:
        """Whether all that was recorded is committed."""
        return self.log.is_clean() and self._under_way is None

    def has_refused_ends(self) -> bool:
        """Whether ends wait that the store refused once, and no commit under way takes them along."""
        return not (self.log.is_clean() or self._under_way or self._refused_again)

    def commit(self) -> Awaitable[None]:
        """Make everything that is recorded durable, whoever cancels meanwhile, and publish it.

        Await it at once: nothing may come between the recording and this, or the refusal of another commit
        silently drops what was recorded. Raises SessionError.
        """
        if self._under_way is not None or self.closed:
            return self._commit_behind()
        given = self._give(self.log.commit)
        return AT_ONCE if given is None else to_its_end(given)

    async def _commit_behind(self) -> None:
        """Make everything that is recorded durable, after the commit that is under way."""
        behind = False
        while self._under_way is not None and not self.closed:
            waiter = DirectWait(loop=self._mailroom.loop)
            if self._waiting is None:
                self._waiting = []
            self._waiting.append(waiter)
            await to_its_end(waiter)
            # What was under way at the second wait had ours with it, whoever gave it to the store.
            if behind or (self.log.is_clean() and self._under_way is None):
                return
            behind = True
        if self.closed:
            raise self._ended()
        await self.commit()

    def _ended(self) -> StoreError:
        """The error that commits raise once the pod has ended."""
        return StoreError(f"pod {self.log.pod!r} has ended")

    async def start_successor(self, record: Callable[[Parent], None]) -> None:
        """Continue in a new session that takes this one's place; ``record`` records what it begins with. All
        of it becomes durable, or nothing. Raises SessionError.
        """
        while not self.at_rest:
            await self.commit()

        def create() -> Kept:
            parent = self.log.start_successor(new_session_id())
            record(parent)
            return self.log.create(parent)

        given = self._give(create, alone=True)
        if given is not None:
            await to_its_end(given)

    async def retry(self) -> None:
        """Give the store again the ends that it refused; if it refuses again they wait for another commit."""
        self._refused_again = True
        with contextlib.suppress(SessionError):
            await self.commit()

    def carried(self) -> dict[str, Any]:
        """What a session that takes the place of this one inherits besides items."""
        assert self._owner is not None
        return self._owner.carried()

    def stop_branching(self) -> None:
        """Stop forking at a conflict, because the pod ends."""
        self._branching = True

    def _give(self, give: Callable[[], Kept], alone: bool = False) -> DirectWait | None:
        """Give the store what is recorded: returns None if it is durable at once, else a future of the
        store's answer. Raises SessionError. If it is given ``alone`` and refused, only its giver gets the
        error.
        """
        try:
            kept = give()
        except SessionError as error:
            return self._handle_refusal(error, alone=alone)
        if kept is None:
            if self._refused_again or self._left:
                self._on_kept()
            return None
        given = self._given
        if given is None:
            given = self._given = DirectWait(loop=self._mailroom.loop)
        self._alone = alone
        if isinstance(kept, AsyncFuture) and not kept.is_lazy:
            self._under_way = kept
            kept.when_done(lambda: self._on_answer(kept))
        else:
            pending = self._under_way = kept if isinstance(kept, Future) else durable(kept)
            pending.add_done_callback(self._on_answer)
        return given

    def _on_answer(self, done: Pending) -> None:
        """Bring the store's answer to the loop, from whatever thread it comes on."""
        if self._mailroom.here():
            self._take_answer(done)
        else:
            self._mailroom.post(self._take_answer, done)

    def _take_answer(self, done: Pending) -> None:
        """Confirm or roll back what was given to the store, and answer those who wait for it."""
        cancelled = not isinstance(done, AsyncFuture) and done.cancelled()
        error = asyncio.CancelledError() if cancelled else done.exception()
        if self._under_way is not done:  # the pod has given up waiting
            return
        self._under_way = None
        try:
            if error is None:
                self.log.confirm()
                self._on_kept()
            else:
                self.log.roll_back()
                if (
                    self._handle_refusal(store_failure(error), alone=self._alone and not self._waiting)
                    is not None
                ):
                    return  # on its way into a session of our own
        except BaseException as refused:  # noqa: BLE001 - raised where it is waited for
            self._answer(refused)
        else:
            self._answer()

    def _answer(self, error: BaseException | None = None) -> None:
        """Answer everyone who waits. They resume at once if it succeeded and the loop is idle."""
        given, self._given = self._given, None
        waiting, self._waiting = self._waiting, None
        at_once = error is None and not self._mailroom.is_busy()
        for waiter in (given, *(waiting or ())):
            if waiter is None or waiter.done():
                continue
            if at_once:
                waiter.end_at_once()
            else:
                waiter.end(error)

    def _on_kept(self) -> None:
        self._refused_again = False
        if self._left:
            left, self._left, self._branching = self._left, "", False
            release_session(self._template.store, left)

    def _handle_refusal(self, error: SessionError, *, alone: bool) -> DirectWait | None:
        """Handle what the store refused. If another process has taken the session, continue in a fork; else
        notify everyone. Returns and raises as ``_give``.
        """
        taken = isinstance(error, HeadConflict | SessionInUse | SessionNotFound)
        if taken and self._template.on_conflict == "fork" and not self._branching:
            self._branching, self._left = True, self.head.session_id
            return self._give(self._branch, alone=alone)
        if self._left:
            self._left, self._branching = "", False
        self.log.restage()
        if not alone and self._owner is not None:
            self._owner.store_refused(error)
        raise error

    def _branch(self) -> Kept:
        return self.log.branch(new_session_id(), self._template.opening, "taken", **self.carried())

    def close(self) -> None:
        """End all waits for commits, because the pod has ended. A commit that is still awaited is cancelled,
        and may become durable or not.
        """
        self.closed, self._owner = True, None
        if isinstance(pending := self._under_way, asyncio.Future):
            self._under_way = None
            pending.cancel()
        if self._given is not None or self._waiting is not None:
            self._answer(self._ended())

    # -- the end ---------------------------------------------------------------------------------

    async def abandon(self, seconds: float) -> None:
        """Roll back to what is durable, when a defect ends the pod; ends are recorded again."""
        pending, self._under_way = self._under_way, None
        if pending is not None:
            await self.wait_for_last(pending, seconds)
        self.log.roll_back()
        self.log.restage()

    async def commit_last(self, seconds: float) -> None:
        """Commit once more, within ``seconds``, when nobody is left to handle a refusal."""
        if self._under_way is not None:
            last = asyncio.ensure_future(self.commit())
            last.add_done_callback(_ignore_outcome)
            await asyncio.wait({last}, timeout=seconds)
            return
        try:
            pending = self.log.commit()
        except SessionError:
            return
        if pending is not None:
            await self.wait_for_last(pending, seconds)

    async def wait_for_last(self, kept: Future[None] | Awaitable[None], seconds: float) -> None:
        """Wait at most ``seconds`` for what was given to the store, when nobody is left to handle its
        outcome.
        """
        pending = durable(kept)
        await asyncio.wait((pending,), timeout=seconds)
        if pending.done() and not pending.cancelled() and pending.exception() is None:
            self.log.confirm()
            return
        self.log.roll_back()
        pending.cancel()


def _ignore_outcome(last: asyncio.Future[None]) -> None:
    """Retrieve the outcome of the last commit, which nobody waits for any more."""
    if not last.cancelled():
        last.exception()
