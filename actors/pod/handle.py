"""``Pod``: the handle by which programs use a pod, from any thread and any event loop."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from actors.llm.output import schema_for
from actors.pod.address import Address, Kinds, Since
from actors.pod.local import actor_of
from actors.pod.runs.run_state import RunHere, new_run_id
from actors.runtime.future import AsyncFuture
from actors.runtime.subscription import Subscription
from protocol import commands
from protocol.errors import PodStopped, RunFailed
from protocol.events import Event, Lagged, RunEnd, TextDelta
from protocol.items import Item, Part, parts_of
from protocol.results import PodDescription, RunResult

if TYPE_CHECKING:
    import pykka

    from actors.pod.pod import PodActor

T = TypeVar("T")
Content = str | Sequence[str | Part]


class Pod:
    """One pod. Every method but ``stream`` and ``subscribe`` starts its work at once and returns a
    future: ``await`` it in any event loop, or ``.get(timeout=…)`` it on any other thread.
    """

    __slots__ = ("__weakref__", "_actor", "address", "name")

    def __init__(self, name: str, address: Address, actor: PodActor | None = None) -> None:
        """``actor`` is that of a pod which lives in this process."""
        self.name = name
        self.address = address
        self._actor = actor

    def __repr__(self) -> str:
        state = "alive" if self.address.is_alive(self) else "stopped"
        return f"<Pod {self.name} {state}>"

    @property
    def ref(self) -> pykka.ActorRef[PodActor]:
        """Pykka's ActorRef of the pod's actor. Raises PodError where that lives in another process."""
        return actor_of(self).actor_ref

    def _ask(self, command: commands.Command) -> AsyncFuture[Any]:
        return self.address.ask(self, command)

    @overload
    def run(
        self,
        content: Content,
        *,
        busy: Literal["queue", "reject"] = "queue",
        output: None = None,
        deps: Any = None,
    ) -> AsyncFuture[RunResult[None]]: ...

    @overload
    def run(
        self,
        content: Content,
        *,
        busy: Literal["queue", "reject"] = "queue",
        output: type[T],
        deps: Any = None,
    ) -> AsyncFuture[RunResult[T]]: ...

    @overload  # what no ``type[T]`` is, a union or an annotated type
    def run(
        self,
        content: Content,
        *,
        busy: Literal["queue", "reject"] = "queue",
        output: Any,
        deps: Any = None,
    ) -> AsyncFuture[RunResult[Any]]: ...

    def run(
        self,
        content: Content,
        *,
        busy: Literal["queue", "reject"] = "queue",
        output: Any = None,
        deps: Any = None,
    ) -> AsyncFuture[RunResult[Any]]:
        """Give the pod work: a text, or parts. Resolves with the RunResult when the run ends.

        While another run goes on this one waits behind it (at most 32 do), or raises PodBusy with
        ``busy="reject"``. ``output`` is a type that msgspec knows: the model is asked for JSON that fits it,
        and the result's ``output`` is the instance. ``deps`` is what its tools find as ``ctx.deps``, in the
        place of what the pod was spawned with (None: that). Raises RunFailed with the cause, PodBusy,
        PodStopped, TypeError for a type that has no JSON Schema.
        """
        if output is None and deps is None:
            return self.address.ask(self, commands.Run(parts_of(content), busy))
        schema = None if output is None else schema_for(output)
        return self._ask(RunHere(parts_of(content), busy, schema, None, output, deps))

    def stream(self, content: Content, *, deps: Any = None) -> RunStream:
        """Give the pod work and iterate over its events; the last is ``RunEnd``. ``deps`` as in ``run``."""
        return RunStream(self, content, deps)

    def steer(self, content: Content) -> AsyncFuture[None]:
        """Say something to the run that goes on; resolves when it is logged. Raises NotRunning."""
        return self._ask(commands.Steer(parts_of(content)))

    def notify(self, content: Content) -> AsyncFuture[None]:
        """Send the pod words: joins the run that goes on or waits to begin, or starts one; resolves when
        it is logged.
        """
        return self._ask(commands.Notify(parts_of(content)))

    def cancel(self) -> AsyncFuture[None]:
        """End the run that goes on with outcome ``cancelled``; resolves when it has ended."""
        return self._ask(commands.Cancel())

    def pause(self) -> AsyncFuture[None]:
        """Interrupt the run that goes on, to be resumed; resolves when it stands still."""
        return self._ask(commands.Pause())

    def resume(self) -> AsyncFuture[RunResult]:
        """Go on with the paused run; resolves with its RunResult. Raises NotPaused."""
        return self._ask(commands.Resume())

    def compact(self, retained_tokens: int | None = None) -> AsyncFuture[str]:
        """Compact the history now; resolves with the new session's id. Raises CompactionFailed."""
        return self._ask(commands.Compact(retained_tokens))

    def try_pre_run_compact(self) -> AsyncFuture[None]:
        """Compact if the threshold says so; gives None and never raises."""
        return _unfailing(self._ask(commands.TryPreRunCompact()))

    def try_post_run_extract(self) -> AsyncFuture[None]:
        """Extract memory if the threshold says so, to the end; gives None and never raises."""
        return _unfailing(self._ask(commands.TryPostRunExtract()))

    def spawn_memory_jobs(self) -> AsyncFuture[None]:
        """Start the memory jobs that are due, without waiting for them."""
        return self._ask(commands.SpawnMemoryJobs())

    def wait_for_memory_jobs(self, timeout: float | None = None) -> AsyncFuture[bool]:
        """Wait for the memory jobs at most ``timeout`` seconds; gives whether they have ended."""
        return self._ask(commands.WaitForMemoryJobs(timeout))

    def wait_for_sub_agents(self, timeout: float | None = None) -> AsyncFuture[bool]:
        """Wait at most ``timeout`` seconds until all sub-agents have ended, and the runs in which the model
        gets to know of that; gives whether they have. Those that stand still, since the pod was restored, go
        on. While the pod itself is paused they do not, and nothing is waited for.
        """
        return self._ask(commands.WaitForSubAgents(timeout))

    def push_item(self, item: Item) -> AsyncFuture[None]:
        """Put ``item`` into the history as it is; resolves when it is logged."""
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

        With ``always`` the same call, with the same arguments, is not asked for any more. ``arguments`` take
        the place of those of the model, which sees both, and ``note``. Raises AlreadyResolved,
        UnknownApproval, and InvalidInput for arguments that the call cannot be run with: then it goes on
        waiting.
        """
        return self._ask(commands.Approve(approval_id, always, arguments, note))

    def deny(
        self, approval_id: str, *, note: str | None = None, by: Literal["person", "nobody"] = "person"
    ) -> AsyncFuture[None]:
        """Have the call that waits under that id not run; ``note`` says why, to the model; ``by="nobody"`` is
        that no person was there to be asked. Resolves and raises as ``approve``.
        """
        return self._ask(commands.Disapprove(approval_id, note, by))

    def history(self) -> AsyncFuture[list[Item]]:
        """The items of the history, oldest first."""
        return self._ask(commands.History())

    def describe(self) -> AsyncFuture[PodDescription]:
        """What the pod is and how it does."""
        return self._ask(commands.Describe())

    def passivate(self) -> AsyncFuture[bool]:
        """Have the pod give up the memory its history takes; the next message that needs the history
        reads it back. Gives whether it did: a pod that has something under way keeps its history, unless
        that is a run in which all calls wait for approval.
        ``describe`` gives the occupancy that was known; only where none was, it reads the history for it.
        """
        return self._ask(commands.Passivate())

    def fork(self, at: str | None = None) -> AsyncFuture[str]:
        """Open a session that branches off after the entry with hash ``at`` (hex; None: the head).

        Resolves with the new session's id, for ``spawn(resume=…)``. Raises UnknownEntry.
        """
        return self._ask(commands.Fork(at))

    def stop(self) -> AsyncFuture[bool]:
        """End the pod; its session stays. Gives whether it was alive."""
        return self.address.stop(self)

    def subscribe(
        self, kinds: Kinds = None, since: Since | None = None, *, children: bool = False
    ) -> Subscription:
        """The pod's events from now on, or all durable ones after number ``since`` first; with ``children``
        also those of its sub-agents and theirs, whenever they begin, as ``PodSystem.subscribe`` has them.
        """
        return self.address.subscribe(self, kinds, since, children=children)


class RunStream:
    """One run as an iterator of its events, which starts the run and ends after its ``RunEnd``.

    Breaking out detaches: the run goes on. Leaving its ``async with`` before the end cancels the run,
    also one that still waits for its turn. A run that could not start raises what ``run`` would. To a
    reader that is too slow ``Lagged`` says how many events it missed.
    """

    def __init__(self, pod: Pod, content: Content, deps: Any = None) -> None:
        self._pod = pod
        self._run_id = new_run_id()
        self._events = pod.subscribe()
        self._ended = False
        self.result: AsyncFuture[RunResult] = pod._ask(  # noqa: SLF001 - one handle in two classes
            RunHere(parts_of(content), run_id=self._run_id, deps=deps)
        )
        events = weakref.ref(self._events)  # whoever drops the stream drops what is queued for it
        self.result.when_done(lambda: _close(events()))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._ended:
            try:
                event = await self._events.__anext__()
            except StopAsyncIteration:
                await self._never_began()
                break
            if event.run_id == self._run_id or type(event) is Lagged:
                self._ended = type(event) is RunEnd
                return event
        self._events.close()
        raise StopAsyncIteration

    async def _never_began(self) -> None:
        """No end was published: the run was refused or lost its store, and its future says why."""
        self._ended = True
        await self.result

    async def text(self) -> AsyncIterator[str]:
        """Only the pieces of text. Raises RunFailed where the run fails."""
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.text
        await self.result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._events.close()
        if self._ended or self.result.done():
            return
        with contextlib.suppress(RunFailed, PodStopped):
            await self._pod._ask(commands.Cancel(self._run_id))  # noqa: SLF001
            await self.result


def _close(events: Subscription | None) -> None:
    if events is not None:
        events.close()


def _unfailing(asked: AsyncFuture[None]) -> AsyncFuture[None]:
    """``asked``, but None also where the pod has stopped or stops meanwhile."""
    return AsyncFuture.derived([asked], lambda _: None, lambda _: None)
