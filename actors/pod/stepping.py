"""``SteppingActor``: never waits: its steps and commits run beside it, and their ends are messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any

from msgspec import Struct

from actors.pod.session_actor import SessionActor
from actors.runtime.future import AsyncFuture
from actors.sessions.head import new_session_id
from protocol.errors import HeadConflict, PodError, SessionError, SessionInUse, SessionNotFound
from protocol.events import Alert

#: How long an end waits for the disk, after what was cancelled has had its own time to end, in seconds.
STOP_GRACE = 5.0

#: Hears why the store did not keep what was recorded.
Refused = Callable[[BaseException], None]


class Commit(Struct, frozen=True):
    """What follows a commit: ``then`` if it is kept, else ``refused`` hears why."""

    then: Callable[[], None]
    refused: Refused


class StepEnded(Struct, frozen=True):
    """To the pod from its own step: what came of it."""

    step: asyncio.Task[None] | None
    result: Any
    error: BaseException | None


class StepOverdue(Struct, frozen=True):
    """To the pod from its clock: a step that was cancelled has had its time to end."""

    step: asyncio.Task[None]


class CommitEnded(Struct, frozen=True):
    """To the pod from its store: a commit that it did not wait for has ended."""

    commit: Commit
    error: BaseException | None


#: Steps that nobody waits for; the loop itself does not hold on to its tasks.
_left_to_themselves: set[asyncio.Task[None]] = set()


class SteppingActor(SessionActor):
    """One step at a time, and commits in the order in which they were asked for. Where the store finds
    the session taken by another, the actor goes on in one of its own.
    """

    _free: deque[Callable[[], None]] | None = None
    #: Who is answered by what waits to be done, or by a step that belongs to no run.
    _asked: deque[AsyncFuture[Any]] | None = None
    _step: asyncio.Task[None] | None = None
    _step_of_run = True
    _step_begun = _step_unwanted = False
    #: What the step is, for people, and whether its end is awaited only for a while.
    _step_is = ""
    _step_overdue: asyncio.TimerHandle | None = None
    _then: Callable[[Any, BaseException | None], None] | None = None
    _committing = False
    _commit_under_way: Future[None] | None = None
    _commits: list[Commit] | None = None
    _branching = False
    #: Whether ends that the store refused are on their way to it once more.
    _telling_again = False
    #: Whether they are to be, once nothing else is under way.
    _ends_wait = False

    @property
    def _ending(self) -> bool:
        """Whether the run that goes on is to end."""
        return False

    def _advance(self) -> None:
        """Go on with what can be done now; called whenever a step or a commit has ended."""

    def _store_refused(self, error: BaseException) -> None:
        """The store could not keep what was recorded; the log is back at what is durable. What can be
        done next is done once all who waited for the store have heard of it.
        """

    # -- steps ---------------------------------------------------------------------------------

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
        self._mailroom.send(self, message, None)

    def _do(
        self,
        step: Coroutine[Any, Any, Any],
        then: Callable[[Any, BaseException | None], None],
        *,
        what: str,
        caller: Context | None,
        of_run: bool = True,
    ) -> None:
        """Start a step; ``then`` hears of its end as a message. ``what`` it is, people are told; it sees the
        context variables of its ``caller``, or none. One that is not ``of_run`` goes on when the run is
        cancelled. What is not wanted any more ends as cancelled before it begins.
        """
        assert self._mailroom is not None
        self._then, self._step_is = then, what
        self._step_of_run, self._step_begun = of_run, False
        self._step_unwanted = self._stopping or (of_run and self._ending)
        # Not ``create_task``, since a task that its loop's factory starts at once ends within this call.
        self._step = asyncio.Task(
            self._stepping(step),
            loop=self._mailroom.loop,
            name=self._parts.name,
            context=Context() if caller is None else caller,
        )

    async def _stepping(self, step: Coroutine[Any, Any, Any]) -> None:
        task = self._step
        self._step_begun = True
        try:
            if self._step_unwanted:
                step.close()
                raise asyncio.CancelledError  # noqa: TRY301 - as if it had been cancelled at its first wait
            ended = StepEnded(task, await step, None)
        except BaseException as error:  # noqa: BLE001 - whatever a tool or client throws, only its run ends
            ended = StepEnded(task, None, self._why(error, task))
        if self._step is not task:  # it was left to itself, and whatever came of it is nobody's
            return
        mailroom = self._mailroom
        assert mailroom is not None
        if mailroom.has_mail:  # what was said before the step ended is heard before its end
            mailroom.send(self, ended, None)
        else:
            self._arrive(ended, None)

    def _why(self, error: BaseException, task: asyncio.Task[None] | None) -> BaseException:
        """What ended a step: a CancelledError that nobody asked for is a failure like any other."""
        asked = self._step_unwanted or task is None or task.cancelling() > 0
        if asked or not isinstance(error, asyncio.CancelledError):
            return error
        failed = PodError(f"{self._step_is} raised CancelledError by itself; nobody had cancelled it")
        failed.__cause__ = error
        return failed

    def _on_step_ended(self, message: StepEnded) -> None:
        if message.step is not self._step:
            return
        self._step = None
        if self._step_overdue is not None:
            self._step_overdue.cancel()
            self._step_overdue = None
        then, self._then = self._then, None
        if then is not None:  # else it was given up before it ended
            then(message.result, message.error)

    def _cancel_step(self, *, any_step: bool = False) -> None:
        """Cancel what the run is doing, or ``any_step``; what does not end by that is left to itself."""
        step = self._step
        if step is None or not (any_step or self._step_of_run):
            return
        if self._step_begun:
            step.cancel()
        else:  # a task that is cancelled before it begins never runs, and nobody would hear of its end
            self._step_unwanted = True
        if self._step_overdue is None:
            assert self._mailroom is not None
            self._step_overdue = self._mailroom.loop.call_later(
                self._parts.grace, lambda: self._post(StepOverdue(step))
            )

    def _on_step_overdue(self, message: StepOverdue) -> None:
        """A step that goes on though it was cancelled: its end is not waited for any longer."""
        step = self._step
        if step is None or message.step is not step:
            return
        _left_to_themselves.add(step)
        step.add_done_callback(_left_to_themselves.discard)
        seconds = self._parts.grace
        text = f"{self._step_is} did not end within {seconds:g} s of being cancelled, and was left to itself"
        self._log.record(Alert, self._run_id, text=text)
        self._on_step_ended(StepEnded(step, None, asyncio.CancelledError()))

    # -- commits -------------------------------------------------------------------------------

    def _commit(self, then: Callable[[], None], refused: Refused) -> None:
        """Make what is recorded durable, then go on. Where the store refuses, the log is back at what is
        durable and ``refused`` hears of it: it undoes what it had begun and starts nothing anew, since a
        store that refuses once may go on refusing. ``_store_refused`` is the least there is to do.
        """
        if self._committing:
            self._commits = [*(self._commits or ()), Commit(then, refused)]
        else:
            self._commit_by(self._log.commit, then, refused)

    def _refuse_to(self, *waiting: AsyncFuture[Any]) -> Refused:
        """What a refusal of the store does at least; ``waiting`` hear of it too."""

        def refused(error: BaseException) -> None:
            self._store_refused(error)
            for reply in waiting:
                if not reply.done():
                    reply.set_exception(error)

        return refused

    def _when_durable(self, action: Callable[[], None], refused: Refused) -> None:
        """Do ``action`` once nothing is staged: for what begins a session of its own."""
        if self._log.clean and not self._committing:
            action()
        else:
            self._commit(lambda: self._when_durable(action, refused), refused)

    def _commit_by(
        self,
        give: Callable[[], Future[None] | None],
        then: Callable[[], None],
        refused: Refused,
    ) -> None:
        """What ``_commit`` does, with another way to give the store what is staged. No commit may be under
        way: what waits behind one is given as ``_commit`` does it.
        """
        assert not self._committing
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
        taken = isinstance(error, HeadConflict | SessionInUse | SessionNotFound)
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
        self._log.restage()
        self._committing = True
        commit.refused(error)
        self._committing = False
        again, self._telling_again = self._telling_again, False
        self._commit_next()
        self._advance()
        if not again:
            self._tell_again()

    def _tell_again(self) -> None:
        """Try once more to tell ends that the store refused, if nothing else is about to; after that they
        wait until something else is to be kept.
        """
        self._ends_wait = self._busy
        if self._busy or self._log.clean or self.actor_stopped.is_set():
            return
        self._telling_again = True

        def told() -> None:
            self._telling_again = False
            self._advance()

        self._commit(told, self._store_refused)

    def _commit_next(self) -> None:
        """Commit what gathered meanwhile. While any of it waits the pod is busy: what follows the one may
        have to come before what the other, which only wants to go on, would begin.
        """
        while self._commits and not self._committing:
            commit, *self._commits = self._commits
            self._commit(commit.then, commit.refused)

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
