"""Docstrings of tools: the words about single arguments, as Google, NumPy and Sphinx write them; pure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

Words = dict[str, list[str]]
_Lines = list[str]

# Patterns are compiled when first used, which of these most tools use one or two.
_SECTION = r"^(Args|Arguments|Parameters|Keyword Args|Keyword Arguments):\s*$"
_GOOGLE = r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$"
_SPHINX = r"^:param\s+(?:[\w\[\], |.]+\s+)?(\w+):\s*(.*)$"
_SPHINX_TYPE = r"^:type\s+\w+:"
_NUMPY_SECTION = r"^(Other )?Parameters\s*$"
_UNDERLINE = r"^-{3,}\s*$"
_NUMPY = r"^(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$"


def described(docstring: str | None) -> tuple[str, dict[str, str]]:
    """A docstring's text without the words about arguments, and those words by argument.

    Read are an ``Args:`` section as Google writes it, an underlined ``Parameters`` as NumPy does, and
    ``:param name:`` lines as Sphinx does.
    """
    lines = inspect.cleandoc(docstring or "").splitlines()
    found: Words = {}
    readers: tuple[Callable[[_Lines], tuple[_Lines, Words]], ...] = (_numpy, _google, _sphinx)
    for read in readers:
        lines, words = read(lines)
        found = {**words, **found}
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return text, {name: " ".join(filter(None, words)) for name, words in found.items()}


def _google(lines: _Lines) -> tuple[_Lines, Words]:
    start = next((n for n, line in enumerate(lines) if re.match(_SECTION, line)), len(lines))
    end = next((n for n in range(start + 1, len(lines)) if lines[n][:1].strip()), len(lines))
    words: Words = {}
    current: list[str] = []
    section = [line for line in lines[start + 1 : end] if line.strip()]
    for line in section:
        found = re.match(_GOOGLE, line.strip()) if _indent(line) == _indent(section[0]) else None
        if found:
            current = words[found[1]] = [found[2]]
        else:
            current.append(line.strip())
    return lines[:start] + lines[end:], words


def _numpy(lines: _Lines) -> tuple[_Lines, Words]:
    heads = [n for n in range(len(lines) - 1) if lines[n].strip() and re.match(_UNDERLINE, lines[n + 1])]
    rest: _Lines = []
    words: Words = {}
    at = 0
    for number, head in enumerate(heads):
        if not re.match(_NUMPY_SECTION, lines[head]):
            continue
        end = heads[number + 1] if number + 1 < len(heads) else len(lines)
        rest += lines[at:head]
        at = end
        words |= _entries(lines[head + 2 : end])
    return rest + lines[at:], words


def _entries(section: _Lines) -> Words:
    """The words of a section whose names stand at its margin, one or several of the same."""
    words: Words = {}
    current: list[str] = []
    for line in section:
        found = re.match(_NUMPY, line) if line[:1].strip() else None
        if found:
            current = []
            for name in found[1].split(","):
                words[name.strip().lstrip("*")] = current
        elif line.strip():
            current.append(line.strip())
    return words


def _sphinx(lines: _Lines) -> tuple[_Lines, Words]:
    rest: _Lines = []
    words: Words = {}
    current: list[str] | None = None
    for line in lines:
        found = re.match(_SPHINX, line)
        if found:
            current = words[found[1]] = [found[2]]
        elif re.match(_SPHINX_TYPE, line):
            current = []
        elif current is not None and line.strip() and _indent(line):
            current.append(line.strip())
        else:
            current = None
            rest.append(line)
    return rest, words


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
