"""Writes files atomically: whole or not at all, readable by their owner alone, synced to the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from actors.runtime.user_folders import make_private
from actors.sessions.disk import sync_folder


def write_whole(path: Path, text: str) -> None:
    """Replace the file at ``path`` by one with ``text``. Raises OSError, and then nothing has changed.

    Only one process may write to a path at a time. What a killed process left is replaced, and so is a pipe
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
    """The content of a file. None if it does not exist, is a link (files must not lead out of their folder),
    or is not a regular file: a pipe would be waited for.

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
    except UnicodeDecodeError:  # from another editor; nothing of it is lost when it is written again
        return data.decode("latin-1")


def is_text(name: str) -> bool:
    """Whether a file's name is text; one that is not (a name may be any bytes) cannot be reported."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def remove(path: Path) -> None:
    """Delete a file, if it exists. Raises OSError."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)
