"""Records the results of a run's requests: answers, what was shown of failed ones, and their usage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from actors.llm.base import Answer
from actors.pod.accounts.exchange import Exchange, FailedAttempt
from actors.pod.runs.outcomes import paused_in_vain
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import Run
from protocol.errors import ModelError
from protocol.events import AssistantMessage, AttemptFailed, TierAttempted, UsageUpdate
from protocol.items import AssistantItem, ImagePart, Item
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.accounts.tiered import TierSpent

#: How often in a row a model may pause its turn.
MAX_PAUSES = 10


def record_answer(parts: RunParts, run: Run, exchange: Exchange, answer: Answer) -> bool:
    """Settle the request and record its answer; returns whether the turn ends with it, because it has no
    calls. If no log can hold the answer, the run is set to fail.
    """
    cost = exchange.settle_answer(answer)
    run.exchange = None
    if exchange.failed:
        record_failed(parts, run, exchange.failed)
    for each in exchange.accepted:
        record_tier(parts, run, each)
    if answer.item.refused:
        answer = replace(answer, item=_as_refused(parts, run, answer.item))
    conversation, journal = parts.conversation, parts.journal
    conversation.guard = conversation.guard.request_answered()
    log, head = journal.log, journal.head
    try:
        log.add(
            AssistantMessage(
                log.pod,
                head.session_id,
                head.seq + 1,
                time.time(),
                run.run_id,
                item=answer.item,
                model=answer.model,
                stop_reason=answer.stop_reason,
                usage=answer.usage,
                cost=cost,
            )
        )
    except (TypeError, ValueError) as unfit:  # a client of the user's own gave what no JSON can hold
        run.error, run.ending = unfit, "failed"
        return False
    run.has_unseen_input = False
    run.answer = answer.item
    run.stop_reason = answer.stop_reason
    if answer.stop_reason == "pause" or run.pauses:
        _look_at_pause(parts, run, answer)
    conversation.context().record_usage(len(head.items) - 1, answer.usage)
    _count(parts, answer.usage, cost)
    if not answer.item.calls:
        return True
    run.started_calls = set()  # ids are unique within an answer, not within a run
    return False


def record_tier(parts: RunParts, run: Run, ended: TierSpent) -> None:
    """Record and count what a tier of a chain used up."""
    record_failed(parts, run, ended.failed)
    usage, cost = ended.spent.usage, ended.spent.cost
    log, head = parts.journal.log, parts.journal.head
    log.add(
        TierAttempted(
            log.pod,
            head.session_id,
            head.seq + 1,
            time.time(),
            run.run_id,
            attempt=ended.attempt,
            usage=usage,
            cost=cost,
        )
    )
    if usage is not None or cost is not None:
        _count(parts, usage, cost)


def record_failed(parts: RunParts, run: Run, failed: list[FailedAttempt]) -> None:
    """Record and count what attempts used up that gave no answer."""
    for each in failed:
        if each.usage is not None:
            parts.journal.log.record(
                AttemptFailed,
                run.run_id,
                attempt=each.attempt,
                error=each.failure,
                usage=each.usage,
                cost=each.cost,
            )
            _count(parts, each.usage, each.cost)


def is_refused(parts: RunParts, run: Run, error: BaseException) -> bool:
    """Whether the server would refuse every later request that contains this run's items, because of its
    content filter or because it cannot take a picture.
    """
    if isinstance(error, ModelError) and error.kind == "content_filter":
        return True
    return is_about_picture(error) and any(
        isinstance(part, ImagePart) for item in _own_items(parts, run) for part in item.content
    )


def is_about_picture(error: BaseException) -> bool:
    """Whether the server has refused a request because it cannot take a picture in it."""
    if not isinstance(error, ModelError) or error.kind != "invalid_request":
        return False
    from actors.llm.errors import names_picture  # noqa: PLC0415 - a server that has refused has imported it

    return names_picture(error.message)


def record_shown(parts: RunParts, run: Run, exchange: Exchange, *, refused: bool) -> None:
    """Record what people saw of an answer that was never completed, marked as cut or refused."""
    shown = exchange.take_shown()
    record_failed(parts, run, exchange.failed)
    if shown is None:
        if refused:
            item = _as_refused(parts, run, AssistantItem())
            parts.journal.log.record(AssistantMessage, run.run_id, item=item, stop_reason="content_filter")
        return
    assert shown.shown is not None
    kept = _as_refused(parts, run, shown.shown) if refused else shown.shown
    run.answer, run.stop_reason = kept, None
    parts.journal.log.record(
        AssistantMessage,
        run.run_id,
        item=kept,
        model=_model_of(parts, run),
        usage=shown.usage,
        cost=shown.cost,
    )
    if shown.usage is not None:
        _count(parts, shown.usage, shown.cost)


def _look_at_pause(parts: RunParts, run: Run, answer: Answer) -> None:
    """Ask a model that paused its turn to go on, as long as that gets anywhere."""
    if answer.stop_reason != "pause":
        run.pauses, run.paused = 0, None
        return
    run.pauses += 1
    item, before = answer.item, run.paused
    run.paused = item
    stuck = not (item.content or item.calls or item.vendor) or item == before
    if (stuck or run.pauses > MAX_PAUSES) and run.ending is None:
        run.error, run.ending = paused_in_vain(_model_of(parts, run), run.pauses), "failed"


def _as_refused(parts: RunParts, run: Run, item: AssistantItem) -> AssistantItem:
    """The item marked as refused: its calls are not run, and it says how many items of its run came before
    it, which later requests leave out.
    """
    of_run = len(_own_items(parts, run)) if run.began_in is parts.journal.head.items else 0
    return replace(item, refused=True, calls=(), refused_items=of_run)


def _own_items(parts: RunParts, run: Run) -> Sequence[Item]:
    """The items of the run; all items if it has gone on in a compacted session."""
    items = parts.journal.head.items
    return items[run.began_at :] if run.began_in is items else items


def _model_of(parts: RunParts, run: Run) -> str:
    """The name of a run's model."""
    return (run.resources or parts.resources).template.model


def _count(parts: RunParts, usage: Usage | None, cost: float | None) -> None:
    """Add to the usage of the pod and its run, and publish the sum."""
    accounts = parts.accounts
    accounts.count(usage, cost)
    journal = parts.journal
    if not journal.bus.silent and journal.has_subscriber(UsageUpdate):
        log, head = journal.log, journal.head
        event = UsageUpdate(
            pod=log.pod,
            session_id=head.session_id,
            seq=head.seq,
            at=time.time(),
            run_id=journal.run_id,
            usage=usage or Usage(),
            run_usage=accounts.run_usage or Usage(),
            cost=cost,
        )
        log.publish_transient(event)
