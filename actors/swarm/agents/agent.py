"""``Agent``: the handle through which programs use an agent, from any thread and any event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from actors.pod.local import actor_of, lives_here
from actors.runtime.arguments import check_count, text_of
from actors.runtime.circles import next_number
from actors.runtime.on_loop import ask_on
from actors.swarm.agents.agent_events import AgentEvents
from actors.swarm.agents.ids import name_of, pod_of
from actors.swarm.runners.base import Answer
from protocol.agents import AgentResult, AgentSpec, AgentStatus, stands
from protocol.errors import AgentNotRunning

if TYPE_CHECKING:
    from actors.runtime.future import AsyncFuture
    from actors.swarm.agents.keeper import Keeper
    from actors.swarm.agents.membership import Membership
    from actors.swarm.agents.swarm import Swarm
    from actors.swarm.runners.base import RunnerSpec
    from protocol.events import ApprovalRequested

T = TypeVar("T")


class Agent:
    """One agent. Its methods start their work at once and return futures: ``await`` them in any event loop,
    or ``.get(timeout=…)`` them on any other thread.
    """

    __slots__ = ("_keeper", "_swarm")

    def __init__(self, swarm: Swarm, keeper: Keeper) -> None:
        self._swarm, self._keeper = swarm, keeper

    def __repr__(self) -> str:
        return f"<Agent {self.id} {self.status}, {self.activity}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Agent) and other._keeper is self._keeper

    def __hash__(self) -> int:
        return hash(self.id)

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Its id, ``<slug>-<n>``; the ``pod`` of its events."""
        return self._keeper.spec.id

    @property
    def name(self) -> str:
        """What it was called when it was started, or the beginning of its task: its id without the number."""
        return name_of(self.id)

    @property
    def spec(self) -> AgentSpec:
        """What it was asked to be."""
        return self._keeper.spec

    @property
    def session_id(self) -> str:
        """The session in the store that holds its record."""
        return self._keeper.journal.session_id

    @property
    def status(self) -> AgentStatus:
        """Its status, as of what was recorded last."""
        return self._keeper.status

    @property
    def activity(self) -> str:
        """What it does, for people."""
        return self._keeper.state.activity

    @property
    def pid(self) -> int | None:
        """Its process; None if it has none of its own, or has ended."""
        return self._keeper.state.pid

    @property
    def result(self) -> AgentResult:
        """How its last task ended, or how far it is."""
        return self._keeper.state.result()

    @property
    def task_result(self) -> AgentResult:
        """As ``result``, but a task that was done stays so though the process that looked after its agent has
        died since.
        """
        return self._keeper.state.task_result()

    @property
    def is_paused(self) -> bool:
        """Whether it is idle in the middle of a task, which continues with the next words sent to it."""
        return self._keeper.state.is_paused

    @property
    def is_cut_off(self) -> bool:
        """Whether it ended before it was done without having been asked to: it failed, or its supervisor
        ended.
        """
        return self._keeper.state.is_cut_off

    @property
    def member(self) -> Membership:
        """The counter of its restarts, for ``PodSystem.supervise``. Raises AgentNotRunning."""
        if not self._keeper.is_ours:
            raise AgentNotRunning(f"agent {self.id} {stands(self.status)}", hint="resume it first")
        return self._keeper.membership

    @property
    def approvals(self) -> list[ApprovalRequested]:
        """The calls that it waits for a person to approve."""
        return list(self._keeper.state.asks)

    # -- what is asked of it -------------------------------------------------------------------------

    def events(self, since: int = 0) -> AgentEvents:
        """All its events, and those of the pod that it is: from the first on, or from after the agent's own
        entry ``since``, followed by live ones. It ends once the agent has ended.
        """
        check_count("since", since, 0, "entries")
        return AgentEvents(self._swarm.home, self._keeper, since)

    def send(self, text: str) -> AsyncFuture[None]:
        """Send it words: they join the current task if its program supports that, or else become its next
        task. Resolves once they were delivered, which happens once. Raises AgentNotRunning if they could not
        be.
        """
        words = text_of("text", text)
        return self._ask(lambda: self._keeper.send(words))

    def cancel(self) -> AsyncFuture[None]:
        """End the current task; a program that can only end as a whole does so."""
        return self._ask(self._keeper.cancel)

    def stop(self) -> AsyncFuture[None]:
        """End it: that is recorded first, then asked of its program, then forced. Resolves once no process of
        it is left; only ``resume`` starts it again. Does nothing if it has ended.
        """
        return self._ask(lambda: self._swarm.stop_agent(self._keeper))

    def resume(self, runner: RunnerSpec | None = None, **given: Any) -> AsyncFuture[None]:
        """Start it again, in its conversation; its task is not sent again.

        ``runner``, or what a pod was given (``client=``, ``tools=``, …), is needed if it was started with
        objects of another process. Raises AgentError while it is alive, and if its working directory is gone.
        """
        return self._ask(lambda: self._swarm.resume_agent(self._keeper, runner, given))

    def remove(self) -> AsyncFuture[None]:
        """Delete its session, that of its pod, and its files. What it worked on stays. Raises AgentError
        while it is alive.
        """
        return self._ask(lambda: self._swarm.remove_agent(self._keeper))

    def wait(self) -> AsyncFuture[AgentResult]:
        """The result of its current task, once everything that was sent to it has been handled."""
        future = self._ask(self._keeper.wait)
        pod = self._swarm.home.roster.pods.get(pod_of(self.id))
        if pod is not None and lives_here(pod) and not future.done():
            future.place, future.number = actor_of(pod), next_number()
        return future

    def approve(
        self,
        approval_id: str,
        *,
        always: bool = False,
        arguments: dict[str, Any] | None = None,
        note: str | None = None,
    ) -> AsyncFuture[None]:
        """Approve what it asks for. Raises UnknownApproval, AlreadyResolved."""
        approval_id = text_of("approval_id", approval_id)
        answer = Answer(approved=True, always=always, arguments=arguments, note=note)
        return self._ask(lambda: self._swarm.answer_agent(self._keeper, approval_id, answer))

    def deny(self, approval_id: str, *, note: str | None = None) -> AsyncFuture[None]:
        """Deny what it asks for. Raises as ``approve``."""
        approval_id = text_of("approval_id", approval_id)
        answer = Answer(approved=False, note=note)
        return self._ask(lambda: self._swarm.answer_agent(self._keeper, approval_id, answer))

    def _ask(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> AsyncFuture[T]:
        return ask_on(self._swarm.home.mailroom, ask)
