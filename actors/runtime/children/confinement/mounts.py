"""Builds the file system that a confined program sees: a tree of bind mounts in a mount namespace
of its own.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from actors.runtime.children.confinement.repository import NEW
from actors.runtime.children.kernel import (
    AT_FDCWD,
    FSCONFIG,
    FSMOUNT,
    FSOPEN,
    MOUNT_SETATTR,
    MOVE_MOUNT,
    OPEN_TREE,
    call,
    open_place,
    system_call,
)

_AT_RECURSIVE, _AT_EMPTY_PATH = 0x8000, 0x1000
_CLONE, _CLOSE_ON_EXEC = 1, os.O_CLOEXEC
_MS_REC, _MS_PRIVATE, _DETACH = 0x4000, 1 << 18, 2
#: Flags of move_mount: both ends are descriptors.
_FROM_HERE, _TO_HERE = 0x04, 0x40
_SET_STRING, _CREATE = 1, 6
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
#: Where the tree is assembled: a folder that every system has.
_BASE = b"/proc"
_DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
_LINKS = (
    (b"/dev/fd", b"/proc/self/fd"),
    (b"/dev/stdin", b"/proc/self/fd/0"),
    (b"/dev/stdout", b"/proc/self/fd/1"),
    (b"/dev/stderr", b"/proc/self/fd/2"),
    (b"/dev/ptmx", b"pts/ptmx"),
    (b"/var/tmp", b"/tmp"),
)
_NOT_THERE = FileNotFoundError, NotADirectoryError
#: Tries to mount on a path that is replaced meanwhile.
_TRIES = 20
#: The path leads nowhere, or through a symlink.
_ELSEWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}


class View(NamedTuple):
    """What a program sees, as absolute paths without symlinks. ``denied`` wins, then ``read_only``.

    ``pinned`` are folders that must not be renamed, ``reserved`` paths that must not come to exist, and
    ``repositories`` those of them where a repository may be made. ``links`` are symlinks and their targets.
    """

    home: bytes
    writable: tuple[bytes, ...]
    readable: tuple[bytes, ...]
    denied: tuple[bytes, ...]
    read_only: tuple[bytes, ...]
    pinned: tuple[bytes, ...]
    reserved: tuple[bytes, ...]
    repositories: tuple[bytes, ...]
    links: tuple[tuple[bytes, bytes], ...]

    def with_reserved(self, empty: set[bytes], prepared: set[bytes]) -> View:
        """The view with placeholders at ``empty``: they may be read, so that programs that walk folders go
        on. Repositories can be made at those that are ``prepared``.
        """
        others = {*self.repositories} - prepared  # unknown content, if it has come to exist just now
        denied = (*(each for each in self.denied if each not in empty), *others)
        read_only = (*self.read_only, *(empty - {*self.read_only, *self.repositories}))
        return self._replace(denied=denied, read_only=read_only, repositories=tuple(prepared))


class _Tree(NamedTuple):
    """A mount that is not in its place yet, and its source."""

    place: bytes
    handle: int
    is_folder: bool
    source: bytes = b""
    attributes: int = 0


def new_processes() -> int:
    """A new ``/proc`` of this process's PID namespace, not mounted anywhere yet. Raises OSError."""
    return _new(b"proc", _NO_SETUID | _NO_DEVICES | _NO_EXEC)


def see_processes_alone() -> None:
    """Give up all file systems but the ``/proc`` of this process's PID namespace, so that none stays busy
    because of this process. Requires a mount namespace. Raises OSError.
    """
    call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    _attach(new_processes(), AT_FDCWD, _BASE)
    os.chdir(_BASE)
    _become_root()


def enter_view(view: View, proc: int) -> None:
    """Give up all file systems but the view, with ``proc`` in it, which is taken over. The thread needs a
    mount namespace of its own. Raises OSError.
    """
    call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    trees = sorted((*_make_own(), *_open_all(view)), key=lambda tree: tree.place.count(b"/"))
    _set(proc, _READ_ONLY)
    _attach(_new(b"tmpfs", _NO_SETUID | _NO_DEVICES, mode=b"755"), AT_FDCWD, _BASE)
    base = _Base(os.open(_BASE, os.O_PATH | os.O_CLOEXEC))
    for tree in trees:
        base.put(tree)
    for path, target in (*_LINKS, *view.links):
        base.link(path, target)
    base.deny(view.denied)
    base.put(_Tree(b"/proc", proc, is_folder=True))
    _set(base.handle, _READ_ONLY)
    os.fchdir(base.handle)
    os.close(base.handle)
    _become_root()


