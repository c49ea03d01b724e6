"""Programs that outlive the process that started them: in a session of their own, with files for pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

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
from actors.runtime.children.kernel import free_range
from actors.runtime.children.mark import is_running, mark_of, marked
from actors.swarm.agents.projections import EVENTS, TAIL, read_tail, replace_file
from actors.swarm.runners.listening import AGENT_LOG
from protocol.errors import AgentFailed, ChildNotStarted
from protocol.events import AgentOutput

#: In an agent's folder: what its program prints, and how much of that is recorded.
OUTPUT, ERRORS, PLACE = "kept.out", "kept.err", "kept.json"
#: Seconds between two looks at a file that is written to, and at processes that are to end.
_LOOK = 0.05
#: Bytes that are read at a time.
_PIECE = 1 << 16
#: Bytes that a file may grow by without being recorded.
_MOST_UNRECORDED = 1 << 28
#: Bytes of what is recorded that are freed at once.
_STEP = 1 << 22


class Place(Struct, frozen=True):
    """A kept program, and up to which byte of its output (``offset``) and of its standard error (``errors``)
    all is recorded, as of the record ``seq``; then it had not yet repeated the words ``sent``. It listens
    on the socket ``inbox``, if that is known.
    """

    pid: int
    born: str
    offset: int = 0
    seq: int = 0
    sent: tuple[str, ...] = ()
    errors: int = 0
    inbox: str = ""

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

    def __init__(self, folder: Path, inbox: Path, settle: Settle, found: Place | None) -> None:
        self._folder, self._inbox, self._settle, self._found = folder, inbox, settle, found
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
            try:
                process = self._begin(argv, cwd, env)
                found = Place(process.pid, mark_of(process.pid) or "", inbox=str(self._inbox))
                write_place(self._folder, found)
            except OSError as error:
                if process is not None:  # nobody would find it again
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                raise ChildNotStarted(f"cannot start {argv[0]}: {error.strerror}") from error
        self.child = KeptChild(argv[0], self._folder, found, process, ladder, self._settle)
        return self.child

    def _begin(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        with self._file(OUTPUT) as out, self._file(ERRORS) as err:
            return subprocess.Popen(  # noqa: S603 - what a person asked for
                list(argv),
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._folder / name, flags, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


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
        self._place = place
        self._folder, self._process, self._ladder = folder, process, ladder
        self._settle = settle
        self._code: int | None = None
        self._detached = self._over = self._is_flooding = False
        self._stopping: asyncio.Task[None] | None = None
        #: Its processes, as they were seen since it was to end.
        self._seen: list[Process] = []
        found = process is None
        self.stdout = _Followed(folder / OUTPUT, place.offset, self, found=found, greets=True)
        self.stderr = _Followed(folder / ERRORS, place.errors, self, found=found)

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

    @property
    def is_read(self) -> bool:
        """Whether what it prints is of any use yet."""
        return not (self._detached or self._is_flooding)

    async def note_recorded(self, output: _Followed) -> None:
        """Wait until all that was read of one of its files is recorded, and note how much that is. What is
        recorded of its output and not yet noted so would be taken for something new by who finds it.
        """
        seq, sent = await self._settle()
        output.note_settled()
        out, errors = self.stdout, self.stderr
        is_new = (out.recorded, errors.recorded) != (out.noted, errors.noted)
        if is_new and out.is_settled and not (self._detached or self._over):
            with contextlib.suppress(OSError):  # what cannot be noted is not freed
                noted = {"offset": out.recorded, "errors": errors.recorded, "seq": seq, "sent": sent}
                write_place(self._folder, replace(self._place, **noted))
                out.free_noted()
                errors.free_noted()

    def check_growth(self) -> None:
        """Raise AgentFailed where it prints so much faster than that is recorded that a disk would fill."""
        if self.is_read and (self.stdout.is_flooded() or self.stderr.is_flooded()):
            self._is_flooding = True
        if self._is_flooding and not self.ended:  # whoever of the two has noticed it
            raise AgentFailed(
                f"{self.program} has printed {_MOST_UNRECORDED >> 20} MB that could not be recorded yet",
                hint="make it print less, or print complete lines",
            )

    def detach(self) -> None:
        """Let it go on alone."""
        self._detached = True
        if self._process is not None:
            self._process.returncode = self._process.returncode or 0  # nobody waits for its end

    async def wait(self) -> ChildEnd:
        """Wait for its end, and for that of all it has left."""
        while not self.ended:  # noqa: ASYNC110 - the end of what is not a child is reported to nobody
            await asyncio.sleep(_LOOK)
        if self._detached:
            return ChildEnd(0)
        if self._stopping is None:
            self.ask_to_stop()
        assert self._stopping is not None
        await asyncio.wait((self._stopping,))
        self._over = True
        (self._folder / PLACE).unlink(missing_ok=True)
        end = ChildEnd(self._exit_code(), tuple(each.pid for each in self._living()))
        if self._is_flooding:  # nobody reads the rest
            for name in (OUTPUT, ERRORS):
                with contextlib.suppress(OSError):
                    os.truncate(self._folder / name, 0)
        return end

    def _exit_code(self) -> int:
        """Its exit code; of a process that is not a child of ours the one that its last line gives."""
        if self._code is not None:
            return self._code
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            last = read_tail(self._folder / OUTPUT).rstrip(b"\n").rsplit(b"\n", 1)[-1]
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

    What is read counts as recorded once more is asked for. Its space is freed once that is noted, so that a
    program may print for as long as it likes; places in the file stay what they are.
    """

    def __init__(
        self, path: Path, offset: int, child: KeptChild, *, found: bool, greets: bool = False
    ) -> None:
        self._path, self._child, self._found = path, child, found
        self._begin = self._offset = offset
        #: Up to where it is recorded, and noted so; lines are whole there.
        self.recorded = self.noted = offset
        #: Whether nothing was read that is not recorded. What an earlier reader has recorded behind
        #: ``offset`` is not known.
        self.is_settled = not found
        #: The first line says that the program is up: one that is found again says so again.
        self._first = greets and offset > 0
        #: Bytes that were read of a line without its end.
        self._unended = 0
        self._freed = 0
        self._most: int | None = None

    async def read(self) -> bytes:
        """What was written since, waited for; nothing at its end. Raises AgentFailed where the program
        prints faster than that can be recorded.
        """
        if self._first:
            self._first = False
            with self._path.open("rb") as file:
                return file.readline()
        await self._child.note_recorded(self)
        while True:
            over = self._child.ended  # before the look, since what came before the end is read before it
            self._child.check_growth()
            piece = self._next()
            if piece or over:
                return piece
            await asyncio.sleep(_LOOK)

    def _next(self) -> bytes:
        if not self._child.is_read:
            return b""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            piece = file.read(_PIECE)
        if piece:
            self._offset += len(piece)
            end = piece.rfind(b"\n") + 1
            self._unended = len(piece) - end if end else self._unended + len(piece)
            self.is_settled = False
        return piece

    def note_settled(self) -> None:
        """Note that all that was read is recorded."""
        self.recorded = self._offset - self._unended
        self.is_settled = not self._found or self._offset > self._begin

    def free_noted(self) -> None:
        """Free the space of what is noted as recorded, but for the first line and the last ones, which are
        read again. Raises OSError.
        """
        self.noted = self.recorded
        end = self.noted - TAIL
        if end - self._freed < _STEP:
            return
        with self._path.open("r+b") as file:
            start = max(self._freed, len(file.readline()))
            if start < end:
                free_range(file.fileno(), start, end)
        self._freed = end

    def is_flooded(self) -> bool:
        """Whether more than may be has come that is not noted as recorded, besides what a program that was
        found had printed while nobody read it.
        """
        try:
            unrecorded = self._path.stat().st_size - self.noted
        except OSError:
            return False
        if self._most is None:
            self._most = (unrecorded if self._found else 0) + _MOST_UNRECORDED
        return unrecorded > self._most

    async def readline(self, limit: int) -> bytes:
        """A line, also one that nothing ended at the end."""
        while b"\n" not in self._line and len(self._line) < limit:
            self._unended = len(self._line)  # of a line that is longer the pieces before are recorded
            piece = await self.read()
            if not piece:
                break
            self._line += piece
        line, end, self._line = self._line.partition(b"\n")
        return line + end

    _line = b""


def is_of_errors(event: object) -> bool:
    """Whether an event is a line of standard error: these come in no order with what is in the output."""
    return isinstance(event, AgentOutput) and event.stream == "stderr"


def write_place(folder: Path, place: Place) -> None:
    """Note how much is recorded, whole or not at all. Raises OSError."""
    replace_file(folder / PLACE, [msgspec.json.encode(place)])
