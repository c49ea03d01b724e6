"""Atomic file writes: whole or not at all, readable by the owner alone, synced to the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from actors.runtime.user_folders import make_private
from actors.sessions.disk import sync_folder


def write_whole(path: Path, text: str) -> None:
    """Put ``text`` in the place of what is at ``path``. Raises OSError, and then nothing has changed.

    Only one may write to a path at a time; what a killed process left gives way to the next, as does a pipe
    that somebody has put there.
    """
    make_private(path.parent)
    part = path.with_name(f".{path.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def read_text(path: Path) -> str | None:
    """What a file holds, None where there is none, or a link (nobody is led out of a folder by its files), or
    what is not a file at all, such as a pipe, which would be waited for.

    Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            return None
        raise
    try:
        return data.decode()
    except UnicodeDecodeError:  # another editor's; so nothing of it is lost when it is written again
        return data.decode("latin-1")


def is_text(name: str) -> bool:
    """Whether a file's name is text; one that is not (a name may be any bytes) cannot be reported."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def remove(path: Path) -> None:
    """Take a file away, if it is there. Raises OSError."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)
