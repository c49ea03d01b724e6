"""The offline model's plans as a helper agent: write a summary, facts, or notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from actors.llm.offline.extractive import Said, compacted, facts, said_by_items, said_in_text
from actors.llm.offline.plans import Answer, OfflineContext, Plan, Wanted
from protocol.items import Item, UserItem

WRITE_SUMMARY = "write_summary"
WRITE_EXTRACTED = "write_extracted"
WRITE_MEMORY = "write_memory"

_SHORTER = 600
#: The most notes that are written one after the other.
_MOST_NOTES = 24


def work_asked(context: OfflineContext, system: str | None) -> Plan | None:
    """The plan of a helper agent's task, if the tools and the words are those of one; otherwise None."""
    if WRITE_EXTRACTED in context.tools:
        return _write_extracted(context)
    if WRITE_MEMORY in context.tools and (findings := _findings(_last_words(context.items))):
        return _write_memory(findings)
    asked = f"{system or ''}\n{_last_words(context.items)}".lower()
    if WRITE_SUMMARY in context.tools and ("summar" in asked or "compact" in asked):
        return _write_summary(context)
    return None


def _write_summary(context: OfflineContext) -> Plan:
    text = compacted(_source(context.items))
    result = yield Wanted(WRITE_SUMMARY, {"text": text}, "")
    if result.is_error and len(text) > _SHORTER:
        result = yield Wanted(WRITE_SUMMARY, {"text": f"{text[:_SHORTER]}…"}, "")
    if result.is_error:
        return Answer(f"The summary was not taken: {result.text}")
    return Answer("The summary is written.")


def _write_extracted(context: OfflineContext) -> Plan:
    schema = context.tools[WRITE_EXTRACTED].input_schema
    found = facts(_source(context.items))
    wanted = schema.get("properties", found)
    arguments = {
        key: [_shaped(each, wanted[key], schema) for each in found[key]] for key in found if key in wanted
    }
    result = yield Wanted(WRITE_EXTRACTED, arguments, "")
    if result.is_error:
        return Answer(f"The facts were not taken: {result.text}")
    count = sum(len(each) for each in arguments.values())
    return Answer(f"{count} facts are written down." if count else "There was nothing to write down.")


def _write_memory(findings: list[dict[str, Any]]) -> Plan:
    if len(findings) > _MOST_NOTES:
        return Answer("That is more than I can work in at once.")
    taken = 0
    for note in findings:
        result = yield Wanted(WRITE_MEMORY, note, "")
        taken += not result.is_error
    return Answer(f"{taken} of {len(findings)} findings are worked in.")


def _findings(request: str) -> list[dict[str, Any]]:
    """The finds in a consolidation's request: ``[kind] title`` with the words below it, each as a note."""
    _, _, rest = request.partition("<findings>\n")
    findings = rest.partition("\n</findings>")[0]
    heads = list(re.finditer(r"^\[(summary|decisions|requests|knowledge)\] (.+)$", findings, re.MULTILINE))
    ends = [head.start() for head in heads[1:]] + [len(findings)]
    return [
        {"kind": head[1], "title": head[2], "text": re.sub(r"\n\nFrom .*:\Z", "", body.strip("\n"))}
        for head, end in zip(heads, ends, strict=True)
        if (body := findings[head.end() : end]).strip()
    ]


def _source(items: Sequence[Item]) -> list[Said]:
    """What was said before the task was given: the newest transcript among the user's words, otherwise the
    items before the task.
    """
    for item in reversed(items):
        if isinstance(item, UserItem) and (said := said_in_text(item.text)) is not None:
            return said
    last = _last_user(items)
    if last is None:
        return said_by_items(items)
    return said_by_items(items[:last]) or [Said("user", items[last].text)]


def _last_user(items: Sequence[Item]) -> int | None:
    return next((n for n in range(len(items) - 1, -1, -1) if isinstance(items[n], UserItem)), None)


def _last_words(items: Sequence[Item]) -> str:
    last = _last_user(items)
    return "" if last is None else items[last].text


def _shaped(fact: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """A fact in the form that the schema of a list's members wants: an object with known keys, or a text."""
    member = schema.get("items", {})
    if "$ref" in member:
        member = root.get("$defs", {}).get(member["$ref"].rpartition("/")[2], {})
    if member.get("type") == "string":
        return next(value for value in reversed(fact.values()) if isinstance(value, str) and value)
    known = member.get("properties")
    return fact if known is None else {key: value for key, value in fact.items() if key in known}
