"""Finds what is guarded by its name below folders: secret files, and what steers git or polypod."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import NamedTuple

from actors.runtime.children.confinement.repository import is_unmade
from protocol.guarded import is_secret, owner_of

#: What steers git in a repository: commands that it runs, and where it finds the rest. The second is read
#: once ``config`` says so, which may come after it was written; the last is there in those of other working
#: copies alone.
_STEERS_GIT = ("config", "config.worktree", "hooks", "commondir")
_STEERS_GIT_IF_THERE = "gitdir"
#: A folder with these is a repository to git, whatever it is called.
_OF_REPOSITORY = frozenset({"HEAD", "objects", "refs"})
#: Folders of a repository that hold others.
_REPOSITORIES_WITHIN = ("modules", "worktrees")
#: A folder that was changed so shortly before it was looked at may be changed again without a later time.
_UNSURE_NS = 50_000_000
#: Folders that are looked through at most.
MOST_FOLDERS = 50_000


class TooManyFolders(Exception):  # noqa: N818 - for whoever asked
    """There are too many folders to look through."""


class Guarded(NamedTuple):
    """What was found: what may not be read, and what may not be written."""

    hidden: tuple[str, ...]
    read_only: tuple[str, ...]


class _Folder(NamedTuple):
    """A folder as it was when it was looked at: its state, and names in it."""

    state: tuple[int, int, int]
    looked: int
    guarded: tuple[str, ...]
    folders: tuple[str, ...]
    is_repository: bool

    def is_still(self, found: os.stat_result) -> bool:
        return self.state == _state(found) and self.looked - self.state[1] > _UNSURE_NS


class GuardedFiles:
    """Looks through folders, and again only through those that were changed."""

    def __init__(self) -> None:
        self._known: dict[str, _Folder] = {}

    def find(self, roots: Iterable[str], is_allowed: Callable[[PurePath], bool]) -> Guarded:
        """What is guarded below these. Symlinks are not followed, and names that ``is_allowed`` are not
        hidden. Raises TooManyFolders.
        """
        known: dict[str, _Folder] = {}
        hidden: dict[str, None] = {}
        read_only: list[str] = []
        waiting = list(roots)
        while waiting:
            if len(known) > MOST_FOLDERS:
                raise TooManyFolders
            path = waiting.pop()
            folder = None if path in known else self._look(path)
            if folder is None:
                if path not in known and _could_be_opened(path):
                    hidden[path] = None
                continue
            known[path] = folder
            if folder.is_repository:
                read_only += _steering(path)
            for name in folder.guarded:
                place = f"{path.rstrip('/')}/{name}"
                owner = owner_of(name)
                if owner == "git":
                    read_only += _steering(place)
                elif owner is not None:
                    read_only.append(place)
                elif not is_allowed(PurePath(place)):
                    hidden[place] = None
            below = (f"{path.rstrip('/')}/{name}" for name in folder.folders)
            waiting += [each for each in below if each not in hidden]
        self._known = known
        return Guarded(tuple(hidden), tuple(dict.fromkeys(read_only)))

    def _look(self, path: str) -> _Folder | None:
        try:
            found = os.stat(path, follow_symlinks=False)
            known = self._known.get(path)
            if known is not None and known.is_still(found):
                return known
            looked = time.time_ns()
            with os.scandir(path) as entries:
                names = [(each.name, each.is_dir(follow_symlinks=False)) for each in entries]
        except OSError:
            return None  # a file, or what we may not look into
        around = os.path.basename(path)
        guarded = tuple(name for name, _ in names if owner_of(name) is not None or is_secret(name, around))
        folders = tuple(name for name, is_folder in names if is_folder and owner_of(name) is None)
        is_repository = _OF_REPOSITORY.issubset(name for name, _ in names)
        return _Folder(_state(found), looked, guarded, folders, is_repository)


def _could_be_opened(path: str) -> bool:
    """Whether it is a folder that its owner, who we are, may not look into: a program could let itself."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    )


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, max(found.st_mtime_ns, found.st_ctime_ns), found.st_dev


def _steering(place: str) -> Iterator[str]:
    """What steers git in a ``.git``: itself where it is a file, which says where the repository is."""
    if not os.path.isdir(place) or os.path.islink(place):
        yield place
        return
    if is_unmade(place):
        return  # no repository: its name alone is reserved
    yield from (f"{place}/{name}" for name in _STEERS_GIT)
    if os.path.lexists(path := f"{place}/{_STEERS_GIT_IF_THERE}"):
        yield path
    for within in _REPOSITORIES_WITHIN:
        yield from _repositories(f"{place}/{within}")


def _repositories(folder: str) -> Iterator[str]:
    """What is guarded of all repositories below a folder of git's own."""
    try:
        with os.scandir(folder) as entries:
            below = [each.path for each in entries if each.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in below:
        if os.path.lexists(f"{path}/HEAD"):
            yield from _steering(path)
        else:
            yield from _repositories(path)
