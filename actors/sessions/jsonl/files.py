"""Reads and writes a session's file: created whole, appended to, and never changed before its end."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, unquote

from actors.sessions.disk import name_file
from actors.sessions.jsonl.lines import Header, LineReader, parse_beginning, parse_header
from protocol.entries import Head
from protocol.errors import SessionCorrupt, StoreError

SUFFIX = ".jsonl"
_TAIL = 4 << 10
#: The most bytes at a file's end that are read to find its last entry.
_LONG = 256 << 10


class Files:
    """Changes the store's files, by system calls. Another object may take its place, to watch the files or to
    fail as a disk does. Raises OSError.
    """

    def open(self, path: str | Path, flags: int, mode: int = 0o600) -> int:
        """Open a descriptor that other programs do not inherit, without waiting for a pipe in a
        file's place.
        """
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)

    def write(self, descriptor: int, data: bytes) -> int:
        """Write, and return how many of the bytes were written: one at least."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        """Truncate a file."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Make what was written durable."""
        os.fdatasync(descriptor)

    def sync_folder(self, descriptor: int) -> None:
        """Make the names in a folder durable."""
        os.fsync(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Give a file another name."""
        name_file(source, target)


#: The default: plain system calls.
FILES = Files()


class Ends(NamedTuple):
    """Both ends of a session's file.

    ``start`` is where its entries begin, ``head`` the last sound one, ``sound`` where that ends, and ``size``
    where the file does. ``inode`` and ``changed`` (nanoseconds) are the system's.
    """

    header: Header
    start: int
    head: Head | None
    sound: int
    size: int
    inode: int
    changed: int


def file_name(session_id: str) -> str:
    """The name of a session's file; whatever the id is, the file is in the store's folder."""
    name = quote(session_id, safe="")
    return ("%2E" + name[1:] if name.startswith(".") else name) + SUFFIX


def session_of(name: str) -> str | None:
    """The session that a file of that name belongs to, None for other files, including names that are not
    text.
    """
    ours = name.endswith(SUFFIX) and not name.startswith(".") and name.isascii()
    return unquote(name[: -len(SUFFIX)]) if ours else None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A session's file, open for reading. Raises OSError, and StoreError if something else is in its place:
    opening a pipe would wait for a writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreError(f"cannot use {path}: it is not a regular file", hint="move it away")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_ends(path: Path, upto: int | None = None) -> Ends:
    """Read both ends of a file, or of its first ``upto`` bytes.

    Raises OSError, and StoreError if it is not a session's.
    """
    with opened(path) as file:
        line = file.readline()
        header = parse_header(line, str(path))
        if header is None:
            raise StoreError(
                f"cannot use {path}: its first line is not a session's header",
                hint="polypod fsck --repair sets it aside",
            )
        status = os.fstat(file.fileno())
        size = status.st_size if upto is None else min(upto, status.st_size)
        head, sound = _last_sound(file, len(line), size)
    return Ends(header, len(line), head, sound, size, status.st_ino, status.st_mtime_ns)


def none_is_whole(session_id: str) -> SessionCorrupt:
    """The error for a file without a single complete batch."""
    return SessionCorrupt(session_id, 1, "it has no complete entry")


def _last_sound(file: BinaryIO, start: int, size: int) -> tuple[Head | None, int]:
    """The last sound entry of a file and where it ends, searched from the file's end."""
    span = _TAIL
    while True:
        begin = max(start, size - span)
        file.seek(begin)
        if begin > start:
            begin += len(file.readline())  # the rest of a line
        reader = LineReader()
        reader.feed(file.read(size - begin))
        if reader.head is not None or begin <= start:
            return reader.head, begin + reader.sound
        if span >= _LONG and (found := _long_end(file, start, size)):
            return found
        span *= 8


def _long_end(file: BinaryIO, start: int, size: int) -> tuple[Head, int] | None:
    """The last sound entry if the last line is a whole batch, and too long to be read."""
    end = _line_end(file, start, size)
    begin = _line_end(file, start, end - 1)
    file.seek(begin)
    beginning = parse_beginning(file.read(_TAIL))
    file.seek(max(start, end - 2))
    if beginning is None or beginning.more or file.read(2) != b"}\n":
        return None
    return beginning.head, end


def _line_end(file: BinaryIO, start: int, end: int) -> int:
    """Where the last line between ``start`` and ``end`` ends; ``start`` if none does."""
    while end > start:
        begin = max(start, end - _LONG)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return start


def write_all(files: Files, descriptor: int, data: bytes, end: int) -> None:
    """Append ``data`` to a file of ``end`` bytes. If that fails, restore the file as far as the disk allows,
    and raise OSError.
    """
    try:
        put_all(files, descriptor, data)
    except OSError:
        with contextlib.suppress(OSError):  # the first error says more, and the next append checks again
            files.truncate(descriptor, end)
        raise


def put_all(files: Files, descriptor: int, data: bytes) -> None:
    """Write all of ``data`` at the current position. Raises OSError, with any part of it written."""
    written = files.write(descriptor, data)
    while written < len(data):  # a short write: the next one probably says why
        written += files.write(descriptor, data[written:])


@contextlib.contextmanager
def draft_file(draft: Path, data: bytes, *, at: int, sync: bool, files: Files = FILES) -> Iterator[None]:
    """A file ``draft`` with all of ``data``, changed last ``at`` (nanoseconds), that exists within the
    context. Link it to its place: there it appears whole or not at all. Raises OSError.
    """
    descriptor = files.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(files, descriptor, data, 0)
        os.utime(descriptor, ns=(at, at))
        if sync:
            files.sync(descriptor)
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            draft.unlink()
