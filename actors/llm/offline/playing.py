"""From intents to the next thing the model does: every intent has its plan, played in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from actors.llm.offline.calling import use_tool
from actors.llm.offline.extractive import said_by_items
from actors.llm.offline.intents import (
    Count,
    Find,
    Intent,
    List,
    Read,
    Recall,
    Remember,
    Replace,
    Search,
    Summarise,
    SummariseText,
    Talk,
    Unknown,
    UseTool,
    Write,
)
from actors.llm.offline.looking import (
    count,
    find,
    for_each,
    list_directory,
    read,
    search,
    summarise,
    summary_of,
)
from actors.llm.offline.plans import Desk, Pairs, Plan, Wanted, follow, said
from actors.llm.offline.talking import not_understood, talk
from actors.llm.offline.writing import recall, remember, replace, write


def play(intents: Sequence[Intent], desk: Desk, done: Pairs) -> Wanted | str:
    """The next call on the way through ``intents``, or the answer when all is done.

    ``done`` are the calls of this run with their results; each is used once, where a plan wants
    that very call. Where the history lost one, it is wanted again.
    """
    left = list(done)
    answers: list[str] = []
    for intent in intents:
        step = follow(plan_for(intent, desk), desk, left)
        if isinstance(step, Wanted):
            return step
        answers.append(step.text)
        desk = desk._replace(before=step.matter or step.text)
    return "\n\n".join(answers)


def plan_for(intent: Intent, desk: Desk) -> Plan:  # noqa: C901, PLR0911, PLR0912 - one line for each intent
    """The plan that carries out ``intent``."""
    match intent:
        case List():
            return list_directory(desk, intent)
        case Read():
            return for_each(desk, intent.path, lambda path: read(desk, path, intent.lines))
        case Count():
            return count(desk, intent)
        case Summarise():
            return for_each(desk, intent.path, lambda path: summarise(desk, path))
        case SummariseText():
            return said(summary_of(intent.text or _conversation(desk), "what was said"))
        case Find():
            return find(desk, intent)
        case Search():
            return search(desk, intent)
        case Remember():
            return remember(desk, intent)
        case Recall():
            return recall(desk, intent)
        case Write():
            return write(desk, intent)
        case Replace():
            return replace(desk, intent)
        case UseTool():
            return use_tool(desk, intent)
        case Talk():
            return said(talk(desk, intent))
        case Unknown():
            return said(not_understood(desk, intent))
    assert_never(intent)


def _conversation(desk: Desk) -> str:
    """What was said before this run."""
    said = said_by_items(desk.items[: desk.earlier])
    return "\n\n".join(each.text for each in said if each.role in {"user", "assistant"})
