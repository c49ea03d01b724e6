"""What a pod does for each command, and for messages of its memory jobs and tools: a table of functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from actors.compaction.call_order import in_call_order
from actors.memory.messages import Consolidated, Consolidating, Proposal
from actors.pod.checks import Answer, check_command, checked_answer, checked_content, checked_item
from actors.pod.runs.options import resume_from_wire, run_from_wire
from actors.pod.runs.run_state import QueuedRun, ResumeHere, RunHere
from actors.pod.runs.tool_calls import EndedLate
from actors.runtime.actor import DEFERRED
from actors.runtime.arguments import wait_of
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Interruptible
from protocol import commands
from protocol.errors import AlreadyResolved, PodStopped, SessionError
from protocol.events import (
    Alert,
    AssistantMessage,
    RunOutcome,
    SessionForked,
    SystemMessage,
    ToolResulted,
    UserMessage,
)
from protocol.items import AssistantItem, Item, SystemItem, ToolResult, UserItem
from protocol.lifecycle import AT_WORK, PodState
from protocol.results import PodDescription
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.pod import PodActor


#: The event of each item that is pushed.
_EVENT_OF: dict[type, tuple[Any, dict[str, Any]]] = {
    UserItem: (UserMessage, {"source": "push"}),
    AssistantItem: (AssistantMessage, {}),
    SystemItem: (SystemMessage, {}),
    ToolResult: (ToolResulted, {}),
}


def _on_run(pod: PodActor, command: commands.Run) -> Any:
    content = checked_content(command.content)
    if content is not command.content:
        command = msgspec.structs.replace(command, content=content)
    if command.options is not None:
        command = run_from_wire(command)
    runs = pod.run_loop or pod.runs  # the first is as fast as it gets
    runs.submit(QueuedRun(command, "run", pod.defer_reply()))
    return DEFERRED


def _on_steer(pod: PodActor, command: commands.Steer) -> Any:
    pod.runs.steer(checked_content(command.content), pod.defer_reply())
    return DEFERRED


def _on_notify(pod: PodActor, command: commands.Notify) -> Any:
    pod.runs.notify(checked_content(command.content), pod.defer_reply())
    return DEFERRED


def _on_cancel(pod: PodActor, command: commands.Cancel) -> Any:
    runs = pod.runs
    if command.run_id is not None and (runs.run is None or runs.run.run_id != command.run_id):
        runs.drop_queued(command.run_id)
        return None
    if pod.status.state is PodState.PAUSED:
        runs.between_steps(pod.defer_reply(), runs.cancel_paused)
        return DEFERRED
    return None if runs.run is None else _end_soon(pod, "cancelled")


def _on_pause(pod: PodActor, _: commands.Pause) -> Any:
    return None if pod.status.state not in AT_WORK else _end_soon(pod, "paused")


def _end_soon(pod: PodActor, ending: RunOutcome) -> Any:
    pod.runs.end_soon(ending, pod.defer_reply())
    return DEFERRED


def _on_resume(pod: PodActor, command: commands.Resume) -> Any:
    if pod.status.state is not PodState.PAUSED:
        raise pod.runs.not_paused()
    if command.options is not None:
        command = resume_from_wire(command)
    pod.runs.resume(pod.defer_reply(), command)
    return DEFERRED


def _on_push_item(pod: PodActor, command: commands.PushItem) -> Any:
    item = checked_item(command.item)
    pod.runs.between_steps(pod.defer_reply(), lambda _: _push(pod, item))
    return DEFERRED


async def _push(pod: PodActor, item: Item) -> None:
    pod.runs.check_none_waits()
    if not isinstance(item, ToolResult):  # what comes after a call without a result would part the two
        pod.runs.close_open_calls()
    kind, extra = _EVENT_OF[type(item)]
    pod.journal.log.record(kind, None, item=item, **extra)
    await pod.journal.commit()


def _on_fork(pod: PodActor, command: commands.Fork) -> Any:
    check_command(command)
    pod.runs.between_steps(pod.defer_reply(), lambda waits: _fork(pod, command.at, waits))
    return DEFERRED


async def _fork(pod: PodActor, at: str | None, waits: Interruptible) -> str:
    from actors.pod.session import fork  # noqa: PLC0415 - paid for by whoever forks

    await pod.journal.commit()
    if at is None and pod.approvals is not None and pod.approvals.state.open:
        at = await fork.before_open_answer(pod.resources)
    session_id, at_hash = await waits.apart(fork.branch_off(pod.resources, at), "the fork")
    pod.journal.log.record(SessionForked, pod.journal.run_id, new_session_id=session_id, at_hash=at_hash)
    try:
        await pod.journal.commit()
    except SessionError:
        await fork.drop_branch(pod.resources, session_id)
        raise
    return session_id


def _on_compact(pod: PodActor, command: commands.Compact) -> Any:
    check_command(command)
    wanted = command.retained_tokens
    pod.runs.between_steps(pod.defer_reply(), lambda waits: pod.runs.compact(wanted, waits))
    return DEFERRED


def _on_try_pre_run_compact(pod: PodActor, _: commands.TryPreRunCompact) -> Any:
    pod.runs.between_steps(pod.defer_reply(), pod.runs.try_compact)
    return DEFERRED


def _on_try_post_run_extract(pod: PodActor, _: commands.TryPostRunExtract) -> Any:
    return DEFERRED if pod.memory.extractions.extract(pod.defer_reply()) else None


def _on_spawn_memory_jobs(pod: PodActor, _: commands.SpawnMemoryJobs) -> None:
    pod.memory.start_all(pod.defer_reply().caller)


def _on_wait_for_memory_jobs(pod: PodActor, command: commands.WaitForMemoryJobs) -> Any:
    seconds = wait_of("timeout", command.timeout)
    return DEFERRED if pod.memory.wait_for_all(pod.defer_reply(), seconds) else True


def _on_wait_for_sub_agents(pod: PodActor, command: commands.WaitForSubAgents) -> Any:
    seconds = wait_of("timeout", command.timeout)
    if pod.delegation is None:
        return True
    pod.tasks.start_at_once(_wait_for_sub_agents(pod.delegation, seconds, pod.defer_reply()))
    return DEFERRED


async def _wait_for_sub_agents(
    delegation: Delegation, seconds: float | None, reply: AsyncFuture[bool]
) -> None:
    try:
        reply.set(await delegation.wait_for_all(seconds))
    except PodStopped as error:
        reply.set_exception(error)


def _on_history(pod: PodActor, _: commands.History) -> list[Item]:
    return in_call_order(pod.journal.log.durable_items())


def _on_describe(pod: PodActor, _: commands.Describe) -> PodDescription:
    log, accounts = pod.journal.log, pod.accounts
    return PodDescription(
        name=pod.name,
        state=pod.status.state,
        session_id=log.durable_session,
        head=log.durable_hash.hex(),
        extract_pointer=log.durable_pointer,
        occupancy=pod.conversation.occupancy() if pod.weighed is None else pod.weighed,
        usage=accounts.usage or Usage(),
        cost=accounts.cost,
        passive=pod.passive,
        seconds=accounts.seconds + accounts.run_seconds(log.head),
        sub_agents=() if pod.delegation is None else pod.delegation.names,
    )


def _on_answer(pod: PodActor, command: Answer) -> Any:
    command = checked_answer(command)
    reply = pod.defer_reply()
    if pod.delegation is not None and (asker := pod.delegation.asker_of(command.approval_id)):
        answer = asker.address.ask(asker, command)
        answer.when_done(lambda: _pass_on(pod, command.approval_id, answer, reply))
    else:
        pod.runs.answer(command, reply)
    return DEFERRED


def _on_proposal(pod: PodActor, proposal: Proposal) -> Any:
    pod.memory.extractions.take(proposal, pod.defer_reply())
    return DEFERRED


def _on_consolidating(pod: PodActor, message: Consolidating) -> Any:
    pod.memory.consolidations.begin(message, pod.defer_reply())
    return DEFERRED


def _on_consolidated(pod: PodActor, message: Consolidated) -> None:
    pod.memory.consolidations.end(message)


def _on_ended_late(pod: PodActor, message: EndedLate) -> None:
    pod.tasks.start(_record_late(pod, message))


async def _record_late(pod: PodActor, message: EndedLate) -> None:
    pod.journal.log.record(Alert, message.run_id, text=message.text)
    with suppress(SessionError):
        await pod.journal.commit()


def _on_passivate(pod: PodActor, _: commands.Passivate) -> bool:
    return pod.passivate()


def _pass_on(pod: PodActor, approval_id: str, answer: AsyncFuture[Any], reply: AsyncFuture[Any]) -> None:
    """Reply with what a sub-agent replied to an answer."""
    error = answer.exception()
    if error is None:
        reply.set(None)
    elif isinstance(error, PodStopped) and not pod.status.stopping:  # only the sub-agent has stopped
        reply.set_exception(AlreadyResolved.of(approval_id))
    else:
        reply.set_exception(error)


HANDLERS: dict[type, Callable[[PodActor, Any], Any]] = {
    commands.Run: _on_run,
    RunHere: _on_run,
    commands.Steer: _on_steer,
    commands.Notify: _on_notify,
    commands.Cancel: _on_cancel,
    commands.Pause: _on_pause,
    commands.Resume: _on_resume,
    ResumeHere: _on_resume,
    commands.PushItem: _on_push_item,
    commands.Compact: _on_compact,
    commands.TryPreRunCompact: _on_try_pre_run_compact,
    commands.TryPostRunExtract: _on_try_post_run_extract,
    commands.SpawnMemoryJobs: _on_spawn_memory_jobs,
    commands.WaitForMemoryJobs: _on_wait_for_memory_jobs,
    commands.WaitForSubAgents: _on_wait_for_sub_agents,
    commands.History: _on_history,
    commands.Describe: _on_describe,
    commands.Passivate: _on_passivate,
    commands.Approve: _on_answer,
    commands.Disapprove: _on_answer,
    commands.Fork: _on_fork,
    Proposal: _on_proposal,
    Consolidating: _on_consolidating,
    Consolidated: _on_consolidated,
    EndedLate: _on_ended_late,
}
