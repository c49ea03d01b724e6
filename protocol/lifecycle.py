"""The states of a pod and the one table of legal moves.

::

                 a                    d
    STARTING ────────▶ IDLE ◀──────────────────── RUNNING
        │               │ ▲  ────────────────────▶  │  ▲
        │               │ │            b          c │  │ e
        │ g             │ │ f                       ▼  │
        │               │ └─────────────────────── PAUSED
        ▼               ▼                             │
      FAILED          STOPPED ◀────── h ──────────────┘   (h: from every living state)

    RUNNING ◀──── w ────▶ WAITING, which ends as RUNNING does but for a pause

    a  the session is opened or restored       b  run, notify, or a queued run starts
    c  pause, or a restored run without end    d  the run ended, whatever its outcome
    e  resume, or a new run that closes the old one's open calls
    f  cancel of a paused run                  g  the session cannot be opened, or a defect
    h  stop                                    w  all that is left to do waits for a person's word, or not
                                                  any more
"""

from __future__ import annotations

from enum import StrEnum


class PodState(StrEnum):
    """Where a pod is in its life."""

    #: The session is being opened or restored; commands wait in the mailbox.
    STARTING = "starting"
    #: No run is going on.
    IDLE = "idle"
    #: A run is going on: a model, a tool or a compaction is at work.
    RUNNING = "running"
    #: A run is going on, and all that it could do waits for a person to approve it.
    WAITING = "waiting"
    #: A run was interrupted and can be resumed.
    PAUSED = "paused"
    #: The pod is gone; its session stays.
    STOPPED = "stopped"
    #: The pod could not start, or a defect ended it; its session stays.
    FAILED = "failed"


MOVES: dict[PodState, frozenset[PodState]] = {
    PodState.STARTING: frozenset({PodState.IDLE, PodState.PAUSED, PodState.STOPPED, PodState.FAILED}),
    PodState.IDLE: frozenset({PodState.RUNNING, PodState.STOPPED, PodState.FAILED}),
    PodState.RUNNING: frozenset(
        {PodState.IDLE, PodState.WAITING, PodState.PAUSED, PodState.STOPPED, PodState.FAILED}
    ),
    PodState.WAITING: frozenset({PodState.RUNNING, PodState.IDLE, PodState.STOPPED, PodState.FAILED}),
    PodState.PAUSED: frozenset({PodState.RUNNING, PodState.IDLE, PodState.STOPPED, PodState.FAILED}),
    PodState.STOPPED: frozenset(),
    PodState.FAILED: frozenset(),
}


#: A run is going on.
AT_WORK = frozenset({PodState.RUNNING, PodState.WAITING})
