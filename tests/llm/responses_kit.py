"""Answers of OpenAI's Responses, as the vendor's API reference of streaming events has them: each output as its
whole item, and the events by which it comes. No such bytes could be recorded here; those of llama-server are.
"""

from __future__ import annotations

import json
from typing import Any

from actors.llm.base import CallChunk, CallEnd, CallStart, TextChunk, ThinkingChunk
from actors.llm.scripted import Reply

REASONING: dict[str, Any] = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [
        {"type": "summary_text", "text": "They ask for Oslo."},
        {"type": "summary_text", "text": "Call it."},
    ],
    "encrypted_content": "gAAAAABoc2VjcmV0",
    "status": "completed",
}
SECRET: dict[str, Any] = {
    "id": "rs_2",
    "type": "reasoning",
    "summary": [],
    "encrypted_content": "gAAAAABob3RoZXI=",
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "I look it up: ¿dónde?", "annotations": [], "logprobs": []}],
}
REFUSAL: dict[str, Any] = {
    "id": "msg_2",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "refusal", "refusal": "I would rather not."}],
}
CALL: dict[str, Any] = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_abc",
    "name": "get_weather",
    "arguments": '{"town":"Oslo"}',
    "status": "completed",
}
SEARCH: dict[str, Any] = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "Oslo"},
}
USAGE = {
    "input_tokens": 75,
    "input_tokens_details": {"cached_tokens": 32},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 12},
    "total_tokens": 105,
}


def response_of(
    *items: dict[str, Any], status: str = "completed", reason: str | None = None, **more: Any
) -> dict[str, Any]:
    """The whole object, as it comes without a stream and at the end of one."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1741487325,
        "status": status,
        "error": None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "instructions": None,
        "model": "gpt-5-2025-08-07",
        "output": list(items),
        "parallel_tool_calls": True,
        "store": False,
        "usage": USAGE,
        **more,
    }


def events_of(*items: dict[str, Any], end: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The events of an answer with these outputs, texts and arguments in pieces of four characters."""
    begun = response_of(status="in_progress", usage=None)
    found = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(items):
        place = {"item_id": item["id"], "output_index": index}
        begins = {**item, "status": "in_progress"}
        begins |= {name: [] for name in ("content", "summary") if name in item}
        begins |= {"arguments": ""} if "arguments" in item else {}
        found.append({"type": "response.output_item.added", "output_index": index, "item": begins})
        found += _pieces(item, place)
        found.append({"type": "response.output_item.done", "output_index": index, "item": item})
    whole = response_of(*items) if end is None else end
    name = "response.completed" if whole["status"] == "completed" else f"response.{whole['status']}"
    found.append({"type": name, "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(found)]


def _pieces(item: dict[str, Any], place: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, part in enumerate(item.get("summary", ())):
        at = {**place, "summary_index": number}
        found.append({"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}})
        found += _deltas("response.reasoning_summary_text", part["text"], at, "text")
        found.append({"type": "response.reasoning_summary_part.done", **at, "part": part})
    for number, part in enumerate(item.get("content", ())):
        at = {**place, "content_index": number}
        kind = {"output_text": "output_text", "refusal": "refusal", "reasoning_text": "reasoning_text"}[
            part["type"]
        ]
        found.append({"type": "response.content_part.added", **at, "part": {**part, "text": ""}})
        member = "refusal" if kind == "refusal" else "text"
        found += _deltas(f"response.{kind}", part[member], at, member)
        found.append({"type": "response.content_part.done", **at, "part": part})
    if "arguments" in item:
        found += _deltas("response.function_call_arguments", item["arguments"], place, "arguments")
    return found


def _deltas(name: str, text: str, at: dict[str, Any], member: str) -> list[dict[str, Any]]:
    pieces = [text[start : start + 4] for start in range(0, len(text), 4)]
    return [
        *({"type": f"{name}.delta", **at, "delta": piece} for piece in pieces),
        {"type": f"{name}.done", **at, member: text},
    ]


def encoded(*events: dict[str, Any]) -> list[bytes]:
    """Events as they go over the wire."""
    return [
        b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in events
    ]


def event_bytes(*items: dict[str, Any], end: dict[str, Any] | None = None) -> list[bytes]:
    """An answer with these outputs, event by event."""
    return encoded(*events_of(*items, end=end))


class _Stream:
    """The events of a reply, as a server of this format streams it, in the pieces that it has."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"status": "in_progress"}}
        ]
        self._begun: dict[int, dict[str, Any]] = {}

    def take(self, block: Any) -> None:
        match block:
            case TextChunk():
                self._begin(block.index, type="message", role="assistant", content=[])
                self._add("output_text", block.index, block.text)
            case ThinkingChunk():
                self._begin(block.index, type="reasoning", summary=[])
                self._add("reasoning_text", block.index, block.text)
            case CallStart():
                call = {"call_id": block.id, "name": block.name, "arguments": ""}
                self._begin(block.index, type="function_call", **call)
            case CallChunk():
                self._begun[block.index]["arguments"] += block.text
                self._add("function_call_arguments", block.index, block.text)
            case CallEnd():
                self._end(block.index)

    def end(self, reply: Reply) -> None:
        for index, item in self._begun.items():
            if item["type"] != "function_call":
                self._end(index)
        cut, usage = reply.stop_reason == "max_tokens", None
        if reply.usage is not None:
            usage = {"input_tokens": reply.usage.input_tokens, "output_tokens": reply.usage.output_tokens}
        status, details = ("incomplete", {"reason": "max_output_tokens"}) if cut else ("completed", None)
        end = {"status": status, "usage": usage, "incomplete_details": details, "output": []}
        self.sent.append({"type": f"response.{status}", "response": end})

    def _begin(self, index: int, **item: Any) -> None:
        if index not in self._begun:
            self._begun[index] = {"id": f"item_{index}", **item}
            begun = {"type": "response.output_item.added", "output_index": index}
            self.sent.append({**begun, "item": dict(self._begun[index])})

    def _add(self, kind: str, index: int, text: str) -> None:
        self.sent.append({"type": f"response.{kind}.delta", "output_index": index, "delta": text})

    def _end(self, index: int) -> None:
        item = {**self._begun[index], "status": "completed"}
        self.sent.append({"type": "response.output_item.done", "output_index": index, "item": item})


def responses_events(reply: Reply) -> list[bytes]:
    """A reply as a server of this format streams it."""
    stream = _Stream()
    for block in reply.blocks:
        stream.take(block)
    stream.end(reply)
    return encoded(*stream.sent)
