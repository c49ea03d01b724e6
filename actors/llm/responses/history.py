"""Encodes a history as inputs of OpenAI's Responses, as bytes that grow with it.

Words of the runtime are user messages, marked as not the user's, so that they also fit models that want the
system's words first. What such a server has returned (reasoning, blocks of the vendor's own) is sent back in
its place: reasoning must precede the message or the call that it led to, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from actors.llm.legal import GO_ON, NOTICE_MARK, LegalHistory, first_change
from actors.llm.responses.dialect import Dialect
from protocol.items import (
    AssistantItem,
    ImagePart,
    Item,
    Part,
    SystemItem,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    VendorPart,
)
from protocol.text import encodable_json

#: The text of a result that has none.
_NO_OUTPUT = "(no output)"

_encode = msgspec.json.Encoder().encode


class EncodedInput:
    """The inputs of a history as bytes, which grow with it, for the server that ``origin`` names. If an item
    is replaced, what follows it is encoded again, and nothing before it.
    """

    __slots__ = ("_done", "_final", "_legal", "_origin", "_pictures", "_places", "_reasoning", "_spoke")

    def __init__(self, dialect: Dialect, origin: str | None) -> None:
        self._origin = origin
        self._reasoning = dialect.reasoning
        self._pictures = dialect.pictures
        self._legal = LegalHistory(origin, "own", dialect.pictures)
        self._done: list[Item] = []  # what is encoded
        #: For each item: where its inputs begin, and whether the model spoke last before it.
        self._places: list[tuple[int, bool]] = []
        self._final = bytearray()
        self._spoke = False

    def suits(self, dialect: Dialect, origin: str | None) -> bool:
        """Whether these inputs are encoded for such a server."""
        understood = (dialect.reasoning, dialect.pictures)
        return self._origin == origin and (self._reasoning, self._pictures) == understood

    def inputs(self, items: Sequence[Item], closing: str | None = None) -> tuple[bytearray, bytes]:
        """The bytes of all inputs, in two consecutive pieces. The words of ``closing``, which are part of no
        history, come last.
        """
        self.advance(items, len(items))
        rest = [each for item in self._legal.unanswered() for each in self._inputs_of(item)]
        if closing is not None:
            rest.append(_message("user", [_input_text(closing)]))
        elif (self._spoke and not rest) or not (rest or self._final):
            rest.append(_message("user", [_input_text(GO_ON)]))
        comma = b"," if self._final and rest else b""
        return self._final, comma + b",".join(map(_bytes, rest))

    def advance(self, items: Sequence[Item], most: int) -> bool:
        """Encode up to ``most`` new items. Returns whether there are more."""
        self._keep(items)
        known = len(self._done)
        for place, item in enumerate(items[known : known + most], known):
            self._places.append((len(self._final), self._spoke))
            for legal in self._legal.take(item, place):
                self._add(legal)
            self._done.append(item)
        return len(self._done) < len(items)

    def _keep(self, items: Sequence[Item]) -> None:
        """Keep the encoded part that ``items`` begin with."""
        same = first_change(items, self._done)
        if same is None:
            return
        self._legal.go_back(self._done, same)
        start, self._spoke = self._places[same]
        del self._final[start:], self._places[same:], self._done[same:]

    def _add(self, item: Item) -> None:
        inputs = [_bytes(each) for each in self._inputs_of(item)]
        if inputs:
            self._final += b"," + b",".join(inputs) if self._final else b",".join(inputs)
            self._spoke = isinstance(item, AssistantItem)

    def _inputs_of(self, item: Item) -> Iterator[dict[str, Any]]:
        if isinstance(item, AssistantItem):
            yield from self._spoken(item)
        elif isinstance(item, ToolResult):
            yield {"type": "function_call_output", "call_id": item.call_id, "output": _output(item)}
        elif isinstance(item, SystemItem):
            yield _message("user", [_input_text(NOTICE_MARK), *_content(item.content)])
        else:
            yield _message("user", _content(item.content))

    def _spoken(self, item: AssistantItem) -> Iterator[dict[str, Any]]:
        """What the model said, in order; reasoning that precedes nothing is left out."""
        native = self._reasoning and item.origin is not None and item.origin == self._origin
        outputs: list[dict[str, Any]] = []
        calls = list(item.calls)
        for number, part in enumerate(item.content):
            while calls and calls[0].after is not None and calls[0].after <= number:
                outputs.append(_call(calls.pop(0)))
            if isinstance(part, TextPart):
                _say(outputs, part.text, (part.vendor if native else None) or {})
            elif native and isinstance(part, ThinkingPart) and part.vendor is not None:
                outputs.append(part.vendor)
            elif native and isinstance(part, VendorPart):
                outputs.append(part.data)
        outputs += map(_call, calls)
        while outputs and outputs[-1].get("type") == "reasoning":
            outputs.pop()
        yield from outputs


def _output(item: ToolResult) -> str | list[dict[str, Any]]:
    """The text of a result, or a list of contents if there is a picture among them."""
    if any(isinstance(part, ImagePart) for part in item.content):
        content = _content(item.content)
        return [_input_text("Error: "), *content] if item.is_error else content
    text = item.text if item.text.strip() else _NO_OUTPUT
    return f"Error: {text}" if item.is_error else text


def _content(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    made = []
    for part in parts:
        if isinstance(part, ImagePart):
            made.append(_image(part))
        elif isinstance(part, TextPart) and part.text:
            made.append(_input_text(part.text))
    return made


def _say(outputs: list[dict[str, Any]], text: str, vendor: dict[str, Any]) -> None:
    """Add a text, to the last message if that is of the same phase."""
    if not text.strip():
        return
    said = {"type": "output_text", "text": text}
    last = outputs[-1] if outputs else {}
    if last.get("type") == "message" and last.get("phase") == vendor.get("phase"):
        last["content"].append(said)
    else:
        outputs.append({**_message("assistant", [said]), **vendor})


def _call(call: ToolCall) -> dict[str, Any]:
    """A call. If its arguments were not JSON it is sent back with none, since servers fail on them."""
    arguments = _bytes(call.arguments).decode() if call.invalid is None else "{}"
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}


def _message(role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def _input_text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _image(part: ImagePart) -> dict[str, Any]:
    url = part.url or f"data:{part.media_type};base64,{part.data or ''}"
    return {"type": "input_image", "image_url": url}


def _bytes(value: dict[str, Any]) -> bytes:
    """A value as JSON; halves of surrogate pairs, which UTF-8 cannot encode, become question marks."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(encodable_json(value))
