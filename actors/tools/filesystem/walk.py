"""All that a pod may read below a directory, in order, each name checked by the scope."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from actors.tools.base import ToolContext
from actors.tools.filesystem import place
from actors.tools.filesystem.ignored import FILE, NOTHING_IGNORED, Ignored, ignored_at
from actors.tools.scope import check, uniform_below
from protocol.errors import ScopeRefused, ToolError
from protocol.guarded import is_secret, is_steering

#: Directories that hold what programs made, whether or not a file of rules says so; nobody looks for anything
#: there unless asked.
IGNORED = frozenset(
    {
        *(".git", ".hg", ".svn", ".idea", "__pycache__", ".venv", ".tox", ".nox"),
        *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"),
        *("node_modules", ".gradle", ".terraform"),
    }
)
_MOST_NAMES = 50_000
#: How deep folders are looked into: each is opened step by step from the top, and programs nest thousands.
_DEEPEST = 200
_SHOWN = 5


class LeftOut:
    """What a walk passed over, relative to its start, so that a search can say so."""

    def __init__(self) -> None:
        self.ignored: list[str] = []
        self.secret: list[str] = []
        self.unreadable: list[str] = []
        #: Folders with more names than are looked at.
        self.cut: list[str] = []
        #: Folders that are deeper than is looked into.
        self.deep: list[str] = []

    def notes(self, secret: Callable[[str], bool], *, nothing: bool) -> list[str]:
        """Lines for the model: of secrets those of names that would have been looked at; of ignored
        folders where ``nothing`` was found.
        """
        lines = secret_notes(name for name in self.secret if secret(name))
        if self.ignored and nothing:
            names = _some(self.ignored)
            lines.append(f"[left out as ignored: {names}; name one in path, or set include_ignored]")
        if self.unreadable:
            lines.append(f"[not readable: {_some(self.unreadable)}]")
        if self.cut:
            lines.append(f"[only the first {_MOST_NAMES:,} names were read in: {_some(self.cut)}]")
        if self.deep:
            lines.append(f"[not searched, more than {_DEEPEST} folders deep: {_some(self.deep)}]")
        return lines


def secret_notes(names: Iterable[str]) -> list[str]:
    """Lines for the model: which secret names were left out, and which of them no rule can allow."""
    steering = list[str]()
    secret = list[str]()
    for name in names:
        (steering if is_steering(name.rpartition("/")[2]) else secret).append(name)
    lines = []
    if secret:
        lines.append(f"[left out as secret: {_some(secret)}; the user can allow one by name in the scope]")
    if steering:
        lines.append(f"[left out: {_some(steering)}; it configures polypod, so no rule can allow it]")
    return lines


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(place.shown, names[:_SHOWN])) + more


class Found(NamedTuple):
    """A name below the start: relative as it stands there, and the place where it leads."""

    relative: str
    path: Path
    is_dir: bool


def walk(
    ctx: ToolContext,
    start: Path,
    *,
    include_ignored: bool,
    wanted: frozenset[str] | set[str] = frozenset(),
    left_out: LeftOut | None = None,
) -> Iterator[Found]:
    """Files and directories below ``start`` (checked), by name, each directory before what it holds.

    Symlinks are listed where the scope permits what they lead to, and never descended into. Directories
    that the system does not let us read are passed over. What is ignored, by the rules of git or as
    IGNORED, is passed over as well, unless it is ``wanted`` by name: then all below it is listed. What is
    passed over is noted in ``left_out``. Raises ToolCancelled, and ToolError where ``start`` itself cannot
    be listed.
    """
    left_out = LeftOut() if left_out is None else left_out
    named = IGNORED - wanted
    rules = None if include_ignored else ignored_at(ctx, start)
    todo = [("", start, False, rules)]
    while todo:
        prefix, folder, free, rules = todo.pop()
        ctx.cancel.raise_if_cancelled()
        entries = _entries(folder, prefix, left_out, must=folder == start)
        # Asking the rules for every name would cost ten times what all else does.
        free = free or (uniform_below(ctx.scope, folder) and ctx.scope.permits(folder / "_", "read"))
        below: list[tuple[str, Path, bool, Ignored | None]] = []
        if rules is not None and any(entry.name == FILE for entry in entries):
            rules = rules.below(ctx, folder, prefix)
        for entry in sorted(entries):
            found = _found(ctx, folder, prefix, entry, free=free)
            if found is None:
                if is_secret(entry.name, folder.name):
                    left_out.secret.append(prefix + entry.name)
                continue
            within = rules
            if rules is not None and _is_ignored(rules, entry, found.relative, named):
                if entry.name not in wanted:
                    left_out.ignored.append(_line(found.relative, entry))
                    continue
                within = NOTHING_IGNORED
            yield found
            if entry.is_dir and found.relative.count("/") >= _DEEPEST:
                left_out.deep.append(f"{found.relative}/")
            elif entry.is_dir:
                below.append((f"{found.relative}/", found.path, free, within))
        todo += reversed(below)


def _entries(folder: Path, prefix: str, left_out: LeftOut, *, must: bool) -> list[place.Entry]:
    try:
        entries = place.listing(folder, limit=_MOST_NAMES, sizes=False)
    except ToolError:
        if must:
            raise
        left_out.unreadable.append(prefix)
        return []
    if len(entries) == _MOST_NAMES:
        left_out.cut.append(prefix or "./")
    return entries


def _is_ignored(rules: Ignored, entry: place.Entry, relative: str, named: frozenset[str]) -> bool:
    return (entry.is_dir and entry.name in named) or rules.holds(relative, is_dir=entry.is_dir)


def _line(relative: str, entry: place.Entry) -> str:
    return f"{relative}/" if entry.is_dir else relative


def _found(ctx: ToolContext, folder: Path, prefix: str, entry: place.Entry, *, free: bool) -> Found | None:
    if not entry.is_link:
        path = folder / entry.name  # the folder was checked and opened without symlinks
        # rules that end at a secret name do not say what is below it
        permitted = (free and not is_secret(entry.name, folder.name)) or ctx.scope.permits(path, "read")
        return Found(prefix + entry.name, path, entry.is_dir) if permitted else None
    try:
        path = check(ctx.scope, folder, entry.name, "read")
    except ScopeRefused:
        return None
    return Found(prefix + entry.name, path, path.is_dir())
