"""Who else has a database open: other processes, of which SQLite says nothing, and other threads."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

from actors.sessions.sqlite.aside import is_last_retired
from actors.sessions.sqlite.watch import FileWatch, identity_of, status_of

#: The bytes of a database that SQLite locks as long as it has it open, and what its header says where it
#: is kept with a log; both by the format of its files.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
_LOGGED_AT, _LOGGED = 18, b"\2\2"


class _Opening:
    """Held while the first connection of a store is opened: whoever looks at another's locks meanwhile would
    drop those that SQLite takes.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()


_opening = _Opening()


def opening() -> threading.Lock:
    """The lock to hold while a first connection is opened."""
    return _opening.lock


def is_lost_elsewhere(watch: FileWatch, database: Path) -> bool:
    """Whether another process has the database open with a log, or an index of it, that is not there: who
    opened the database now would go on without what is in it, or write over it. At the gate, with
    ``opening`` held.
    """
    if status_of(watch.log) is not None and status_of(watch.index) is not None:
        return False
    return not is_last_retired(database) and _is_open_elsewhere(watch, database)


def _is_open_elsewhere(watch: FileWatch, database: Path) -> bool:
    """Whether another process has it open, with a log, as far as that can be seen."""
    if watch.holders(identity_of(database)):
        return False  # by another store of this process, whose locks go with any descriptor of the file
    try:
        descriptor = os.open(database, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.pread(descriptor, len(_LOGGED), _LOGGED_AT) != _LOGGED:
            return False
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
    except OSError as error:
        return error.errno in {errno.EACCES, errno.EAGAIN}
    finally:
        os.close(descriptor)
    return False


def _after_fork_in_child() -> None:
    _opening.lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)
