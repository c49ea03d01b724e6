"""``ProgramHome``: a folder that programs have for their home, until their pod or its program ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from actors.runtime.children.trees import remove_tree
from actors.runtime.held_folders import hold_folder, taking_unheld
from actors.runtime.in_thread import begin_in_thread, wait_to_the_end
from protocol.errors import ChildNotConfined

#: How the names of homes begin.
PREFIX = "polypod-home-"
#: Seconds after which a process looks again for homes that nobody holds any more, how many entries of the
#: folder it looks at then, and how many it removes.
_AGAIN = 60.0
_MOST_LOOKED_AT, _MOST_REMOVED = 10_000, 32

_looked = -_AGAIN


class ProgramHome:
    """A new folder in the folder of temporary files, which only this user may enter, with a folder ``tmp``.

    It is held by a lock that ends with this process, however that does. Some of those that nobody holds any
    more are removed when one is made.
    """

    def __init__(self, git: bytes = b"") -> None:
        """``git`` is git's configuration for the programs. Raises ChildNotConfined."""
        self.path, self._held = "", -1
        try:
            self.path, self._held = _make()
            Path(self.path, "tmp").mkdir()
            Path(self.path, ".gitconfig").write_bytes(git)
        except OSError as error:
            self.close()
            why = error.strerror or str(error)
            raise ChildNotConfined(
                f"programs cannot be confined to the scope: no home folder can be created for them: {why}",
                hint=f"free some space in {_folder_meant()}, or set TMPDIR to another folder",
            ) from error
        _sweep(Path(self.path).parent)

    def close(self) -> None:
        """Remove it."""
        held, self._held = self._held, -1
        if held >= 0:
            remove_tree(self.path)
            os.close(held)


async def make_home(
    git: bytes = b"", *, left: Callable[[ProgramHome], None] = ProgramHome.close
) -> ProgramHome:
    """Make a home, in a thread. One whose caller is cancelled meanwhile is given to ``left`` once it is made,
    on the loop. Raises ChildNotConfined.
    """
    making = begin_in_thread(ProgramHome, git)
    try:
        return await wait_to_the_end(making)
    except asyncio.CancelledError:
        if not making.cancelled() and making.exception() is None:
            left(making.result())
        raise


def _folder_meant() -> str:
    """The folder of temporary files, in words where no folder can be that."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return "/tmp"  # noqa: S108 - a name for a person


async def close_home(home: ProgramHome) -> None:
    """Remove a home, in a thread, also where the caller is cancelled."""
    await wait_to_the_end(begin_in_thread(home.close))


def _make() -> tuple[str, int]:
    """A new folder, and a descriptor by which it is locked."""
    while True:
        path = os.path.realpath(tempfile.mkdtemp(prefix=PREFIX))
        if (handle := hold_folder(path)) is not None:
            return path, handle


def _sweep(folder: Path) -> None:
    """Remove some of the homes that nobody holds any more."""
    global _looked  # noqa: PLW0603 - of the process
    now = time.monotonic()
    if now - _looked < _AGAIN:
        return
    _looked = now
    removed = 0
    for path in _homes(folder):
        removed += _remove_unheld(path)
        if removed == _MOST_REMOVED:
            return


def _homes(folder: Path) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for _, each in zip(range(_MOST_LOOKED_AT), entries, strict=False):
            if each.name.startswith(PREFIX):
                yield each.path


def _remove_unheld(path: str) -> bool:
    """Whether a home was of this user, and nobody held it."""
    with taking_unheld(path) as taken:
        if taken:
            remove_tree(path)
    return taken
