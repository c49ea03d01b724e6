"""Plays the plans of intents in order, and returns what the offline model does next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from actors.llm.offline.about_itself import not_understood, talk
from actors.llm.offline.call_plans import run_command, use_tool
from actors.llm.offline.extractive import said_by_items
from actors.llm.offline.intents import (
    Count,
    Find,
    Intent,
    List,
    PassOn,
    Read,
    Recall,
    Remember,
    Replace,
    Run,
    Search,
    Summarise,
    SummariseText,
    Talk,
    Unknown,
    UseTool,
    Write,
)
from actors.llm.offline.look_plans import (
    count,
    find,
    for_each,
    list_directory,
    read,
    search,
    summarise,
    summary_of,
)
from actors.llm.offline.plans import Answer, OfflineContext, Pairs, Plan, Wanted, follow, said
from actors.llm.offline.write_plans import recall, remember, replace, write


def play(intents: Sequence[Intent], context: OfflineContext, done: Pairs) -> Wanted | str:
    """The next call for ``intents``, or the answer when all is done.

    ``done`` are the calls of this run with their results. Each is used once, for a plan that wants exactly
    that call; a call that the history has lost is wanted again.
    """
    left = list(done)
    answers: list[str] = []
    for intent in intents:
        step = follow(plan_for(intent, context), context, left)
        if isinstance(step, Wanted):
            return step
        answers.append(step.text)
        context = context._replace(before=step.matter or step.text)
    return "\n\n".join(answers)


def plan_for(intent: Intent, context: OfflineContext) -> Plan:  # noqa: C901, PLR0911, PLR0912 - one line for each intent
    """The plan that carries out ``intent``."""
    match intent:
        case List():
            return list_directory(context, intent)
        case Read():
            return for_each(context, intent.path, lambda path: read(context, path, intent.lines))
        case Count():
            return count(context, intent)
        case Summarise():
            return for_each(context, intent.path, lambda path: summarise(context, path))
        case SummariseText():
            return said(summary_of(intent.text or _conversation(context), "what was said"))
        case Find():
            return find(context, intent)
        case Search():
            return search(context, intent)
        case Remember():
            return remember(context, intent)
        case Recall():
            return recall(context, intent)
        case Write():
            return write(context, intent)
        case Replace():
            return replace(context, intent)
        case Run():
            return run_command(context, intent)
        case UseTool():
            return use_tool(context, intent)
        case PassOn():
            return said(Answer(f"The {intent.what} has ended: {intent.how}.\n{intent.words}".strip()))
        case Talk():
            return said(talk(context, intent))
        case Unknown():
            return said(not_understood(context, intent))
    assert_never(intent)


def _conversation(context: OfflineContext) -> str:
    """What was said before this run."""
    said = said_by_items(context.items[: context.earlier])
    return "\n\n".join(each.text for each in said if each.role in {"user", "assistant"})
