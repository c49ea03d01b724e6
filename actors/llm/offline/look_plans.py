"""The offline model's plans that only look: list, read, count, summarise, find, search."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any

from actors.llm.offline.extractive import summary
from actors.llm.offline.file_names import is_glob
from actors.llm.offline.intents import Count, Find, List, Search
from actors.llm.offline.plans import Answer, OfflineContext, Plan, Wanted, shown, use
from protocol.items import ToolResult

_MOST_FILES = 20
_MOST_PAGES = 20


def list_directory(context: OfflineContext, intent: List) -> Plan:
    """Report the content of a directory."""
    where = "the working directory" if intent.path == "." else intent.path
    result = yield from use(context, "list_files", {"path": intent.path}, f"I list {where}.")
    if result.is_error:
        return Answer(f"I could not list {where}: {result.text}")
    what = "The working directory" if intent.path == "." else intent.path
    return Answer(f"{what} holds:\n{shown(result.text)}", result.text)


def read(context: OfflineContext, path: str, lines: int | None) -> Plan:
    """Report the content of a file, all or its first ``lines``."""
    text = yield from text_of(context, path, lines)
    if isinstance(text, ToolResult):
        return Answer(f"I could not read {path}: {text.text}")
    what = f"{path} begins with" if lines else f"{path} says"
    return Answer(f"{what}:\n\n{shown(text)}", text)


def summarise(context: OfflineContext, path: str) -> Plan:
    """Read a file and choose its most important sentences."""
    text = yield from text_of(context, path)
    if isinstance(text, ToolResult):
        return Answer(f"I could not read {path}: {text.text}")
    return summary_of(text, path)


def summary_of(text: str, what: str) -> Answer:
    """The most important sentences of a text, as an answer."""
    chosen = summary(text)
    if not chosen:
        return Answer(f"There are no sentences in {what} that I could choose from.")
    return Answer(f"The most important sentences of {what}:\n\n{chosen}", chosen)


def count(context: OfflineContext, intent: Count) -> Plan:
    """Count in a file, or in all files that match a glob, and in total."""
    paths = [intent.path]
    if is_glob(intent.path):
        names = yield from _names(context, intent.path)
        if isinstance(names, Answer):
            return names
        paths = names
    lines, total = [], 0
    for path in paths:
        result = yield from use(
            context, "count_words", {"path": path}, f"I count the {intent.unit} of {path}."
        )
        found = re.search(rf"([\d,]+) {intent.unit}", result.text)
        if result.is_error or found is None:
            lines.append(f"I could not count the {intent.unit} of {path}: {result.text}")
            continue
        total += int(found[1].replace(",", ""))
        lines.append(f"{path} has {_counted(int(found[1].replace(',', '')), intent.unit)}.")
    if len(paths) > 1:
        lines.append(f"Together they have {_counted(total, intent.unit)}.")
    return Answer("\n".join(lines))


def find(context: OfflineContext, intent: Find) -> Plan:
    """Find names; if none fits a plain word, search in the files."""
    where = "" if intent.path == "." else f" in {intent.path}"
    arguments = {"pattern": intent.pattern} | ({} if intent.path == "." else {"path": intent.path})
    result = yield from use(context, "find_files", arguments, f"I look for {intent.pattern}{where}.")
    if result.is_error:
        return Answer(f"I could not look for {intent.pattern}{where}: {result.text}")
    names = _listed(result.text)
    if names:
        return Answer(
            _found(len(names), "name", f"that fits {intent.pattern}{where}", result.text), result.text
        )
    nothing = f"I found no name that fits {intent.pattern}{where}"
    if "grep" not in context.tools or is_glob(intent.words):
        return Answer(f"{nothing}.")
    inside = yield from search(context, Search(intent.words, intent.path))
    return Answer(f"{nothing}, so I looked into the files. {inside.text}", inside.matter)


def search(context: OfflineContext, intent: Search) -> Plan:
    """Find lines."""
    where = "" if intent.path == "." else f" in {intent.path}"
    pattern = intent.text if intent.is_regex else re.escape(intent.text)
    arguments = {"pattern": pattern} | ({} if intent.path == "." else {"path": intent.path})
    what = f"“{intent.text}”{where}"
    result = yield from use(context, "grep", arguments, f"I search for {what}.")
    if result.is_error:
        return Answer(f"I could not search for {what}: {result.text}")
    lines = [line for line in _listed(result.text) if re.match(r".*?:\d+: ?", line)]
    if not lines:
        return Answer(f"I found no line with {what}.")
    return Answer(_found(len(lines), "line", f"with {what}", result.text), result.text)


def text_of(
    context: OfflineContext, path: str, lines: int | None = None
) -> Generator[Wanted, ToolResult, str | ToolResult]:
    """The whole text of a file, read page by page, or the result that says why not."""
    pages: list[str] = []
    arguments: dict[str, Any] = {"path": path} if lines is None else {"path": path, "limit": lines}
    for _ in range(_MOST_PAGES if lines is None else 1):
        result = yield from use(context, "read_file", arguments, f"I read {path}.")
        if result.is_error:
            return result
        text, _, rest = result.text.partition("[more lines follow; go on with offset=")
        pages.append(text)
        found = re.match(r"\d+", rest)
        if found is None:
            break
        arguments = {"path": path, "offset": int(found[0])}
    return "".join(pages)


def for_each(context: OfflineContext, path: str, one: Callable[[str], Plan]) -> Plan:
    """The plan ``one`` for a path, or for all files that match a glob, one after the other."""
    if not is_glob(path):
        return (yield from one(path))
    names = yield from _names(context, path)
    if isinstance(names, Answer):
        return names
    answers: list[Answer] = []
    for name in names:
        answer = yield from one(name)
        answers.append(answer)
    return Answer("\n\n".join(a.text for a in answers), "\n\n".join(a.matter or a.text for a in answers))


def _names(context: OfflineContext, path: str) -> Generator[Wanted, ToolResult, list[str] | Answer]:
    """The files that match a glob, relative to the working directory, or the answer that there are none."""
    folder, pattern = _folder_and_pattern(path)
    arguments = {"pattern": pattern} if folder == "." else {"pattern": pattern, "path": folder}
    result = yield from use(context, "find_files", arguments, f"I look for {path}.")
    if result.is_error:
        return Answer(f"I could not look for {path}: {result.text}")
    names = [line for line in _listed(result.text) if not line.endswith("/")]
    if not names:
        return Answer(f"I found no file that fits {path}.")
    return [name if folder == "." else f"{folder}/{name}" for name in names[:_MOST_FILES]]


def _folder_and_pattern(path: str) -> tuple[str, str]:
    """A path with a glob, split into the folder before the glob, and the glob."""
    steps = path.split("/")
    first = next(n for n, step in enumerate(steps) if is_glob(step))
    return "/".join(steps[:first]) or ("/" if path.startswith("/") else "."), "/".join(steps[first:])


def _listed(text: str) -> list[str]:
    """The lines of a search result, without notes and without the sentence that there are none."""
    if text.startswith(("nothing below ", "no line below ")):
        return []
    return [line for line in text.splitlines() if line and not line.startswith("[")]


def _found(count: int, noun: str, what: str, text: str) -> str:
    return f"I found {_counted(count, f'{noun}s')} {what}:\n{shown(text)}"


def _counted(count: int, nouns: str) -> str:
    return f"{count:,} {nouns.removesuffix('s') if count == 1 else nouns}"
