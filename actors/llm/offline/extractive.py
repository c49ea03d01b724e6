"""Makes summaries and facts without a language model, from words chosen from a text and never invented."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from protocol.items import AssistantItem, Item, SystemItem, ToolResult, UserItem

Role = Literal["user", "assistant", "system", "tool"]

#: How the summary of a compacted history begins in the new one.
COMPACTED = "[Compacted context summary]"
#: How a summary marks the request that was not answered yet.
OPEN_REQUEST = "Open request: "

_MOST_CHARACTERS = 200_000
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "about after again also another because been before being between both could does doing down each "
        "every from further have having here into itself just like made make many more most much must only "
        "other over same should some such than that their them then there these they this those through "
        "under until very were what when where which while will with without would your yours",
    )
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n\s*\n|\n(?=\s*(?:[-*•#|]|\d+[.)])\s)")
_DECISION = re.compile(
    r"\b(?:decided|decision|we(?:'ll| will) (?:use|go with|keep)|let'?s (?:use|go with|keep)|chose|chosen|"
    r"settled on|agreed (?:to|on|that)|instead of|going with|went with)\b",
    re.IGNORECASE,
)
# Only at the left margin: an indented line was said by somebody, whatever it begins with.
_ROLE = re.compile(
    r"(?:\[(?P<in_brackets>user|human|assistant|system|tool|result)\b[^\]]*\]:?"
    r"|<(?P<in_tag>user|human|assistant|system|tool|result)\b[^>]*>"
    r"|[*#]{0,3} ?(?P<plain>user|human|assistant|system|tool|result)\b(?P<more>[^:\n]{0,80}):)\** ?",
    re.IGNORECASE,
)
_AS_ROLE: dict[str, Role] = {"human": "user", "result": "tool"}
_CONVERSATION = re.compile(r"<conversation>\n?(.*?)\n?</conversation>", re.DOTALL)
_SO_FAR = re.compile(r"<summary_so_far>\n(.*?)\n</summary_so_far>", re.DOTALL)
_PLACEHOLDERS = frozenset({"", "Not recorded.", "None.", "None recorded.", "Nothing."})


class Said(NamedTuple):
    """Something said in a conversation; for a tool, ``action`` is what it was asked to do."""

    role: Role
    text: str
    action: str = ""
    failed: bool = False


def sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line, without code, tables, headings and list markers."""
    text = re.sub(r"```.*?(?:```|\Z)", "\n\n", text[:_MOST_CHARACTERS], flags=re.DOTALL)
    text = re.sub(r"^\s*(?:\||#+ ).*$", "", text, flags=re.MULTILINE)
    found = (" ".join(re.sub(r"^\s*(?:[-*•#>]+|\d+[.)])\s+", "", each).split()) for each in _split(text))
    return [each for each in found if re.search(r"\w{2}", each)]


def summary(text: str, *, most: int = 5) -> str:
    """The ``most`` most important sentences of a text, in their original order.

    A sentence weighs more if its words are frequent in the text; the first one is favoured.
    """
    found = list(dict.fromkeys(sentences(text)))
    if len(found) <= most:
        return " ".join(found)
    words = [_words(each) for each in found]
    often = Counter(word for each in words for word in set(each))
    scores = [sum(often[word] for word in set(each)) / (len(each) + 4) ** 0.85 for each in words]
    scores[0] *= 1.5
    best = sorted(range(len(found)), key=lambda n: (-scores[n], n))[:most]
    return " ".join(found[n] for n in sorted(best))


def said_by_items(items: Iterable[Item]) -> list[Said]:
    """A history as what was said and done in it."""
    said: list[Said] = []
    actions: dict[str, str] = {}
    for item in items:
        if isinstance(item, ToolResult):
            action = actions.get(item.call_id, item.name)
            said.append(Said("tool", item.text, action, item.is_error))
            continue
        if isinstance(item, AssistantItem):
            actions.update((call.id, described_call(call.name, call.arguments)) for call in item.calls)
        if item.text:
            role: Role = (
                "user"
                if isinstance(item, UserItem)
                else "system"
                if isinstance(item, SystemItem)
                else "assistant"
            )
            said.append(Said(role, item.text))
    return said


def said_in_text(text: str) -> list[Said] | None:
    """A transcript with roles at the beginnings of lines as what was said; None if the text is not one.

    The transcript is the text within ``<conversation>`` if there is one, and ``<summary_so_far>`` is an
    earlier summary.
    """
    tagged, so_far = _CONVERSATION.search(text), _SO_FAR.search(text)
    said = [Said("system", f"{COMPACTED}\n{so_far[1]}")] if so_far else []
    head: re.Match[str] | None = None
    lines: list[str] = []
    for line in (tagged[1] if tagged else text)[-_MOST_CHARACTERS:].split("\n"):
        found = _ROLE.match(line)
        if found is None:
            lines.append(line.removeprefix("  "))
            continue
        said += _said_under(head, lines)
        head, lines = found, [line[found.end() :]]
    said += _said_under(head, lines)
    return said if said or tagged else None


def described_call(name: str, arguments: dict[str, Any]) -> str:
    """A call in one short line."""
    return _line(f"{name} {' '.join(f'{key}={value}' for key, value in arguments.items())}", 160)


