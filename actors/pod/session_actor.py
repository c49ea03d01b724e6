"""``SessionActor``: an actor that keeps a session: its life, its state, its steps and its commits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from msgspec import Struct
from pykka._envelope import Envelope

from actors.pod.parts import PodParts
from actors.pod.restore import restore
from actors.runtime.actor import AsyncActor
from actors.runtime.future import AsyncFuture
from actors.sessions.head import new_session_id
from actors.sessions.replay import Replayed
from actors.sessions.store import Claim
from protocol.errors import HeadConflict, PodStopped, SessionError, SessionInUse
from protocol.events import Alert, Event, PodStarted, StateChanged
from protocol.lifecycle import PodState, may_move
from protocol.usage import Usage


class Commit(Struct, frozen=True):
    """What follows a commit: ``then`` if it is kept, else ``refused`` hears why."""

    then: Callable[[], None]
    refused: Callable[[BaseException], None]


class StepEnded(Struct, frozen=True):
    """To the pod from its own step: what came of it."""

    result: Any
    error: BaseException | None


class CommitEnded(Struct, frozen=True):
    """To the pod from its store: a commit that it did not wait for has ended."""

    commit: Commit
    error: BaseException | None


class SessionActor(AsyncActor):
    """What a pod is apart from its runs. It never waits: a step runs beside it, and its end, like that
    of a commit, comes back as a message.
    """

    # What an idle pod has not set yet stands in the class: ten thousand of them start often, and with
    # more than thirty attributes of its own each would carry a dictionary.

    #: Whether the pod was asked to stop: it begins nothing any more.
    _stopping = False
    _free: deque[Callable[[], None]] | None = None
    #: Who is answered by what waits to be done, or by a step that belongs to no run.
    _asked: deque[AsyncFuture[Any]] | None = None
    _step: asyncio.Task[None] | None = None
    _step_of_run = True
    _step_begun = _step_unwanted = False
    _then: Callable[[Any, BaseException | None], None] | None = None
    _committing = False
    _commit_under_way: Future[None] | None = None
    _commits: list[Commit] | None = None
    _branching = False
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

    @property
    def _ending(self) -> bool:
        """Whether the run that goes on is to end."""
        return False

    async def _look_through(self) -> None:
        """Do what a long history that was read back costs once, in slices that leave the loop its turn."""

    def _advance(self) -> None:
        """Go on with what can be done now; called whenever a step or a commit has ended."""

    def _store_refused(self, error: BaseException) -> None:
        """The store could not keep what was recorded; the log is back at what is durable. What can be
        done next is done once all who waited for the store have heard of it.
        """

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
            log.restored(claim.session_id, head, state.items, state.pointer, state.open_run)
            self._take_over(state)
            await self._look_through()
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

    # -- steps and commits -----------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Whether a step or a commit is under way: nothing may touch the history then."""
        return self._step is not None or self._committing or bool(self._commits)

    def _when_free(self, action: Callable[[], None], reply: AsyncFuture[Any]) -> None:
        """Do ``action``, which answers ``reply``, now or between two requests of the run that goes on."""
        if self._asked is None:
            self._asked = deque()
        while self._asked and self._asked[0].done():
            self._asked.popleft()
        self._asked.append(reply)
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

    def _do(
        self,
        step: Coroutine[Any, Any, Any],
        then: Callable[[Any, BaseException | None], None],
        *,
        of_run: bool = True,
    ) -> None:
        """Start a step; ``then`` hears of its end as a message. One that is not ``of_run`` goes on when
        the run is cancelled. What is not wanted any more ends as cancelled before it begins.
        """
        assert self._mailroom is not None
        self._then = then
        self._step_of_run, self._step_begun = of_run, False
        self._step_unwanted = self._stopping or (of_run and self._ending)
        # Not ``create_task``, since a task that its loop's factory starts at once ends within this call.
        self._step = asyncio.Task(self._stepping(step), loop=self._mailroom.loop, name=self._parts.name)

    async def _stepping(self, step: Coroutine[Any, Any, Any]) -> None:
        self._step_begun = True
        try:
            if self._step_unwanted:
                step.close()
                raise asyncio.CancelledError  # noqa: TRY301 - as if it had been cancelled at its first wait
            ended = StepEnded(await step, None)
        except BaseException as error:  # noqa: BLE001 - whatever a tool or client throws, only its run ends
            ended = StepEnded(None, error)
        self._arrive(ended, None)

    def _on_step_ended(self, message: StepEnded) -> None:
        self._step = None
        then, self._then = self._then, None
        if then is not None:  # else it was given up before it ended
            then(message.result, message.error)

    def _cancel_step(self, *, any_step: bool = False) -> None:
        """Cancel what the run is doing, or ``any_step``."""
        if self._step is None or not (any_step or self._step_of_run):
            return
        if self._step_begun:
            self._step.cancel()
        else:  # a task that is cancelled before it begins never runs, and nobody would hear of its end
            self._step_unwanted = True

    def _commit(self, then: Callable[[], None], *waiting: AsyncFuture[Any]) -> None:
        """Make what is recorded durable, then go on; ``waiting`` hear if the store refuses."""
        if not self._committing:
            try:
                pending = self._log.commit()
            except SessionError as error:
                self._refused(Commit(then, partial(self._lost, waiting)), error)
                return
            if pending is None:
                then()
                return
            self._await_commit(pending, Commit(then, partial(self._lost, waiting)))
        else:
            self._commits = [*(self._commits or ()), Commit(then, partial(self._lost, waiting))]

    def _lost(self, waiting: Sequence[AsyncFuture[Any]], error: BaseException) -> None:
        self._store_refused(error)
        for reply in waiting:
            if not reply.done():
                reply.set_exception(error)

    def _when_durable(self, action: Callable[[], None], refused: Callable[[BaseException], None]) -> None:
        """Do ``action`` once nothing is staged: for what begins a session of its own."""
        if self._log.clean and not self._committing:
            action()
        else:
            self._commit_by(self._log.commit, lambda: self._when_durable(action, refused), refused)

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
        self._await_commit(pending, Commit(then, refused))

    def _await_commit(self, pending: Future[None], commit: Commit) -> None:
        """The store keeps it later; its answer comes as a message."""
        self._committing = True
        self._commit_under_way = pending
        pending.add_done_callback(lambda done: self._post(CommitEnded(commit, done.exception())))

    def _refused(self, commit: Commit, error: BaseException) -> None:
        """The store did not keep it. Where another has taken the session, go on in one of our own."""
        taken = isinstance(error, HeadConflict | SessionInUse)
        if not taken or self._parts.on_conflict == "refuse" or self._branching:
            self._give_up(commit, error)
            return
        self._branching = True
        old = self._head.session_id
        self._commit_by(
            lambda: self._log.branch(
                new_session_id(),
                self._parts.opening,
                "taken",
                steps=self._steps,
                usage=self._usage,
                cost=self._cost,
                seconds=self._seconds,
                run_seconds=self._run_seconds,
            ),
            lambda: self._branched(old, commit.then),
            lambda refused: self._not_branched(commit, refused),
        )

    def _branched(self, old: str, then: Callable[[], None]) -> None:
        self._branching = False
        self._parts.store.release(old)
        then()

    def _not_branched(self, commit: Commit, error: BaseException) -> None:
        self._branching = False
        commit.refused(error)

    def _give_up(self, commit: Commit, error: BaseException) -> None:
        """Tell all who waited that it was not kept; only then go on, with what they want kept now first."""
        self._committing = True
        commit.refused(error)
        self._committing = False
        self._commit_next()
        self._advance()

    def _commit_next(self) -> None:
        """Commit what gathered meanwhile. While any of it waits the pod is busy: what follows the one may
        have to come before what the other, which only wants to go on, would begin.
        """
        while self._commits and not self._committing:
            commit, *self._commits = self._commits
            self._commit_by(self._log.commit, commit.then, commit.refused)

    def _on_commit_ended(self, message: CommitEnded) -> None:
        self._committing = False
        self._commit_under_way = None
        if message.error is not None:
            commits, self._commits = self._commits or (), None
            self._log.roll_back()
            self._refused(self._joined([message.commit, *commits]), message.error)
            return
        self._log.settle()
        message.commit.then()
        self._commit_next()

    def _joined(self, commits: list[Commit]) -> Commit:
        """Several commits that wait for the same answer, as one."""
        if len(commits) == 1:
            return commits[0]

        def then() -> None:
            self._commits = [*commits, *(self._commits or ())]
            self._commit_next()

        def refused(error: BaseException) -> None:
            for commit in commits:
                commit.refused(error)

        return Commit(then, refused)
