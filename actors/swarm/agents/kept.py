"""Programs that outlive the process that started them: in a session of their own, with files for pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors.runtime.children.child import ChildEnd, Ladder
from actors.runtime.children.descendants import (
    KILL_WAIT,
    Process,
    descendants,
    find_process,
    in_session,
    send,
    with_variable,
)
from actors.runtime.children.mark import is_running, mark_of, marked
from actors.swarm.agents.projections import EVENTS, replace_file
from actors.swarm.runners.listening import AGENT_LOG
from protocol.errors import ChildNotStarted

#: In an agent's folder: what its program prints, and how much of that is recorded.
OUTPUT, ERRORS, PLACE = "kept.out", "kept.err", "kept.json"
#: Seconds between two looks at a file that is written to, and at processes that are to end.
_LOOK = 0.05
#: Bytes that are read at a time.
_PIECE = 1 << 16


class Place(Struct, frozen=True):
    """A kept program, and up to which byte of its output all is recorded, as of the record ``seq``; then it
    had not yet repeated the words ``sent``.
    """

    pid: int
    born: str
    offset: int = 0
    seq: int = 0
    sent: tuple[str, ...] = ()

    @property
    def lives(self) -> bool:
        """Whether the program lives, and is none that has its number since."""
        return is_running(self.pid, self.born)


#: Waits until what was read is recorded.
Settle = Callable[[], Awaitable[tuple[int, tuple[str, ...]]]]


def read_place(folder: Path) -> Place | None:
    """The program that was kept; None where there is none, or what is there says nothing."""
    try:
        return msgspec.json.decode((folder / PLACE).read_bytes(), type=Place)
    except (OSError, msgspec.DecodeError):
        return None


class KeptPrograms:
    """Stands in the place of the launcher for one agent: what it starts is not ended with us.

    ``settle`` waits until all that was read is recorded, and gives the number of the last record, and the
    words that the program is to repeat yet.
    """

    def __init__(self, folder: Path, settle: Settle, found: Place | None) -> None:
        self._folder, self._settle, self._found = folder, settle, found
        self.child: KeptChild | None = None

    async def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        ladder: Ladder,
        **_: Any,
    ) -> KeptChild:
        """Start a program, or take the one that was found. Raises ChildNotStarted."""
        found = self._found
        process = None
        if found is None:
            process = self._begin(argv, cwd, env)
            found = Place(process.pid, mark_of(process.pid) or "")
            write_place(self._folder, found)
        self.child = KeptChild(argv[0], self._folder, found, process, ladder, self._settle)
        return self.child

    def _begin(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        out, err = (os.open(self._folder / name, flags, 0o600) for name in (OUTPUT, ERRORS))
        try:
            return subprocess.Popen(  # noqa: S603 - what a person asked for
                list(argv),
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            raise ChildNotStarted(f"cannot start {argv[0]}: {error.strerror}") from error
        finally:
            os.close(out)
            os.close(err)


class KeptChild:
    """A program as its life sees it, read from its files. It ends by the ladder where that is asked for."""

    stdin = None

    def __init__(
        self,
        program: str,
        folder: Path,
        place: Place,
        process: subprocess.Popen[bytes] | None,
        ladder: Ladder,
        settle: Settle,
    ) -> None:
        self.program, self.pid, self._born = program, place.pid, place.born
        self._folder, self._process, self._ladder = folder, process, ladder
        self._code: int | None = None
        self._detached = False
        self._stopping: asyncio.Task[None] | None = None
        #: Its processes, as they were seen since it was to end.
        self._seen: list[Process] = []
        self.stdout = _Followed(folder / OUTPUT, place, self, settle)
        self.stderr = _Followed(folder / ERRORS, None, self, settle)

    @property
    def ended(self) -> bool:
        """Whether it has ended, or is none of ours any more."""
        if self._process is not None and self._code is None:
            self._code = self._process.poll()
        return self._detached or not self.lives

    @property
    def lives(self) -> bool:
        """Whether its process is there."""
        if self._process is not None:
            return self._code is None
        return is_running(self.pid, self._born)

    def detach(self) -> None:
        """Let it go on alone."""
        self._detached = True
        if self._process is not None:
            self._process.returncode = self._process.returncode or 0  # nobody waits for its end

    async def wait(self) -> ChildEnd:
        """Wait for its end, and for that of all it has left."""
        while not self.ended:  # noqa: ASYNC110 - the end of what is no child is reported to nobody
            await asyncio.sleep(_LOOK)
        if self._detached:
            return ChildEnd(0)
        if self._stopping is None:
            self.ask_to_stop()
        assert self._stopping is not None
        await asyncio.wait((self._stopping,))
        (self._folder / PLACE).unlink(missing_ok=True)
        return ChildEnd(self._exit_code(), tuple(each.pid for each in self._living()))

    def _exit_code(self) -> int:
        """Its exit code; of a process that is no child of ours the one that its last line gives."""
        if self._code is not None:
            return self._code
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            last = (self._folder / OUTPUT).read_bytes().rstrip(b"\n").rsplit(b"\n", 1)[-1]
            line = msgspec.json.decode(last)
            if line.get("type") == "agent_stopped":
                return int(line.get("code") or 0)
        return -signal.SIGKILL

    def ask_to_stop(self) -> None:
        """End it by its ladder."""
        if self._stopping is None and not self._detached:
            self._stopping = asyncio.get_running_loop().create_task(self._climb())

    async def stop(self) -> ChildEnd:
        """End it by its ladder, and wait for that."""
        self.ask_to_stop()
        return await self.wait()

    async def _climb(self) -> None:
        ladder = self._ladder
        for number, wait in (
            (ladder.request, ladder.request_wait),
            (signal.SIGTERM, ladder.term_wait),
            (signal.SIGKILL, KILL_WAIT),
        ):
            self._look_for_processes()
            if number is not None:
                for each in self._living():
                    send(each, number)
            if await self._wait_until_gone(wait) and not self._look_for_processes():
                return

    def _look_for_processes(self) -> list[Process]:
        """All of it that lives: its session, what has its environment, and what is below these."""
        own = marked(self.pid, self._born) if self._born else None
        # Without it the session may be that of another program, which has its number since.
        found = self._living() if own is None else [*self._living(), own, *in_session(self.pid)]
        log = str(self._folder / EVENTS)
        if os.environ.get(AGENT_LOG) != log:  # else it has started us
            found += with_variable(f"{AGENT_LOG}={log}")
        below = descendants(of=[each.pid for each in found], but={os.getpid()}) if found else []
        self._seen = list(dict.fromkeys([*found, *below]))
        return self._seen

    def _living(self) -> list[Process]:
        """What has been seen of it, and lives."""
        return [each for each in self._seen if find_process(each.pid) == each]

    async def _wait_until_gone(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._living() or not self.ended:
            if loop.time() >= until:
                return False
            await asyncio.sleep(_LOOK / 5)
        return True


class _Followed:
    """A file that a program writes to, as a pipe that it holds: at its end once the program has ended.

    What is read counts as recorded once more is asked for; of its output that is noted.
    """

    def __init__(self, path: Path, place: Place | None, child: KeptChild, settle: Settle) -> None:
        self._path, self._place, self._child, self._settle = path, place, child, settle
        self._offset = 0 if place is None else place.offset
        #: The first line says that the program is up: one that is found again says so again.
        self._first = place is not None and place.offset > 0
        self._buffer = b""

    async def read(self) -> bytes:
        """What was written since, waited for; nothing at its end."""
        if self._first:
            self._first = False
            with self._path.open("rb") as file:
                return file.readline()
        if self._place is not None:
            await self._note_place(self._place)
        while True:
            over = self._child.ended  # before the look, since what came before the end is read before it
            piece = self._next()
            if piece or over:
                return piece
            await asyncio.sleep(_LOOK)

    def _next(self) -> bytes:
        if self._child._detached:  # noqa: SLF001 - of one module
            return b""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            piece = file.read(_PIECE)
        self._offset += len(piece)
        self._buffer = (self._buffer + piece).rpartition(b"\n")[2]
        return piece

    async def _note_place(self, place: Place) -> None:
        seq, sent = await self._settle()
        noted = Place(place.pid, place.born, self._offset - len(self._buffer), seq, sent)
        if noted.offset != place.offset and not self._child._detached:  # noqa: SLF001
            self._place = noted
            with contextlib.suppress(OSError):
                write_place(self._path.parent, self._place)

    async def readline(self, limit: int) -> bytes:
        """A line, also one that nothing ended at the end."""
        while b"\n" not in self._line and len(self._line) < limit:
            piece = await self.read()
            if not piece:
                break
            self._line += piece
        line, end, self._line = self._line.partition(b"\n")
        return line + end

    _line = b""


def write_place(folder: Path, place: Place) -> None:
    """Note how much is recorded, whole or not at all. Raises OSError."""
    replace_file(folder / PLACE, [msgspec.json.encode(place)])