def _become_root() -> None:
    """Make the working folder, which must be a mount point, the root, and detach the old root. Raises
    OSError.
    """
    call("syscall", _PIVOT_ROOT[os.uname().machine], b".", b".")
    call("umount2", b".", _DETACH)
    os.chdir("/")


def _make_own() -> Iterator[_Tree]:
    """File systems made for this program alone; others may be mounted in them."""
    yield _Tree(b"/dev/shm", _new(b"tmpfs", _NO_SETUID | _NO_DEVICES, mode=b"1777"), is_folder=True)
    terminals = _new(b"devpts", _NO_SETUID | _NO_EXEC, mode=b"0620", ptmxmode=b"0666")
    yield _Tree(b"/dev/pts", terminals, is_folder=True)


def _open_all(view: View) -> Iterator[_Tree]:
    """Open all trees, before any of them covers the source of another."""
    plain = _NO_SETUID | _NO_DEVICES
    yield _open_tree(view.home + b"/tmp", b"/tmp", plain)
    # The folder that a program sees as /tmp cannot be moved out of its home: the next program needs it.
    for place in (view.home, view.home + b"/tmp", *view.writable, *view.pinned):
        with contextlib.suppress(*_NOT_THERE):
            yield _open_tree(place, place, plain)
    for place in view.readable:
        # What we cannot reach, a child need not.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            yield _open_tree(place, place, plain | _READ_ONLY)
    for place in view.read_only:
        with contextlib.suppress(*_NOT_THERE):
            yield _open_tree(place, place, plain | _READ_ONLY)
    for place in view.repositories:
        yield _open_tree(os.path.join(place, os.fsencode(NEW)), place, plain)
    for name in _DEVICES:
        handle = system_call(OPEN_TREE, AT_FDCWD, b"/dev/" + name, _CLONE | _CLOSE_ON_EXEC)
        _set(handle, _NO_SETUID)
        yield _Tree(b"/dev/" + name, handle, is_folder=False)


def _open_tree(path: bytes, place: bytes, attributes: int) -> _Tree:
    source = open_place(AT_FDCWD, path)
    flags = _CLONE | _CLOSE_ON_EXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    handle = system_call(OPEN_TREE, source, b"", flags)
    _set(handle, attributes, recursive=True)
    is_folder = stat.S_ISDIR(os.fstat(source).st_mode)
    os.close(source)
    return _Tree(place, handle, is_folder, path, attributes)


class _Base:
    """The tree being assembled, at ``handle``: a file system of our own, with others mounted in it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        #: Folders of our own, which nobody else changes; below a mount a symlink may appear at any time.
        self._own = {b""}

    def put(self, tree: _Tree) -> None:
        """Mount a tree in its place, which is created if it does not exist."""
        path = tree.place[1:]
        if self._is_own(path.rpartition(b"/")[0]):
            self._make(self.handle, path, is_folder=tree.is_folder)
            _attach(tree.handle, self.handle, path)
        else:
            self._put_below(tree, path)
        self._own.discard(path)

    def link(self, path: bytes, target: bytes) -> None:
        """Create a symlink, if that is possible."""
        above, _, name = path[1:].rpartition(b"/")
        with contextlib.suppress(OSError):  # it exists, or must not be changed
            if self._is_own(above):
                os.symlink(target, path[1:], dir_fd=self.handle)
                return
            folder = self._place(above, is_folder=True)
            try:
                os.symlink(target, name, dir_fd=folder)
            finally:
                os.close(folder)

    def deny(self, denied: tuple[bytes, ...]) -> None:
        """Cover everything that is denied with something that nobody can read."""
        if not denied:
            return
        # The content of this folder is hidden once the system's /proc covers it.
        self.put(_Tree(b"/proc", _new(b"tmpfs", _NO_SETUID, mode=b"0"), is_folder=True))
        hidden = open_place(self.handle, b"proc")
        self._make(hidden, b"folder", is_folder=True, mode=0)
        self._make(hidden, b"file", is_folder=False, mode=0)
        _set(hidden, _READ_ONLY | _NO_SETUID | _NO_DEVICES | _NO_EXEC)  # as everything made from it
        for path in denied:
            _until_there(functools.partial(self._deny, hidden, path[1:]))
        os.close(hidden)

    def _put_below(self, tree: _Tree, path: bytes) -> None:
        """Mount it inside another mount; it is opened anew if it has been replaced since. Raises OSError."""
        for left in reversed(range(_TRIES)):
            place = self._place(path, is_folder=tree.is_folder)
            try:
                _attach(tree.handle, place)
            except _NOT_THERE:
                if not left or not tree.source:
                    raise
            else:
                return
            finally:
                os.close(place)
            with contextlib.suppress(*_NOT_THERE):
                tree = _open_tree(tree.source, tree.place, tree.attributes)

    def _deny(self, hidden: int, path: bytes) -> None:
        try:
            place = open_place(self.handle, path)
        except _NOT_THERE:
            return
        blank = b"folder" if stat.S_ISDIR(os.fstat(place).st_mode) else b"file"
        handle = system_call(OPEN_TREE, hidden, blank, _CLONE | _CLOSE_ON_EXEC)
        try:
            _attach(handle, place)
        finally:
            os.close(place)

    def _is_own(self, folder: bytes) -> bool:
        """Whether a folder is our own; it is created if possible."""
        if folder in self._own:
            return True
        if not self._is_own(folder.rpartition(b"/")[0]):
            return False
        try:
            os.mkdir(folder, 0o755, dir_fd=self.handle)
        except FileExistsError:
            return False  # it is a mount point, or a symlink
        self._own.add(folder)
        return True

    def _place(self, path: bytes, *, is_folder: bool) -> int:
        """Open a path below a mount, and create it if it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            return open_place(self.handle, path)
        above, _, name = path.rpartition(b"/")
        folder = self._place(above, is_folder=True)
        try:
            self._make(folder, name, is_folder=is_folder)
            return open_place(folder, name)
        finally:
            os.close(folder)

    @staticmethod
    def _make(folder: int, path: bytes, *, is_folder: bool, mode: int = 0o700) -> None:
        with contextlib.suppress(FileExistsError):
            if is_folder:
                os.mkdir(path, mode, dir_fd=folder)
            else:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder))


