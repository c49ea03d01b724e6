"""Logs: structlog set up once by an entry point, events of the bus as lines, no secrets in either."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, TextIO

import msgspec

from actors.runtime.redact import without_secrets
from protocol.errors import Failure
from protocol.events import (
    DURABLE_EVENTS,
    Alert,
    BudgetExceeded,
    CompactFailed,
    ConsolidateFailed,
    Event,
    ExtractFailed,
    Lagged,
    PodFailed,
    Retry,
    RunEnd,
    StreamRestart,
)
from protocol.items import AssistantItem, ToolResult
from protocol.usage import Usage

if TYPE_CHECKING:
    import structlog

Level = Literal["debug", "info", "warning", "error"]

_FAILURES = (PodFailed, CompactFailed, ExtractFailed, ConsolidateFailed)
_OUTCOMES: dict[str, Level] = {
    "failed": "error",
    "budget": "warning",
    "limit_reached": "warning",
    "refused": "warning",
}
_WARNINGS = (Alert, BudgetExceeded, Retry, StreamRestart, Lagged)
#: The kinds of events that make lines of the log, for ``subscribe(kinds=…)``: what is transient, a
#: piece of text or a step of progress, does not.
LOGGED: tuple[type[Event], ...] = (*DURABLE_EVENTS, Retry, StreamRestart)
#: Whose own lines are of the level that was asked for; of everybody else's only warnings are wanted.
_OURS = ("polypod", "pykka")


def configure(level: Level = "info", *, json: bool = False, stream: TextIO | None = None) -> None:
    """Have this process log to ``stream`` (by default standard error), one line per fact: for people, or with
    ``json`` as JSON.

    For entry points only: it takes over the root logger, so that lines of libraries look the same and have
    their secrets removed too. A second call replaces the first.
    """
    import structlog  # noqa: PLC0415 - 20 ms that a program without logs does not pay

    before: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                _renderer(json, stream),
            ],
        )
    )
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    wanted = getattr(logging, level.upper())
    logging.basicConfig(handlers=[handler], level=max(wanted, logging.WARNING), force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(wanted)


def _renderer(json: bool, stream: TextIO) -> structlog.typing.Processor:
    import structlog  # noqa: PLC0415

    if json:
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=stream.isatty())


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog that removes secrets from a line, wherever they are in it."""
    clean: MutableMapping[str, Any] = without_secrets(line)
    return clean


async def follow(events: AsyncIterable[Event]) -> None:
    """Log the events of a subscription until it ends; make it with ``kinds=LOGGED``."""
    async for event in events:
        log_event(event)


def log_event(event: Event) -> None:
    """Log ``event`` as a line, if its kind is logged."""
    level = level_of(event)
    if level is not None:
        import structlog  # noqa: PLC0415

        log = getattr(structlog.get_logger("polypod"), level)
        log(type(event).__name__, **fields_of(event))


def level_of(event: Event) -> Level | None:
    """Durable facts have level info, failures error; None for what is not logged."""
    if isinstance(event, RunEnd):
        return _OUTCOMES.get(event.outcome, "info")
    if isinstance(event, _FAILURES):
        return "error"
    if isinstance(event, _WARNINGS):
        return "warning"
    return "info" if event.durable else None


def fields_of(event: Event) -> dict[str, Any]:
    """The fields of an event's line: its plain fields, and counts of the rest. The words of a conversation
    stay out of the log.
    """
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(event):
        value = getattr(event, field.name)
        if isinstance(value, Failure):
            fields |= {"error": value.message, "error_kind": value.kind, "hint": value.hint}
        elif isinstance(value, Usage):
            fields |= {"input_tokens": value.input_tokens, "output_tokens": value.output_tokens}
        elif field.name == "item":
            fields |= _item(value)
        elif field.name not in {"at", "arguments"}:
            fields[field.name] = value
    return {name: value for name, value in fields.items() if value is not None}


def _item(item: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"chars": len(item.text)}
    if isinstance(item, AssistantItem):
        fields["calls"] = [call.name for call in item.calls] or None
    if isinstance(item, ToolResult):
        fields |= {"tool": item.name, "call_id": item.call_id, "is_error": item.is_error or None}
    return fields
