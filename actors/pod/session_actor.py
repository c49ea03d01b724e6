"""``SessionActor``: an actor that keeps a session: how it comes to life or back, its state, what it tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from actors.pod.parts import PodParts
from actors.pod.restore import activities_left, restore
from actors.runtime.actor import AsyncActor
from actors.sessions.activities import ends_of
from actors.sessions.replay import Replayed
from actors.sessions.store import Claim
from protocol.errors import PodStopped
from protocol.events import Alert, Event, PodStarted, StateChanged
from protocol.lifecycle import PodState, may_move
from protocol.usage import Usage


class SessionActor(AsyncActor):
    """What a pod is apart from its runs: its session, and what it says of itself."""

    # What an idle pod has not set yet stands in the class: ten thousand of them start often, and with
    # more than thirty attributes of its own each would carry a dictionary.

    #: Whether the pod was asked to stop: it begins nothing any more.
    _stopping = False
    #: How many requests the open run of a restored session has had.
    _open_steps = 0
    #: Measured calls of a restored history, until somebody weighs it.
    _measured: list[tuple[int, Usage]] | None = None
    _usage: Usage | None = None
    _cost: float | None = None
    #: How long the runs that have ended took.
    _seconds = 0.0

    def __init__(
        self,
        parts: PodParts,
        resume: Callable[[], str] | None,
        started: Callable[[BaseException | None], None],
    ) -> None:
        """``resume`` finds the session to go on with; ``started`` hears once whether the pod lives."""
        super().__init__()
        self._parts = parts
        self._log = parts.log
        self._head = parts.log.head
        self._state = PodState.STARTING
        self._started: Callable[[BaseException | None], None] | None = started
        self._resume = resume

    @property
    def name(self) -> str:
        """The pod's name in its system."""
        return self._parts.name

    @property
    def standing(self) -> tuple[str, int]:
        """The pod's session and the number of its last durable entry."""
        return self._log.durable_session, self._log.durable_seq

    @property
    def _run_id(self) -> str | None:
        """The run that transient events belong to."""
        return None

    @property
    def _steps(self) -> int:
        """The requests of the run that goes on, or that a restored session left open."""
        return self._open_steps

    @property
    def _run_seconds(self) -> float:
        """How long the run that goes on has taken, from where the log tells of it."""
        return 0.0

    async def _look_through(self) -> None:
        """Do what a long history that was read back costs once, in slices that leave the loop its turn."""

    # -- life ----------------------------------------------------------------------------------

    def on_start(self) -> Any:
        if self._resume is not None:
            return self._restored(self._resume)
        log = self._log
        try:
            log.open(self._parts.opening)
            log.record(PodStarted, model=self._parts.model)
            self._warn()
            pending = log.create()
        except Exception as error:  # noqa: BLE001 - goes to who spawned
            self._never_started(error)
            return None
        if pending is None:
            self._ready()
            return None
        return self._ready_after(pending)

    def _warn(self) -> None:
        """Tell what in the manifest cannot be meant."""
        for warning in self._parts.limits.warnings():
            self._log.record(Alert, text=warning)

    async def _ready_after(self, pending: Future[None]) -> None:
        try:
            await asyncio.wrap_future(pending)
        except Exception as error:  # noqa: BLE001 - goes to who spawned
            self._log.roll_back()
            self._parts.store.release(self._log.durable_session)
            self._never_started(error)
        else:
            self._log.settle()
            self._ready()

    async def _restored(self, find: Callable[[], str]) -> None:
        """Bring the session back and say so."""
        store, log = self._parts.store, self._log
        claim = None
        try:
            claim = self._claimed(find)
            state, head = await restore(store, claim.session_id)
            left = activities_left(store, claim.session_id, state)
            log.restored(claim.session_id, head, state.items, state.pointer, state.open_run, left)
            self._take_over(state)
            await self._look_through()
            self._close_activities("the pod's process ended first")
            if claim.torn:
                text = f"a half-written last batch of {claim.torn} bytes was cut off; nothing told was lost"
                log.record(Alert, text=text)
            log.record(PodStarted, model=self._parts.model, resumed=True)
            pending = log.commit()
        except Exception as error:  # noqa: BLE001 - goes to who spawned
            if claim is not None:
                store.release(claim.session_id)
            self._never_started(error)
            return
        if pending is None:
            self._ready()
        else:
            await self._ready_after(pending)

    def _close_activities(self, why: str) -> None:
        """Tell the end of all that was started and can have no other end any more."""
        for kind, run_id, fields in ends_of(self._head.open, self._head.open_run, why):
            self._log.record_end(kind, run_id, **fields)

    def _claimed(self, find: Callable[[], str]) -> Claim:
        """Take the session that is to be resumed: where its pod has just compacted it, the one after."""
        store = self._parts.store
        while True:
            claim = store.claim(find(), self._parts.name)
            if find() == claim.session_id:
                return claim
            store.release(claim.session_id)

    def _take_over(self, state: Replayed) -> None:
        """Go on from what the session says of the pod's life before."""
        self._open_steps = state.open_steps
        self._usage, self._cost, self._seconds = state.usage, state.cost, state.seconds
        self._measured = state.calls
        if self._parts.budget is not None:
            self._parts.budget.carry(state.usage or Usage(), state.cost, state.seconds)

    def _ready(self) -> None:
        self._to(PodState.PAUSED if self._head.open_run is not None else PodState.IDLE)
        self._tell_started(None)

    def _tell_started(self, error: BaseException | None) -> None:
        started, self._started = self._started, None
        if started is not None:
            started(error)

    def _never_started(self, error: BaseException) -> None:
        self._state = PodState.FAILED
        self._registry.unregister(self.actor_ref)
        self.actor_stopped.set()
        self._tell_started(error)

    def _to(self, state: PodState) -> None:
        """The only setter of the state."""
        old = self._state
        if old is state:
            return
        assert may_move(old, state), f"{old} -> {state}"
        self._state = state
        if self._hears(StateChanged):
            head = self._head
            self._log.tell(
                StateChanged(
                    pod=self._parts.name,
                    session_id=head.session_id,
                    seq=head.seq,
                    at=time.time(),
                    run_id=self._run_id,
                    old=old,
                    new=state,
                )
            )

    def _tell(self, kind: type[Event], **fields: Any) -> None:
        """Tell a transient event, if anybody listens."""
        if not self._hears(kind):
            return
        self._log.tell(
            kind(
                pod=self._parts.name,
                session_id=self._head.session_id,
                seq=self._head.seq,
                at=time.time(),
                run_id=self._run_id,
                **fields,
            )
        )

    def _hears(self, kind: type[Event]) -> bool:
        """Whether anybody would hear such a transient event of this pod."""
        parts = self._parts
        return not parts.bus.silent and parts.bus.listens(parts.name, kind)

    def _listened(self) -> bool:
        parts = self._parts
        return not parts.bus.silent and parts.bus.listens(parts.name)

    def _gone(self) -> PodStopped:
        return PodStopped(f"pod {self._parts.name!r} has stopped", hint="spawn it again with resume=")
