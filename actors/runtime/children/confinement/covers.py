"""``Covers``: watches what is covered in a child's view, and covers anew what is put in its place.

A mount goes with the file that it was mounted on: who replaces that from outside, as an editor does to save,
uncovers its name. It is covered again about a millisecond later.
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
#: The number of a watch, what happened, a cookie, and the length of the name that follows.
_EVENT = struct.Struct("iIII")
_OF_ITSELF = _ATTRIBUTES | _SELF_DELETED | _SELF_MOVED
_OF_ITS_FOLDER = _MOVED_TO | _CREATED
#: Besides what is watched of the same already.
_ALSO = 0x20000000
_FOLDER = 0x01000000
_NO_SYMLINK = 0x02000000
_READ = 65536

#: The device and number of a file, by which it differs from others of its name; None where there is none.
_Identity = tuple[int, int] | None


class Covers:
    """What a view covers, as it was when the child began."""

    def __init__(self, view: View, reserve: Callable[[Iterable[bytes]], object]) -> None:
        """Watch from now on; ``reserve`` puts something where nothing may be made. Raises OSError."""
        self._view = view
        self._reserve = reserve
        self._namespace = -1
        #: Can be read when something was changed.
        self.changed = call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)
        #: By the number of a watch, what it is on.
        self._watches: dict[int, list[bytes]] = {}
        watched = (*view.denied, *view.read_only, *view.pinned, *view.repositories)
        self._known = {path: self._watch(path) for path in watched}
        for path in view.writable:  # what comes to be in there may be of more than its own folder
            with contextlib.suppress(OSError):
                call("inotify_add_watch", self.changed, path, _OF_ITS_FOLDER | _NO_SYMLINK | _ALSO | _FOLDER)
        #: What could not be reserved.
        self._missing: set[bytes] = set()
        #: What is still to be covered, and what the process that covers was forked for.
        self._waiting: set[bytes] = set()
        self._under_way: set[bytes] = set()
        #: The process that covers, 0 while there is none.
        self._pid = 0

    def begin(self, pid: int) -> None:
        """Begin to cover, in the view that this process has entered. Raises OSError."""
        # Held, since another process may have its number later, and one before has the mounts of all others.
        self._namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Watch nothing any more, once all has ended in the view."""
        os.close(self.changed)
        if self._namespace >= 0:
            os.close(self._namespace)

    def renew(self) -> bool:
        """Begin to cover again what was replaced. False where it has to be tried once more, later."""
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
        """Whether a process covers something."""
        return bool(self._pid)

    def take_end(self, pid: int, code: int) -> bool | None:
        """Whether what the process ``pid`` was to cover is covered; None where it is none of ours."""
        if pid != self._pid or not pid:
            return None
        self._pid = 0
        if code:
            self._waiting |= self._under_way
        return code == 0

    def have_go_on(self, pid: int) -> None:
        """Continue a process that was stopped: a child that may signal the one that covers must not keep it
        from that.
        """
        if pid == self._pid:
            os.kill(pid, signal.SIGCONT)

    def _differing(self) -> set[bytes]:
        return {path for path, known in self._known.items() if _identity(path) != known}

    def _read_gone(self) -> Iterator[bytes]:
        """Read from the kernel what no longer exists, though something of its name and number may."""
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self.changed, _READ):
                at = 0
                while at < len(events):
                    watch, what, _, length = _EVENT.unpack_from(events, at)
                    at += _EVENT.size + length
                    if what & _ENDS:
                        yield from self._watches.pop(watch, ())

    def _watch(self, path: bytes) -> _Identity:
        """Watch what exists by now, or else the folder in which it may be made."""
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
        """Fork a process that covers what waits for it; returns whether that could be done."""
        try:
            pid = os.fork()  # one that enters the namespaces of others may not come back from there
        except OSError:  # the child has all processes that there may be, or its namespace has just ended
            return False
        if pid == 0:
            self._cover(self._waiting)
        self._pid, self._under_way, self._waiting = pid, self._waiting, set()
        return True

    def _cover(self, replaced: set[bytes]) -> None:
        """Cover what waits, in a process of its own, which never returns."""
        code = 1
        try:
            view = self._view
            moved = any(path in view.pinned for path in replaced)  # and with it all below
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
