"""``Home``: the parts of a system that a swarm works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from actors.pod.approvals.answer_watch import AnswerWatch
from actors.runtime.events.bus import Bus
from actors.runtime.loop import Mailroom
from actors.sessions.store import SessionStore
from actors.swarm.roster import Roster
from protocol.errors import InvalidInput
from protocol.foreign import shown

if TYPE_CHECKING:
    from pathlib import Path

    from actors.pod.accounts.budget import Budget
    from actors.pod.handle import Pod
    from actors.runtime.children.launcher import Launcher
    from actors.runtime.closing import Closing
    from actors.runtime.future import AsyncFuture


class Home(Struct, frozen=True, eq=False):
    """The parts of an entered system."""

    mailroom: Mailroom
    store: SessionStore
    bus: Bus
    roster: Roster
    answers: AnswerWatch
    #: What starts child processes. Raises ChildNotStarted.
    launcher: Callable[[], Launcher]
    #: Keeps a descriptor open as long as there are child processes, and what has it drop that.
    hold: Callable[[int], None]
    drop_held: Callable[[int], None]
    #: As ``PodSystem.spawn``.
    spawn: Callable[..., AsyncFuture[Pod]]
    #: Keeps every tool out of a folder, whatever its scope says.
    protect: Callable[[Path], None]
    #: Has something close before the pods do, where the system is left.
    close_first: Callable[[Closing], None]
    #: Has models start agents by it.
    offer_agents: Callable[[Callable[..., Awaitable[str]]], None]
    #: Has the pod that is made next under a name draw on another pod's budget.
    draw_on: Callable[[str, Budget], None]
    #: What the system was entered with, for errors alone.
    system: Any = None


def home_of(system: Any) -> Home:
    """The parts of an entered system that agents and jobs need. Raises InvalidInput for something that is not
    a system, SystemNotRunning.
    """
    if not hasattr(system, "home"):
        raise InvalidInput(f"system: expected a PodSystem, got {shown(system)}")
    home: Home = system.home()
    return home
