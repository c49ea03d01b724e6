"""``AskedCommands``: the commands that a pod in another process has not answered, kept across restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from actors.pod.handle import Pod
from actors.pod.runs.run_state import RunHere
from actors.runtime.future import AsyncFuture
from actors.runtime.on_loop import settle
from actors.swarm.processes.channel import ProcessChannel
from protocol.commands import Command, Run
from protocol.errors import PodError, PodStopped, PodUnreachable


class Asked(NamedTuple):
    """A command that was sent, and who waits for what it comes to."""

    command: Command
    future: AsyncFuture[Any]

    @property
    def run_id(self) -> str | None:
        """The id of the run that the command begins; None for other commands."""
        return self.command.run_id if isinstance(self.command, Run | RunHere) else None


class AskedCommands:
    """Holds the commands of one pod while no process accepts any, and sends them once one does.

    A run that waited in a process that died is given to the next one, unless it had begun.
    """

    def __init__(self, pod: Pod, stop_asked: Callable[[], bool], before_answer: Callable[[], None]) -> None:
        """``stop_asked`` says whether the pod is to end, ``before_answer`` is called before each answer."""
        self._pod = pod
        self._stop_asked = stop_asked
        self._before_answer = before_answer
        #: The connection to the process that takes commands; None while none does.
        self._channel: ProcessChannel | None = None
        self._held: list[Asked] = []
        #: What was asked of a process that died, in that order.
        self._orphans: list[Asked] = []
        #: The runs that have begun and have not been answered yet.
        self._begun_runs: set[str] = set()

    @property
    def are_taken(self) -> bool:
        """Whether there is a process that takes commands."""
        return self._channel is not None

    def send(self, asked: Asked) -> None:
        """Send a command, or hold it until a process takes any."""
        if self._channel is None:
            self._held.append(asked)
        else:
            self._forward(self._channel, asked)

    def open(self, channel: ProcessChannel) -> None:
        """Send what is asked from here on; what is held goes with ``send_held``."""
        self._channel = channel

    def send_held(self) -> None:
        """Send what was held."""
        assert self._channel is not None
        held, self._held = self._held, []
        for asked in held:
            self._forward(self._channel, asked)

    def hold(self) -> None:
        """Hold later commands: the process accepts no more."""
        self._channel = None

    def note_run(self, run_id: str) -> None:
        """Note that a run has begun: no other process is given it."""
        self._begun_runs.add(run_id)

    def _forward(self, channel: ProcessChannel, asked: Asked) -> None:
        answer = channel.ask(self._pod, asked.command)
        answer.when_done(lambda: self._pass_on(asked, answer))

    def _pass_on(self, asked: Asked, answer: AsyncFuture[Any]) -> None:
        self._before_answer()
        error = answer.exception()
        leaves = isinstance(error, PodStopped) and not self._stop_asked()  # somebody has sent it a signal
        if leaves or isinstance(error, PodUnreachable):
            self._orphans.append(asked)
            return
        if asked.run_id is not None:
            self._begun_runs.discard(asked.run_id)
        settle(asked.future, answer.get)

    def sort_orphans(self, gone: PodError, *, again: bool) -> None:
        """Hold for the next process what waited in the one that died, where there is one ``again``; the rest
        has failed by ``gone``.
        """
        orphans, self._orphans = self._orphans, []
        waiting = []
        for asked in orphans:
            if again and asked.run_id is not None and asked.run_id not in self._begun_runs:
                waiting.append(asked)
            else:
                asked.future.set_exception(gone)
        self._begun_runs.clear()
        self._held = waiting + self._held

    def fail_held(self, error: PodError) -> None:
        """Answer all held commands with ``error``: no process will accept them."""
        held, self._held = self._held, []
        for asked in held:
            asked.future.set_exception(error)
