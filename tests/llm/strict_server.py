"""The rules by which model servers check a request, each with the words of a vendor: a history that passes here
passes everywhere. Used by tests of clients and of pods, over real sockets.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from llm_server import Exchange, error_reply

from actors.llm.base import Answer, Assembler, LLMClient, Request

Rule = Iterator[str]


def openai_faults(body: dict[str, Any], *, mistral: bool = False) -> Rule:  # noqa: C901 - a list of rules
    """What OpenAI, its stricter relatives and chat templates refuse in the messages of ``body``."""
    messages = body["messages"]
    if not messages or messages[-1]["role"] not in {"user", "tool"}:
        yield "Expected last role User or Tool (or Assistant with prefix True) for serving"
    before, open_ids, seen = "", [], set()
    for place, message in enumerate(messages):
        role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
        if role == "system" and place:
            yield "System message must be at the beginning"
        if role != "tool" and open_ids:
            yield f"An assistant message with 'tool_calls' must be followed by tool messages: {open_ids}"
            open_ids = []
        if not calls and (content in (None, "", []) or (isinstance(content, str) and not content.strip())):
            yield f"messages[{place}].content must not be empty"
        if before in {"", "system"} and role == "assistant":
            yield "Conversation roles must alternate user/assistant: the first is assistant"
        if role == before and role in {"user", "assistant"}:
            yield f"Conversation roles must alternate user/assistant: two of {role}"
        if mistral and (before, role) == ("tool", "user"):
            yield "Unexpected role 'user' after role 'tool'"
        if role == "tool":
            if message["tool_call_id"] not in open_ids:
                yield "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            else:
                open_ids.remove(message["tool_call_id"])
        for call in calls or ():
            yield from _call_faults(call, seen, mistral=mistral)
            open_ids.append(call["id"])
        before = role
    if open_ids:
        yield f"tool_call_ids did not have response messages: {open_ids}"
    for tool in body.get("tools", ()):
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["function"]["name"]):
            yield f"Invalid 'tools.function.name': {tool['function']['name']!r}"


def _call_faults(call: dict[str, Any], seen: set[str], *, mistral: bool) -> Rule:
    sent = call["id"]
    if not re.fullmatch(r"[a-zA-Z0-9]{9}" if mistral else r"[a-zA-Z0-9_-]{1,40}", sent):
        yield f"Tool call id was {sent} but must be a-z, A-Z, 0-9, with a length of 9."
    if sent in seen:
        yield f"Duplicate tool call id {sent}"
    seen.add(sent)
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call["function"]["name"]):
        yield f"Invalid 'messages.tool_calls.function.name': {call['function']['name']!r}"
    if not isinstance(json.loads(call["function"]["arguments"]), dict):
        yield "tool call arguments must be a JSON object"


def anthropic_faults(body: dict[str, Any], *, alternate: bool = False) -> Rule:  # noqa: C901
    """What Anthropic and those who speak its format refuse in the messages of ``body``."""
    messages = body["messages"]
    if not messages:
        yield "messages: at least one message is required"
        return
    if messages[0]["role"] != "user":
        yield "messages: first message must use the 'user' role"
    last = messages[-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] in {"text", "thinking", "tool_use"}:
        yield "This model does not support assistant message prefill"
    waiting: list[str] = []
    seen: set[str] = set()
    before = ""
    for place, message in enumerate(messages):
        role, blocks = message["role"], message["content"]
        if role == before and (alternate or role == "assistant"):
            yield "messages: roles must alternate between user and assistant"
        if not blocks:
            yield f"messages.{place}: content must not be empty"
        if role == "assistant":
            yield from _spoken_faults(place, blocks, seen)
            waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
        else:
            yield from _faults_of_blocks(place, blocks, waiting)
            waiting = []
        before = role
    if waiting:
        yield f"`tool_use` ids were found without `tool_result` blocks: {waiting}"
    for tool in body.get("tools", ()):
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"]):
            yield f"tools.0.custom.name: String should match pattern: {tool['name']!r}"


def _spoken_faults(place: int, blocks: list[dict[str, Any]], seen: set[str]) -> Rule:
    for block in blocks:
        if block["type"] == "text" and not block["text"].strip():
            yield f"messages.{place}: text content blocks must contain non-whitespace text"
        if block["type"] == "thinking" and not block.get("signature"):
            yield f"messages.{place}.content: Invalid `signature` in `thinking` block"
        if block["type"] == "tool_use":
            if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]):
                yield f"messages.{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
            if block["id"] in seen:
                yield f"messages.{place}: `tool_use` ids must be unique"
            seen.add(block["id"])
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", block["name"]):
                yield f"messages.{place}.tool_use.name: String should match pattern: {block['name']!r}"
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    if blocks[-1:] and blocks[-1]["type"] == "text" and texts[-1] != texts[-1].rstrip():
        yield "messages: final assistant content cannot end with trailing whitespace"


def _faults_of_blocks(place: int, blocks: list[dict[str, Any]], waiting: list[str]) -> Rule:
    results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    if sorted(results) != sorted(waiting):
        yield f"messages.{place}: tool_result {results} does not answer tool_use {waiting}"
    behind_text = False
    for block in blocks:
        if block["type"] == "tool_result":
            if behind_text:
                yield f"messages.{place}: tool_result blocks must come first"
            if block.get("is_error") and not block.get("content"):
                yield f"messages.{place}: content cannot be empty if `is_error` is true"
            if block.get("is_error") and not isinstance(block.get("content", ""), str):
                yield f"messages.{place}: all content must be type `text` if `is_error` is true"
        else:
            behind_text = True
            if block["type"] == "text" and not block["text"].strip():
                yield f"messages.{place}: text content blocks must be non-empty"


def strict(
    faults: Callable[[dict[str, Any]], Rule], answer: Callable[[int], bytes], refused: list[str]
) -> Callable[[Exchange], Any]:
    """A script for RawServer that refuses what breaks a rule, and answers what does not; ``answer`` is given how
    many it answered before, ``refused`` collects the words of refusals.
    """
    answered = 0

    async def script(exchange: Exchange) -> None:
        nonlocal answered
        fault = next(faults(exchange.received.json), None)
        if fault is not None:
            refused.append(fault)
            await exchange.send(error_reply("400 Bad Request", fault))
            return
        await exchange.send(answer(answered))
        answered += 1

    return script


async def answer_from(client: LLMClient, request: Request) -> Answer:
    """The whole answer of a client."""
    assembler = Assembler()
    async for block in client.stream(request):
        assembler.feed(block)
    return assembler.answer()
