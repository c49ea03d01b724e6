"""Reads a text as the intents in it: splits it into requests, removes courtesies, and matches each with a
rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from actors.llm.offline.file_names import IT, Quoted
from actors.llm.offline.intents import Intent, PassOn, Run, SummariseText, Unknown, UseTool, Write
from actors.llm.offline.rules import intents_of

# Patterns are matched on an event loop, and a longer text is no plain request.
_MOST_CHARACTERS = 20_000
_MOST_IN_STEP = 1000
_MOST_STEPS = 50

_FLAGS = re.IGNORECASE
_VERBS = (
    r"(?:list|show|display|print|cat|ls|read|open|find|locate|look for|where|search|grep|count"
    r"|how (?:many|long|big|large)|word ?count|remember|note|memori[sz]e|keep in mind|don'?t forget|recall"
    r"|what|which|summari[sz]e|sum up|give|write|save|put|store|create|make|append|add|replace|change"
    r"|call|use|run|invoke|tell)\b"
)
_POLITE = (
    r"(?:(?:please|now|first(?:ly)?|next|then|also|finally|lastly|and|ok(?:ay)?|so|kindly|just)\b[,:]? "
    r"|(?:can|could|would|will) you |i(?:'d| would) like you to |i (?:want|need) you to |let'?s "
    r"|tell me (?=how|what|which|where|who)|show me (?=how|what|which|where))*"
)
# The dots of "path=." and "in .." are folders and end no sentence.
_STOP = r"(?<![=\s])(?<![=\s]\.)\."
_STRONG = re.compile(
    rf"\s*\n\s*|(?:[,;]|{_STOP})? (?:and )?(?:then|after that|afterwards)\b,? (?={_POLITE}{_VERBS})| ?; ",
    _FLAGS,
)
_WEAK = re.compile(
    rf"(?:,? and |, |[!?] |{_STOP} |(?<=[=\s]\.) |(?<=[=\s]\.\.) )(?={_POLITE}{_VERBS})", _FLAGS
)
_BULLET = re.compile(r"^ ?(?:\d+[.)]|[-*•]) ")
# What is to be noted or written may contain any words, so only "then" ends it.
_TAKEN_WHOLE = re.compile(
    rf"^{_POLITE}(?:remember|memori[sz]e|keep in mind|note|don'?t forget|write|save|put|append|add)\b", _FLAGS
)
_BEFORE = re.compile(rf"^ ?{_POLITE}", _FLAGS)
_AFTER = re.compile(r"(?:,? (?:please|for me|thanks|thank you))* ?[!?:]*$", _FLAGS)
_NAMED = re.compile(
    r"(?P<call>(?:call|use|run|invoke) (?:the )?(?:tool )?)?(?P<name>[\w-]+)"
    r"(?: tool)?(?: (?:with|on|for)\b)?:? ?(?P<rest>.*)",
    _FLAGS,
)
_SUMMARISE_THIS = re.compile(
    rf"\s*{_POLITE}(?:summari[sz]e|sum up) (?:this|the following)(?: text)? ?[:\n]\s*(?=\S)", _FLAGS
)
#: The runtime's report that something which runs beside a run has ended.
_REPORT = re.compile(
    r"\[(?P<what>(?:sub-agent|background command) \S+)(?: \(\w+\))? has ended: "
    r"(?P<how>[^\n]*)\]\n?(?P<words>.*)",
    re.DOTALL,
)
# A command may contain any words and signs; a quoted one is one step among others.
_RUN_THIS = re.compile(
    rf"\s*{_POLITE}(?:run|execute)(?: (?:the|this)(?: shell)? command)?:?\s+(?=[^\s\"'`“])(?P<command>.+)",
    _FLAGS | re.DOTALL,
)
_WRITE_THIS = re.compile(
    rf"\s*{_POLITE}(?:write|save|put|store) (?:the following|this)(?: text)? (?:to|into|in) (\S+?):? ?\n",
    _FLAGS,
)


def understood(text: str, tools: Iterable[str] = ()) -> list[Intent]:
    """The intents of a text, in order; ``tools`` are the tools that can be called by name.

    A text of which nothing is understood is one Unknown.
    """
    names = frozenset(tools)
    whole = _with_text_behind(text, names)
    if whole is not None:
        return [whole]
    quoted = Quoted(text[:_MOST_CHARACTERS])
    steps = _steps(quoted.text)
    intents = [intent for step in steps[:_MOST_STEPS] for intent in _intents(step, quoted, names)]
    if intents and all(isinstance(each, Unknown) for each in intents):
        return [Unknown(text.strip())]
    if len(steps) > _MOST_STEPS:
        intents.append(Unknown(f"{len(steps) - _MOST_STEPS} more requests"))
    return list(_in_context(intents))


def _in_context(intents: list[Intent]) -> Iterator[Intent]:
    """The intents, with "it" replaced by the path mentioned before."""
    path = "it"
    for intent in intents:
        if isinstance(intent, Unknown):
            yield intent._replace(partly=len(intents) > 1)
            continue
        if getattr(intent, "path", None) == IT:
            intent = intent._replace(path=path)  # type: ignore[call-arg]  # noqa: PLW2901
        path = getattr(intent, "path", path)
        yield intent


def _with_text_behind(text: str, tools: frozenset[str]) -> Intent | None:
    """``summarise this: …``, ``write the following to PATH:`` or ``run …``, with everything that follows; and
    reports of the runtime.
    """
    report = _REPORT.fullmatch(text)
    if report is not None:
        return PassOn(report["what"], report["how"], report["words"])
    run = _RUN_THIS.match(text[:_MOST_CHARACTERS])
    if run is not None and run["command"].split()[0].rstrip(":") not in tools:
        return Run(run["command"].strip())
    found = _SUMMARISE_THIS.match(text)
    if found is not None:
        return SummariseText(text[found.end() :])
    found = _WRITE_THIS.match(text)
    if found is None:
        return None
    content = re.sub(r"\A```\w*\n(.*?)\n?```\s*\Z", r"\1", text[found.end() :], flags=re.DOTALL)
    return Write(found[1].strip("\"'`"), content)


def _steps(text: str) -> list[str]:
    """The single requests in a text."""
    steps: list[str] = []
    for chunk in _STRONG.split(text):
        bare = _BULLET.sub("", chunk)
        steps += [bare] if _TAKEN_WHOLE.match(bare) else _WEAK.split(bare)
    return [step for step in steps if step.strip()]


def _intents(step: str, quoted: Quoted, tools: frozenset[str]) -> list[Intent]:
    if len(step) > _MOST_IN_STEP:
        return [Unknown(quoted.plain(step))]
    words = _AFTER.sub("", _BEFORE.sub("", step))
    words = re.sub(r"(?<=[^\s.=])[.]+$", "", words).strip()
    if not words:
        return []
    named = _NAMED.fullmatch(words)
    if named is None or named["name"] not in tools:
        return intents_of(words, quoted) or [Unknown(quoted.plain(step))]
    tool = UseTool(named["name"], quoted.raw(named["rest"]))
    if named["call"]:
        return [tool]
    return intents_of(words, quoted) or [tool]  # "grep for x" is both a tool's name and a sentence
