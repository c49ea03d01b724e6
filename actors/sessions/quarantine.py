"""Writes a damaged session to a file outside the store, as it is."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from actors.runtime.user_folders import make_private
from actors.sessions.answers import wait
from actors.sessions.disk import name_file, store_error
from actors.sessions.jsonl.files import draft_file, file_name
from actors.sessions.jsonl.lines import batch_lines, header_line
from protocol.entries import StoredEntry

if TYPE_CHECKING:
    from actors.sessions.store import SessionStore


def aside_path(session_id: str, folder: Path) -> Path:
    """A path in ``folder`` that does not exist yet."""
    path = folder / file_name(session_id)
    return path if not path.exists() else path.with_name(f"{path.stem}.{time.time_ns()}{path.suffix}")


def keep_aside(store: SessionStore, session_id: str, folder: Path) -> Path:
    """Write a session to a file as it is, without any check; only an entry that damage has split into lines
    becomes one line, with escapes for the line ends. Raises SessionNotFound, StoreError.
    """
    info, path = wait(store.info(session_id)), aside_path(session_id, folder)
    lines = [header_line(session_id, info.pod, info.created_at, info.parent)]
    lines += [batch_lines([_on_one_line(entry)]) for entry in wait(store.read(session_id))]
    try:
        make_private(folder)
        for left in folder.glob(f".{file_name(session_id)}.*"):  # left by a repair that was killed
            left.unlink(missing_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft_file(draft, b"".join(lines), at=time.time_ns(), sync=True):
            name_file(draft, path)
    except OSError as error:
        raise store_error(error, path) from error
    return path


def _on_one_line(entry: StoredEntry) -> StoredEntry:
    return StoredEntry(entry.seq, entry.hash, entry.body.replace(b"\n", b"\\n"))
