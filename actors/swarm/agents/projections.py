"""``Projections``: an agent's files ``meta.json``, ``events.jsonl`` and ``stdout.log``, for other programs.

The session is what counts; the files follow it, and are made anew from it where they cannot. Their formats
are frozen. Lines are whole but for the last one, which may be half written where a process was killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from actors.runtime.held_folders import hold_folder, taking_unheld
from actors.runtime.user_folders import make_private
from actors.swarm.agents.stream_json import StreamJson
from actors.swarm.flat_lines import FlatLines
from protocol.agents import AgentSpec
from protocol.events import Event
from protocol.recordable import UNFIT, plain
from protocol.text import UNDECODABLE

META, EVENTS, STDOUT = "meta.json", "events.jsonl", "stdout.log"
#: What stands behind the name of a file that became too long.
OLDER = ".1"
#: Bytes of a file at which another is begun; one older one is kept.
MOST_BYTES = 16 << 20
#: The version of the files' formats.
_FORMAT = 1
#: Bytes that are read at a time from the end of a file.
TAIL = 64 << 10


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What ``meta.json`` says; written once."""

    agent: AgentSpec
    session_id: str
    store: str
    format: int = _FORMAT


class Projections:
    """The files of one agent. Nothing raises: where a file cannot be written, ``broken`` says so until
    ``rebuild`` has made all anew.
    """

    def __init__(self, folder: Path, meta: Meta, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self._meta = meta
        self._most_bytes = most_bytes
        self._begin()
        #: What kept the files from being written.
        self.broken: OSError | None = None
        self._looked: set[str] = set()
        self._paths = {name: str(folder / name) for name in (EVENTS, STDOUT)}

    def _begin(self) -> None:
        spec = self._meta.agent
        runner = spec.runner if isinstance(spec.runner, str) else spec.runner[0]
        self._flat = FlatLines()
        self._stream = StreamJson(spec.id, self._meta.session_id, spec.cwd, runner)

    def write_meta(self) -> None:
        """Write ``meta.json``, whole or not at all."""
        with self._noting():
            replace_file(self.folder / META, [msgspec.json.encode(self._meta) + b"\n"])

    def write(self, *events: Event) -> None:
        """Add what events say."""
        flat, stream = list[dict[str, Any]](), list[dict[str, Any]]()
        for event in events:
            said = self._lines(event)
            flat += said[0]
            stream += said[1]
        if self.broken is not None:
            return
        with self._noting():
            self._append(EVENTS, flat)
            self._append(STDOUT, stream)

    def follow(self, events: Iterable[Event]) -> None:
        """Stand behind events whose lines are in the files."""
        for event in events:
            self._lines(event)

    def _lines(self, event: Event) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        flat = [{**line, "seq": event.seq} for line in self._flat.of(event)] if event.durable else []
        return flat, self._stream.of(event)

    def rebuild(self, events: Iterable[Event]) -> None:
        """Make all files anew of what is recorded; partial answers are not."""
        self.broken = None
        self._begin()
        both = [self._lines(event) for event in events]
        with self._noting():
            if self.folder.is_symlink():  # what that leads to is none of ours
                self.folder.unlink()
            _make_folder(self.folder)
            self.write_meta()
            replace_file(self.folder / EVENTS, (_encode(line) for flat, _ in both for line in flat))
            replace_file(self.folder / STDOUT, (_encode(line) for _, stream in both for line in stream))
            for name in (EVENTS, STDOUT):
                path = self.folder / name
                path.with_name(name + OLDER).unlink(missing_ok=True)
                if path.stat().st_size > self._most_bytes:
                    path.replace(path.with_name(name + OLDER))

    def are_at(self, seq: int) -> bool:
        """Whether the files are whole, as far as their ends show: the last line is that of entry ``seq``,
        the end of a life, and ``stdout.log`` has its last line.
        """
        try:
            last = last_line(self.folder / EVENTS)
            ends = last is not None and last.get("type") == "agent_stopped" and last.get("seq") == seq
            result = last_line(self.folder / STDOUT)
            return ends and result is not None and result.get("type") == "result" and self._has_meta()
        except (OSError, ValueError):
            return False

    def names_agent(self) -> bool:
        """Whether ``meta.json`` says that this folder is the agent's, with this session."""
        meta, known = read_meta(self.folder), self._meta
        return meta is not None and (meta.agent, meta.session_id) == (known.agent, known.session_id)

    def _has_meta(self) -> bool:
        return read_meta(self.folder) == self._meta

    def remove(self) -> None:
        """Remove the files and their folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.is_symlink():
            with self._noting():
                self.folder.unlink()

    def _append(self, name: str, lines: list[dict[str, Any]]) -> None:
        if not lines:
            return
        path, data = self._paths[name], b"".join(map(_encode, lines))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if name not in self._looked:  # an earlier process may have been killed in the middle of a line
                self._looked.add(name)
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    data = b"\n" + data
            if os.write(descriptor, data) < len(data):
                self._looked.discard(name)
                raise OSError(errno.ENOSPC, "No space left on device", path)
        finally:
            os.close(descriptor)
        if size + len(data) > self._most_bytes:
            os.replace(path, path + OLDER)  # noqa: PTH105 - of texts

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.broken = error


def make_folders(root: Path) -> Path:
    """The folder of a swarm's agents, made where it is not there, for its user alone. Raises OSError."""
    make_private(root)
    return _make_folder(root / "agents")


def reserve_folder(agents: Path, agent_id: str) -> int | None:
    """Make the folder of a new agent, in whatever process first, and hold it: a descriptor, which is closed
    once the agent is recorded. None where the folder is there. Raises OSError.
    """
    path = agents / agent_id
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return None
    return hold_folder(str(path))


def is_unrecorded(folder: Path) -> bool:
    """Whether a folder without an agent is empty: of one that is about to be recorded, or that was to be by a
    process that died, whose folder is removed.
    """
    try:
        if any(folder.iterdir()):
            return False
    except FileNotFoundError:  # another process has removed it
        return True
    except OSError:
        return False
    with taking_unheld(str(folder)) as taken, contextlib.suppress(OSError):
        if taken:
            folder.rmdir()
    return True


def read_meta(folder: Path) -> Meta | None:
    """What ``meta.json`` says; None where it is not there or says nothing that can be read."""
    try:
        return _metas.decode((folder / META).read_bytes())
    except (OSError, *UNDECODABLE):
        return None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of events, the older file's first; what is not a JSON object is passed over."""
    for each in (path.with_name(path.name + OLDER), path):
        with contextlib.suppress(OSError), each.open("rb") as file:
            for raw in file:
                try:
                    line = msgspec.json.decode(raw)
                except UNDECODABLE:
                    continue
                if isinstance(line, dict):
                    yield line


_metas = msgspec.json.Decoder(Meta)


def _make_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def replace_file(path: Path, lines: Iterable[bytes]) -> None:
    """Write a file whole, in the place of what is there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(lines)
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _encode(line: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(line) + b"\n"
    except UNFIT:
        return msgspec.json.encode(plain(line)) + b"\n"


def read_tail(path: Path) -> bytes:
    """The last ``TAIL`` bytes of a file. Raises OSError."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - TAIL))
        return file.read()


def last_line(path: Path) -> dict[str, Any] | None:
    """The last line of a file, or of the older one where there is no newer, which must end there. Raises
    OSError, ValueError.
    """
    there = path if path.exists() else path.with_name(path.name + OLDER)
    tail = read_tail(there)
    if not tail.endswith(b"\n"):
        return None
    line = msgspec.json.decode(tail[:-1].rsplit(b"\n", 1)[-1])
    return line if isinstance(line, dict) else None
