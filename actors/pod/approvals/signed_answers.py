"""``SignedAnswers``: answers that any process may put into the store, each proven by the user's token."""

from __future__ import annotations

import contextlib

from actors.sessions.answer_token import answer_token
from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from protocol.approval import ApprovalAnswer
from protocol.errors import StoreError
from protocol.events import ApprovalRequested


class SignedAnswers:
    """What one pod puts into the store, and which answers it accepts from there."""

    __slots__ = ("_store",)

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def token_id(self) -> str | None:
        """The id of the token that an answer from another process must prove; empty if no token can be kept,
        None if the store keeps no answers.
        """
        if not self._store.keeps_answers:
            return None
        try:
            return answer_token().id
        except StoreError:
            return ""

    def proves(self, request: ApprovalRequested, answer: ApprovalAnswer) -> bool:
        """Whether ``answer``, which was read from the store, comes from someone who has the token."""
        if request.token is None:  # of an earlier version
            return True
        try:
            token = answer_token()
        except StoreError:
            return False
        return request.token == token.id and token.proves(answer)

    async def put(self, answer: ApprovalAnswer) -> bool:
        """Put an answer into a store that keeps answers; returns False if another was there first. Raises
        SessionError.
        """
        if not self._store.keeps_answers:
            return True
        with contextlib.suppress(StoreError):  # it is recorded by this process, which needs no proof
            answer = answer_token().sign(answer)
        return bool(await settled(self._store.put_answer(answer)))
