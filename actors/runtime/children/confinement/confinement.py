"""``Confinement``: which files, resources and network access a child gets; the kernel enforces it."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from actors.runtime.children.confinement import landlock, seccomp
from actors.runtime.children.confinement.confine import Plan
from actors.runtime.children.confinement.mounts import View
from protocol.errors import ChildNotConfined

#: Variables that point into the real home folder.
_OF_HOME = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")


class Limits(Struct, frozen=True):
    """Resource limits: ``memory`` bytes, ``cpu`` seconds and ``file_size`` bytes for each process, and the
    number of ``processes`` at a time. None is no limit.
    """

    memory: int | None = None
    cpu: int | None = None
    processes: int | None = None
    file_size: int | None = None


class Confinement(Struct, frozen=True):
    """The files that a child sees, and what else it may do. All paths are absolute and without symlinks.

    ``readable`` and ``writable`` are files and folders with everything below them; nothing else exists for
    the child. ``denied``, ``hidden`` and ``read_only`` lie below them, and win. The folders around ``denied``
    and ``read_only`` paths cannot be renamed, and those of these paths that do not exist cannot be created.

    ``repositories`` are such paths too, each a ``.git``: a program may make a repository there. Once the last
    program that may has ended, it exists outside as well, without anything that would have git run commands.
    A program that makes a bare repository of a ``writable`` folder is killed, and the repository is undone.

    ``home`` is a folder of the child's own, its HOME, with a folder ``tmp`` that it sees as ``/tmp``.
    ``links`` are symlinks to what it sees: their path, and where they point. Without ``network`` it has no
    sockets but connected pairs.

    Without ``namespaces`` nothing can be ``denied``, ``hidden`` or ``read_only``, and /proc and /tmp do not
    exist.
    """

    home: str
    writable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    network: bool = False
    limits: Limits = Limits()
    namespaces: bool = True

    @property
    def needs_namespaces(self) -> bool:
        """Whether anything below an allowed path is denied."""
        return bool(self.denied or self.hidden or self.read_only or self.repositories)

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The variables of a confined child, given those of an unconfined one."""
        temporary = "/tmp" if self.namespaces else f"{self.home}/tmp"  # noqa: S108 - the child's own
        kept = {name: value for name, value in env.items() if name not in _OF_HOME}
        return {**kept, "HOME": self.home, "TMPDIR": temporary}

    @functools.lru_cache(maxsize=8)  # noqa: B019 - values, and few; a pod's next program mostly has that of the last
    def plain(self) -> Any:
        """The confinement as sent to a warden. Raises ChildNotConfined."""
        if not self.namespaces and self.needs_namespaces:
            raise ChildNotConfined("denied paths inside allowed folders can be enforced only with namespaces")
        if not self.namespaces and landlock.version() < landlock.SCOPES:
            raise ChildNotConfined("without namespaces, kernel 6.12 or later with Landlock is needed")
        if not seccomp.is_known():
            raise ChildNotConfined("programs can be confined only on Linux on x86-64 and 64-bit ARM")
        view = View(
            os.fsencode(self.home),
            _encoded(self.writable),
            _encoded(self.readable),
            _encoded((*self.denied, *self.hidden)),
            _encoded(self.read_only),
            _encoded(sorted(self._pinned())),
            _encoded((*self.denied, *self.read_only, *self.repositories)),
            _encoded(self.repositories),
            tuple((os.fsencode(path), os.fsencode(target)) for path, target in self.links),
        )
        # Only from that version on Landlock keeps it from abstract sockets of others.
        local = landlock.version() >= landlock.SCOPES
        limits = (self.limits.memory, self.limits.cpu, self.limits.processes, self.limits.file_size)
        code = seccomp.filter_of(network=self.network, local_sockets=local)
        return tuple(Plan(self.namespaces, tuple(view), self.network, limits, code))  # type: ignore[arg-type]

    def _pinned(self) -> set[str]:
        """The folders between what is writable and what is denied below it."""
        roots = set(self.writable)
        paths = (*self.denied, *self.read_only, *self.repositories)
        return {folder for path in paths for folder in _folders_above(path, roots)}


def _folders_above(path: str, roots: set[str]) -> Iterator[str]:
    above = [str(each) for each in Path(path).parents]
    if not roots.isdisjoint(above):
        for each in above:
            if each in roots:
                return
            yield each


def _encoded(paths: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(map(os.fsencode, paths))
