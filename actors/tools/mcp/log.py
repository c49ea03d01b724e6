"""``ServerLog``: what a server says on its standard error, in a private file that stays small."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from actors.runtime.cleaning import cleaned
from actors.runtime.redact import redacted
from actors.runtime.user_folders import make_private

#: Bytes after which the file is begun anew; the one before is kept beside it.
MOST_BYTES = 1 << 20
#: How many lines errors quote, and how many characters of each.
_LAST, _WIDTH = 8, 300


class ServerLog:
    """The lines of one server, without the secrets that it was given."""

    def __init__(self, path: Path | None) -> None:
        """``path`` is None where nothing is kept."""
        self._path = path
        self._last: deque[str] = deque(maxlen=_LAST)
        self._secrets: tuple[str, ...] = ()
        self._written = 0
        self._begun = False

    def hide(self, secrets: frozenset[str]) -> None:
        """Never show these, longest first."""
        self._secrets = tuple(sorted((each for each in secrets if len(each) > 3), key=len, reverse=True))

    def forget(self) -> None:
        """Forget what was said: another life of the server begins."""
        self._last.clear()

    def add(self, line: str) -> None:
        """Keep a line."""
        line = self.clean(cleaned(line.rstrip("\r\n")))
        self._last.append(line if len(line) <= _WIDTH else f"{line[:_WIDTH]}…")
        if self._path is not None:
            self._write(self._path, f"{line}\n".encode())

    def clean(self, text: str) -> str:
        """``text`` without secrets."""
        for each in self._secrets:
            text = text.replace(each, "[redacted]")
        return redacted(text)

    def last_words(self) -> str:
        """The last lines, for an error; empty where there are none."""
        if not self._last:
            return ""
        where = "" if self._path is None else f" (more of it in {self._path})"
        return f"; its last words{where}:\n" + "\n".join(self._last)

    def _write(self, path: Path, data: bytes) -> None:
        """Append, and begin anew where it grows too large. A full disk costs the lines alone."""
        try:
            if not self._begun:
                make_private(path.parent)
                self._begun = True
                self._written = path.stat().st_size if path.exists() else 0
            if self._written + len(data) > MOST_BYTES:
                path.replace(path.with_suffix(".old"))
                self._written = 0
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                self._written += os.write(descriptor, data[:MOST_BYTES])
            finally:
                os.close(descriptor)
        except OSError:
            self._begun = False
