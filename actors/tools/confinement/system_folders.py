"""The folders in which a system keeps its programs, and what these need."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from protocol.guarded import is_secret

_FOLDERS = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt"),
    *("/nix/store", "/gnu/store", "/run/current-system", "/sys/devices/system/cpu"),
)
#: Of a folder of programs, what is beside it and belongs to them.
_BESIDE = ("lib", "lib64", "libexec", "include")
_OF_PROGRAMS = frozenset({"bin", "sbin", "shims", "scripts"})
#: Folders that hold more than programs and what these need.
_BROAD = (".local",)
_RESOLVER = "/etc/resolv.conf"


class System(NamedTuple):
    """What programs of the system may read, what of it they may not, and the symlinks that lead to it."""

    readable: tuple[str, ...]
    hidden: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def system_folders(search_path: str) -> System:
    """The system's folders, and those of a PATH with what belongs to the programs there."""
    return _found(search_path, os.stat("/etc").st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _found(search_path: str, changed: int) -> System:  # noqa: ARG001 - the time says when to look again
    wanted = [*_FOLDERS, _RESOLVER, *_of_programs(search_path)]
    links: dict[str, str] = {}
    places = {place: None for each in wanted if (place := _follow(each, links)) is not None}
    readable = [each for each in places if not any(_is_below(each, other) for other in places)]
    hidden = [*_kept_from_others("/etc"), *_secrets(each for each in readable if each not in _FOLDERS)]
    kept = {path: to for path, to in links.items() if not any(_is_below(path, each) for each in readable)}
    return System(tuple(readable), tuple(hidden), tuple(kept.items()))


def _of_programs(search_path: str) -> Iterator[str]:
    # By os.path, since Path raises where nobody knows the home, or a folder is closed to us.
    home = Path(os.path.expanduser("~"))
    for entry in dict.fromkeys(search_path.split(os.pathsep)):
        folder = Path(entry)
        if not folder.is_absolute() or not os.path.isdir(folder):
            continue
        yield entry
        around = folder.parent
        if folder.name.lower() not in _OF_PROGRAMS or around == Path("/"):
            continue
        if around == home or around in home.parents or around.name in _BROAD:
            yield from (str(around / name) for name in _BESIDE)
            yield from _targets(folder)
        else:
            yield str(around)
            yield from _targets(folder)


def _targets(folder: Path) -> Iterator[str]:
    """Where symlinks of a folder of programs lead: to the programs' own folders."""
    try:
        names = os.listdir(folder)
    except OSError:  # its programs can be run, and not be listed
        return
    for name in names:
        if os.path.islink(folder / name):
            target = Path(os.path.realpath(folder / name))
            if target.parent.name in _OF_PROGRAMS and len(target.parts) > 3:
                yield str(target.parent.parent)


def _follow(path: str, links: dict[str, str]) -> str | None:
    """Where a path leads, None where it is not there; the symlinks on the way are added to ``links``."""
    if not os.path.exists(path):
        return None
    parts = list(Path(path).parts[1:])
    at = ""
    while parts:
        step = f"{at}/{parts.pop(0)}"
        if os.path.islink(step):
            links[step] = target = os.readlink(step)
            whole = os.path.normpath(os.path.join(at or "/", target))
            parts = [*Path(whole).parts[1:], *parts]
            at = ""
        else:
            at = step
    return at


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")


def _kept_from_others(folder: str) -> Iterator[str]:
    """What root alone, or a group, may read: programs are not to have it for being started by root."""
    try:
        with os.scandir(folder) as entries:
            found = [(each.path, each.stat(follow_symlinks=False).st_mode) for each in entries]
    except OSError:
        return
    for path, mode in found:
        if stat.S_ISLNK(mode):
            continue
        if not mode & stat.S_IROTH:
            if os.access(path, os.R_OK):
                yield path
        elif stat.S_ISDIR(mode):
            yield from _kept_from_others(path)


def _secrets(folders: Iterable[str]) -> Iterator[str]:
    """What is secret by its name directly in these, where programs keep what they log in by."""
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        yield from (f"{folder}/{name}" for name in names if is_secret(name, os.path.basename(folder)))
