"""Lasting memory: a folder of Markdown notes that people read and git holds, shared by pods and processes.

``summary``, ``decisions``, ``requests`` and ``knowledge`` hold the notes, a file each; ``staging`` what
waits to be worked in. ``.polypod`` is the runtime's own: the ledger and the lease of consolidation, and an
index that may be deleted at any time.
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
    """A mark of a file's state: it differs when the file has changed."""
    return f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_size} {status.st_ino}"


class NotesFolder:
    """A memory folder. Its folders may be links; files that are links, or whose names are not text, are
    no notes. Everything here does its work in the caller's thread, and needs no lock: whoever
    writes has the folder's lease (``batch.py``).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / "staging"
        #: What is the runtime's own.
        self.machinery = folder / ".polypod"

    def __repr__(self) -> str:
        return f"<NotesFolder {self.folder}>"

    def stamps(self) -> dict[str, str]:
        """The notes' files by their paths in the folder, in order, each with what changes when the file
        does, whoever changes it. Raises OSError.
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
                    with contextlib.suppress(FileNotFoundError):  # somebody deletes it right now
                        yield f"{kind}/{name}", stamp(entry.stat(follow_symlinks=False))

    def texts(self) -> dict[str, str]:
        """What the files hold. Raises OSError."""
        read = ((name, read_text(self.folder / name)) for name in self.stamps())
        return {name: text for name, text in read if text is not None}

    def notes(self) -> dict[str, Note]:
        """All notes, by path. Raises OSError."""
        return {name: read_note(name, text) for name, text in self.texts().items()}

    def note(self, path: str) -> Note | None:
        """The note at ``path``, as ``stamps`` names it; None where it has gone. Raises OSError."""
        text = read_text(self.folder / path)
        return None if text is None else read_note(path, text)

    def make(self, change: Change) -> None:
        """Make a change that was decided on, once or again; a link in its place gives way to it.

        Raises OSError.
        """
        path = self.folder / change.path
        now = read_text(path)
        text = settled(change.path, now, change)
        if text is None and now is not None:
            remove(path)
        elif text is not None and text != now:
            write_whole(path, text)
