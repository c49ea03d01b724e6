"""``polypod approvals``, ``approve`` and ``deny``: what waits in a store, and the answers to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
import msgspec

from actors.cli import options
from actors.cli.approvals.answers import keep_answer, require_person
from actors.cli.approvals.question import wrapped
from actors.cli.display.event_format import Line
from actors.cli.display.format import ago, arguments, seconds
from actors.cli.display.json_rows import WaitingCall
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.errors import SeveralFit
from actors.cli.places import store_option
from actors.cli.sessions.store_reader import Reading
from actors.sessions.head import short_id
from actors.sessions.store import Holder, SessionInfo
from actors.tools.shell.rules import programs_in
from protocol.approval import ApprovalAnswer, verdict
from protocol.errors import AlreadyResolved, SessionError, UnknownApproval, WireError
from protocol.events import ApprovalRequested
from protocol.text import UNDECODABLE, encodable, unshortened

_approval_id = click.argument("approval_id", metavar="ID")
_session = click.option(
    "--session", metavar="SESSION", help="The session of the call, if several have one under this ID."
)
_note = click.option("--note", metavar="WORDS", help="A message for the model.")


#: Characters of a call's arguments that a person is shown, and what stands before the lines below an id.
_LONG, _INDENT = 400, "  "


class Waiting(NamedTuple):
    """A call that waits: what was asked, the session, and the process that has it, if any lives."""

    request: ApprovalRequested
    info: SessionInfo
    holder: Holder | None


@click.command
@click.argument("place", metavar="[STORE]", required=False)
@options.store
@options.as_json
def approvals(place: str | None, store: str | None, as_json: bool) -> None:
    """List the calls that wait for approval in all processes, oldest first.

    STORE is short for --store STORE. At a terminal each call takes several
    lines; elsewhere it is one line of a table.
    """
    now = time.time()
    with Reading(place or store) as reading:
        found = [each for each in _all(reading) if now < each.request.ends_at]
        url = reading.url
    terminal = Terminal()
    if as_json:
        for each in found:
            put_json(_row(each))
    elif not found:
        terminal.note(f"nothing waits for approval in {url}")
    else:
        _list(found, terminal)


@click.command
@_approval_id
@_note
@click.option("--always", is_flag=True, help="Also allow the same call with the same arguments from now on.")
@click.option("--arguments", "given", metavar="JSON", help="Run it with these arguments instead.")
@_session
@options.store
def approve(
    approval_id: str,
    note: str | None,
    always: bool,
    given: str | None,
    session: str | None,
    store: str | None,
) -> None:
    """Allow the call that waits under ID, or the beginning of one, in any process.

    The first answer holds. A waiting pod continues at once, a paused one when it
    is resumed. Rules that deny the call still apply.
    """
    require_person()
    mended = None if given is None else _object(given)
    with Reading(store) as reading:
        waiting = _find(reading, approval_id, session)
        if mended is not None:
            _check_allowed(reading, waiting, mended)
        answer = _answer(waiting, approved=True, note=note)
        _give(reading, waiting, msgspec.structs.replace(answer, always=always, arguments=mended))


@click.command
@_approval_id
@_note
@_session
@options.store
def deny(approval_id: str, note: str | None, session: str | None, store: str | None) -> None:
    """Refuse the call that waits under ID, or the beginning of one; the model gets the text of --note."""
    require_person()
    with Reading(store) as reading:
        waiting = _find(reading, approval_id, session)
        _give(reading, waiting, _answer(waiting, approved=False, note=note))


def _all(reading: Reading) -> list[Waiting]:
    """What waits and has no answer yet, the oldest first."""
    found: list[Waiting] = []
    for info in reading.asking():
        try:
            asked = reading.unanswered(info)
        except (SessionError, WireError):  # deleted meanwhile, or damaged: fsck says so
            continue
        if asked:
            holder = reading.holder(info.session_id)
            found += [Waiting(request, info, holder) for request in asked]
    return sorted(found, key=lambda each: each.request.at)


def _find(reading: Reading, approval_id: str, session: str | None) -> Waiting:
    """The call that waits under an id. Raises AlreadyResolved, UnknownApproval, UsageError."""
    approval_id = encodable(approval_id)
    of = None if session is None else reading.find(session).session_id
    asked = [each for each in _all(reading) if of in {None, each.info.session_id}]
    found = [each for each in asked if each.request.approval_id == approval_id] or [
        each
        for each in asked
        if approval_id and each.request.approval_id.startswith(unshortened(approval_id))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        ids = {each.request.approval_id for each in found}
        said = "choose one with --session" if len(ids) == 1 else "give more of the id"
        now = time.time()
        raise SeveralFit(
            f"{len(found)} calls wait for approval under {approval_id!r}; {said}:",
            [f"{each.request.approval_id}  {line}" for each in found for line in [_summary(each, now)]],
        )
    for each in reading.answers([approval_id]):
        if of in {None, each.session_id}:
            raise AlreadyResolved(f"approval {approval_id} has already been answered: {_said(each)}")
    raise UnknownApproval(
        f"no call waits for approval under {approval_id!r:.80} in {reading.url}: the id is "
        "unknown, or the call was answered, or its run is over",
        hint="polypod approvals lists the waiting calls",
    )


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except UNDECODABLE as error:
        raise click.UsageError(f"--arguments: expected a JSON object: {error}") from error


def _check_allowed(reading: Reading, waiting: Waiting, mended: dict[str, Any]) -> None:
    """Raise UsageError where rules of the session's pod deny the call with these arguments."""
    manifest = reading.manifest(waiting.info.session_id)
    tool = waiting.request.tool
    programs = programs_in(tool, mended)
    found = verdict(manifest.approval_rules, manifest.approvals.default, tool, mended, programs)
    if found.policy == "deny":
        raise click.UsageError(f"the call is denied with these arguments ({found.why})")


