"""``Recording``: what a command writes: its beginning and end for the model, the whole of it on disk."""

from __future__ import annotations

import os
from pathlib import Path

from actors.runtime.cleaning import Cleaner
from actors.runtime.in_thread import in_thread
from actors.tools.output import cut_mark, split_at, write_new

#: Bytes of output that are kept on disk; what comes later is counted.
KEPT_MOST = 100 << 20
#: Bytes that are gathered before they are written.
_BATCH = 1 << 20


class Recording:
    """Takes a command's output as it comes, however much that is. One task feeds it."""

    def __init__(self, cap: int, directory: Path | None, stem: str) -> None:
        """A look shows ``cap`` bytes of text at most; what is longer is kept in a file of ``directory``."""
        self._cap = cap
        self._file = _Kept(directory, stem, cap)
        self._window = _Window(cap, Cleaner())

    @property
    def kept(self) -> str | None:
        """The name of the file that has the whole output; None where there is none."""
        return self._file.name

    @property
    def news(self) -> int:
        """How many bytes have come since the last look."""
        return self._window.size

    async def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._window.feed(data)
        await self._file.add(data)

    async def look(self) -> str:
        """What has come since the last look, as text; where it was cut, it says so, and what has it all."""
        window = self._window
        head, tail, cleaner = window.texts()
        self._window = _Window(self._cap, cleaner)
        if cleaner.is_binary:
            await self._file.flush(begin=True)
            return f"[{window.size:,} bytes of binary data{self._where()}]\n"
        if not tail:
            await self._file.flush()
            return head
        await self._file.flush(begin=True)
        missing = max(0, window.size - len(head.encode()) - len(tail.encode()))
        return f"{head}{cut_mark(missing, window.size, self._where())}{tail}"

    def _where(self) -> str:
        if self._file.name is None:
            return ""
        return f"; {self._file.part} is in {self._file.name}"


class _Window:
    """What has come since the last look: as text until that is longer than is shown, and always its end."""

    def __init__(self, cap: int, cleaner: Cleaner) -> None:
        self.size = 0
        self._cap = cap
        self._cleaner = cleaner
        self._pieces: list[str] = []
        self._length = 0
        self._is_cut = False
        self._end = bytearray()

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        self._end += data
        if len(self._end) > 8 * self._cap:
            del self._end[: -4 * self._cap]
        if self._is_cut:
            return
        text = self._cleaner.feed(data)
        self._pieces.append(text)
        self._length += len(text)
        self._is_cut = self._length > 2 * self._cap

    def texts(self) -> tuple[str, str, Cleaner]:
        """The beginning and, where it was cut, the end; and what goes on to clean what comes."""
        if not self._is_cut:
            text = "".join((*self._pieces, self._cleaner.flush()))
            fits = len(text.encode()) <= self._cap
            return (text, "", self._cleaner) if fits else (*split_at(text, text, self._cap), self._cleaner)
        after = Cleaner()
        last = after.feed(bytes(self._end)) + after.flush()
        head, tail = split_at("".join(self._pieces), last, self._cap)
        return head, tail or " ", self._cleaner if self._cleaner.is_binary else after


class _Kept:
    """The file that has the whole output, once that is too long to be shown."""

    def __init__(self, directory: Path | None, stem: str, most_in_memory: int) -> None:
        self.name: str | None = None
        #: How much of the output is in the file, in words.
        self.part = "the whole output"
        self._directory = directory
        self._stem = stem
        self._most_in_memory = most_in_memory
        self._waiting = bytearray()
        self._size = 0

    async def add(self, data: bytes) -> None:
        if self._directory is None:
            return
        if self._size + len(data) > KEPT_MOST:
            data, self.part = data[: KEPT_MOST - self._size], f"the first {KEPT_MOST >> 20} MB of the output"
        self._size += len(data)
        self._waiting += data
        if len(self._waiting) > (self._most_in_memory if self.name is None else _BATCH):
            await self.flush(begin=True)

    async def flush(self, *, begin: bool = False) -> None:
        """Write what waits; where there is no file yet, only with ``begin``."""
        if self._directory is None or not self._waiting or (self.name is None and not begin):
            return
        data, self._waiting = self._waiting, bytearray()
        try:
            self.name = await in_thread(_append, self.name, self._directory, self._stem, data)
        except OSError as error:  # the model still gets the cut output, with no file, or one that breaks off
            self._directory, self.part = None, "the beginning of the output"
            if isinstance(error, FileNotFoundError):  # somebody has deleted it
                self.name = None


def _append(name: str | None, directory: Path, stem: str, data: bytearray) -> str:
    """Add to the file, which is made only where it has no name yet: one that is gone had the beginning."""
    if name is None:
        return write_new(directory, stem, data)
    descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "ab") as file:
        file.write(data)
    return name
