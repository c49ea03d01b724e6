"""Linux system calls that Python has no function for, made through the C library."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys

_PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
_PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47

_IGNORE = 1
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02

#: Instead of a descriptor: paths are absolute.
AT_FDCWD = -100
_NO_SYMLINKS, _BENEATH = 0x04, 0x08

#: System calls that the C library may not know, by number: since these they are the same on every
#: architecture.
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, CLOSE_RANGE = 428, 429, 430, 431, 432, 436
_OPENAT2, MOUNT_SETATTR = 437, 442
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
#: Looked up once, for all forks of this process.
_functions = {
    name: getattr(_libc, name)
    for name in (
        *("syscall", "prctl", "unshare", "setns", "mount", "umount2", "capset"),
        *("inotify_init1", "inotify_add_watch", "signal"),
    )
    if _libc is not None
}


def call(name: str, *arguments: int | bytes | None) -> int:
    """Call a function of the C library that takes 32-bit numbers and buffers, and return its result. Raises
    OSError.
    """
    result = int(_functions[name](*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def system_call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call by its number, and return its result. Raises OSError."""
    return call("syscall", number, *arguments)


def open_place(folder: int, path: bytes) -> int:
    """Open a path without following symlinks on the way: any symlink was put there afterwards. At its end,
    the symlink itself is opened. Raises OSError.
    """
    beneath = 0 if folder == AT_FDCWD else _BENEATH
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, 0, _NO_SYMLINKS | beneath)
    return system_call(_OPENAT2, folder, path, how, len(how))


def forget_children() -> None:
    """Have the children of this process reaped by the kernel.

    ``signal.signal`` would do so too, but makes enumeration members of its arguments, and a process that was
    just forked pays for each page that it touches.
    """
    _functions["signal"](int(signal.SIGCHLD), ctypes.c_void_p(_IGNORE))


def take_in_orphans() -> None:
    """Become a subreaper: the parent of all descendants whose own parent ends."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def go_on_at_end_of_parent() -> None:
    """Have the kernel send this process SIGCONT when the thread that forked it ends."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def free_range(descriptor: int, start: int, end: int) -> None:
    """Free the disk space of a range of a file, which then reads as zeros; its length stays. Does nothing on
    a file system that cannot do that.
    """
    if _libc is not None:
        allocate = getattr(_libc, "fallocate64", None) or _libc.fallocate
        offset, length = ctypes.c_int64(start), ctypes.c_int64(end - start)
        allocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, offset, length)
