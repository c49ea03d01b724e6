"""``NotesFolder``: lasting memory on disk: a folder of Markdown notes for people and git, shared by pods and
processes.

``summary``, ``decisions``, ``requests`` and ``knowledge`` contain the notes, a file each; ``staging``
contains what waits for a consolidation. ``.polypod`` is for the runtime: the ledger and the lease of
consolidations, and an index that may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from actors.memory.atomic_files import is_text, read_text, remove, write_whole
from actors.memory.notes import KINDS, Note, read_note
from actors.memory.notes_draft import Change, settled


def stamp(status: os.stat_result) -> str:
    """Identifies a file's state: it differs when the file has changed."""
    return f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_size} {status.st_ino}"


class NotesFolder:
    """A memory folder. Its subfolders may be links; files that are links, or whose names are not text, are
    not notes. Everything here runs in the caller's thread, and needs no lock: whoever writes has the folder's
    lease (``batch.py``).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / "staging"
        #: The runtime's own folder.
        self.machinery = folder / ".polypod"

    def __repr__(self) -> str:
        return f"<NotesFolder {self.folder}>"

    def stamps(self) -> dict[str, str]:
        """The notes' files by their paths in the folder, in order, each with a stamp that changes when the
        file does. Raises OSError.
        """
        found: dict[str, str] = {}
        for kind in sorted(KINDS):
            found.update(sorted(self._stamped(kind)))
        return found

    def _stamped(self, kind: str) -> Iterator[tuple[str, str]]:
        try:
            entries = os.scandir(self.folder / kind)
        except (FileNotFoundError, NotADirectoryError):
            return
        with entries:
            for entry in entries:
                name = entry.name
                if not (name.endswith(".md") and name[0] != "." and is_text(name)):
                    continue
                if entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # deleted at this moment
                        yield f"{kind}/{name}", stamp(entry.stat(follow_symlinks=False))

    def texts(self) -> dict[str, str]:
        """The content of the files. Raises OSError."""
        read = ((name, read_text(self.folder / name)) for name in self.stamps())
        return {name: text for name, text in read if text is not None}

    def notes(self) -> dict[str, Note]:
        """All notes, by path. Raises OSError."""
        return {name: read_note(name, text) for name, text in self.texts().items()}

    def note(self, path: str) -> Note | None:
        """The note at ``path`` (a key of ``stamps``); None if it is gone. Raises OSError."""
        text = read_text(self.folder / path)
        return None if text is None else read_note(path, text)

    def make(self, change: Change) -> None:
        """Make a change that was decided, for the first time or again; a link in its place is replaced.

        Raises OSError.
        """
        path = self.folder / change.path
        now = read_text(path)
        text = settled(change.path, now, change)
        if text is None and now is not None:
            remove(path)
        elif text is not None and text != now:
            write_whole(path, text)