def _answer(waiting: Waiting, *, approved: bool, note: str | None) -> ApprovalAnswer:
    said = None if note is None else encodable(note)
    of = waiting.request.approval_id, waiting.info.session_id
    return ApprovalAnswer(*of, approved=approved, at=time.time(), note=said)


def _give(reading: Reading, waiting: Waiting, answer: ApprovalAnswer) -> None:
    """Keep the answer, and say what comes of it. Raises AlreadyResolved, StoreError."""
    request, info = waiting.request, waiting.info
    keep_answer(reading, request, info, answer)
    terminal = Terminal()
    if answer.arguments is None:
        terminal.note(f"{_said(answer)}: {_call(request, 60)} of pod {info.pod}")
    else:
        changed = msgspec.structs.replace(request, arguments=answer.arguments)
        terminal.note(f"{_said(answer)}: {_call(changed, 60)} of pod {info.pod}")
        checks = "the pod checks the arguments, and denies a call that cannot be run with them"
        servers = "" if request.form is not None else "; if the tool is an MCP server's, that server does"
        terminal.note(f"  {checks}{servers}", "note")
    if waiting.holder is None:
        way_on = f"polypod resume {short_id(info.session_id)}{store_option(reading.url)}"
        terminal.note(f"  its run was interrupted; continue with: {way_on}", "note")


def _said(answer: ApprovalAnswer) -> str:
    """What an answer says, in a few words."""
    changed = ", with changed arguments" if answer.arguments is not None else ""
    return f"{'approved' if answer.approved else 'denied'}{changed}"


def _list(found: list[Waiting], terminal: Terminal) -> None:
    """What waits: lines of words at a terminal, of whatever width; where programs may read it, a table."""
    now = time.time()
    if not terminal.live:
        rows: list[tuple[str, ...]] = [("ID", "CALL", "POD", "ASKED", "SESSION")]
        for each in found:
            request, info, _ = each
            of = f"{info.session_id}, {_where(each)}"
            rows.append((request.approval_id, _call(request, 50), info.pod, _asked(request, now), of))
        terminal.table(rows)
        return
    for each in found:
        for line in _record(each, now, terminal.width):
            terminal.line(line)
    hint = "polypod approve ID allows one, polypod deny ID refuses it; the beginning of an ID is enough"
    for line in wrapped("quiet", hint, terminal.width):
        terminal.say(line)


def _record(each: Waiting, now: float, width: int) -> Iterator[Line]:
    """A call that waits, on lines of at most ``width`` columns."""
    request, info, _ = each
    yield from wrapped("note", f"{request.approval_id}  {_asked(request, now)}", width)
    whose = f"pod {info.pod}, session {short_id(info.session_id)}, {_where(each)}"
    for tone, words in (("answer", _call(request, _LONG)), ("quiet", whose)):
        for line in wrapped(tone, words, max(width - len(_INDENT), 1)):
            yield line._replace(text=_INDENT + line.text)


def _summary(each: Waiting, now: float) -> str:
    """A call that waits, in a few words."""
    return f"{_call(each.request, 50)} of pod {each.info.pod}, {_asked(each.request, now)}"


def _asked(request: ApprovalRequested, now: float) -> str:
    """Since when it waits, and how long it may."""
    left = "" if request.timeout is None else f", {seconds(max(request.ends_at - now, 0))} left"
    return f"{ago(request.at, now)}{left}"


def _where(each: Waiting) -> str:
    return "interrupted" if each.holder is None else f"in process {each.holder.pid}"


def _call(request: ApprovalRequested, width: int) -> str:
    return f"{request.tool}({arguments(request.arguments, width)})"


def _row(waiting: Waiting) -> WaitingCall:
    request, info, holder = waiting
    return WaitingCall(
        request.approval_id,
        info.session_id,
        info.pod,
        request.tool,
        request.arguments,
        request.why,
        request.at,
        request.timeout,
        holder,
    )
