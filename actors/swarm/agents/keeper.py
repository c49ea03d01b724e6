"""``Keeper``: looks after one agent: starts its runner, records what happens, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from actors.runtime.children.mark import is_running, mark_of
from actors.swarm.agents.approvals import AgentApprovals
from actors.swarm.agents.changes import Changes
from actors.swarm.agents.delivery import Delivery
from actors.swarm.agents.history import POD_RUNNERS
from actors.swarm.agents.home import Home
from actors.swarm.agents.inboxes import make_socket_folder
from actors.swarm.agents.journal import AgentJournal
from actors.swarm.agents.kept_programs import KeptChild, KeptPrograms, Place
from actors.swarm.agents.known_events import KnownEvents
from actors.swarm.agents.membership import Membership
from actors.swarm.agents.projections import Projections
from actors.swarm.agents.record import unplaced
from actors.swarm.agents.state import AgentState, status_of
from actors.swarm.runners.base import Answer, Launch, Life, Permission, Runner, StopWaits
from actors.swarm.runners.program import ProgramLife
from protocol.agents import LIVING, AgentResult, AgentSpec, AgentStatus
from protocol.entries import Entry, OtherEntry
from protocol.errors import (
    AgentError,
    AgentFailed,
    Failure,
    PolypodError,
    SessionError,
)
from protocol.events import (
    AgentIdle,
    AgentOutput,
    AgentRestarted,
    AgentStarted,
    AgentStopped,
    AgentStopReason,
    AgentStopRequested,
    DurableEvent,
    Event,
    RunOutcome,
    ToolResulted,
    UserMessage,
)

#: Of these a program may leave very many at once: they are recorded in few commits.
_MANY = (ToolResulted, AgentOutput)
#: What is said to a program whose task was interrupted, and that is to go on with it.
_GO_ON = "You were interrupted. Go on with your task where you were."


class Keeper:
    """One agent, on the loop of its system.

    ``runner`` is None if it is unknown how to run it: the agent was found in the store, and whoever started
    it gave an object.
    """

    def __init__(
        self,
        home: Home,
        spec: AgentSpec,
        session_id: str,
        projections: Projections,
        runner: Runner | None,
        *,
        inbox: Path,
        waits: StopWaits,
        env: tuple[str, ...] = (),
    ) -> None:
        self.spec, self.runner = spec, runner
        self._changes = Changes()
        self.journal = AgentJournal(home, spec.id, session_id, projections, self._changes)
        #: The name of the pod that it is, None where it is none.
        self.pod: str | None = None
        self.life: Life | None = None
        #: Its limits and its group, where it is started again once it fails.
        self.membership = Membership(self, home.mailroom)
        self.approvals = AgentApprovals(home, spec.id, self.journal.add)
        self._home = home
        self._inbox, self._waits, self._env = inbox, waits, env
        self._living: asyncio.Task[None] | None = None
        #: What it is sent.
        self.delivery = Delivery(self, self._changes)
        #: Whether somebody has asked for its end.
        self.stopping = False
        #: Whether it ends since nobody has a task for it any more.
        self._retiring = False
        #: Whether no life goes on, and none begins.
        self.over = True
        self.removed = False
        #: Whether another process looks after it.
        self.is_elsewhere = False
        #: Whether a task went on when its last life ended.
        self._interrupted = False
        #: Whether its program is to go on without us.
        self._leaves_behind = False
        self._tasks: set[asyncio.Task[None]] = set()
        #: Held by who starts or ends it.
        self._changing = asyncio.Lock()
        #: What starts its program where that may outlive us.
        self._kept: KeptPrograms | None = None
        #: What was recorded of its program before that was found again.
        self._known = KnownEvents()

    def __repr__(self) -> str:
        return f"<Keeper of {self.spec.id} {self.status}>"

    # -- how it stands -----------------------------------------------------------------------------

    @property
    def state(self) -> AgentState:
        """Its state, according to everything recorded."""
        return self.journal.state

    @property
    def is_ours(self) -> bool:
        """Whether this process looks after it, and holds its session."""
        return self.journal.is_ours

    @property
    def _folder(self) -> Path:
        return self.journal.projections.folder

    @property
    def status(self) -> AgentStatus:
        """Its status."""
        return status_of(self.state, supervised=self.is_ours or self.is_elsewhere)

    def take_history(self, entries: Iterable[Event | Entry | OtherEntry]) -> None:
        """Apply what is recorded."""
        self.journal.take_history(entries)
        self.membership.take_restarts(self.state.restarts)

    def note_damage(self, error: PolypodError) -> None:
        """Mark it as failed, so that it can be removed: its record cannot be read."""
        self.is_elsewhere = False
        self.journal.note_damage(error)

    async def wait(self) -> AgentResult:
        """Wait until its task has ended, and nothing waits to be delivered. Raises AgentError if another
        process looks after it.
        """
        self._check_not_elsewhere()
        await self._changes.until(lambda: not self._is_at_work())
        return self.state.result()

    def _is_at_work(self) -> bool:
        if self.delivery.waits or (self.life is None and not self.over):
            return True
        return self.status in {"pending", "running", "waiting"}

    # -- its lives -----------------------------------------------------------------------------------

    def begin(self, task: str | None, *, resuming: bool) -> None:
        """Start its life; its session must be ours. A pod that a person resumes continues a run that was
        paused.
        """
        self.stopping = self.over = self._retiring = False
        self._living = self.start_task(self._live(task, resuming=resuming, go_on=resuming))

    def adopt(self, place: Place, printed: Iterable[object], sent: Iterable[str]) -> None:
        """Look after a program that has outlived the process that started it. Of its output after ``place``,
        the events ``printed`` are already recorded, and the words ``sent`` were sent to it since. Its session
        must be ours.
        """
        assert self.runner is not None
        self.stopping = self.over = False
        self._known = KnownEvents(printed, was_up=self.state.pid is not None)
        self._kept = KeptPrograms(self._folder, self._inbox, self._settle, place)
        launch = self._launch(None, resuming=True, go_on=False)
        if place.inbox:  # ours goes by our environment, and need not be what it was
            launch = replace(launch, inbox=Path(place.inbox))
        life = self.runner.start(launch, self)
        if isinstance(life, ProgramLife):
            if (run_id := self.journal.open_run) is not None:
                life.recorder.continue_run()
                life.recorder.run_id = run_id
            life.unrepeated.extend((*place.sent, *sent))
        self._living = self.start_task(self._follow(life))

    async def wait_for_end(self) -> None:
        """Wait until the end of a program that has ended is recorded."""
        lives = self.state.lives
        await self._changes.until(lambda: self.state.ended is not None or self.state.lives > lives)

    async def _settle(self) -> tuple[int, tuple[str, ...]]:
        """Wait until everything that the life has given is recorded. Returns the number of the last record,
        and the words that were sent and not repeated yet.
        """
        life = self.life
        if not isinstance(life, ProgramLife):
            return self.state.seq, ()
        await life.stream.put_recorded()
        return self.state.seq, tuple(life.unrepeated)

    async def _live(self, task: str | None, *, resuming: bool, go_on: bool) -> None:
        """Run its lives one after the other, until one is final."""
        try:
            await self._go_through_lives(task, resuming=resuming, go_on=go_on)
        except Exception as error:  # noqa: BLE001 - a store that keeps nothing
            await self._record_failure(error)
        finally:
            await self._end_of_life()

    async def _go_through_lives(self, task: str | None, *, resuming: bool, go_on: bool) -> None:
        """Raises SessionError."""
        again = True
        while again:
            if self.spec.keep:
                self._kept = KeptPrograms(self._folder, self._inbox, self._settle, None)
            if self.stopping:  # since it was decided to start it once more
                await self.journal.add(unplaced(AgentStopped, reason="shutdown"))
                break
            assert self.runner is not None
            if self.spec.runner not in POD_RUNNERS:
                make_socket_folder(self._inbox.parent)
            await self._attend(self.runner.start(self._launch(task, resuming=resuming, go_on=go_on), self))
            again, task, resuming, go_on = False, None, True, False
            if (next_task := self.delivery.next_task()) is not None and await self._note_new_life():
                again, task = True, next_task
            elif await self.membership.decide_restart():
                again = True
                task, resuming, go_on = self._next_life()

    def _next_life(self) -> tuple[str | None, bool, bool]:
        """What a life after a failure begins with: words, whether in its conversation, and whether it
        continues what was interrupted.
        """
        resuming = self.state.session is not None
        go_on = self._interrupted and self.spec.restart.on_restart == "resume"
        words = _GO_ON if go_on and self.spec.runner not in POD_RUNNERS else None
        return words if resuming else self.spec.task, resuming, go_on

    async def start_again(self) -> bool:
        """Restart it after its supervisor died, if its limits allow that; its session must be ours."""
        if not await self.membership.decide_restart():
            return False
        task, resuming, go_on = self._next_life()
        self.stopping = self.over = False
        self._living = self.start_task(self._live(task, resuming=resuming, go_on=go_on))
        return True

    async def _note_new_life(self) -> bool:
        """Record that it lives again for the waiting words; returns False if the store does not
        accept that.
        """
        try:
            await self.journal.add_once(AgentRestarted)
        except SessionError:
            return False
        return True

    async def _follow(self, life: Life) -> None:
        try:
            if isinstance(life, ProgramLife):
                self.approvals.pending = list(self.state.asks)
                life.ask_again(self.state.asks)
            await self._attend(life)
            if await self.membership.decide_restart():
                await self._go_through_lives(None, resuming=True, go_on=False)
        except Exception as error:  # noqa: BLE001 - as above
            await self._record_failure(error)
        finally:
            await self._end_of_life()

    def _launch(self, task: str | None, *, resuming: bool, go_on: bool) -> Launch:
        spec = self.spec
        return Launch(
            agent_id=spec.id,
            cwd=Path(spec.cwd),
            inbox=self._inbox,
            log=self._folder / "events.jsonl",
            task=task,
            model=spec.model,
            provider=spec.provider,
            session=self.state.session if resuming else None,
            env=self._env,
            resuming=resuming,
            go_on=go_on,
            used=self.state.used,
            waits=self._waits,
        )

    async def _attend(self, life: Life) -> None:
        """Follow a life to its end, and record that."""
        self.life, self._interrupted = life, False
        self._changes.note()
        try:
            async for event in life:
                await self._take(life, event)
        except Exception as error:  # noqa: BLE001 - a defect of the runner, or a store that keeps nothing
            with contextlib.suppress(Exception):
                await life.stop()
            await self._record_failure(error)
        else:
            if self.state.ended is None and not self._leaves_behind:
                await self._record_failure(AgentFailed("its runner ended without a result"))
        self.life = None
        if not self._leaves_behind:
            self.remove_inbox()
        if self.journal.projections.broken is not None:
            await self.journal.mend_projections()
        self._changes.note()

    async def _take(self, life: Life, event: Event) -> None:
        """Record an event of the runner, or take over one that its pod has already published."""
        if self._leaves_behind or self._pass_over(event):
            return
        if event.pod != self.spec.id:
            self.pod = event.pod
            self.journal.follow(event)
        elif not isinstance(event, DurableEvent):
            self.journal.publish(event)
        else:
            if isinstance(event, AgentStopped):
                self._interrupted = self.state.at_work or self.state.outcome == "paused"
                event = replace(event, reason="idle") if self._retiring else event
                await self._close_open_run(event)
            elif isinstance(event, AgentStarted):
                pid = life.pid if event.pid is None else event.pid
                event = replace(event, pid=pid, born=None if pid is None else mark_of(pid))
            elif isinstance(event, _MANY) and isinstance(life, ProgramLife):
                event, *others = life.stream.take_alike(event)
                await self.journal.add(event, *(each for each in others if not self._pass_over(each)))
                return
            await self.journal.add(event)
        if isinstance(event, UserMessage):
            self.delivery.note_begun_with(event.item.text)

    def _pass_over(self, event: Event) -> bool:
        """Whether an event of a program that may outlive us is already recorded."""
        if self._kept is None or not event.durable:
            return False
        return self._known.pass_over(event, is_ready=self.state.ready)

    async def _close_open_run(self, end: AgentStopped) -> None:
        """End the run that the runner did not end, because the agent has ended."""
        outcome: RunOutcome = "cancelled" if self.stopping or end.error is None else "failed"
        await self.journal.close_open_run(outcome, end.error)

    async def _record_failure(self, error: BaseException) -> None:
        failure = Failure.of(error)
        if not self.is_ours or self.state.ended is not None:
            return
        try:
            await self.record_end(failure)
        except SessionError:  # it is found without an end by who opens the swarm next
            self.journal.stand_behind(unplaced(AgentStopped, reason="exit", error=failure))

    async def _end_of_life(self) -> None:
        """Note that it has ended for good: other processes may take its session."""
        self.over = True
        self.delivery.fail_all()
        self.membership.note_end()
        await self.journal.release()
        self._changes.note()

    def start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work on its loop, beside whatever it does."""
        task = self._home.mailroom.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- as its runner's host ------------------------------------------------------------------------

    def launcher(self) -> Any:
        """What starts its processes."""
        return self._home.launcher() if self._kept is None else self._kept

    async def ask(self, permission: Permission, /) -> Answer:
        """Ask a person."""
        return await self.approvals.ask(permission, self.journal.session_id)

    # -- words ---------------------------------------------------------------------------------------

    async def send(self, text: str) -> None:
        """Send it words; returns once they were delivered. Raises AgentNotRunning."""
        self._check_not_elsewhere()
        await self.delivery.send(text)

    @property
    def one_shot(self) -> bool:
        """Whether its program does one task and ends."""
        return self.runner is not None and self.runner.one_shot

    @property
    def is_ending(self) -> bool:
        """Whether it has ended, or is about to."""
        return self.over or self.stopping

    def begin_with_words(self) -> None:
        """Start a program again that does one task and ends, for the words that wait."""

        async def begin() -> None:
            try:
                await self.journal.claim()
                if self.state.ended is not None:
                    await self.journal.add_once(AgentRestarted)
            except Exception as error:  # noqa: BLE001 - who sent them gets it
                self.over = True
                self.delivery.fail_all(error)
                return
            self.begin(self.delivery.first, resuming=self.state.session is not None)

        self.over = False
        self._living = self.start_task(begin())

    # -- its end ---------------------------------------------------------------------------------------

    async def cancel(self) -> None:
        """End its task; returns once the task has ended, or has had long enough to."""
        self._check_not_elsewhere()
        life = self.life
        if life is None or not (self.state.at_work or self.state.asks):
            return
        await life.cancel()
        waits = self._waits
        with contextlib.suppress(TimeoutError):
            over = self._changes.until(lambda: not self.state.at_work or self.life is not life)
            await asyncio.wait_for(over, waits.request + waits.term)

    async def stop(self) -> None:
        """End it for good: the wish is recorded first, then its program is asked to end."""
        self._check_not_elsewhere()
        async with self._changing:
            if self.status == "detached" and self.has_process():
                await self._stop_detached()
            elif self.is_ours:
                await self._note_intent()
                await self.shut_down()

    async def retire(self) -> None:
        """End it as its task ended, because nobody has another for it; an agent that is at work continues."""
        async with self._changing:
            if self.is_ours and self.status == "idle" and not self.delivery.waits:
                self.membership.note_stop_asked()
                self._retiring = True
                await self.shut_down()

    async def _stop_detached(self) -> None:
        """End a program that was kept and that nobody can look after."""
        await self.journal.claim()
        try:
            await self._note_intent()
            place = Place(self.state.pid or 0, self.state.born or "")
            ladder = self._waits.ladder(signal.SIGTERM)
            await KeptChild(self.spec.id, self._folder, place, None, ladder, self._settle).stop()
            await self.journal.add(unplaced(AgentStopped, reason="killed"))
        finally:
            await self.journal.release()

    async def _note_intent(self) -> None:
        self.membership.note_stop_asked()
        if self.stopping or not self.is_ours:
            return
        self.stopping = True
        with contextlib.suppress(SessionError):  # a full disk must not make it unstoppable
            await self.journal.add_once(AgentStopRequested)

    async def shut_down(self, *, leaving: bool = False) -> None:
        """End it, whoever wishes that, and wait until it has ended."""
        self.stopping = True
        self._changes.note()
        if (life := self.life) is not None:
            await (getattr(life, "leave", life.stop) if leaving else life.stop)()
        if self._living is not None and self._living is not asyncio.current_task():
            await asyncio.wait((self._living,))
        if self.is_ours and self.state.ended is None:  # it was idle without a program
            reason: AgentStopReason = "idle" if self._retiring else "shutdown"
            await self.journal.add(unplaced(AgentStopped, reason=reason))
            await self._end_of_life()

    async def leave(self) -> None:
        """End it with its system, unless it is to be kept."""
        self.membership.note_stop_asked()
        async with self._changing:
            await self._leave()

    async def _leave(self) -> None:
        child = None if self._kept is None else self._kept.child
        if child is not None and not child.ended and self.state.up and self.life is not None:
            self._leaves_behind = True
            child.detach()
            await self.life.stop()
            if self._living is not None:
                await asyncio.wait((self._living,))
        elif self.is_ours:
            await self.shut_down(leaving=True)

    # -- another life --------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Start it again, in its conversation. Raises AgentError if that is not possible."""
        async with self._changing:
            await self._resume()

    async def _resume(self) -> None:
        self.check_ended("is still running", hint="stop it first")
        self.check_folder()
        if self.runner is None:
            raise AgentError(f"agent {self.spec.id} has no runner", hint="pass runner= to resume()")
        await self.journal.claim()
        try:
            await self.journal.add(unplaced(AgentRestarted))
        except SessionError:
            await self.journal.release()
            raise
        self.membership.begin_anew()
        if self.one_shot:  # it has a program only while it has a task
            await self.journal.add(unplaced(AgentIdle))
        else:
            again = self.state.session is not None
            self.begin(None if again else self.spec.task, resuming=again)

    @contextlib.asynccontextmanager
    async def unchanging(self) -> AsyncIterator[None]:
        """A context in which nobody starts or ends it."""
        async with self._changing:
            yield

    def check_folder(self) -> None:
        """Raise AgentError if its working directory is gone."""
        if not Path(self.spec.cwd).is_dir():
            raise AgentError(
                f"the working directory of agent {self.spec.id} no longer exists: {self.spec.cwd}",
                hint="create it again, or start another agent",
            )

    def check_ended(self, what: str, hint: str) -> None:
        """Raise AgentError unless it has ended."""
        self._check_not_elsewhere()
        if self.removed:
            raise AgentError(f"agent {self.spec.id} has been removed")
        if self.status in LIVING or not self.over:
            raise AgentError(f"agent {self.spec.id} {what}", hint=hint)
        if self.status == "detached" and self.has_process():
            pid = self.state.pid
            raise AgentError(f"agent {self.spec.id} still runs as process {pid}", hint="stop it first")

    def _check_not_elsewhere(self) -> None:
        if self.is_elsewhere:
            text = f"another process manages agent {self.spec.id}"
            raise AgentError(text, hint="use that process, or stop it")

    def has_process(self) -> bool:
        """Whether the process that was recorded last is alive, and not another that has its number now."""
        state = self.state
        return state.pid is not None and state.born is not None and is_running(state.pid, state.born)

    async def record_end(self, error: Failure) -> None:
        """Record that it has ended, though nobody saw it. Raises SessionError."""
        self._interrupted = self.state.at_work or self.state.outcome == "paused"
        end = unplaced(AgentStopped, reason="exit", error=error)
        await self._close_open_run(end)
        await self.journal.add(end)

    def remove_inbox(self) -> None:
        """Remove the socket left behind by a program that was killed."""
        if self._inbox.is_socket():
            self._inbox.unlink(missing_ok=True)
