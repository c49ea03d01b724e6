"""Writes sessions for the bench straight into a store, in commits as a pod makes them, or in long commits."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Raw

from actors.sessions.answers import Kept, wait, wait_durable
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from actors.sessions.urls import open_store
from bench.histories import items
from bench.models import manifest
from protocol.events import AssistantMessage, DurableEvent, RunEnd, RunStart, ToolResulted, UserMessage
from protocol.items import AssistantItem, Item, ToolResult, UserItem
from protocol.usage import Usage
from protocol.wire import encode

#: Items in a long commit.
_LONG = 500
_USAGE = Usage(1000, 100)


def fill_session(url: str, length: int, *, long_commits: bool = False) -> str:
    """Write a new session with ``length`` items into the store at ``url``, and return its id.

    Its commits are those of a pod with a run for each question: the start of the run with the question, each
    answer with calls, each result, the last answer with the end of the run. Or they are long ones, with items
    only.
    """
    store = open_store(url)
    log = SessionLog(store, "bench", SessionHead(new_session_id()), lambda *_: None)
    log.open(Raw(encode(manifest())))
    _settle(log, store, log.create())
    for _ in _in_long_commits(log, length) if long_commits else _as_pods_do(log, length):
        _settle(log, store, log.commit())
    _settle(log, store, log.commit())
    wait(store.close())
    return log.head.session_id


def _settle(log: SessionLog, store: SessionStore, pending: Kept) -> None:
    wait_durable(store, pending)
    if pending is not None:
        log.confirm()


def _in_long_commits(log: SessionLog, length: int) -> Iterator[None]:
    """Record the items; each step is one commit."""
    for number, item in enumerate(items(length), 1):
        _record(log, item)
        if number % _LONG == 0:
            yield


def _as_pods_do(log: SessionLog, length: int) -> Iterator[None]:
    run_id = ""
    for number, item in enumerate(items(length)):
        if isinstance(item, UserItem):
            run_id = f"{number:016x}"
            log.record(RunStart, run_id)
        _record(log, item, run_id)
        if isinstance(item, AssistantItem) and not item.calls:
            log.record(RunEnd, run_id, outcome="finished", steps=2, usage=_USAGE + _USAGE, seconds=0.5)
        yield


def _record(log: SessionLog, item: Item, run_id: str | None = None) -> None:
    kind = _KINDS.get(type(item), UserMessage)
    if run_id is None:
        log.record(kind, item=item)
    elif isinstance(item, AssistantItem):
        stop_reason = "tool_use" if item.calls else "end_turn"
        log.record(kind, run_id, item=item, stop_reason=stop_reason, usage=_USAGE)
    elif isinstance(item, ToolResult):
        log.record(kind, run_id, item=item, seconds=0.1)
    else:
        log.record(kind, run_id, item=item)


_KINDS: dict[type, type[DurableEvent]] = {AssistantItem: AssistantMessage, ToolResult: ToolResulted}
