"""``plan``: which waiting jobs start now, and on which runner. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct


class Waiting(Struct, frozen=True):
    """A job that waits, as far as the choice of a runner goes; ``number`` is its place in order of
    submission.

    ``lane`` is the agent that it was asked for or classified to; with ``pinned`` it waits for that one.
    ``avoid`` is a runner that died over it, which is taken only where no other is there. With ``choosing``
    its classification is not known yet.
    """

    number: int
    priority: int = 0
    lane: str = ""
    pinned: bool = False
    avoid: str = ""
    choosing: bool = False


class RunnerState(Struct, frozen=True):
    """A runner: how many jobs it may have at once, how many it has, and until when it takes none (seconds
    since the epoch).
    """

    limit: int
    active: int = 0
    resting_until: float = 0.0


class Start(Struct, frozen=True):
    """A job is to start on a runner."""

    number: int
    agent: str


def plan(waiting: Iterable[Waiting], runners: Mapping[str, RunnerState], now: float) -> list[Start]:
    """The jobs that start now: a higher priority first, equal ones in order of submission, each on the runner
    that it has to have, else on the one with the least to do for its limit. What has to wait keeps nobody
    waiting that needs another runner.
    """
    open_now = {
        name: each.limit - each.active
        for name, each in runners.items()
        if each.active < each.limit and each.resting_until <= now
    }
    starts: list[Start] = []
    for job in sorted(waiting, key=lambda each: (-each.priority, each.number)):
        if not open_now:
            break
        agent = _runner_for(job, open_now, runners, now)
        if agent is None:
            continue
        starts.append(Start(job.number, agent))
        open_now[agent] -= 1
        if not open_now[agent]:
            del open_now[agent]
    return starts


def _runner_for(
    job: Waiting, open_now: Mapping[str, int], runners: Mapping[str, RunnerState], now: float
) -> str | None:
    """The runner for a job; None where it has to wait."""
    if job.choosing:
        return None
    wanted = runners.get(job.lane)
    if wanted is not None and (job.pinned or (wanted.resting_until <= now and job.lane != job.avoid)):
        return job.lane if job.lane in open_now else None
    others_awake = any(each.resting_until <= now for name, each in runners.items() if name != job.avoid)
    fitting = [name for name in open_now if name != job.avoid or not others_awake]
    return max(fitting, key=lambda name: (open_now[name] / runners[name].limit, open_now[name]), default=None)


def window(runners: Mapping[str, RunnerState], lane: str, now: float, slack: int) -> int:
    """How many jobs of a lane have to be looked at, so that none is passed over that could start."""
    own = runners.get(lane)
    if own is not None and own.resting_until <= now:
        return max(0, own.limit - own.active)
    free = sum(max(0, each.limit - each.active) for each in runners.values() if each.resting_until <= now)
    return free + slack if free else 0


def next_awakening(runners: Mapping[str, RunnerState], now: float) -> float | None:
    """When the first runner that rests takes jobs again; None where none rests."""
    return min((each.resting_until for each in runners.values() if each.resting_until > now), default=None)
