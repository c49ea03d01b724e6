"""``ProgramLife``: an agent that is a program of its own, from its start to the end of its last process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from msgspec import structs

from actors.runtime.children.child import Child, ChildEnd
from actors.runtime.children.pipes import ChildOutput
from actors.runtime.cleaning import cleaned
from actors.runtime.signal_names import signal_name
from actors.swarm.runners.base import Answer, Host, Launch, Permission
from actors.swarm.runners.missing_variables import withheld
from actors.swarm.runners.program_contract import Bounds, Program
from actors.swarm.runners.stream import EventStream, Recorder
from protocol.errors import (
    AgentBusy,
    AgentFailed,
    AgentNotRunning,
    ChildError,
    ChildNotListening,
    Failure,
    LineTooLong,
)
from protocol.events import (
    AgentIdle,
    AgentStopped,
    AgentStopReason,
    ApprovalRequested,
    Event,
    Retry,
    RunEnd,
    ToolResulted,
    ToolStart,
)
from protocol.items import ToolResult, parts_of

#: Bytes of a line of standard error, and lines of it that say why a program ended without a word.
_LONGEST_ERROR, _LAST_ERRORS = 1 << 16, 5
#: Seconds that a place among the children of the system is waited for.
_PLACE_SECONDS = 60.0
#: Seconds that a start takes at most where it waits for no place.
_START_SECONDS = 5.0
#: Seconds that a program has to end a run that it was asked to, and to end itself behind its last line.
_CANCEL_SECONDS, _LINGER_SECONDS = 10.0, 5.0
#: Questions to a person that are open at once; a program with more of them waits for no answer.
_MOST_QUESTIONS = 100


_NO_RESULT = "its task ended without a result"


class ProgramLife:
    """A program at work, and the events of it."""

    def __init__(
        self,
        name: str,
        launch: Launch,
        host: Host,
        program: Program,
        recorder: Recorder,
        *,
        one_shot: bool,
        bounds: Bounds,
    ) -> None:
        self.launch, self.host, self.recorder = launch, host, recorder
        self._name, self._program, self._one_shot, self._bounds = name, program, one_shot, bounds
        self.stream = EventStream()
        self._child: Child | None = None
        self._reason: AgentStopReason | None = None
        self._announced = False
        #: Calls of tools that have no result yet, and what they are called.
        self._tools: dict[str, str] = {}
        self._asking = 0
        self._errors: deque[str] = deque(maxlen=_LAST_ERRORS)
        #: Of a program that ends with its task: how it says that went.
        self._held: RunEnd | None = None
        self._lingered = self._ending = False
        #: Why we end it ourselves.
        self._failure: Failure | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: The first words for a program that cannot wait for them.
        self._first: asyncio.Future[str] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended = asyncio.get_running_loop().create_future()
        self._begun = False
        self._main = self._spawn(self._live())

    # -- as whoever supervises it sees it --------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The number of its process."""
        child = self._child
        return None if child is None or child.ended else child.pid or None

    @property
    def session(self) -> str | None:
        """By what it can be resumed."""
        return self._program.session

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.stream

    async def __anext__(self) -> Event:
        return await anext(self.stream)

    async def send(self, text: str, /) -> None:
        """Hand words to the program, once they are recorded."""
        if self._reason is not None or self.stream.ended:
            raise AgentNotRunning(f"agent {self.launch.agent_id} has ended")
        if self.recorder.run_id is not None:
            if self._child is None:
                raise AgentNotRunning(f"the program of agent {self.launch.agent_id} is not running yet")
            if not self._program.joins:
                raise AgentBusy(
                    f"agent {self.launch.agent_id} is working on a task, and its program accepts "
                    "no messages meanwhile"
                )
            await self.stream.put_recorded(self.recorder.join_run(text))
        elif self._first is not None and not self._first.done():
            self._first.set_result(text)
            return
        elif self._one_shot or not self._announced:
            raise AgentNotRunning(f"agent {self.launch.agent_id} accepts no messages now")
        else:
            await self.stream.put_recorded(*self.recorder.begin_run(text))
        await self._hand_over(text)

    async def cancel(self) -> None:
        """Have the program end its run, or end it with that."""
        child = self._child
        if self.recorder.run_id is None or self._reason is not None:
            return
        if child is not None and not child.ended:
            with contextlib.suppress(ChildError, OSError, TimeoutError):  # it may read nothing any more
                async with asyncio.timeout(_CANCEL_SECONDS):
                    lives_on = await self._program.interrupt(child)
                if lives_on:
                    self._spawn(self._end_unless_cancelled(self.recorder.run_id))
                    return
        self._end("cancelled")

    async def stop(self) -> None:
        """End the program, and wait for that."""
        self._end("shutdown")
        await asyncio.shield(self._ended)

    @property
    def unrepeated(self) -> deque[str]:
        """Words that were sent to the program, which it will print once more."""
        return self._program.unrepeated

    # -- for its program -------------------------------------------------------------------------

    @property
    def child(self) -> Child | None:
        """Its process."""
        return self._child

    async def publish(self, events: Iterable[Event]) -> None:
        """Publish what the program printed, and look after what follows from that."""
        self._watch()
        if len(self._tasks) > _MOST_QUESTIONS:  # some may be about to ask
            await self._end_flood()
        events = [self._as_asked(each) for each in events]
        if not self._announced and self._program.is_ready:
            # A run that ends among these is open still.
            await self._announce(waits=not any(isinstance(event, RunEnd) for event in events))
        shown: list[Event] = []
        idle = False
        for event in events:
            if isinstance(event, RunEnd) and self._one_shot:
                self._held = event
                if self._child is not None:
                    self._spawn(self._end_lingering(self._child))
                continue
            if isinstance(event, RunEnd):
                shown += self._close_calls()
                idle = True
            shown.append(event)
            self._follow(event)
        if idle and self.recorder.run_id is None and self._program.is_idle and self._reason is None:
            shown.append(self.recorder.make(AgentIdle))
        await self.stream.put_all(shown)

    async def ask(self, permission: Permission) -> Answer:
        """Ask a person; that is not the program's silence."""
        self._asking += 1
        self._watch()
        try:
            return await self.host.ask(permission)
        finally:
            self._asking -= 1
            self._watch()

    async def _end_flood(self) -> None:
        """End a program that asks and asks, and read on behind its end: it would hold up all others."""
        words = f"{self._name} has more than {_MOST_QUESTIONS} open questions and does not wait for answers"
        self._end("exit", Failure.of(AgentFailed(words)))
        if self._child is not None:
            with contextlib.suppress(ChildError):
                await self._child.wait()

    def ask_again(self, requests: Iterable[ApprovalRequested]) -> None:
        """Have a person asked again what a program that was found again still waits for."""
        self._program.ask_again(self, requests)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Have work done beside that goes no longer than the program does."""
        return self._spawn(work)

    # -- its life --------------------------------------------------------------------------------

    async def _live(self) -> None:
        code: int | None = None
        error: Failure | None = None
        self._begun = True
        try:
            code, error = await self._run()
        except asyncio.CancelledError:
            self._reason = self._reason or "killed"
        except Exception as failed:  # noqa: BLE001 - it is the agent's, whatever it is
            error = Failure.of(failed)
        finally:
            if self._child is not None and not self._child.ended:
                with contextlib.suppress(ChildError):
                    code = (await self._child.stop()).code
            await self._finish(code, error)

    async def _run(self) -> tuple[int | None, Failure | None]:
        """Start the program and see it to its end. Raises AgentError, ChildError."""
        task = self.launch.task
        if task is None and self._one_shot:
            task = await self._wait_for_words()
        if task is not None:
            await self.stream.put_recorded(*self.recorder.begin_run(task))
        if self._reason is not None:
            return None, None
        child = await self._start(task)
        self._watch()
        assert child.stdout is not None
        assert child.stderr is not None
        errors = self._spawn(self._read_errors(child.stderr))
        self._spawn(self._begin(child, task))
        if self._program.is_ready and not self._announced:
            await self._announce()
        await self._program.read(self, child)
        end = await child.wait()
        await asyncio.wait({errors})
        return end.code, _left(end)

    async def _start(self, task: str | None) -> Child:
        """Start the program. A start that is cancelled is seen to its end first, so that what comes of it is
        ended too; one that waits for a place is not. Raises AgentError, ChildError.
        """
        starting = asyncio.ensure_future(
            self.host.launcher().start(
                self._program.argv(task),
                cwd=self.launch.cwd,
                env=self._program.environment(),
                stdin=self._program.stdin,
                ladder=self.launch.waits.ladder(self._program.end_signal),
                wait=_PLACE_SECONDS,
            )
        )
        try:
            self._child = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait((starting,), timeout=_START_SECONDS)
            if not starting.done():
                starting.cancel()
            elif not starting.cancelled() and starting.exception() is None:
                self._child = starting.result()
            raise
        return self._child

    async def _begin(self, child: Child, task: str | None) -> None:
        with contextlib.suppress(ChildNotListening):  # how it ended says why
            await self._program.begin(self, child, task)

    async def _wait_for_words(self) -> str:
        self._first = asyncio.get_running_loop().create_future()
        await self._announce()
        return await self._first

    async def _announce(self, *, waits: bool = True) -> None:
        """Publish that the program is up, and, unless a run is open, that it waits."""
        self._announced = True
        session = self._program.session or self.launch.session
        started = self.recorder.make_started(self._name, self.launch, session=session, pid=self.pid)
        await self.stream.put_all([started])
        if waits and self.recorder.run_id is None:
            await self.stream.put_all([self.recorder.make(AgentIdle)])

    async def _read_errors(self, stderr: ChildOutput) -> None:
        while True:
            try:
                line = (await stderr.readline(_LONGEST_ERROR)).decode("utf-8", "replace")
            except LineTooLong as error:
                line = f"[{error} was skipped]\n"
            except AgentFailed:  # who reads the output gets it too, and ends the program
                return
            if not line:
                return
            if line := cleaned(line.rstrip("\r\n")):
                self._errors.append(line)
                await self.publish(self._program.read_error(line))

    async def _hand_over(self, text: str) -> None:
        """Raises AgentNotRunning."""
        child = self._child
        try:
            if child is None or child.ended:
                raise ChildNotListening("it has ended")
            await self._program.send(child, text)
        except (ChildError, OSError) as error:
            why = f"cannot send to agent {self.launch.agent_id}: {error}"
            raise AgentNotRunning(why) from error
        self._watch()

    # -- its end ---------------------------------------------------------------------------------

    def _end(self, reason: AgentStopReason, failure: Failure | None = None) -> None:
        """Have it end, unless that is under way; nobody has to read for it."""
        if self._reason is None:
            self._reason, self._failure = reason, failure
        self.stream.wait_no_more()
        if self._first is not None and not self._first.done():
            self._first.cancel()
        child = self._child
        if self._ending or (child is not None and child.ended):
            return
        if child is not None:
            self._ending = True
            self._spawn(self._end_child(child))
        elif self._begun:  # one that has not begun finds out that it should not
            self._ending = True
            self._main.cancel()

    async def _end_child(self, child: Child) -> None:
        with contextlib.suppress(ChildError, OSError, TimeoutError):
            if self._program.end_signal is None:
                async with asyncio.timeout(self.launch.waits.request):
                    await self._program.ask_to_end(child)
        child.ask_to_stop()

    async def _end_unless_cancelled(self, run_id: str) -> None:
        await asyncio.sleep(_CANCEL_SECONDS)
        if self.recorder.run_id == run_id:
            self._end("cancelled")

    async def _end_lingering(self, child: Child) -> None:
        """End a program that has said how its task went and goes on all the same."""
        await asyncio.sleep(_LINGER_SECONDS)
        self._lingered = True
        child.ask_to_stop()

    async def _finish(self, code: int | None, error: Failure | None) -> None:
        """Publish how it ended."""
        if self._timer is not None:
            self._timer.cancel()
        others = self._tasks - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._program.let_go()
        if ends := self._end_last_run(code, error):
            self.stream.put(*self._close_calls(), *ends)
        last = self.recorder.last_end
        reason = self._reason or ("exit" if code is None or code >= 0 else "killed")
        if self._failure is not None:
            reason, error = "exit", self._failure
        elif self._reason is None and error is None:
            failed = last is not None and last.outcome == "failed"
            error = self._hinted(last.error) if failed and last is not None else self._of_code(code)
            error = None if self._lingered and not failed else error
        self.stream.put(self.recorder.make(AgentStopped, reason=reason, code=code, error=error))
        if not self._ended.done():
            self._ended.set_result(None)

    def _as_asked(self, event: Event) -> Event:
        """An event as it is recorded: a run that fails since its program was asked to end is cancelled."""
        if not isinstance(event, RunEnd) or event.outcome != "failed":
            return event
        if self._reason is not None and self._failure is None:
            return structs.replace(event, outcome="cancelled", error=None)
        return structs.replace(event, error=self._hinted(event.error))

    def _hinted(self, error: Failure | None) -> Failure | None:
        """An error, with what to do where it speaks of a variable that is set here and not handed on."""
        names = () if error is None else withheld(error.message, os.environ, self._program.environment())
        if error is None or not names:
            return error
        many = len(names) > 1
        hint = f"{', '.join(names)} {'are' if many else 'is'} set here, but the program did not get "
        hint += f"{'them' if many else 'it'}: list such variables in env of its [[runner]] in polypod.toml"
        return structs.replace(error, hint=hint)

    def _close_calls(self) -> list[Event]:
        """Results for calls whose program said nothing of any."""
        open_calls, self._tools = self._tools, {}
        return [
            self.recorder.make(
                ToolResulted, item=ToolResult(call_id, name, parts_of(_NO_RESULT), is_error=True)
            )
            for call_id, name in open_calls.items()
        ]

    def _end_last_run(self, code: int | None, error: Failure | None) -> list[Event]:
        """End the run that is open with its program: well only by its own words and by its code."""
        held, self._held = self._held, None
        if held is not None:
            # One that lingers behind its last line is ended by us.
            why = self._of_code(code) if self._reason is None and not self._lingered else None
            if why is not None and held.outcome == "finished":
                held = structs.replace(held, outcome="failed", error=why)
            self.recorder.last_end = held
            return [held]
        if self._failure is not None:
            return self.recorder.end_run(outcome="failed", error=self._failure)
        if self._reason is not None:
            return self.recorder.end_run(outcome="cancelled")
        why = error or self._of_code(code, died=True)
        if why is None:
            words = f"{self._name} ended without reporting a result for its task"
            why = Failure.of(AgentFailed(words, died=True))
        return self.recorder.end_run(outcome="failed", error=why)

    def _of_code(self, code: int | None, *, died: bool = False) -> Failure | None:
        """Why a program with that exit code failed; None where that is 0. It ``died`` where that is all that
        is known of its task.
        """
        if code == 0 or code is None:
            return None
        how = f"with code {code}" if code > 0 else f"by {signal_name(-code)}"
        said = "\n".join(self._errors)
        words = f"{self._name} ended {how}{f': {said}' if said else ''}"
        return self._hinted(Failure.of(AgentFailed(words, died=died)))

    # -- bounds ----------------------------------------------------------------------------------

    def _follow(self, event: Event) -> None:
        if isinstance(event, ToolStart):
            self._tools[event.call_id] = event.name
        elif isinstance(event, ToolResulted):
            self._tools.pop(event.item.call_id, None)
        elif isinstance(event, Retry) and self._reason is None:
            bounds = self._bounds
            if event.attempt > bounds.retries or event.wait > bounds.wait:
                self._end("exit", event.error)
        self._watch()

    def _watch(self) -> None:
        """Begin anew to count the seconds of silence, where there should be none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at_work = self._child is not None and self.recorder.run_id is not None
        if at_work and not self._tools and not self._asking and self._held is None:
            later = asyncio.get_running_loop().call_later
            self._timer = later(self._bounds.quiet, self._end_silence)

    def _end_silence(self) -> None:
        words = f"{self._name} has printed nothing for {self._bounds.quiet:g} seconds"
        self._end("exit", Failure.of(AgentFailed(words, kind="timeout")))

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _left(end: ChildEnd) -> Failure | None:
    """What is wrong with an end that left processes behind."""
    if not end.left:
        return None
    numbers = ", ".join(map(str, end.left))
    return Failure.of(AgentFailed(f"some of its processes could not be killed: {numbers}"))