def _until_there(mount: Callable[[], object]) -> None:
    """Mount on an existing path, which may be replaced from outside after the lookup. Raises OSError."""
    for _ in range(_TRIES):
        try:
            mount()
        except _NOT_THERE as error:
            failed = error
        else:
            return
    raise failed


def cover_again(denied: tuple[bytes, ...], read_only: tuple[bytes, ...]) -> None:
    """Cover what has replaced covered files, in the view that this process has entered.

    Skips what no longer exists, and symlinks, whose targets have other paths. Raises the first OSError, once
    all others are covered.
    """
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    failed: OSError | None = None
    for cover, paths in ((_hide, denied), (_keep, read_only)):
        for path in paths:
            try:
                cover(root, path)
            except OSError as error:
                if error.errno not in _ELSEWHERE:
                    failed = failed or error
    if failed is not None:
        raise failed


def _hide(root: int, path: bytes) -> None:
    place = open_place(root, path[1:])
    if stat.S_ISDIR(os.fstat(place).st_mode):
        blank = _new(b"tmpfs", _READ_ONLY | _NO_SETUID | _NO_DEVICES | _NO_EXEC, mode=b"0")
    else:
        blank = system_call(OPEN_TREE, AT_FDCWD, b"/dev/null", _CLONE | _CLOSE_ON_EXEC)
        _set(blank, _READ_ONLY | _NO_SETUID | _NO_DEVICES | _NO_EXEC)  # no device: it cannot be opened
    _attach(blank, place)


def _keep(root: int, path: bytes) -> None:
    tree = _open_tree(path, path, _READ_ONLY | _NO_SETUID | _NO_DEVICES)
    _attach(tree.handle, open_place(root, path[1:]))


def _new(kind: bytes, attributes: int, **options: bytes) -> int:
    """A new file system that is not mounted yet."""
    made = system_call(FSOPEN, kind, 1)
    try:
        for name, value in options.items():
            system_call(FSCONFIG, made, _SET_STRING, name.encode(), value, 0)
        system_call(FSCONFIG, made, _CREATE, None, None, 0)
        return system_call(FSMOUNT, made, 1, attributes)
    finally:
        os.close(made)


def _set(handle: int, attributes: int, *, recursive: bool = False) -> None:
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    system_call(MOUNT_SETATTR, handle, b"", flags, struct.pack("QQQQ", attributes, 0, 0, 0), 32)


def _attach(handle: int, folder: int, path: bytes = b"") -> None:
    """Put a mount in its place, and take over ``handle``."""
    system_call(MOVE_MOUNT, handle, b"", folder, path, _FROM_HERE | (0 if path else _TO_HERE))
    os.close(handle)
