"""Undoes bare git repositories that a confined program has made of ordinary folders.

Git uses such a folder as a repository if its ``.git`` is missing or broken, and runs what its settings say.
The names in it cannot be reserved, since they are ordinary ones. So the repository is undone as soon as it is
seen.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from actors.runtime.children.kernel import AT_FDCWD, open_place


class Planted:
    """Folders that were not repositories when a program began."""

    def __init__(self, folders: Iterable[bytes]) -> None:
        self.folders = tuple(each for each in folders if not _is_repository(each))

    def undo(self) -> bool:
        """Undo what has made any of them a repository. Returns whether there was one."""
        planted = [each for each in self.folders if _is_repository(each)]
        for each in planted:
            with contextlib.suppress(OSError):
                folder = open_place(AT_FDCWD, each)
                try:
                    os.unlink("HEAD", dir_fd=folder)
                finally:
                    os.close(folder)
        return bool(planted)


def _is_repository(folder: bytes) -> bool:
    try:
        head = os.lstat(folder + b"/HEAD")
    except OSError:
        return False
    if stat.S_ISDIR(head.st_mode):
        return False
    if os.path.lexists(folder + b"/commondir"):
        return True
    return os.path.lexists(folder + b"/objects") and os.path.lexists(folder + b"/refs")
