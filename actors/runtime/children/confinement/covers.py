"""``Covers``: watches the covered files in a child's view, and covers whatever replaces them.

A mount belongs to a file, not to its name. If the file is replaced from outside, as an editor does to save,
its name is no longer covered. It is covered again about a millisecond later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Callable, Iterable, Iterator

from actors.runtime.children.confinement.mounts import View, cover_again
from actors.runtime.children.kernel import call

_CLONE_NEWNS = 0x20000
_ATTRIBUTES, _MOVED_TO, _CREATED, _SELF_DELETED, _SELF_MOVED = 0x4, 0x80, 0x100, 0x400, 0x800
_IGNORED = 0x8000
_ENDS = _SELF_DELETED | _SELF_MOVED | _IGNORED
#: An inotify event: watch descriptor, mask, cookie, length of the name that follows.
_EVENT = struct.Struct("iIII")
_OF_ITSELF = _ATTRIBUTES | _SELF_DELETED | _SELF_MOVED
_OF_ITS_FOLDER = _MOVED_TO | _CREATED
#: IN_MASK_ADD: in addition to what is watched of the same file already.
_ALSO = 0x20000000
_FOLDER = 0x01000000
_NO_SYMLINK = 0x02000000
_READ = 65536

#: Device and inode of a file; None if it does not exist.
_Identity = tuple[int, int] | None


class Covers:
    """The covers of one view, as they were when the child began."""

    def __init__(self, view: View, reserve: Callable[[Iterable[bytes]], object]) -> None:
        """Begin to watch. ``reserve`` creates placeholders for paths that must not come to exist. Raises
        OSError.
        """
        self._view = view
        self._reserve = reserve
        self._namespace = -1
        #: Readable when something has changed.
        self.changed = call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)
        #: The paths of each watch descriptor.
        self._watches: dict[int, list[bytes]] = {}
        watched = (*view.denied, *view.read_only, *view.pinned, *view.repositories)
        self._known = {path: self._watch(path) for path in watched}
        for path in view.writable:  # what is created below may affect more than its own folder
            with contextlib.suppress(OSError):
                call("inotify_add_watch", self.changed, path, _OF_ITS_FOLDER | _NO_SYMLINK | _ALSO | _FOLDER)
        #: Paths that could not be reserved.
        self._missing: set[bytes] = set()
        #: What is still to be covered, and what the process that covers was forked for.
        self._waiting: set[bytes] = set()
        self._under_way: set[bytes] = set()
        #: The process that covers, 0 if there is none.
        self._pid = 0

    def begin(self, pid: int) -> None:
        """Begin to cover, in the view that the process ``pid`` has entered. Raises OSError."""
        # Held open: its pid may be reused later, and a process before it has the mounts of everyone else.
        self._namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop watching, once everything in the view has ended."""
        os.close(self.changed)
        if self._namespace >= 0:
            os.close(self._namespace)

    def renew(self) -> bool:
        """Begin to cover what was replaced. False if this must be tried again later."""
        replaced = {*self._read_gone(), *self._differing()}
        self._missing |= replaced.intersection(self._view.reserved)
        if self._missing:
            with contextlib.suppress(OSError):
                self._reserve(self._missing)
                self._missing = set()
            replaced |= self._differing()
        self._known |= {path: self._watch(path) for path in replaced}
        self._waiting |= replaced
        is_forked = not self._waiting or bool(self._pid) or self._fork()
        return is_forked and not self._missing

    @property
    def is_at_work(self) -> bool:
        """Whether a process is covering something."""
        return bool(self._pid)

    def take_end(self, pid: int, code: int) -> bool | None:
        """Whether the process ``pid`` has covered everything it was to cover; None if it is not one
        of ours.
        """
        if pid != self._pid or not pid:
            return None
        self._pid = 0
        if code:
            self._waiting |= self._under_way
        return code == 0

    def have_go_on(self, pid: int) -> None:
        """Continue the process ``pid`` if it was stopped: a child that may signal the process that covers
        must not be able to hold it up.
        """
        if pid == self._pid:
            os.kill(pid, signal.SIGCONT)

    def _differing(self) -> set[bytes]:
        return {path for path, known in self._known.items() if _identity(path) != known}

    def _read_gone(self) -> Iterator[bytes]:
        """Read from the kernel which paths were replaced or deleted, even if a file of the same name and
        number exists.
        """
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self.changed, _READ):
                at = 0
                while at < len(events):
                    watch, what, _, length = _EVENT.unpack_from(events, at)
                    at += _EVENT.size + length
                    if what & _ENDS:
                        yield from self._watches.pop(watch, ())

    def _watch(self, path: bytes) -> _Identity:
        """Watch the file, or the folder in which it may be created."""
        with contextlib.suppress(OSError):
            watch = call("inotify_add_watch", self.changed, path, _OF_ITSELF | _NO_SYMLINK | _ALSO)
            self._watches.setdefault(watch, []).append(path)
            return _identity(path)
        with contextlib.suppress(OSError):
            call(
                "inotify_add_watch", self.changed, os.path.dirname(path), _OF_ITS_FOLDER | _NO_SYMLINK | _ALSO
            )
        return _identity(path)

    def _fork(self) -> bool:
        """Fork a process that covers what is waiting. False if it could not be forked."""
        try:
            pid = os.fork()  # a process that enters others' namespaces may not be able to return
        except OSError:  # the child has used up all processes, or its namespace has just ended
            return False
        if pid == 0:
            self._cover(self._waiting)
        self._pid, self._under_way, self._waiting = pid, self._waiting, set()
        return True

    def _cover(self, replaced: set[bytes]) -> None:
        """Cover what is waiting, in a process of its own. Never returns."""
        code = 1
        try:
            view = self._view
            moved = any(path in view.pinned for path in replaced)  # and everything below moved with it
            call("setns", self._namespace, _CLONE_NEWNS)
            denied = tuple(path for path in view.denied if moved or path in replaced)
            cover_again(
                (*denied, *(path for path in view.repositories if path in replaced)),
                tuple(path for path in view.read_only if moved or path in replaced),
            )
            code = 0
        finally:
            os._exit(code)


def _identity(path: bytes) -> _Identity:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
