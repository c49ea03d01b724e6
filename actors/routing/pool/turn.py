"""One turn of a pool with its queue: what is to be kept, and what starts next, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from actors.routing.pool.queue import Claimed, Ended, NewJob, Outlook, Returned, TaskQueue
from actors.routing.pool.scheduling import RunnerState, Waiting, plan, window
from protocol.errors import StoreError
from protocol.jobs import JOB_ENDS, Execution, JobStatus

#: Jobs of a lane that are looked at besides those that could start: some may wait for what others need not.
_SLACK = 32


class Assignment(Struct, frozen=True):
    """A job was classified: to a lane, or to none, so that the pool chooses."""

    number: int
    lane: str = ""
    model: str | None = None
    reason: str | None = None


class Batch(Struct):
    """What a pool has gathered for a turn."""

    adds: list[NewJob] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)
    returns: list[Returned] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    cancels: list[int] = field(default_factory=list)
    asks: list[Callable[[TaskQueue], Any]] = field(default_factory=list)

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return bool(self.adds or self.ends or self.returns or self.assignments or self.opened or self.cancels)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was gathered."""
        return not self.writes and not self.asks


class Circumstances(Struct, frozen=True):
    """How the pool stands in that turn.

    ``runners`` are those with their limits, ``classified`` the jobs that need no classifier any more (None
    where there is no classifier) and ``classifying`` those that one looks at, ``waited`` the jobs whose end
    somebody waits for, ``mark`` that of the ends that were seen. ``looks_for_dead`` is set
    in the turns that look after other processes, and ``must_look`` where something has changed that the queue
    does not know of.
    """

    runners: Mapping[str, RunnerState]
    classified: Collection[int] | None
    classifying: Collection[int]
    waited: Container[int]
    mark: int | None
    now: float
    looks_for_dead: bool = False
    must_look: bool = False
    joined: bool = False


class _Others(Struct, frozen=True):
    """The jobs that somebody waits for, but for those whose end is known."""

    waited: Container[int]
    known: frozenset[int]

    def __contains__(self, number: object) -> bool:
        return number in self.waited and number not in self.known


class Turn(Struct):
    """What came of it."""

    numbers: list[int] = field(default_factory=list)
    cancelled: list[JobStatus | None] = field(default_factory=list)
    claimed: list[Claimed] = field(default_factory=list)
    to_classify: list[tuple[int, Execution]] = field(default_factory=list)
    to_cancel: list[int] = field(default_factory=list)
    ended: list[tuple[int, Execution]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    active: dict[str, int] = field(default_factory=dict)
    mark: int | None = None
    has_open: bool = True
    looked: bool = False
    must_look: bool = False
    #: Jobs of processes that died which nobody does again.
    abandoned: list[Execution] = field(default_factory=list)


def take_turn(queue: TaskQueue, batch: Batch, now: Circumstances) -> Turn:
    """Carry out a batch and start what can start. Raises StoreError; nothing of it is kept then. Where it is
    kept, but what came of it cannot be seen, ``must_look`` says so: what it has started is started.
    """
    turn = Turn(mark=now.mark)
    changed = queue.has_changed()
    has_dead = now.looks_for_dead and queue.has_dead()
    if batch.writes or has_dead:
        with queue.transaction():
            if has_dead:
                turn.abandoned = _abandoned(queue, queue.take_back(now.now))
            _write(queue, batch, now, turn)
            _look(queue, now, turn, claims=True)
    elif (changed or now.must_look) and _look(queue, now, turn, claims=False):
        with queue.transaction():
            _look(queue, now, turn, claims=True)
    if changed or batch.writes or has_dead or now.must_look:
        try:
            _see(queue, batch, now, turn)
        except StoreError:
            turn.must_look = True
    turn.answers = [_answer(queue, ask) for ask in batch.asks]
    return turn


def _abandoned(queue: TaskQueue, numbers: list[int]) -> list[Execution]:
    found = map(queue.find, numbers)
    return [each for each in found if each is not None and each.status in JOB_ENDS]


def _see(queue: TaskQueue, batch: Batch, now: Circumstances, turn: Turn) -> None:
    """See what has ended, and what is to be cancelled. Raises StoreError."""
    others = _Others(now.waited, frozenset(each.number for each in batch.ends))
    turn.mark, turn.ended = queue.ended_since(now.mark, others)
    turn.to_cancel = queue.cancels()
    turn.has_open = queue.has_open() if now.joined else True
    turn.looked = True


def _write(queue: TaskQueue, batch: Batch, now: Circumstances, turn: Turn) -> None:
    queue.end(batch.ends)
    queue.give_back(batch.returns, now.now)
    for each in batch.assignments:
        queue.assign(each.number, each.lane, each.model, each.reason)
    for lane in batch.opened:
        queue.open_lane(lane)
    turn.numbers = queue.add(batch.adds)
    turn.cancelled = [queue.cancel(number, now.now) for number in batch.cancels]


def _look(queue: TaskQueue, now: Circumstances, turn: Turn, *, claims: bool) -> bool:
    """Whether anything can start; with ``claims``, within a transaction, it is started."""
    if not now.runners:
        return False
    outlook = queue.outlook(lambda lane, active: window(_with_active(now, active), lane, now.now, _SLACK))
    turn.active = outlook.active
    waiting = _mark_choosing(outlook, now)
    starts = plan(waiting, _with_active(now, outlook.active), now.now)
    if claims:
        turn.claimed = queue.start(starts, now.now)
        found = [(number, queue.find(number)) for number in _to_classify(waiting, now)]
        turn.to_classify = [(number, each) for number, each in found if each is not None]
        return bool(turn.claimed)
    return bool(starts or _to_classify(waiting, now))


def _to_classify(waiting: list[Waiting], now: Circumstances) -> list[int]:
    return [each.number for each in waiting if each.choosing and each.number not in now.classifying]


def _with_active(now: Circumstances, active: Mapping[str, int]) -> dict[str, RunnerState]:
    return {name: replace(each, active=active.get(name, 0)) for name, each in now.runners.items()}


def _mark_choosing(outlook: Outlook, now: Circumstances) -> list[Waiting]:
    """The jobs that wait, with those marked that a classifier has to look at first."""
    classified = now.classified
    if classified is None:
        return outlook.waiting
    return [
        replace(each, choosing=True)
        if each.lane not in now.runners and not each.avoid and each.number not in classified
        else each
        for each in outlook.waiting
    ]


def _answer(queue: TaskQueue, ask: Callable[[TaskQueue], Any]) -> Any:
    try:
        return ask(queue)
    except Exception as error:  # noqa: BLE001 - goes to who asked
        return error
