"""Keeps a person's answer to a call that waits for approval in a store."""

from __future__ import annotations

import time

import click

from actors.cli.peers import why_no_person
from actors.cli.sessions.store_reader import Reading
from actors.runtime.user_folders import state_path
from actors.sessions.answer_token import answer_token
from actors.sessions.store import SessionInfo
from protocol.approval import ApprovalAnswer
from protocol.errors import AlreadyResolved
from protocol.events import ApprovalRequested


def require_person() -> None:
    """Raise UsageError where a pod has started this very command."""
    if (why := why_no_person()) is not None:
        raise click.UsageError(why)


def keep_answer(
    reading: Reading, request: ApprovalRequested, info: SessionInfo, answer: ApprovalAnswer
) -> None:
    """Keep the answer to ``request``, with proof. Raises AlreadyResolved, StoreError, and UsageError where
    the pod would not believe it.
    """
    if request.ends_at <= time.time():
        raise AlreadyResolved(f"approval {request.approval_id} was not answered in time, and is denied")
    token = answer_token()
    if request.token not in {None, token.id}:
        raise click.UsageError(
            f"pod {info.pod} does not accept answers from here: it expects a token other than "
            f"the one in {state_path()}. Answer as the user and with the $XDG_STATE_HOME that it "
            "was started with. If the token has been replaced since, answer where the pod runs: "
            "`polypod resume` asks again"
        )
    if not reading.put_answer(token.sign(answer)):
        raise AlreadyResolved(f"approval {request.approval_id} has already been answered")
    resolved = reading.resolution(request, info)
    if resolved is not None and resolved.by != answer.by:  # the pod was faster, and asks nobody any more
        raise AlreadyResolved(f"approval {request.approval_id} is no longer needed")
