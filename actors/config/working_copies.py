"""Whether a folder is a pool's working copy, and of which folder, whose configuration then applies to it."""

from __future__ import annotations

import os
from pathlib import Path

#: The file in which it stands, in git's own folder of the worktree: who works in the copy cannot write there.
_MARK = "polypod-origin"


def mark_copy(copy: Path, origin: Path) -> None:
    """Record that the worktree ``copy`` was made from the folder ``origin``. Raises OSError."""
    (_kept_of(copy / ".git") / _MARK).write_bytes(os.fsencode(origin))


def origin_of(folder: Path) -> Path:
    """The folder that ``folder`` corresponds to if it is in a working copy of a pool; else
    ``folder`` itself.
    """
    top = _top_of(folder)
    origin = None if top is None else _origin(top)
    return folder if origin is None or top is None else origin / folder.relative_to(top)


def history_of(folder: Path) -> Path | None:
    """Where git keeps the history of the repository that ``folder`` is in; None if it is in none."""
    top = _top_of(folder)
    try:
        return None if top is None else _common(top / ".git")
    except (OSError, ValueError):
        return None


def _top_of(folder: Path) -> Path | None:
    """The folder of a repository or worktree that ``folder`` is in."""
    return next((each for each in (folder, *folder.parents) if os.path.lexists(each / ".git")), None)


def _origin(copy: Path) -> Path | None:
    """The folder that a worktree was made from; None where git's own files do not agree, since anybody may
    write such a folder.
    """
    own = copy / ".git"
    try:
        kept = _kept_of(own)
        origin = Path(os.fsdecode((kept / _MARK).read_bytes()))
        pointed = os.path.realpath(kept / _line(kept / "gitdir"))
        of_origin = _common(origin / ".git")
    except (OSError, ValueError):
        return None
    is_owned = pointed == os.path.realpath(own) and kept.parent == of_origin / "worktrees"
    return origin if is_owned else None


def _common(own: Path) -> Path:
    """What git keeps of the whole repository. Raises OSError."""
    if own.is_dir():
        return Path(os.path.realpath(own))
    kept = _kept_of(own)
    try:
        return Path(os.path.realpath(kept / _line(kept / "commondir")))
    except FileNotFoundError:  # a submodule's, or one that was put elsewhere: it is not a worktree
        return kept


def _kept_of(own: Path) -> Path:
    """What git keeps of one worktree, by the file ``.git`` in it. Raises OSError."""
    return Path(os.path.realpath(own.parent / _line(own).removeprefix("gitdir:").lstrip()))


def _line(file: Path) -> str:
    """The path that git has written to a file, which need not be UTF-8. Raises OSError."""
    return os.fsdecode(file.read_bytes()).rstrip("\r\n")
