"""What readers of answers have in common, whatever format a server speaks; pure."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from actors.llm.base import Block, StopReason
from actors.llm.http.sse import SSEEvent
from actors.llm.lenient import UNREADABLE, decode_any
from actors.llm.pieces import is_closed
from protocol.errors import ModelError
from protocol.text import encodable_json
from protocol.usage import Usage


class AnswerReader(Protocol):
    """Reads one answer as it arrives: events (or one whole answer) in, blocks out.

    ``feed`` and ``whole`` never raise: an error is in ``failure`` once the blocks before it have been given;
    nothing that follows a finished answer fails it. ``done`` says that no more will come, ``finish`` why the
    server says that it stopped, without which no answer is complete, ``metered`` that its token count need
    not be waited for; ``usage`` is that count, as far as it is known.
    """

    done: bool
    finish: str
    failure: ModelError | None

    @property
    def usage(self) -> Usage | None: ...

    @property
    def metered(self) -> bool: ...

    def feed(self, events: list[SSEEvent]) -> list[Block]:
        """The blocks that come with ``events``; look at ``failure`` and ``done`` afterwards."""
        ...

    def whole(self, data: bytes) -> list[Block]:
        """The blocks of an answer that came as one JSON object."""
        ...

    def close(self) -> list[Block]:
        """The last blocks of the answer. Raises ModelError where it is not complete."""
        ...


class EventAnswer:
    """The state of an answer that arrives as events, in whatever format; see AnswerReader."""

    __slots__ = ("_blocks", "_origin", "_where", "done", "failure", "finish", "model")

    def __init__(self, where: str, origin: str | None) -> None:
        self._where = where
        self._origin = origin
        self._blocks: list[Block] = []
        self.finish = ""
        self.model: str | None = None
        self.failure: ModelError | None = None
        self.done = False

    def feed(self, events: list[SSEEvent]) -> list[Block]:
        """The blocks that come with ``events``; look at ``failure`` and ``done`` afterwards."""
        blocks = self._blocks = []
        for name, data in events:
            if self.done:
                break
            self._take(name, data)
        return blocks

    def _take(self, name: str, data: bytes) -> None:
        """Read one event, and append its blocks to ``_blocks``."""
        raise NotImplementedError


def unfinished(where: str, *, begun: bool) -> ModelError:
    """The error of a stream that ended before the server said why."""
    if begun:
        message = f"{where} ended its answer before it was complete"
        hint = "the server or a proxy closed the stream: check its log"
    else:
        message = f"{where} sent no answer at all"
        hint = "some servers do this when the prompt does not fit the context"
    return ModelError(message, kind="protocol", hint=hint, where=where, retryable=True)


#: How servers of either format, and those they relay, call the end of an answer: OpenAI's words, Anthropic's,
#: Google's (``SAFETY`` and so on), Zhipu's (``sensitive``), Mistral's (``model_length``) and Amazon's.
_STOPS: dict[str, StopReason] = {
    "stop": "end_turn",
    "end_turn": "end_turn",
    "stop_sequence": "end_turn",
    "tool_calls": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "model_length": "max_tokens",
    "pause_turn": "pause",
    "refusal": "refusal",
    **dict.fromkeys(
        (
            "content_filter",
            "content_filtered",
            "guardrail_intervened",
            "sensitive",
            "safety",
            "image_safety",
            "prohibited_content",
            "recitation",
            "blocklist",
            "spii",
        ),
        "content_filter",
    ),
}
#: Words by which they say that something went wrong on their side.
_BROKE_OFF = frozenset(
    {
        "error",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "timeout",
        "network_error",
        "insufficient_system_resource",
        "malformed_function_call",
        "malformed_response",
        "unexpected_tool_call",
        "too_many_tool_calls",
        "function_call_filter",  # Google's chat completions: a call that it could not read
    }
)
#: What stands in the place of a reason while an answer goes on.
_NOT_YET = frozenset({"", "null", "none"})
_OVERFULL = frozenset({"model_context_window_exceeded", "context_window_exceeded"})


def is_reason(reason: Any) -> bool:
    """Whether a finish reason is one: some servers write ``null`` as a word while the answer goes on."""
    return isinstance(reason, str) and _word(reason) not in _NOT_YET


def stop_of(reason: str) -> StopReason:
    """The meaning of an answer's finish reason; an unknown word is an ordinary end."""
    return _STOPS.get(_word(reason), "end_turn")


def failure_of(reason: str, where: str) -> ModelError | None:
    """The error that a finish reason stands for; None for a proper end."""
    word = _word(reason)
    if word in _OVERFULL:
        return ModelError(
            f"{where} stopped in the middle of its answer: the context is full",
            kind="context_overflow",
            hint="history and answer do not fit the context: compact the history, or use a model "
            "with a larger context",
            where=where,
        )
    if word in _BROKE_OFF:
        return ModelError(f"{where} gave up in the middle of its answer ({word})", kind="server", where=where)
    return None


def _word(reason: str) -> str:
    """The reason alone: some servers append details (``content_filter: RECITATION``)."""
    return reason.partition(":")[0].strip().lower()


def nameless(where: str) -> ModelError:
    """The error of an answer whose only content is a tool call that the server never named."""
    return _misread(f"{where} sent a tool call without a tool name, and nothing else", where)


def callless(where: str) -> ModelError:
    """The error of an answer that ends as if it called tools, but holds neither a call nor a word."""
    said = "ended its answer with a tool call, but sent neither a call nor text"
    return _misread(f"{where} {said}", where)


def _misread(message: str, where: str) -> ModelError:
    hint = "the model may be too small for tools, or the server misparses its answers"
    return ModelError(message, kind="protocol", hint=hint, where=where, retryable=True)


def whole_ones(events: list[SSEEvent]) -> list[SSEEvent]:
    """The events that are complete among those whose blank line never came; half an event is discarded."""
    return [event for event in events if event[0] == "error" or _is_whole(event[1].strip())]


def _is_whole(data: bytes) -> bool:
    return data == b"[DONE]" or (data[:1] == b"{" and is_closed(data))


def argument_text(arguments: Any) -> str:
    """Arguments as the JSON text that they are or should have been."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(encodable_json(arguments)).decode()


def means_something(arguments: str) -> bool:
    """Whether the argument text of a call contains anything."""
    return arguments.strip() not in {"", "{}", "null"}


def is_object(text: str) -> bool:
    """Whether ``text`` is a complete JSON object."""
    try:
        return isinstance(decode_any(text), dict)
    except UNREADABLE:
        return False
