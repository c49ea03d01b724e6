"""Answers those who wait for memory jobs: each once, and none that has given up."""

from __future__ import annotations

from typing import Any

from actors.runtime.future import AsyncFuture


def answer(reply: AsyncFuture[bool], *, accepted: bool) -> None:
    """Answer a detached actor, or whoever waits for it, unless that has been done."""
    if not reply.done():
        reply.set(accepted)


def answer_all(waiting: list[AsyncFuture[Any]] | None) -> None:
    """Answer everyone who waits, except those who have given up."""
    for reply in waiting or ():
        answer(reply, accepted=True)
