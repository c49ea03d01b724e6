"""Decides at which tier a request enters a chain: at the first, or at the one that its task has reached."""

from __future__ import annotations

from msgspec import Struct

from actors.llm.base import Request
from actors.llm.retry import RetryPolicy
from actors.routing.chain.task import (
    Progress,
    ToolRule,
    first_words_at,
    keep_progress,
    notes_of,
    progress_of,
    tier_at_work,
)
from actors.routing.chain.tiers import Tier
from actors.routing.verifiers import Verifier
from actors.routing.warm_probe import WarmProbe, plain_name


class ChainParts(Struct, frozen=True, eq=False):
    """The parts of a chain."""

    tiers: tuple[Tier, ...]
    names: tuple[str, ...]
    verifier: Verifier | None
    probe: WarmProbe | None
    prefer_warm: bool
    tools: ToolRule
    verify_timeout: float
    retry: RetryPolicy


async def begin(parts: ChainParts, request: Request, at: int) -> Progress:
    """How far the task is that begins at item ``at``: at the tier whose calls it continues, or after one that
    broke, or at its beginning.
    """
    known = progress_of(request, at)
    if known is not None and known.goes_on:
        known.goes_on = False
        return known
    names = parts.names
    at_work = None if at + 1 >= len(request.items) else tier_at_work(request.items, at, names)
    first = request.items[at] if at < len(request.items) else None
    if at_work is not None and known is not None and at_work in known.order:
        made = Progress(first, known.order, known.order.index(at_work))
        made.notes, made.words, made.warm = known.notes, known.words, known.warm
    else:
        order = tuple(range(len(names))) if at_work is not None else await _order(parts)
        made = Progress(first, order, 0 if at_work is None else at_work)
        if at_work is not None:
            _take_notes(parts, request, at, made)
    keep_progress(request, made)
    return made


def _take_notes(parts: ChainParts, request: Request, at: int, progress: Progress) -> None:
    """Read back from the history what was said of earlier tiers, in the middle of a restored task."""
    words = first_words_at(request.items, at)
    if words is not None:
        models = {each.entry.model for each in parts.tiers}
        progress.notes = notes_of(request.earlier_attempts, models)
        progress.words = words - at if progress.notes else None


async def _order(parts: ChainParts) -> tuple[int, ...]:
    """The order in which the tiers are asked. If that is wished for, consecutive local tiers whose models are
    loaded come before the others.
    """
    tiers, probe = parts.tiers, parts.probe
    places = list(range(len(tiers)))
    if probe is None or not parts.prefer_warm or all(each.entry.is_cloud for each in tiers):
        return tuple(places)
    warm = await probe.warm_models()

    def rank(place: int) -> tuple[int, bool]:
        cloud_before = sum(each.entry.is_cloud for each in tiers[: place + 1])
        entry = tiers[place].entry
        return cloud_before * 2 - entry.is_cloud, plain_name(entry.model) not in warm

    return tuple(sorted(places, key=rank))
