"""``Pod``: the handle through which programs use a pod, from any thread and any event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from actors.pod.address import Address, Kinds, Since
from actors.pod.local import actor_of
from actors.pod.run_stream import RunStream
from actors.pod.runs.options import (
    Content,
    ResumeOptions,
    RunOptions,
    resume_command,
    run_command,
)
from actors.pod.runs.run_state import new_run_id
from actors.runtime.events.subscription import Subscription
from actors.runtime.future import AsyncFuture
from protocol import commands
from protocol.items import Item, parts_of
from protocol.results import PodDescription, RunResult

if TYPE_CHECKING:
    import pykka

    from actors.pod.pod import PodActor

T = TypeVar("T")


class Pod:
    """One pod. Every method but ``stream`` and ``subscribe`` starts its work at once and returns a
    future: ``await`` it in any event loop, or ``.get(timeout=…)`` it on any other thread.
    """

    __slots__ = ("__weakref__", "_actor", "address", "name")

    def __init__(self, name: str, address: Address, actor: PodActor | None = None) -> None:
        """``actor`` is the pod's actor if it lives in this process."""
        self.name = name
        self.address = address
        self._actor = actor

    def __repr__(self) -> str:
        state = "alive" if self.address.is_alive(self) else "stopped"
        return f"<Pod {self.name} {state}>"

    @property
    def ref(self) -> pykka.ActorRef[PodActor]:
        """Pykka's ActorRef of the pod's actor. Raises PodError if that lives in another process."""
        return actor_of(self).actor_ref

    def _ask(self, command: commands.Command) -> AsyncFuture[Any]:
        return self.address.ask(self, command)

    @overload
    def run(
        self, content: Content, *, output: None = None, **options: Unpack[RunOptions]
    ) -> AsyncFuture[RunResult[None]]: ...

    @overload
    def run(
        self, content: Content, *, output: type[T], **options: Unpack[RunOptions]
    ) -> AsyncFuture[RunResult[T]]: ...

    @overload  # what no ``type[T]`` is, a union or an annotated type
    def run(
        self, content: Content, *, output: Any, **options: Unpack[RunOptions]
    ) -> AsyncFuture[RunResult[Any]]: ...

    def run(
        self, content: Content, *, output: Any = None, **options: Unpack[RunOptions]
    ) -> AsyncFuture[RunResult[Any]]:
        """Give the pod work: a text, or parts. Resolves with the RunResult when the run ends.

        ``output`` is a type that msgspec knows: the model is asked for JSON that fits it, and the result's
        ``output`` is the instance. ``RunOptions`` has the other options: ``busy``, ``deps``,
        ``cancel_on_abandon``. Raises RunFailed with the cause, PodBusy, PodStopped, TypeError for a type that
        has no JSON Schema.
        """
        if output is None and not options:
            return self.address.ask(self, commands.Run(parts_of(content)))
        if not options.get("cancel_on_abandon"):
            return self._ask(run_command(content, output, options, None))
        run_id = new_run_id()
        future = self._ask(run_command(content, output, options, run_id))
        return self._cancelled_with_awaiter(future, commands.Cancel(run_id))

    def _cancelled_with_awaiter(self, future: AsyncFuture[Any], cancel: commands.Cancel) -> AsyncFuture[Any]:
        future.on_abandon = lambda: self._ask(cancel)
        return future

    @overload
    def stream(
        self, content: Content, *, output: None = None, **options: Unpack[RunOptions]
    ) -> RunStream[None]: ...

    @overload
    def stream(self, content: Content, *, output: type[T], **options: Unpack[RunOptions]) -> RunStream[T]: ...

    @overload
    def stream(self, content: Content, *, output: Any, **options: Unpack[RunOptions]) -> RunStream[Any]: ...

    def stream(
        self, content: Content, *, output: Any = None, **options: Unpack[RunOptions]
    ) -> RunStream[Any]:
        """Give the pod work and iterate over its events; the last is ``RunEnd``. Takes the options of
        ``run``.
        """
        return RunStream(self, run_command(content, output, options, new_run_id()))

    def steer(self, content: Content) -> AsyncFuture[None]:
        """Say something to the current run; resolves when it is logged. Raises NotRunning."""
        return self._ask(commands.Steer(parts_of(content)))

    def notify(self, content: Content) -> AsyncFuture[None]:
        """Send the pod words: they join the current run or the next one in the queue, or start a run;
        resolves when they are logged.
        """
        return self._ask(commands.Notify(parts_of(content)))

    def cancel(self) -> AsyncFuture[None]:
        """End the current run with outcome ``cancelled``; resolves when it has ended."""
        return self._ask(commands.Cancel())

    def pause(self) -> AsyncFuture[None]:
        """Interrupt the current run so that it can be resumed; resolves when it has stopped."""
        return self._ask(commands.Pause())

    @overload
    def resume(
        self, *, output: None = None, **options: Unpack[ResumeOptions]
    ) -> AsyncFuture[RunResult[Any]]: ...

    @overload
    def resume(self, *, output: type[T], **options: Unpack[ResumeOptions]) -> AsyncFuture[RunResult[T]]: ...

    @overload
    def resume(self, *, output: Any, **options: Unpack[ResumeOptions]) -> AsyncFuture[RunResult[Any]]: ...

    def resume(self, *, output: Any = None, **options: Unpack[ResumeOptions]) -> AsyncFuture[RunResult[Any]]:
        """Continue the paused run; resolves with its RunResult.

        A run that was paused in this process goes on as it was asked for; the run of a restored session has
        forgotten its ``output`` and its options, unless they are given here. Raises as ``run``, and
        NotPaused.
        """
        future = self._ask(resume_command(output, options))
        if options.get("cancel_on_abandon"):
            return self._cancelled_with_awaiter(future, commands.Cancel())
        return future

    def compact(self, retained_tokens: int | None = None) -> AsyncFuture[str]:
        """Compact the history now; resolves with the new session's id. Raises CompactionFailed."""
        return self._ask(commands.Compact(retained_tokens))

    def try_pre_run_compact(self) -> AsyncFuture[None]:
        """Compact if the threshold is exceeded; resolves with None and never raises."""
        return _unfailing(self._ask(commands.TryPreRunCompact()))

    def try_post_run_extract(self) -> AsyncFuture[None]:
        """Extract memory, to the end, if the threshold is exceeded; resolves with None and never raises."""
        return _unfailing(self._ask(commands.TryPostRunExtract()))

    def spawn_memory_jobs(self) -> AsyncFuture[None]:
        """Start the memory jobs that are due, without waiting for them."""
        return self._ask(commands.SpawnMemoryJobs())

    def wait_for_memory_jobs(self, timeout: float | None = None) -> AsyncFuture[bool]:
        """Wait at most ``timeout`` seconds for the memory jobs; resolves with whether they have ended."""
        return self._ask(commands.WaitForMemoryJobs(timeout))

    def wait_for_sub_agents(self, timeout: float | None = None) -> AsyncFuture[bool]:
        """Wait at most ``timeout`` seconds for all sub-agents to end, and for the runs in which the model
        learns of that; resolves with whether they have.

        Sub-agents that were interrupted because the pod was restored go on. While the pod itself is paused
        they do not, and this does not wait.
        """
        return self._ask(commands.WaitForSubAgents(timeout))

    def push_item(self, item: Item) -> AsyncFuture[None]:
        """Append ``item`` to the history as it is; resolves when it is logged."""
        return self._ask(commands.PushItem(item))

    def approve(
        self,
        approval_id: str,
        *,
        always: bool = False,
        arguments: dict[str, Any] | None = None,
        note: str | None = None,
    ) -> AsyncFuture[None]:
        """Let the call run that waits under that id; resolves when that is durable, before the call begins.

        With ``always``, later calls of this tool with the same arguments need no approval. ``arguments``
        replace those of the model, which is shown both, and ``note``. Raises AlreadyResolved,
        UnknownApproval, and InvalidInput for arguments that the call cannot be run with, in which case it
        keeps waiting. A tool with an ``input_schema`` of its own, as those of MCP servers, checks its
        arguments itself once it is called, these as well as the model's.
        """
        return self._ask(commands.Approve(approval_id, always, arguments, note))

    def deny(
        self, approval_id: str, *, note: str | None = None, by: Literal["person", "nobody"] = "person"
    ) -> AsyncFuture[None]:
        """Refuse the call that waits under that id: it is not run, and the model is given ``note`` as the
        reason.

        ``by="nobody"`` says that there was no person to ask. Resolves and raises as ``approve``.
        """
        return self._ask(commands.Disapprove(approval_id, note, by))

    def history(self) -> AsyncFuture[list[Item]]:
        """The items of the history, oldest first."""
        return self._ask(commands.History())

    def describe(self) -> AsyncFuture[PodDescription]:
        """The pod's name, state, session, size and usage."""
        return self._ask(commands.Describe())

    def passivate(self) -> AsyncFuture[bool]:
        """Have the pod drop its history from memory; the next message that needs it reads it back from the
        store.

        Resolves with whether it did: a busy pod keeps its history, unless it only waits for approvals.
        ``describe`` then gives the occupancy that was last known, and reads the history back only if none
        was.
        """
        return self._ask(commands.Passivate())

    def fork(self, at: str | None = None) -> AsyncFuture[str]:
        """Open a session that branches off after the entry with hash ``at`` (hex; None: the head). Resolves
        with the new session's id, for ``spawn(resume=…)``. Raises UnknownEntry.
        """
        return self._ask(commands.Fork(at))

    def stop(self) -> AsyncFuture[bool]:
        """End the pod; its session stays. Resolves with whether it was alive."""
        return self.address.stop(self)

    def subscribe(
        self, kinds: Kinds = None, since: Since | None = None, *, children: bool = False
    ) -> Subscription:
        """The pod's events from now on, or all durable ones after number ``since`` first; with ``children``
        also those of its sub-agents and theirs, whenever they begin, as ``PodSystem.subscribe`` has them.
        """
        return self.address.subscribe(self, kinds, since, children=children)


def _unfailing(asked: AsyncFuture[None]) -> AsyncFuture[None]:
    """The result of ``asked``, or None if the pod has stopped or stops meanwhile."""
    return AsyncFuture.derived([asked], lambda _: None, lambda _: None)
