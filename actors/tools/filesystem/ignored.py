"""What git ignores in a folder, by the rules of ``.gitignore`` files, each line as pathspec reads it.

A file is asked for by its own name alone: who walks a tree goes into no folder that is ignored. So patterns
without a slash, which nearly all are, see a name and no path, and one expression of them all finds in a
microsecond that none fits; else the last pattern that means the path decides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from actors.tools.base import ToolContext
from actors.tools.filesystem import place
from protocol.errors import ToolError

#: The name of the files that hold rules.
FILE = ".gitignore"
_MOST_BYTES = 256 * 1024
#: The most ``*`` of a pattern, and the longest path that rules are asked of: to try a pattern takes as many
#: steps as the length to the power of that, and a stranger may have written both.
_MOST_STARS = 3
_MOST_PATH = 1024
#: Classes of names and the like within ``[…]``, which git reads and pathspec does not.
_UNREAD = re.compile(r"\[[:.=\[]|--|&&|\|\||~~")
#: In an expression, the slash behind a folder that the pattern means; the whole of it for ``*/``.
_FOLDER = "ps_d"
_ANY_FOLDER = f"(?P<{_FOLDER}>/)"
#: How the expression of a pattern without a slash begins.
_ANYWHERE = "^(?:.+/)?"


class _Pattern(NamedTuple):
    """The expression of a line, and whether what it means is ignored."""

    regex: re.Pattern[str]
    include: bool

    def means(self, path: str) -> bool:
        """Whether it means ``path`` itself. Its expression fits also what is in a folder that it means, and
        where it ends with ``/**`` that folder too.
        """
        regex = self.regex
        if regex.pattern == _ANY_FOLDER:
            return path.endswith("/")
        found = regex.search(path)
        if found is None:
            return False
        if _FOLDER not in regex.groupindex:
            return not regex.pattern.endswith("/") or found.end() < len(path)
        return found.start(_FOLDER) < 0 or found.end() == len(path)

    @property
    def of_names(self) -> bool:
        """Whether it says nothing of the folders above what it means."""
        rest = self.source.removeprefix(_ANYWHERE).replace("[^/", "").replace("(?:/)", "")
        return self.source.startswith(_ANYWHERE) and "/" not in rest

    @property
    def source(self) -> str:
        """The expression without the names of its groups, which several would share."""
        return re.sub(r"\(\?P<\w+>", "(?:", self.regex.pattern)


class Rules:
    """The rules of one file, for paths relative to its folder."""

    def __init__(self, lines: Iterable[str]) -> None:
        patterns = [pattern for line in lines if (pattern := _pattern(line)) is not None]
        self._patterns = patterns[::-1]
        names = _any(each.source.removeprefix(_ANYWHERE) for each in patterns if each.of_names)
        paths = _any(each.source for each in patterns if not each.of_names)
        self._fits_name = None if names is None else names.match
        # Sought, since the expression of ``*/`` is a slash anywhere; the others say where they begin.
        self._fits_path = None if paths is None else paths.search

    def verdict(self, path: str) -> bool | None:
        """Whether ``path`` (with a slash at its end where it is a folder) is ignored; None where no rule
        speaks of it.
        """
        name = path[path.rfind("/", 0, -1) + 1 :]
        fits_name, fits_path = self._fits_name, self._fits_path
        fits = (fits_name is not None and fits_name(name)) or (fits_path is not None and fits_path(path))
        if not fits:
            return None
        return next((each.include for each in self._patterns if each.means(path)), None)


class _Placed(NamedTuple):
    """Rules, and how a path that is relative to the start becomes one that is relative to their folder."""

    lead: str
    cut: int
    rules: Rules


class Ignored:
    """The rules that hold in a folder, of the deepest file first; paths are relative to where it starts."""

    __slots__ = ("_placed",)

    def __init__(self, placed: tuple[_Placed, ...] = ()) -> None:
        self._placed = placed

    def holds(self, relative: str, *, is_dir: bool) -> bool:
        """Whether the name at ``relative``, whose folders are not ignored, is."""
        if not self._placed or len(relative) > _MOST_PATH:
            return False
        path = f"{relative}/" if is_dir else relative
        for lead, cut, rules in self._placed:
            verdict = rules.verdict(lead + path[cut:])
            if verdict is not None:
                return verdict
        return False

    def below(self, ctx: ToolContext, folder: Path, prefix: str) -> Ignored:
        """These rules and those of a file in ``folder``; ``prefix`` is the path of that, with a slash at its
        end.
        """
        rules = _read(ctx, folder / FILE)
        return self if rules is None else Ignored((_Placed("", len(prefix), rules), *self._placed))


