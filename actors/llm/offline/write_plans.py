"""The offline model's plans that keep something: notes, files, edits."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

from actors.llm.offline.extractive import said_by_items
from actors.llm.offline.intents import Recall, Remember, Replace, Write
from actors.llm.offline.look_plans import text_of
from actors.llm.offline.plans import Answer, OfflineContext, Plan, Wanted, use, was_interrupted
from protocol.items import ToolResult

#: The file in the pod's working directory for what the model is asked to remember.
NOTES = "memory.md"


def remember(context: OfflineContext, intent: Remember) -> Plan:
    """Note a fact once, whatever happens to the call."""
    line = f"- {' '.join(intent.fact.split())}"
    noted = Answer(f"I noted in {NOTES}: {line[2:]}", line[2:])
    for saying in (f"I note that in {NOTES}.", "I note it once more, for the call was interrupted."):
        known = yield from _noted(context)
        if line in known:
            return noted
        arguments = {"path": NOTES, "content": f"{line}\n", "append": True}
        result = yield from use(context, "write_file", arguments, saying, again=False)
        if not was_interrupted(result):
            break
    return noted if not result.is_error else Answer(f"I could not note that in {NOTES}: {result.text}")


def _noted(context: OfflineContext) -> Generator[Wanted, ToolResult, list[str]]:
    """The lines of the notes, none if they cannot be read."""
    if "read_file" not in context.tools:
        return []
    text = yield from text_of(context, NOTES)
    return [] if isinstance(text, ToolResult) else text.splitlines()


def recall(context: OfflineContext, intent: Recall) -> Plan:
    """Report the notes."""
    text = yield from text_of(context, NOTES)
    if isinstance(text, ToolResult):
        return Answer(f"I have no notes: {text.text}")
    lines = [line for line in text.splitlines() if line.strip()]
    if intent.about is not None:
        words = re.findall(r"\w{3,}", intent.about.lower())
        lines = [line for line in lines if any(word in line.lower() for word in words)]
    if not lines:
        return Answer(f"There is nothing{f' about {intent.about}' if intent.about else ''} in {NOTES}.")
    return Answer("From my notes:\n" + "\n".join(lines), "\n".join(lines))


def write(context: OfflineContext, intent: Write) -> Plan:
    """Write a text, or the result of the step before, to a file."""
    content = intent.content
    if content is None:
        content = context.before or _conversation_end(context)
    if not content:
        return Answer(f"There is nothing yet that I could write to {intent.path}.")
    if not content.endswith("\n"):
        content += "\n"
    arguments: dict[str, Any] = {"path": intent.path, "content": content}
    if intent.append:
        arguments["append"] = True
    # Replacing a file twice with the same text does no harm, appending twice does.
    result = yield from use(
        context, "write_file", arguments, f"I write to {intent.path}.", again=not intent.append
    )
    if result.is_error:
        return Answer(f"I could not write to {intent.path}: {result.text}")
    return Answer(f"Done: {result.text}.", content)


def replace(context: OfflineContext, intent: Replace) -> Plan:
    """Replace a text wherever it occurs in a file."""
    arguments = {"path": intent.path, "old": intent.old, "new": intent.new, "replace_all": True}
    result = yield from use(context, "edit_file", arguments, f"I edit {intent.path}.", again=False)
    if result.is_error:
        return Answer(f"I could not edit {intent.path}: {result.text}")
    return Answer(f"Done: {result.text}")


def _conversation_end(context: OfflineContext) -> str:
    """The last answer of this conversation."""
    said = said_by_items(context.items[: context.earlier])
    return next((each.text for each in reversed(said) if each.role == "assistant"), "")
