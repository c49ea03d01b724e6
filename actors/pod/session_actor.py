"""``SessionActor``: an actor that keeps a session: its life, its state, its steps and its commits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from pykka._envelope import Envelope

from actors.pod.parts import PodParts
from actors.pod.restore import restore
from actors.runtime.actor import AsyncActor
from actors.runtime.future import AsyncFuture
from actors.sessions.head import new_session_id
from protocol.errors import HeadConflict, SessionError, SessionInUse
from protocol.events import Alert, Event, PodStarted, StateChanged
from protocol.lifecycle import PodState, may_move
from protocol.usage import Usage


class Commit(NamedTuple):
    """What follows a commit: ``then`` if it is kept, else ``refused`` hears why."""

    then: Callable[[], None]
    refused: Callable[[BaseException], None]


class StepEnded(NamedTuple):
    """To the pod from its own step: what came of it."""

    result: Any
    error: BaseException | None


class CommitEnded(NamedTuple):
    """To the pod from its store: a commit that it did not wait for has ended."""

    commit: Commit
    error: BaseException | None


class SessionActor(AsyncActor):
    """What a pod is apart from its runs. It never waits: a step runs beside it, and its end, like that
    of a commit, comes back as a message.
    """

    def __init__(
        self,
        parts: PodParts,
        resume: str | None,
        started: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__()
        self._parts = parts
        self._log = parts.log
        self._head = parts.log.head
        self._state = PodState.STARTING
        self._started: Callable[[BaseException | None], None] | None = started
        self._resume = resume
        self._free: deque[Callable[[], None]] | None = None
        self._step: asyncio.Task[None] | None = None
        self._then: Callable[[Any, BaseException | None], None] | None = None
        self._committing = False
        self._commit_under_way: Future[None] | None = None
        self._commits: list[Commit] | None = None
        self._branching = False
        #: A run that the log says has begun and not ended.
        self._open_run: str | None = None
        self._open_steps = 0
        #: Measured calls of a restored history, until somebody weighs it.
        self._measured: list[tuple[int, Usage]] | None = None
        self._usage: Usage | None = None
        self._cost: float | None = None

    @property
    def name(self) -> str:
        """The pod's name in its system."""
        return self._parts.name

    @property
    def standing(self) -> tuple[str, int]:
        """The pod's session and the number of its last durable entry."""
        return self._head.session_id, self._log.durable_seq

    @property
    def _run_id(self) -> str | None:
        """The run that transient events belong to."""
        return None

    def _advance(self) -> None:
        """Go on with what can be done now; called whenever a step or a commit has ended."""

    def _store_refused(self, error: BaseException, waiting: tuple[AsyncFuture[Any], ...]) -> None:
        """The store could not keep what was recorded; the log is back at what is durable."""

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
        except SessionError as error:
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
        except SessionError as error:
            self._log.roll_back()
            self._never_started(error)
        else:
            self._log.settle()
            self._ready()

    async def _restored(self, session_id: str) -> None:
        """Bring the session back and say so."""
        try:
            claim = self._parts.store.claim(session_id, self._parts.name)
            state, head = await restore(self._parts.store, session_id)
        except SessionError as error:
            self._never_started(error)
            return
        self._log.restored(session_id, head, state.items, state.pointer)
        self._open_run = state.open_run
        self._open_steps = state.open_steps
        self._usage, self._cost = state.usage, state.cost
        self._measured = state.calls
        if claim.torn:
            text = f"a half-written last batch of {claim.torn} bytes was cut off; nothing told was lost"
            self._log.record(Alert, text=text)
        self._log.record(PodStarted, model=self._parts.model, resumed=True)
        try:
            pending = self._log.commit()
        except SessionError as error:
            self._never_started(error)
            return
        if pending is None:
            self._ready()
        else:
            await self._ready_after(pending)

    def _ready(self) -> None:
        self._to(PodState.PAUSED if self._open_run is not None else PodState.IDLE)
        self._tell_started(None)

    def _tell_started(self, error: BaseException | None) -> None:
        started, self._started = self._started, None
        if started is not None:
            started(error)

    def _never_started(self, error: SessionError) -> None:
        self._state = PodState.FAILED
        self._registry.unregister(self.actor_ref)
        self.actor_stopped.set()
        if self._resume is None or not isinstance(error, SessionInUse):
            self._parts.store.release(self._head.session_id)
        self._tell_started(error)

    def _to(self, state: PodState) -> None:
        """The only setter of the state."""
        old = self._state
        if old is state:
            return
        assert may_move(old, state), f"{old} -> {state}"
        self._state = state
        self._tell(StateChanged, old=old, new=state)

    def _tell(self, kind: type[Event], **fields: Any) -> None:
        """Tell a transient event, if anybody listens."""
        parts = self._parts
        if parts.bus.silent or not parts.bus.listens(parts.name, kind):
            return
        self._log.tell(
            kind(
                pod=parts.name,
                session_id=self._head.session_id,
                seq=self._head.seq,
                at=time.time(),
                run_id=self._run_id,
                **fields,
            )
        )

    def _listened(self) -> bool:
        return self._parts.bus.listens(self._parts.name)

    # -- steps and commits -----------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Whether a step or a commit is under way: nothing may touch the history then."""
        return self._step is not None or self._committing

    def _when_free(self, action: Callable[[], None]) -> None:
        """Do ``action`` now, or between two requests of the run that goes on."""
        if not self._busy:
            action()
            return
        if self._free is None:
            self._free = deque()
        self._free.append(action)

    def _post(self, message: Any) -> None:
        """Send a message to this pod itself."""
        assert self._mailroom is not None
        self._mailroom.post(self._receive, Envelope(message))

    def _do(self, step: Coroutine[Any, Any, Any], then: Callable[[Any, BaseException | None], None]) -> None:
        """Start a step; ``then`` hears of its end as a message."""
        assert self._mailroom is not None
        self._then = then
        self._step = self._mailroom.loop.create_task(self._stepping(step))

    async def _stepping(self, step: Coroutine[Any, Any, Any]) -> None:
        try:
            ended = StepEnded(await step, None)
        except BaseException as error:  # noqa: BLE001 - whatever a tool or client throws, only its run ends
            ended = StepEnded(None, error)
        self._receive(Envelope(ended))

    def _on_step_ended(self, message: StepEnded) -> None:
        self._step = None
        then, self._then = self._then, None
        assert then is not None
        then(message.result, message.error)

    def _commit(self, then: Callable[[], None], *waiting: AsyncFuture[Any]) -> None:
        """Make what is recorded durable, then go on; ``waiting`` hear if the store refuses."""
        self._commit_by(self._log.commit, then, partial(self._lost, waiting))

    def _lost(self, waiting: tuple[AsyncFuture[Any], ...], error: BaseException) -> None:
        self._store_refused(error, waiting)

    def _commit_by(
        self,
        give: Callable[[], Future[None] | None],
        then: Callable[[], None],
        refused: Callable[[BaseException], None],
    ) -> None:
        if self._committing:
            self._commits = [*(self._commits or ()), Commit(then, refused)]
            return
        try:
            pending = give()
        except SessionError as error:
            self._refused(Commit(then, refused), error)
            return
        if pending is None:
            then()
            return
        self._committing = True
        self._commit_under_way = pending
        commit = Commit(then, refused)
        pending.add_done_callback(lambda done: self._post(CommitEnded(commit, done.exception())))

    def _refused(self, commit: Commit, error: BaseException) -> None:
        """The store did not keep it. Where another has taken the session, go on in one of our own."""
        taken = isinstance(error, HeadConflict | SessionInUse)
        if not taken or self._parts.on_conflict == "refuse" or self._branching:
            commit.refused(error)
            return
        self._branching = True
        old = self._head.session_id
        self._commit_by(
            lambda: self._log.branch(
                new_session_id(), self._parts.opening, "taken", usage=self._usage, cost=self._cost
            ),
            lambda: self._branched(old, commit.then),
            lambda refused: self._not_branched(commit, refused),
        )

    def _branched(self, old: str, then: Callable[[], None]) -> None:
        self._branching = False
        self._parts.store.release(old)
        self._history_replaced()
        then()

    def _not_branched(self, commit: Commit, error: BaseException) -> None:
        self._branching = False
        commit.refused(error)

    def _history_replaced(self) -> None:
        """Another list of items has taken the place of the history."""

    def _on_commit_ended(self, message: CommitEnded) -> None:
        self._committing = False
        self._commit_under_way = None
        commits, self._commits = self._commits or (), None
        if message.error is not None:
            self._log.roll_back()
            self._refused(_joined([message.commit, *commits]), message.error)
            return
        self._log.settle()
        message.commit.then()
        for commit in commits:
            self._commit_by(self._log.commit, commit.then, commit.refused)


def _joined(commits: list[Commit]) -> Commit:
    """Several commits that wait for the same answer, as one."""
    if len(commits) == 1:
        return commits[0]

    def then() -> None:
        for commit in commits:
            commit.then()

    def refused(error: BaseException) -> None:
        for commit in commits:
            commit.refused(error)

    return Commit(then, refused)