NOTHING_IGNORED = Ignored()


def ignored_at(ctx: ToolContext, start: Path) -> Ignored:
    """The rules that hold at ``start`` by files above it that the scope lets be read, up to the folder with
    ``.git``, and by the user's own file. None do where ``start`` is itself ignored: who names it means it.
    """
    placed: list[_Placed] = []
    top = start
    while not (top / ".git").exists() and top != top.parent and ctx.scope.permits(top.parent / FILE, "read"):
        top = top.parent
        rules = _read(ctx, top / FILE)
        if rules is not None:
            placed.append(_Placed(_lead(start, top), 0, rules))
    general = (_read(ctx, top / ".git" / "info" / "exclude"), _of_user())
    placed += [_Placed(_lead(start, top), 0, rules) for rules in general if rules is not None]
    between = [folder for folder in (start, *start.parents) if top in folder.parents]
    whole = Ignored(tuple(placed))
    return NOTHING_IGNORED if any(_is_ignored(whole, start, each) for each in between) else whole


def _lead(start: Path, top: Path) -> str:
    return "" if start == top else f"{start.relative_to(top)}/"


def _is_ignored(whole: Ignored, start: Path, folder: Path) -> bool:
    """Whether the rules say so of ``folder``, which is ``start`` or above it."""
    for lead, _, rules in whole._placed:  # noqa: SLF001 - of this module
        top = Path(*start.parts[: len(start.parts) - lead.count("/")])
        if top not in folder.parents:
            continue
        verdict = rules.verdict(f"{folder.relative_to(top)}/")
        if verdict is not None:
            return verdict
    return False


def _read(ctx: ToolContext, path: Path) -> Rules | None:
    """The rules in a file that the scope lets be read; None where there is none, or it is a symlink."""
    if not ctx.scope.permits(path, "read"):
        return None
    try:
        with place.opened(path) as file:
            return _rules(file.read(_MOST_BYTES))
    except ToolError:
        return None


def _of_user() -> Rules | None:
    """The rules of the user's own file, which git's configuration names, else the usual one."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - raises nothing
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "git"
    configured = _excludes_file(home / ".gitconfig") or _excludes_file(folder / "config")
    file = folder / "ignore" if configured is None else Path(os.path.expanduser(configured))  # noqa: PTH111 - the same
    text = _own(file)
    return None if text is None else _rules(text)


def _excludes_file(config: Path) -> str | None:
    found = re.search(rb"(?im)^\s*excludesfile\s*=\s*\"?([^\"\n]+?)\"?\s*$", _own(config) or b"")
    return None if found is None else os.fsdecode(found[1])


def _own(path: Path) -> bytes | None:
    """What a file of the user's own holds, if there is one."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except (OSError, ValueError):
        return None


def _rules(text: bytes) -> Rules:
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return Rules(os.fsdecode(line.removesuffix(b"\r")) for line in lines)


def _pattern(line: str) -> _Pattern | None:
    """The pattern of a line; None where it is none, or one that would take too long."""
    if not line.removeprefix("!").strip("/"):
        return None  # a slash alone means nothing, and pathspec takes it for all folders
    stars = len(re.findall(r"\*+", line.removeprefix("!").removeprefix("**/")))
    if stars > _MOST_STARS or ("[" in line and _UNREAD.search(line)):
        return None
    try:
        read = GitIgnoreSpecPattern(re.sub(r"\*{3,}", "**", line))  # as git reads them
        if read.include is None or read.regex is None:
            return None
        # No class has a slash, which pathspec's negated ones do.
        return _Pattern(re.compile(str(read.regex.pattern).replace("[^", "[^/")), read.include)
    except (ValueError, re.error):
        return None


def _any(sources: Iterable[str]) -> re.Pattern[str] | None:
    """One expression that fits where any of these does; None where there are none."""
    joined = "|".join(f"(?:{each})" for each in sources)
    return re.compile(joined) if joined else None
