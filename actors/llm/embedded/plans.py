"""How the offline model does what it was asked: plans that want calls and end with an answer.

A plan is a generator that yields the calls it wants, is sent their results, and returns its answer.
It is played from the start for every request, with the results that the history holds already, so
the model keeps nothing between two requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

import msgspec

from actors.llm.embedded.extractive import described_call, said_by_items, summary
from actors.llm.embedded.intents import (
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
from actors.llm.embedded.wording import is_glob
from protocol.items import Item, ToolCall, ToolResult
from protocol.tools import ToolSpec

#: Where the model keeps what it is told to remember, in the pod's working directory.
NOTES = "memory.md"

_MOST_FILES = 20
_MOST_PAGES = 20
_SHOWN = 4000

ABOUT = (
    "I am polypod's offline model: a small deterministic program, not a language model, and I use no "
    "network. I turn plain requests into tool calls and answer from their results."
)
EXAMPLES = (
    "list files in src; read README.md; find *.py; search for TODO in src; count words in README.md; "
    "summarise README.md; remember that …; what do you remember?; write “…” to notes.txt; "
    "replace “a” with “b” in notes.txt; and several of these joined by “then”"
)
BEYOND = (
    "For anything else, give the pod a real model: a local server (ollama, llama.cpp, vLLM, LM Studio) "
    "or an API."
)


class Wanted(NamedTuple):
    """A call that a plan wants, and what to say with it."""

    name: str
    arguments: dict[str, Any]
    saying: str


class Answer(NamedTuple):
    """What a plan came to: words, and the ``matter`` that a later "write it to …" means."""

    text: str
    matter: str = ""


class Desk(NamedTuple):
    """What a plan may know: the tools there are, the history, how many items of it were there before
    this run, and what the step before came to.
    """

    tools: Mapping[str, ToolSpec]
    items: Sequence[Item] = ()
    earlier: int = 0
    before: str = ""


# Only at the beginning: a path in an error may hold the word as well.
_INTERRUPTED = re.compile(r"\W*(?:(?:the|this) (?:tool )?call (?:was|is) )?interrupted\b", re.IGNORECASE)

Plan = Generator[Wanted, ToolResult, Answer]
Pairs = Sequence[tuple[ToolCall, ToolResult]]
_Use = Generator[Wanted, ToolResult, ToolResult]


class _Lacking(Exception):  # noqa: N818 - it carries the name of a tool that the pod has not
    pass


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


def follow(plan: Plan, desk: Desk, left: list[tuple[ToolCall, ToolResult]]) -> Wanted | Answer:
    """Play one plan as far as the results in ``left`` reach; those it used are taken out."""
    try:
        wanted = next(plan)
        while True:
            result = _taken(wanted, left)
            if result is None:
                return wanted
            wanted = plan.send(result)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    except _Lacking as lacking:
        there = ", ".join(desk.tools) or "none"
        return Answer(
            f"For that I would need the tool {lacking}, which this pod does not have (its tools: {there}). "
            'The built-in ones come with `[tools] builtin = ["files", "search"]` in the manifest.'
        )


def _taken(wanted: Wanted, left: list[tuple[ToolCall, ToolResult]]) -> ToolResult | None:
    for n, (call, result) in enumerate(left):
        if call.name == wanted.name and call.arguments == wanted.arguments:
            del left[n]
            return result
    return None


def plan_for(intent: Intent, desk: Desk) -> Plan:  # noqa: C901, PLR0911, PLR0912 - one line for each intent
    """The plan that carries out ``intent``."""
    match intent:
        case List():
            return _list(desk, intent)
        case Read():
            return _each(desk, intent.path, lambda path: _read(desk, path, intent.lines))
        case Count():
            return _count(desk, intent)
        case Summarise():
            return _each(desk, intent.path, lambda path: _summarise(desk, path))
        case SummariseText():
            return _said(_summary_of(intent.text or _conversation(desk), "what was said"))
        case Find():
            return _find(desk, intent)
        case Search():
            return _search(desk, intent)
        case Remember():
            return _remember(desk, intent)
        case Recall():
            return _recall(desk, intent)
        case Write():
            return _write(desk, intent)
        case Replace():
            return _replace(desk, intent)
        case UseTool():
            return _use_tool(desk, intent)
        case Talk():
            return _said(_talk(desk, intent))
        case Unknown():
            return _said(Answer(_not_understood(desk, intent)))
    assert_never(intent)


def was_interrupted(result: ToolResult) -> bool:
    """Whether nobody knows what became of the call: the process died, or the run was stopped."""
    return result.is_error and _INTERRUPTED.match(result.text) is not None


def was_not_run(result: ToolResult) -> bool:
    """Whether the call never began."""
    return result.is_error and result.text.startswith("not run:")


def _said(answer: Answer) -> Plan:
    """A plan that needs no call."""
    return answer
    yield


def _use(desk: Desk, name: str, arguments: dict[str, Any], saying: str, *, again: bool = True) -> _Use:
    """Call a tool; a call that never began is made again, an interrupted one where that does no harm
    (``again``).
    """
    if name not in desk.tools:
        raise _Lacking(name)
    wanted = Wanted(name, arguments, saying)
    result = yield wanted
    if was_not_run(result) or (again and was_interrupted(result)):
        result = yield wanted
    return result


def _list(desk: Desk, intent: List) -> Plan:
    where = "the working directory" if intent.path == "." else intent.path
    result = yield from _use(desk, "list_files", {"path": intent.path}, f"I list {where}.")
    if result.is_error:
        return Answer(f"I could not list {where}: {result.text}")
    what = "The working directory" if intent.path == "." else intent.path
    return Answer(f"{what} holds:\n{_shown(result.text)}", result.text)


def _text_of(
    desk: Desk, path: str, lines: int | None = None
) -> Generator[Wanted, ToolResult, str | ToolResult]:
    """All text of a file, page by page, or the result that says why not."""
    pages: list[str] = []
    arguments: dict[str, Any] = {"path": path} if lines is None else {"path": path, "limit": lines}
    for _ in range(_MOST_PAGES if lines is None else 1):
        result = yield from _use(desk, "read_file", arguments, f"I read {path}.")
        if result.is_error:
            return result
        text, _, rest = result.text.partition("[more lines follow; go on with offset=")
        pages.append(text)
        found = re.match(r"\d+", rest)
        if found is None:
            break
        arguments = {"path": path, "offset": int(found[0])}
    return "".join(pages)


def _read(desk: Desk, path: str, lines: int | None) -> Plan:
    text = yield from _text_of(desk, path, lines)
    if isinstance(text, ToolResult):
        return Answer(f"I could not read {path}: {text.text}")
    what = f"{path} begins with" if lines else f"{path} says"
    return Answer(f"{what}:\n\n{_shown(text)}", text)


def _summarise(desk: Desk, path: str) -> Plan:
    text = yield from _text_of(desk, path)
    if isinstance(text, ToolResult):
        return Answer(f"I could not read {path}: {text.text}")
    return _summary_of(text, path)


def _summary_of(text: str, what: str) -> Answer:
    chosen = summary(text)
    if not chosen:
        return Answer(f"There are no sentences in {what} that I could choose from.")
    return Answer(f"The most telling sentences of {what}:\n\n{chosen}", chosen)


def _conversation(desk: Desk) -> str:
    """What was said before this run."""
    said = said_by_items(desk.items[: desk.earlier])
    return "\n\n".join(each.text for each in said if each.role in {"user", "assistant"})


def _each(desk: Desk, path: str, one: Callable[[str], Plan]) -> Plan:
    """``one`` plan for a path, or one after the other for all files that fit a glob."""
    if not is_glob(path):
        return (yield from one(path))
    names = yield from _names(desk, path)
    if isinstance(names, Answer):
        return names
    answers: list[Answer] = []
    for name in names:
        answer = yield from one(name)
        answers.append(answer)
    return Answer("\n\n".join(a.text for a in answers), "\n\n".join(a.matter or a.text for a in answers))


def _names(desk: Desk, path: str) -> Generator[Wanted, ToolResult, list[str] | Answer]:
    """The files that fit a glob, seen from the working directory, or the answer that there are none."""
    folder, pattern = _folder_and_pattern(path)
    arguments = {"pattern": pattern} if folder == "." else {"pattern": pattern, "path": folder}
    result = yield from _use(desk, "find_files", arguments, f"I look for {path}.")
    if result.is_error:
        return Answer(f"I could not look for {path}: {result.text}")
    names = [line for line in _listed(result.text) if not line.endswith("/")]
    if not names:
        return Answer(f"I found no file that fits {path}.")
    return [name if folder == "." else f"{folder}/{name}" for name in names[:_MOST_FILES]]


def _count(desk: Desk, intent: Count) -> Plan:
    paths = [intent.path]
    if is_glob(intent.path):
        names = yield from _names(desk, intent.path)
        if isinstance(names, Answer):
            return names
        paths = names
    lines, total = [], 0
    for path in paths:
        result = yield from _use(desk, "count_words", {"path": path}, f"I count the {intent.unit} of {path}.")
        found = re.search(rf"([\d,]+) {intent.unit}", result.text)
        if result.is_error or found is None:
            lines.append(f"I could not count the {intent.unit} of {path}: {result.text}")
            continue
        total += int(found[1].replace(",", ""))
        lines.append(f"{path} has {_counted(int(found[1].replace(',', '')), intent.unit)}.")
    if len(paths) > 1:
        lines.append(f"Together they have {_counted(total, intent.unit)}.")
    return Answer("\n".join(lines))


def _find(desk: Desk, intent: Find) -> Plan:
    where = "" if intent.path == "." else f" in {intent.path}"
    arguments = {"pattern": intent.pattern} | ({} if intent.path == "." else {"path": intent.path})
    result = yield from _use(desk, "find_files", arguments, f"I look for {intent.pattern}{where}.")
    if result.is_error:
        return Answer(f"I could not look for {intent.pattern}{where}: {result.text}")
    names = _listed(result.text)
    if names:
        return Answer(
            _found(len(names), "name", f"that fits {intent.pattern}{where}", result.text), result.text
        )
    nothing = f"I found no name that fits {intent.pattern}{where}"
    if "grep" not in desk.tools or is_glob(intent.words):
        return Answer(f"{nothing}.")
    inside = yield from _search(desk, Search(intent.words, intent.path))
    return Answer(f"{nothing}, so I looked into the files. {inside.text}", inside.matter)


def _search(desk: Desk, intent: Search) -> Plan:
    where = "" if intent.path == "." else f" in {intent.path}"
    pattern = intent.text if intent.is_regex else re.escape(intent.text)
    arguments = {"pattern": pattern} | ({} if intent.path == "." else {"path": intent.path})
    what = f"“{intent.text}”{where}"
    result = yield from _use(desk, "grep", arguments, f"I search for {what}.")
    if result.is_error:
        return Answer(f"I could not search for {what}: {result.text}")
    lines = [line for line in _listed(result.text) if re.match(r".*?:\d+: ?", line)]
    if not lines:
        return Answer(f"I found no line with {what}.")
    return Answer(_found(len(lines), "line", f"with {what}", result.text), result.text)


def _remember(desk: Desk, intent: Remember) -> Plan:
    line = f"- {' '.join(intent.fact.split())}"
    noted = Answer(f"I noted in {NOTES}: {line[2:]}", line[2:])
    for saying in (f"I note that in {NOTES}.", "I note it once more, for the call was interrupted."):
        known = yield from _noted(desk)
        if line in known:
            return noted
        arguments = {"path": NOTES, "content": f"{line}\n", "append": True}
        result = yield from _use(desk, "write_file", arguments, saying, again=False)
        if not was_interrupted(result):
            break
    return noted if not result.is_error else Answer(f"I could not note that in {NOTES}: {result.text}")


def _noted(desk: Desk) -> Generator[Wanted, ToolResult, list[str]]:
    """The lines of the notes, none where they cannot be read."""
    if "read_file" not in desk.tools:
        return []
    text = yield from _text_of(desk, NOTES)
    return [] if isinstance(text, ToolResult) else text.splitlines()


def _recall(desk: Desk, intent: Recall) -> Plan:
    text = yield from _text_of(desk, NOTES)
    if isinstance(text, ToolResult):
        return Answer(f"I have no notes: {text.text}")
    lines = [line for line in text.splitlines() if line.strip()]
    if intent.about is not None:
        words = re.findall(r"\w{3,}", intent.about.lower())
        lines = [line for line in lines if any(word in line.lower() for word in words)]
    if not lines:
        return Answer(f"There is nothing{f' about {intent.about}' if intent.about else ''} in {NOTES}.")
    return Answer("From my notes:\n" + "\n".join(lines), "\n".join(lines))


def _write(desk: Desk, intent: Write) -> Plan:
    content = intent.content
    if content is None:
        content = desk.before or _conversation_end(desk)
    if not content:
        return Answer(f"There is nothing yet that I could write to {intent.path}.")
    if not content.endswith("\n"):
        content += "\n"
    arguments: dict[str, Any] = {"path": intent.path, "content": content}
    if intent.append:
        arguments["append"] = True
    # To replace a file twice by the same text does no harm, to append twice does.
    result = yield from _use(
        desk, "write_file", arguments, f"I write to {intent.path}.", again=not intent.append
    )
    if result.is_error:
        return Answer(f"I could not write to {intent.path}: {result.text}")
    return Answer(f"Done: {result.text}.", content)


def _conversation_end(desk: Desk) -> str:
    """The last answer of this conversation."""
    said = said_by_items(desk.items[: desk.earlier])
    return next((each.text for each in reversed(said) if each.role == "assistant"), "")


def _replace(desk: Desk, intent: Replace) -> Plan:
    arguments = {"path": intent.path, "old": intent.old, "new": intent.new, "replace_all": True}
    result = yield from _use(desk, "edit_file", arguments, f"I edit {intent.path}.", again=False)
    if result.is_error:
        return Answer(f"I could not edit {intent.path}: {result.text}")
    return Answer(f"Done: {result.text}")


def _use_tool(desk: Desk, intent: UseTool) -> Plan:
    arguments = arguments_from(intent.words, desk.tools[intent.name].input_schema)
    if arguments is None:
        how = "Give its arguments as a JSON object, or as name=value."
        return Answer(f"I do not understand what to call {intent.name} with. {how}")
    saying = f"I call {described_call(intent.name, arguments)}."
    result = yield from _use(desk, intent.name, arguments, saying, again=False)
    if result.is_error:
        return Answer(f"{intent.name} failed: {result.text}")
    return Answer(
        f"{intent.name} answered: {result.text}" if result.text else f"{intent.name} is done.", result.text
    )


def arguments_from(words: str, schema: dict[str, Any]) -> dict[str, Any] | None:
    """A tool's arguments from a JSON object, from ``name=value`` pairs, or from plain words where the
    tool requires one text and no more; None where the words are nothing of that.
    """
    properties, required = schema.get("properties", {}), schema.get("required", [])
    words = words.strip()
    if words.startswith("{"):
        try:
            return msgspec.json.decode(words, type=dict[str, Any])
        except msgspec.DecodeError:
            return None
    pairs = re.findall(r"(\w+)\s*=\s*(\S+)", words)
    if pairs and all(name in properties for name, _ in pairs):
        return {name: _value(text, properties[name]) for name, text in pairs}
    if not words:
        return None if required else {}
    if len(required) == 1:
        return {required[0]: _value(words, properties[required[0]])}
    return None


def _value(text: str, schema: dict[str, Any]) -> Any:
    """A word as the type that a schema asks for; the tool itself says what is wrong with it."""
    if schema.get("type") == "string":
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _talk(desk: Desk, intent: Talk) -> Answer:
    match intent.about:
        case "self":
            return Answer(f"{ABOUT}\n\nI understand: {EXAMPLES}.\n\n{_tools(desk)} {BEYOND}")
        case "hello":
            return Answer(f"Hello. {ABOUT} Ask me, say, to: {EXAMPLES}.")
        case "thanks":
            return Answer("You are welcome.")
        case "continue":
            return Answer("All that I was asked before is done.")
    assert_never(intent.about)


def _not_understood(desk: Desk, intent: Unknown) -> str:
    shown = intent.words if len(intent.words) <= 200 else f"{intent.words[:200]}…"
    if intent.partly:
        return f"I do not understand “{shown}”."
    return f"I do not understand “{shown}”. {ABOUT}\n\nI understand: {EXAMPLES}.\n\n{_tools(desk)} {BEYOND}"


def _tools(desk: Desk) -> str:
    if not desk.tools:
        return "This pod has no tools, so there is little I can do for it."
    return f"This pod's tools: {', '.join(desk.tools)}."


def _folder_and_pattern(path: str) -> tuple[str, str]:
    """A path with a glob in it as the folder before the glob, and the glob."""
    steps = path.split("/")
    first = next(n for n, step in enumerate(steps) if is_glob(step))
    return "/".join(steps[:first]) or ("/" if path.startswith("/") else "."), "/".join(steps[first:])


def _listed(text: str) -> list[str]:
    """The lines of a search result, without notes and without the sentence that there are none."""
    if text.startswith(("nothing below ", "no line below ")):
        return []
    return [line for line in text.splitlines() if line and not line.startswith("[")]


def _found(count: int, noun: str, what: str, text: str) -> str:
    return f"I found {_counted(count, f'{noun}s')} {what}:\n{_shown(text)}"


def _counted(count: int, nouns: str) -> str:
    return f"{count:,} {nouns.removesuffix('s') if count == 1 else nouns}"


def _shown(text: str) -> str:
    text = text.rstrip("\n")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n… ({len(text) - _SHOWN:,} more characters)"
