"""Answers of the offline model about itself, and about what it does not understand."""

from __future__ import annotations

from typing import assert_never

from actors.llm.offline.intents import Talk, Unknown
from actors.llm.offline.plans import Answer, OfflineContext

ABOUT = (
    "I am polypod's offline model: a small deterministic program, not a language model, and I use no "
    "network. I turn plain requests into tool calls and answer from their results."
)
EXAMPLES = (
    "list files in src; read README.md; find *.py; search for TODO in src; count words in README.md; "
    "summarise README.md; run git status; remember that …; what do you remember?; write “…” to notes.txt; "
    "replace “a” with “b” in notes.txt; use TOOL name=value, for any other tool; and several of these "
    "joined by “then”"
)
BEYOND = (
    "For anything else, give the pod a real model: a local server (ollama, llama.cpp, vLLM, LM Studio) "
    "or an API."
)


def talk(context: OfflineContext, intent: Talk) -> Answer:
    """The answer to a request that needs no tool."""
    match intent.about:
        case "self":
            return Answer(f"{ABOUT}\n\nI understand: {EXAMPLES}.\n\n{_tools(context)} {BEYOND}")
        case "hello":
            return Answer(f"Hello. {ABOUT} Ask me, say, to: {EXAMPLES}.")
        case "thanks":
            return Answer("You are welcome.")
        case "continue":
            return Answer("All that I was asked before is done.")
    assert_never(intent.about)


def not_understood(context: OfflineContext, intent: Unknown) -> Answer:
    """An answer that names what was not understood, and what would be."""
    shown = intent.words if len(intent.words) <= 200 else f"{intent.words[:200]}…"
    if intent.partly:
        return Answer(f"I do not understand “{shown}”.")
    what_it_is = f"{ABOUT}\n\nI understand: {EXAMPLES}.\n\n{_tools(context)} {BEYOND}"
    return Answer(f"I do not understand “{shown}”. {what_it_is}")


def _tools(context: OfflineContext) -> str:
    if not context.tools:
        return "This pod has no tools, so there is little I can do for it."
    *_, last = context.tools  # the program's own tools follow the built-in ones
    call = " ".join([last, *(f"{name}=…" for name in context.tools[last].input_schema.get("required", ()))])
    return f"This pod's tools: {', '.join(context.tools)}. Any is called by its name: use {call}."