def compacted(said: Sequence[Said]) -> str:
    """A summary of a history under five headings, in at most a quarter of its length.

    The user's requests are quoted in the user's own words; an earlier summary in the history is taken over
    heading by heading.
    """
    source = sum(len(each.text) for each in said)
    room = min(8000, max(400, source // 4))
    sections = _sections(said)
    for scale in (1.0, 0.5, 0.25, 0.12):
        text = _laid_out(sections, scale)
        if len(text) <= room:
            break
    return text


def facts(said: Sequence[Said]) -> dict[str, list[dict[str, Any]]]:
    """Decisions, discussions, attempts and requests worth keeping, as found in the words."""
    own = [each for each in said if not each.text.startswith(COMPACTED)]
    questions = [(n, each.text) for n, each in enumerate(own) if each.role == "user" and "?" in each.text]
    return {
        "decisions": [
            {"options": [], "chosen": _line(each, 300), "rationale": _reason(each)}
            for each in _decisions(own)
        ],
        "discussions": [
            {"topic": _line(text, 200), "points": [_line(answer, 300)] if (answer := _answer(own, n)) else []}
            for n, text in questions
        ],
        "attempts": [
            {"action": each.action or "tool", "result": _line(each.text, 200), "succeeded": not each.failed}
            for each in own
            if each.role == "tool"
        ],
        "requests": [
            {"intent": _line(each.text, 60), "target": _target(each.text), "summary": _line(each.text, 300)}
            for each in own
            if each.role == "user"
        ],
    }


_HEADINGS = ("Completed Tasks", "Active Task", "Key Decisions", "User Directives", "Current Work")
#: For each heading: how many lines it keeps, and how many characters of each.
_ROOM = {
    "User Directives": (12, 400),
    "Completed Tasks": (15, 160),
    "Key Decisions": (8, 240),
    "Current Work": (6, 300),
    "Active Task": (1, 2000),
}


def _sections(said: Sequence[Said]) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {heading: [] for heading in _HEADINGS}
    own: list[Said] = []
    for each in said:
        if each.role == "system" and each.text.startswith(COMPACTED):
            for heading, lines in _carried(each.text).items():
                sections[heading] += lines
        else:
            own.append(each)
    requests = [each.text for each in own if each.role == "user"]
    sections["User Directives"] += requests
    sections["Completed Tasks"] += [
        f"{each.action or 'tool'}: {'failed: ' if each.failed else ''}{_line(each.text, 80)}"
        for each in own
        if each.role == "tool"
    ]
    sections["Key Decisions"] += _decisions(own)
    answers = "\n\n".join(each.text for each in own if each.role == "assistant")
    sections["Current Work"] += sentences(summary(answers, most=6))
    if requests and own[-1].role != "assistant":
        sections["Active Task"] = [OPEN_REQUEST + requests[-1]]
    return sections


def _carried(text: str) -> dict[str, list[str]]:
    """The lines of an earlier summary by heading, without the request that was open then."""
    sections: dict[str, list[str]] = {}
    heading, bulleted_only = "", False
    for line in text.split("\n"):
        if line.startswith("## "):
            heading = line[3:].strip()
            bulleted_only = heading == "User Directives"  # it begins with an introduction
        elif heading not in _ROOM or heading == "Active Task" or line.strip() in _PLACEHOLDERS:
            continue
        elif line.startswith("- ") or not bulleted_only:
            sections.setdefault(heading, []).append(line.removeprefix("- "))
    return sections


def _laid_out(sections: dict[str, list[str]], scale: float) -> str:
    parts = []
    for heading, lines in sections.items():
        count, width = _ROOM[heading]
        kept = list(dict.fromkeys(_line(line, int(width * scale)) for line in lines))
        kept = kept[-max(1, int(count * scale)) :]
        if kept:
            parts.append("\n".join([f"## {heading}", *(f"- {line}" for line in kept)]))
    return "\n\n".join(parts) or "Nothing was said or done yet."


def _split(text: str) -> list[str]:
    return _SENTENCE_END.split(text)


def _words(sentence: str) -> list[str]:
    return [word for word in re.findall(r"[^\W\d_]{4,}", sentence.lower()) if word not in _STOP_WORDS]


def _line(text: str, width: int) -> str:
    """A text on one line of at most ``width`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: max(1, width - 1)]}…"


def _said_under(head: re.Match[str] | None, lines: list[str]) -> list[Said]:
    """What the lines after a head say; results give the names of the called tools."""
    text = re.sub(r"</\w+>\s*$", "", "\n".join(lines).strip()).strip()
    more = head["more"] or "" if head else ""
    if head is None or not text or more.strip() == "called":
        return []
    word = next(filter(None, (head["in_brackets"], head["in_tag"], head["plain"]))).lower()
    role: Role = _AS_ROLE.get(word, word)
    if role != "tool":
        return [Said(role, text)]
    return [Said(role, text, more.replace(" of ", "").strip(), text.startswith("error"))]


def _decisions(said: Sequence[Said]) -> list[str]:
    spoken = (each for each in said if each.role in {"user", "assistant"})
    return [sentence for each in spoken for sentence in sentences(each.text) if _DECISION.search(sentence)]


def _reason(sentence: str) -> str:
    found = re.search(r"\b(?:because|since|so that|as it)\b.*", sentence, re.IGNORECASE)
    return _line(found[0], 200) if found else ""


def _answer(said: Sequence[Said], question: int) -> str:
    for each in said[question + 1 :]:
        if each.role == "user":
            break
        if each.role == "assistant":
            return summary(each.text, most=2)
    return ""


def _target(text: str) -> str | None:
    """The first thing in a text that looks like a path."""
    found = re.search(r"(?<![\w/])(?:[\w.-]+/)*[\w-]+\.[A-Za-z]\w{0,7}\b|(?<!\w)(?:[\w.-]+/)+[\w.-]*", text)
    return found[0] if found else None
