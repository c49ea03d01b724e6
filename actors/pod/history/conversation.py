"""``Conversation``: a pod's history as its model sees it, its size in tokens, and when it is compacted."""

from __future__ import annotations

import asyncio

from actors.compaction import policy
from actors.compaction.policy import Guard
from actors.pod.history.context import Context
from actors.pod.resources import PodResources
from actors.sessions.head import SessionHead
from protocol.usage import Usage

_NEW_GUARD = Guard()


class Conversation:
    """The view of the history, its meter, and the guard against compactions that achieve nothing."""

    __slots__ = ("_context", "_density", "_head", "_measured", "_template", "guard")

    def __init__(self, resources: PodResources, measured: list[tuple[int, Usage]] | None) -> None:
        """``measured`` are the measured calls of a session that was read back."""
        self._template = resources.template
        self._head: SessionHead = resources.log.head
        self._context: Context | None = None
        self._measured = measured
        #: How many of the server's tokens an estimated one stood for when that was last known.
        self._density = 1.0
        self.guard = _NEW_GUARD

    def context(self) -> Context:
        """The request view of the history; made when it is first needed, and again when another list of items
        has replaced the history.
        """
        context = self._context
        if context is None or context.items is not self._head.items:
            context = self._context = Context.of(self._head.items, self._measured or ())
            self._measured = None
        return context

    def occupancy(self) -> int:
        """The tokens that the history takes."""
        return self.context().occupancy()

    def density(self) -> float:
        """How many of the server's tokens an estimated one stands for, as last known."""
        self._density = self.context().density() or self._density
        return self._density

    def known_weight(self) -> int | None:
        """The size of the history in tokens; None where it was never estimated."""
        context = self._context
        return None if context is None or context.items is not self._head.items else context.occupancy()

    def drop_history(self) -> None:
        """Drop the history from memory."""
        self._context = self._measured = None

    def read_back(self, measured: list[tuple[int, Usage]]) -> None:
        """Take the measured calls of a history that was read back from the store."""
        self._measured = measured

    def rewind(self) -> None:
        """Follow a history whose end was cut back to what is durable."""
        if self._context is not None:
            self._context.rewind()

    async def look_through(self) -> None:
        """Estimate a history that was read back, before it is used, in slices that let the loop run in
        between.
        """
        limits, memory = self._template.limits, self._template.manifest.memory
        counted = bool(limits.before_run or limits.before_request)
        read = (self._head.pointer or 0) if memory.extract_threshold else None
        for _ in self.context().look_through(counted=counted, read=read):
            await asyncio.sleep(0)

    # -- when to compact -------------------------------------------------------------------------

    def due_before_run(self) -> bool:
        """Whether the threshold for the start of a run is reached."""
        limits = self._template.limits
        return bool(limits.before_run) and policy.before_run(
            limits, self.guard, self.occupancy(), len(self._head.items)
        )

    def before_request(self) -> policy.Verdict:
        """The compaction policy's verdict on a request with the history as it is; there is a threshold."""
        limits = self._template.limits
        occupancy = self.occupancy()
        verdict = policy.before_request(limits, self.guard, occupancy, len(self._head.items))
        if verdict == "compact" and not policy.can_shrink(occupancy, self._kept(occupancy)):
            return "send"  # what fills the context has to stay: to fold the rest would only fail the run
        return verdict

    def _kept(self, occupancy: int) -> int:
        """The tokens of the items that a compaction before a request would keep as they are."""
        from actors.compaction.cut import cut  # noqa: PLC0415 - paid for by whoever comes near the limit

        items = self._head.items
        retained = self._template.limits.retained_for("request_threshold", occupancy)
        at = cut(items, self.context().since, retained, keep_open_turn=True)
        return Context.of(at.kept(items)).occupancy()
