"""Makes disks fail under a store at work, and heals them; by the system's own means if there are any."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Self

from actors.sessions.jsonl.files import Files
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.store import Durability, SessionStore
from bench.crash.fault import Fault
from bench.crash.file_faults import Forked, LogDeleted, Swapped

#: The kinds of stores: scheme and durability.
STORES = ("sqlite-process", "sqlite-power", "jsonl-process", "jsonl-power")
#: The size in bytes of the disk that can be filled.
DISK = 48 << 20


class TooLarge(Fault):
    """No file may grow beyond a limit just above its size: writes are cut short, then fail (EFBIG, and
    SQLITE_IOERR_WRITE).
    """

    name = "cut"

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder = folder
        self._chance = chance

    def __enter__(self) -> Self:
        # In a store of many files only some have grown so far; the tools' own file has not.
        files = [path for path in (self._folder / "disk" / "store").iterdir() if path.is_file()]
        size = max((self._chance.choice(files).stat().st_size for _ in range(2)), default=0)
        calls = (self._folder / "calls").stat().st_size
        self._set(max(size + self._chance.randrange(6000), calls + 3000))
        return self

    def __exit__(self, *_: object) -> None:
        self._set(resource.RLIM_INFINITY)

    def _set(self, limit: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


class Full(Fault):
    """The disk has space for a few pages only (ENOSPC, short writes, SQLITE_FULL)."""

    name = "full"

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._ballast = folder / "disk" / "ballast"
        self._chance = chance

    def __enter__(self) -> Self:
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        status = os.fstatvfs(descriptor)
        free = status.f_bavail * status.f_frsize
        with contextlib.suppress(OSError):  # the store was quicker, and the disk is completely full
            os.posix_fallocate(descriptor, 0, max(4096, free - 4096 * self._chance.randrange(5)))
        os.close(descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        self._ballast.unlink()


class Gone(Fault):
    """The folder of the store is moved away, and later back (ENOENT)."""

    name = "gone"

    def __init__(self, folder: Path) -> None:
        self._here = folder / "disk" / "store"
        self._there = folder / "disk" / "moved"

    def __enter__(self) -> Self:
        self._here.rename(self._there)
        return self

    def __exit__(self, *_: object) -> None:
        self._there.rename(self._here)


class FailingFiles(Files, Fault):
    """Operations of a JSON-lines store fail at random with EIO or ENOSPC, writes after some bytes."""

    name = "eio"

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._on = False
        self.hits = 0

    def __enter__(self) -> Self:
        self._on, self.hits = True, 0
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False

    def open(self, path: str | Path, flags: int, mode: int = 0o600) -> int:
        """Open, or fail."""
        self._maybe_fail(0.1, path)
        return super().open(path, flags, mode)

    def write(self, descriptor: int, data: bytes) -> int:
        """Write all, or only a part, or fail."""
        self._maybe_fail(0.3)
        if self._on and self._chance.random() < 0.5:
            self.hits += 1
            data = data[: self._chance.randrange(1, len(data) + 1)]
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Sync, or fail."""
        self._maybe_fail(0.5)
        super().sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Truncate, or fail."""
        self._maybe_fail(0.5)
        super().truncate(descriptor, size)

    def sync_folder(self, descriptor: int) -> None:
        """Sync, or fail."""
        self._maybe_fail(0.3)
        super().sync_folder(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Link, or fail."""
        self._maybe_fail(0.3, target)
        super().link(source, target)

    def _maybe_fail(self, share: float, path: str | Path | None = None) -> None:
        if self._on and self._chance.random() < share:
            self.hits += 1
            number = self._chance.choice((errno.EIO, errno.ENOSPC))
            raise OSError(number, os.strerror(number), path and str(path))


#: The faults, by their names in tables.
FAULTS = (
    TooLarge.name,
    Full.name,
    Gone.name,
    FailingFiles.name,
    LogDeleted.name,
    Swapped.name,
    Forked.name,
)


def kinds(store: str) -> list[str]:
    """The faults that a kind of store can be tested with here."""
    fit = {
        FailingFiles.name: store.startswith("jsonl"),
        Full.name: may_mount(),
        LogDeleted.name: store.startswith("sqlite"),
    }
    return [kind for kind in FAULTS if fit.get(kind, True)]


def of(kind: str | None, folder: Path, chance: random.Random) -> Fault | None:
    """The fault of that kind for the store in a folder."""
    make: dict[str, Callable[[], Fault]] = {
        TooLarge.name: lambda: TooLarge(folder, chance),
        Full.name: lambda: Full(folder, chance),
        Gone.name: lambda: Gone(folder),
        FailingFiles.name: lambda: FailingFiles(chance),
        LogDeleted.name: lambda: LogDeleted(folder, chance),
        Swapped.name: lambda: Swapped(folder, chance),
        Forked.name: lambda: Forked(chance),
    }
    return None if kind is None else make[kind]()


def heal(folder: Path) -> None:
    """End the fault that a killed process has left behind."""
    disk = folder / "disk"
    (disk / "ballast").unlink(missing_ok=True)
    if (disk / "moved").exists():
        (disk / "moved").rename(disk / "store")
    for saved in (folder / "backup").glob("*.jsonl"):  # complete a copy that the kill interrupted
        target = disk / "store" / saved.name
        if target.exists() and target.stat().st_size < saved.stat().st_size:
            shutil.copyfile(saved, target)


def open_store(kind: str, folder: Path, fault: Fault | None = None) -> SessionStore:
    """Open the store in a folder."""
    scheme, _, word = kind.partition("-")
    durability: Durability = "power" if word == "power" else "process"
    place = folder / "disk" / "store"
    if scheme == "sqlite":
        return SQLiteStore(place / "pods.db", durability)
    return JsonLinesStore(place, durability, files=fault if isinstance(fault, FailingFiles) else Files())


@cache
def may_mount() -> bool:
    """Whether this user may mount a small disk, which takes privileges."""
    with tempfile.TemporaryDirectory(prefix="polypod-crash-") as folder:
        made = mount(Path(folder))
        if made:
            unmount(Path(folder))
        return made


def mount(folder: Path) -> bool:
    """Mount a small disk at ``folder``; False if this user may not."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def unmount(folder: Path) -> None:
    """Unmount the small disk."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
