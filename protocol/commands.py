"""Commands: what is sent to a pod's mailbox; the pod answers each on the future it came with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from protocol.items import AssistantItem, Part, SystemItem, ToolResult, UserItem, parts_of
from protocol.manifest import ModelSection
from protocol.model_settings import ModelSettings


class Command(Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """What all commands have: nothing but their names."""


class WireOptions(Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What one run uses in place of its pod's settings, as far as that can be sent to another process."""

    model: ModelSection | None = None
    model_settings: ModelSettings | None = None
    system_prompt: str | None = None


class Run(Command, frozen=True, gc=False):
    """Start a run, or queue it behind the current one (``busy``).

    ``output_schema`` is the JSON Schema that the answer must fit; ``run_id`` lets the sender recognise its
    run's events; ``options`` apply to this run only.
    """

    content: tuple[Part, ...]
    busy: Literal["queue", "reject"] = "queue"
    output_schema: dict[str, Any] | None = None
    run_id: str | None = None
    options: WireOptions | None = None

    @classmethod
    def of(
        cls,
        content: str | Iterable[str | Part],
        *,
        busy: Literal["queue", "reject"] = "queue",
        output_schema: dict[str, Any] | None = None,
        run_id: str | None = None,
    ) -> Run:
        """A run from a text or parts."""
        return cls(parts_of(content), busy, output_schema, run_id)


class Steer(Command, frozen=True, gc=False):
    """Say something to the current run; it joins before the next request."""

    content: tuple[Part, ...]


class Notify(Command, frozen=True, gc=False):
    """Say something to the pod: the words join the current run, or start one."""

    content: tuple[Part, ...]


class Cancel(Command, frozen=True, gc=False):
    """End the current run, or only the run with that id, even if it is still queued."""

    run_id: str | None = None


class Pause(Command, frozen=True, gc=False):
    """Interrupt the current run so that it can be resumed."""


class Resume(Command, frozen=True, gc=False):
    """Continue a paused run; ``output_schema`` and ``options`` are as of Run, and replace those that it was
    started with.
    """

    output_schema: dict[str, Any] | None = None
    options: WireOptions | None = None


class Compact(Command, frozen=True, gc=False):
    """Compact the history now, keeping about ``retained_tokens`` of its end as it is."""

    retained_tokens: int | None = None


class TryPreRunCompact(Command, frozen=True, gc=False):
    """Compact if the threshold is exceeded; never an error."""


class TryPostRunExtract(Command, frozen=True, gc=False):
    """Run memory extraction to its end if the threshold is exceeded; never an error."""


class SpawnMemoryJobs(Command, frozen=True, gc=False):
    """Start the memory jobs that are due and do not wait for them."""


class WaitForMemoryJobs(Command, frozen=True, gc=False):
    """Wait until the memory jobs have ended, at most ``timeout`` seconds."""

    timeout: float | None = None


class WaitForSubAgents(Command, frozen=True, gc=False):
    """Have interrupted sub-agents go on, and wait until all have ended and the model has been sent their
    results, at most ``timeout`` seconds.
    """

    timeout: float | None = None


class PushItem(Command, frozen=True, gc=False):
    """Append an item to the history as it is."""

    item: UserItem | AssistantItem | SystemItem | ToolResult


class History(Command, frozen=True, gc=False):
    """Reply with the items of the history."""


class Describe(Command, frozen=True, gc=False):
    """Reply with the pod's name, state, session, size and usage."""


class Passivate(Command, frozen=True, gc=False):
    """Drop the history from memory until it is needed, unless something is under way."""


class Approve(Command, frozen=True, gc=False):
    """Let a waiting call run, with changed ``arguments`` if any are given; with ``always``, calls of this
    tool with the same arguments need no approval any more. ``note`` is for the model.
    """

    approval_id: str
    always: bool = False
    arguments: dict[str, Any] | None = None
    note: str | None = None


class Disapprove(Command, frozen=True, gc=False):
    """Deny a waiting call; ``note`` gives the model the reason. ``by`` is ``nobody`` if there was no person
    to ask.
    """

    approval_id: str
    note: str | None = None
    by: Literal["person", "nobody"] = "person"


class Fork(Command, frozen=True, gc=False):
    """Open a new session that branches off after the entry with hash ``at`` (None: the head)."""

    at: str | None = None


class Stop(Command, frozen=True, gc=False):
    """End the pod; its session stays."""


COMMANDS: tuple[type[Command], ...] = (
    Run,
    Steer,
    Notify,
    Cancel,
    Pause,
    Resume,
    Compact,
    TryPreRunCompact,
    TryPostRunExtract,
    SpawnMemoryJobs,
    WaitForMemoryJobs,
    WaitForSubAgents,
    PushItem,
    History,
    Describe,
    Passivate,
    Approve,
    Disapprove,
    Fork,
    Stop,
)
