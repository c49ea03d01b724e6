"""The offline model's plans that call a tool by its name, and how words become the tool's arguments."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from actors.llm.offline.extractive import described_call
from actors.llm.offline.intents import Run, UseTool
from actors.llm.offline.plans import Answer, OfflineContext, Plan, shown, use


def use_tool(context: OfflineContext, intent: UseTool) -> Plan:
    """Call the tool with the arguments that the words give."""
    arguments = arguments_from(intent.words, context.tools[intent.name].input_schema)
    if arguments is None:
        how = "Give its arguments as a JSON object, or as name=value."
        return Answer(f"I do not understand what to call {intent.name} with. {how}")
    saying = f"I call {described_call(intent.name, arguments)}."
    result = yield from use(context, intent.name, arguments, saying, again=False)
    if result.is_error:
        return Answer(f"{intent.name} failed: {result.text}")
    return Answer(
        f"{intent.name} answered: {result.text}" if result.text else f"{intent.name} is done.", result.text
    )


def run_command(context: OfflineContext, intent: Run) -> Plan:
    """Run a command, and report its output and how it ended."""
    saying = f"I run: {intent.command}"
    result = yield from use(context, "shell", {"command": intent.command}, saying, again=False)
    if result.is_error:
        return Answer(f"There is no result: {result.text}")
    return Answer(shown(result.text), result.text)


def arguments_from(words: str, schema: dict[str, Any]) -> dict[str, Any] | None:
    """A tool's arguments from a JSON object, from ``name=value`` pairs, or from plain words if the tool
    requires a single text. None if the words are none of these.
    """
    properties, required = schema.get("properties", {}), schema.get("required", [])
    words = words.strip()
    if words.startswith("(") and words.endswith(")"):  # as calls are shown: pay(to='ann', amount=5)
        words = words[1:-1].strip()
    if words.startswith("{"):
        try:
            return msgspec.json.decode(words, type=dict[str, Any])
        except msgspec.DecodeError:
            return None
    pairs = re.findall(r"""(\w+)\s*=\s*("[^"]*"|'[^']*'|\S+)""", words)
    if pairs and all(name in properties for name, _ in pairs):
        return {name: _value(_plain(text), properties[name]) for name, text in pairs}
    if not words:
        return None if required else {}
    if len(required) == 1:
        return {required[0]: _value(words, properties[required[0]])}
    return None


def _plain(text: str) -> str:
    """A value without the quotes around it, or the comma after it."""
    if text[0] in "\"'" and text[-1] == text[0]:
        return text[1:-1]
    return text.removesuffix(",")


def _value(text: str, schema: dict[str, Any]) -> Any:
    """A word as the type that a schema asks for; the tool itself reports what is wrong with it."""
    if schema.get("type") == "string":
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
