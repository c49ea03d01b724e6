"""Searches the notes of a memory folder, with a cache in SQLite's full-text search that is updated before
each search.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from actors.memory.ledger import Ledger, read_ledger
from actors.memory.notes import Note
from actors.memory.notes_folder import NotesFolder
from actors.memory.staging import SUFFIX, Waiting, read_staged, waiting
from actors.memory.words import words_of
from actors.runtime.user_folders import make_private
from protocol.errors import WireError

#: Raised when the structure of the index changes: an index of another version is rebuilt.
VERSION = 1
#: The most words of a query that are searched for; more add nothing.
_MOST_WORDS = 64
#: Seconds that a search waits for another process that updates the index.
_PATIENCE = 2.0
#: Characters of a snippet that is cut without the index.
_SNIPPET_LENGTH = 200

_MAKE = f"""
CREATE TABLE files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE notes USING fts5(
    path UNINDEXED, kind UNINDEXED, updated UNINDEXED, title, body,
    tokenize = 'porter unicode61 remove_diacritics 2'
);
PRAGMA user_version = {VERSION};
"""
#: A word in the title counts more than one in the body.
_FIND = """
SELECT path, kind, updated, title, snippet(notes, 4, '', '', ' … ', 32)
FROM notes WHERE notes MATCH ? AND (? IS NULL OR kind = ?)
ORDER BY bm25(notes, 0, 0, 0, 4.0, 1.0), path LIMIT ?
"""


class Hit(Struct, frozen=True):
    """A note that was found. ``path`` is its file's in the memory folder; ``staged`` says that it is not
    consolidated yet.
    """

    title: str
    kind: str
    path: str
    snippet: str
    updated: str = ""
    staged: bool = False


def words_in(query: str) -> list[str]:
    """The words of a query, each once, as many as are searched for."""
    found = words_of(query.lower().replace("_", " "))
    return list(dict.fromkeys(found))[:_MOST_WORDS]


def search(memory: NotesFolder, query: str, *, kind: str | None = None, limit: int = 5) -> list[Hit]:
    """The notes that fit ``query`` (any text), best first, including staged ones that are not consolidated
    yet. If there can be no index, the files are read one by one. Raises OSError if the folder cannot be read.
    """
    words = words_in(query)
    if not words or limit < 1 or not memory.folder.is_dir():
        return []
    stamps = _stamps(memory)
    for _ in range(2):
        try:
            return _search_index(memory, stamps, words, kind, limit)
        except sqlite3.Error as error:  # damaged, of another version, or unavailable: rebuilt, once
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                break  # another process updates it, and must not lose it now
            with contextlib.suppress(OSError):
                _path(memory).unlink(missing_ok=True)
        except OSError:
            break
    return _read_through(memory, stamps, words, kind, limit)


def _path(memory: NotesFolder) -> Path:
    return memory.machinery / "index.db"


def _stamps(memory: NotesFolder) -> dict[str, str]:
    """Notes and staged files by their paths in the folder, without consolidated files."""
    try:
        ledger = read_ledger(memory)
    except (OSError, WireError):  # the next reader that may write reports it
        ledger = Ledger()
    stamps = memory.stamps()
    for file in waiting(memory.staging, () if ledger.changes else ledger.consumed):
        stamps[f"{memory.staging.name}/{file.path.name}"] = str(file.size)  # it is written once
    return stamps


def _notes(memory: NotesFolder, name: str) -> list[Note]:
    """The notes in a file: one, or the findings of a staged file; none if it is gone or damaged."""
    try:
        if name.endswith(SUFFIX):
            path = memory.folder / name
            return read_staged(path).notes(Waiting(path.stem, path, 0).date)
        note = memory.note(name)
    except (OSError, WireError):
        return []
    return [] if note is None else [note]


# -- with an index -------------------------------------------------------------------------------


def _search_index(
    memory: NotesFolder, stamps: dict[str, str], words: Sequence[str], kind: str | None, limit: int
) -> list[Hit]:
    make_private(memory.machinery)
    with contextlib.closing(sqlite3.connect(_path(memory), timeout=_PATIENCE, isolation_level=None)) as index:
        _path(memory).chmod(0o600)
        index.execute("PRAGMA synchronous = OFF")  # what a crash destroys is rebuilt
        _renew(index, memory, stamps)
        query = " OR ".join(f'"{word}" *' if len(word) > 2 else f'"{word}"' for word in words)
        rows = index.execute(_FIND, (query, kind, kind, limit)).fetchall()
    return [
        Hit(title, of_kind, path, " ".join(snippet.split()), updated, path.endswith(SUFFIX))
        for path, of_kind, updated, title, snippet in rows
    ]


def _renew(index: sqlite3.Connection, memory: NotesFolder, stamps: dict[str, str]) -> None:
    """Bring the index up to date with the files."""
    version = index.execute("PRAGMA user_version").fetchone()[0]
    if version == VERSION and dict(index.execute("SELECT path, stamp FROM files")) == stamps:
        return
    index.execute("BEGIN IMMEDIATE")
    with index:
        version = index.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _MAKE.split(";\n"):
                index.execute(statement)
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"an index of version {version}")
        known = dict(index.execute("SELECT path, stamp FROM files"))
        for name in known.keys() - {name for name, stamp in stamps.items() if known.get(name) == stamp}:
            index.execute("DELETE FROM files WHERE path = ?", (name,))
            index.execute("DELETE FROM notes WHERE path = ?", (name,))
        for name, stamp in stamps.items():
            if known.get(name) != stamp:
                _add(index, memory, name, stamp)


def _add(index: sqlite3.Connection, memory: NotesFolder, name: str, stamp: str) -> None:
    index.execute("INSERT INTO files VALUES (?, ?)", (name, stamp))
    rows = ((name, note.kind, note.updated, note.title, note.body) for note in _notes(memory, name))
    index.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", rows)


# -- without one ---------------------------------------------------------------------------------


def _read_through(
    memory: NotesFolder, stamps: dict[str, str], words: Sequence[str], kind: str | None, limit: int
) -> list[Hit]:
    found = []
    for name in stamps:
        for note in _notes(memory, name):
            weight = sum((word in note.title.lower()) * 4 + (word in note.body.lower()) for word in words)
            if weight and kind in {None, note.kind}:
                snippet = " ".join(note.body.split())[:_SNIPPET_LENGTH]
                hit = Hit(note.title, note.kind, name, snippet, note.updated, name.endswith(SUFFIX))
                found.append((-weight, name, hit))
    return [hit for _, _, hit in sorted(found, key=lambda each: each[:2])[:limit]]
