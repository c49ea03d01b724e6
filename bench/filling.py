"""Sessions for the bench, written straight into a store: as pods would, but in large batches."""

from __future__ import annotations

from msgspec import Raw

from actors.sessions.answers import Kept, wait, wait_durable
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from actors.sessions.urls import open_store
from bench.histories import items
from bench.models import manifest
from protocol.events import AssistantMessage, DurableEvent, ToolResulted, UserMessage
from protocol.items import AssistantItem, ToolResult
from protocol.wire import encode

_BATCH = 500


def fill_session(url: str, length: int) -> str:
    """Write a new session with ``length`` items into the store at ``url``; its id."""
    store = open_store(url)
    log = SessionLog(store, "bench", SessionHead(new_session_id()), lambda *_: None)
    log.open(Raw(encode(manifest())))
    _settle(log, store, log.create())
    for number, item in enumerate(items(length), 1):
        log.record(_KINDS.get(type(item), UserMessage), item=item)
        if number % _BATCH == 0:
            _settle(log, store, log.commit())
    _settle(log, store, log.commit())
    wait(store.close())
    return log.head.session_id


def _settle(log: SessionLog, store: SessionStore, pending: Kept) -> None:
    wait_durable(store, pending)
    if pending is not None:
        log.confirm()


_KINDS: dict[type, type[DurableEvent]] = {AssistantItem: AssistantMessage, ToolResult: ToolResulted}
