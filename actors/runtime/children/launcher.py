"""``Launcher``: starts child processes through one helper process per system, which is started with the first
child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

from msgspec import Struct

from actors.runtime.children.child import Child, Ladder
from actors.runtime.children.confinement.confinement import Confinement
from actors.runtime.children.frames import END, HOLD, KILL, START, framed
from actors.runtime.children.inherited import search_path, socket_pair
from actors.runtime.children.pipes import ChildInput, ChildOutput
from actors.runtime.children.slots import Slots
from actors.runtime.children.spare import Connection, SpareWardens
from actors.runtime.fork import let_be
from actors.runtime.frozen import MARK, check_can_start, is_frozen
from actors.runtime.in_thread import in_thread
from protocol.errors import ChildLost, ChildNotStarted, TooManyChildren

#: Where an output goes: to a pipe that we read, nowhere, where standard output goes, or to a descriptor of
#: ours.
Output = Literal["pipe", "null", "stdout"] | int
#: The helper runs without site packages; importing ``actors`` would import all of polypod.
_BOOTSTRAP = (
    "import sys; package = sys.modules['actors'] = type(sys)('actors'); package.__path__ = [sys.argv[1]]; "
    "from actors.runtime.children.helper import main; main(sys.argv[2:])"
)
#: A helper that forks functions has everything importable that we have. The at-fork hooks of packages are
#: kept for its forks: the helper does not need them, and they would touch a megabyte of memory in each fork.
_BOOTSTRAP_WITH_PACKAGES = """
import ast, os, sys
def keep(**hooks):
    keep.kept.append(hooks)
keep.kept, keep.register, os.register_at_fork = [], os.register_at_fork, keep
sys.path[:] = ast.literal_eval(sys.argv[1])
from actors.runtime.children.helper import main
main(sys.argv[2:])
"""
#: Variables that an interpreter may need to find its own libraries.
_OF_INTERPRETER = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "PYTHONHOME")
#: Seconds after which the helper is asked again when it could take no more requests.
_FULL = 0.005
#: Seconds that the helper has to end with all its children, in addition to their ladders; and those it has
#: after it is asked to kill the rest.
_GRACE, _KILL_GRACE = 10.0, 5.0

_launchers: WeakSet[Launcher] = WeakSet()


class _Helper(Struct, eq=False):
    """The helper process, and the socket for requests to it."""

    process: subprocess.Popen[bytes]
    asked: socket.socket

    def rouse(self) -> None:
        """Continue the helper if somebody has stopped it."""
        self.process.send_signal(signal.SIGCONT)


class Launcher:
    """Starts children. Usable from any loop and thread; a child belongs to the loop that started it.

    All its children end with this process, however it ends, and with ``aclose``. A fork of this process gets
    a helper of its own, and none of these children.
    """

    def __init__(self, most: int | None = None, *, prepare: str | None = None) -> None:
        """``most`` is how many children may run at a time; ``None`` is any number. ``prepare`` is the
        ``module:name`` of a function with which the helper imports what it then forks instead of starting
        programs.
        """
        self._prepare = prepare
        self._slots = None if most is None else Slots(most)
        self._lock = threading.Lock()
        self._helper: _Helper | None = None
        self._children: set[Child] = set()
        self._longest = 0.0
        self._closed = False
        self._held: dict[int, None] = {}
        self._spares = SpareWardens()
        _launchers.add(self)

    def __repr__(self) -> str:
        helper = self._helper
        how = "not started" if helper is None else f"pid {helper.process.pid}"
        return f"<Launcher {how}, {len(self._children)} children>"

    @property
    def pid(self) -> int | None:
        """The pid of the helper process, None if there is none."""
        helper = self._helper
        return None if helper is None or helper.process.returncode is not None else helper.process.pid

    def hold(self, descriptor: int) -> None:
        """Have the helper hold a descriptor open until the last child has ended, however this process ends.
        So a lock that it holds is free only then. The caller keeps it open too. Thread-safe.
        """
        with self._lock:
            self._held[descriptor] = None
            if self._helper is not None:
                with contextlib.suppress(OSError):  # another helper replaces a dead one
                    _send_held(self._helper, (descriptor,))
        self._spares.outdate()  # only now: a warden that another thread requests meanwhile may lack it

    def drop_held(self, descriptor: int) -> None:
        """Do not hand the descriptor to helpers that are started from now on."""
        with self._lock:
            self._held.pop(descriptor, None)

    async def start(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        cwd: str | os.PathLike[str],
        env: Mapping[str, str],
        stdin: Literal["pipe", "null"] | int = "null",
        stdout: Output = "pipe",
        stderr: Output = "pipe",
        ladder: Ladder | None = None,
        wait: float | None = None,
        confinement: Confinement | None = None,
    ) -> Child:
        """Start a child that runs ``argv``, which is looked up in the PATH of ``env``, in a session of its
        own without a terminal. It gets these variables and its three streams, and nothing else of this
        process; with a ``confinement`` it can touch only what that allows.

        If ``most`` children are running, it waits in line, at most ``wait`` seconds. Raises ChildNotStarted
        (ChildNotConfined if this machine cannot confine it so), TooManyChildren, and ChildLost if the helper
        is killed meanwhile.
        """
        words = [os.fspath(each) for each in argv]
        program = words[0] if words else "nothing"  # without a program: only a trial of the confinement
        plan = None
        if confinement is not None:
            plan, env = confinement.plain(), confinement.environment(env)
        request = _request(program, words, os.fspath(cwd), env)
        ladder = ladder or Ladder()
        slots = self._slots if words else None  # a trial waits for no slot
        while True:
            if slots is not None:
                await self._take_slot(slots, program, wait)
            try:
                child = await self._make_child(
                    program, (request, ladder, plan), (stdin, stdout, stderr), slots
                )
            except BaseException:
                if slots is not None:
                    slots.give_back()
                raise
            self._children.add(child)
            self._longest = max(self._longest, ladder.request_wait + ladder.term_wait)
            try:
                await child.wait_for_start()
            except ChildLost:
                if not child.had_dead_warden:
                    raise
            else:
                return child

    async def _take_slot(self, slots: Slots, program: str, wait: float | None) -> None:
        try:
            await slots.take(wait)
        except TimeoutError:
            at_work = sorted(each.program for each in self._children)
            raise TooManyChildren.of(program, slots.most, at_work) from None

    def _part_with(self, slots: Slots | None, child: Child, connection: Connection | None) -> None:
        """Forget a child that has ended, and keep its warden if that may own another one."""
        self._children.discard(child)
        if connection is not None:
            self._spares.keep(connection)
        if slots is not None:
            slots.give_back()

    async def _make_child(
        self,
        program: str,
        request: tuple[Any, Ladder, Any],
        streams: tuple[Literal["pipe", "null"] | int, Output, Output],
        slots: Slots | None,
    ) -> Child:
        """Make a child, and have its warden asked to start it."""
        ours, theirs, handed = _Ends(), _Ends(), [-1, -1, -1]
        stdin, stdout, stderr = streams
        plain, ladder, plan = request
        asked = framed(("start", plain, ladder.plain(), plan))
        try:
            handed[0], stdin_end = _open_stream(stdin, theirs, ours, reads=True)
            handed[1], stdout_end = _open_stream(stdout, theirs, ours)
            handed[2], stderr_end = (
                (handed[1], -1) if stderr == "stdout" else _open_stream(stderr, theirs, ours)
            )
            connection, sent = await self._hand_over(
                program, asked, handed, has_view=plan is not None and plan[0]
            )
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise ChildNotStarted.of(program, error.strerror or str(error)) from error
            raise
        finally:
            theirs.close()
        return Child(
            program,
            connection,
            asked[sent:],
            ladder,
            ChildInput(stdin_end) if stdin_end >= 0 else None,
            ChildOutput(stdout_end) if stdout_end >= 0 else None,
            ChildOutput(stderr_end) if stderr_end >= 0 else None,
            partial(self._part_with, slots),
            self._rouse,
        )

    async def _hand_over(
        self, program: str, asked: bytes, streams: list[int], *, has_view: bool
    ) -> tuple[Connection, int]:
        """Ask a warden for a child with these streams. Returns the connection to the warden, and how many
        bytes of the request were sent. Raises ChildNotStarted, ChildLost, OSError.
        """
        # Functions do not reuse a warden: one would have the variables of the one before in its memory.
        while has_view and self._prepare is None and (spare := self._spares.take()) is not None:
            try:
                return spare, socket.send_fds(spare.control, [asked], streams)
            except OSError:  # it was killed
                spare.control.close()
        connection = await self._connect(program)
        try:
            return connection, socket.send_fds(connection.control, [asked], streams)
        except ConnectionError:  # it could not be made, and the connection reports why
            return connection, len(asked)
        except OSError:
            connection.control.close()
            raise

    async def _connect(self, program: str) -> Connection:
        """Connect to a new warden. Raises ChildNotStarted, ChildLost, OSError."""
        control, for_warden = socket_pair()
        try:
            control.setblocking(False)
            held = self._spares.held
            with for_warden:
                await self._ask(program, for_warden.fileno())
        except BaseException:
            control.close()
            raise
        return Connection(control, held)

    async def aclose(self) -> None:
        """End all children by their ladders, and the helper. Nothing can be started any more.

        When it returns, all children of the running loop have ended, including those of helpers that were
        killed.
        """
        with self._lock:
            self._closed = True
            helper, self._helper = self._helper, None
        self._spares.close()
        for child in tuple(self._children):
            child.rouse()
        if helper is not None:
            await self._end(helper)
        mine = [child.wait() for child in tuple(self._children) if child.is_of_running_loop]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._longest + _GRACE):
                await asyncio.gather(*mine, return_exceptions=True)

    async def _end(self, helper: _Helper) -> None:
        try:
            for request, seconds in ((END, self._longest + _GRACE), (KILL, _KILL_GRACE)):
                helper.rouse()
                with contextlib.suppress(OSError):
                    helper.asked.send(request)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await _wait_for_end(helper.asked)
                        break
            else:
                helper.process.kill()  # it hangs; wardens end without it
        finally:
            helper.asked.close()
        await in_thread(helper.process.wait)

    def abandon(self) -> None:
        """Have all children and the helper end, without waiting for that, since their loop is closed."""
        with self._lock:
            self._closed = True
            helper, self._helper = self._helper, None
        self._spares.close()
        for child in self._children:
            child.drop()
        if helper is not None:
            helper.asked.close()
            let_be(helper.process)  # it ends by itself

    def _rouse(self) -> None:
        """Continue the helper if somebody has stopped it."""
        helper = self._helper
        if helper is not None:
            helper.rouse()

    async def _ask(self, program: str, control: int) -> None:
        """Request a warden with this end of its connection. Raises ChildNotStarted, ChildLost, OSError."""
        for _ in range(3):
            helper = self._ensure_helper(program)
            helper.rouse()
            while True:
                try:
                    socket.send_fds(helper.asked, [START], [control])
                except BlockingIOError:
                    await asyncio.sleep(_FULL)
                    helper.rouse()
                except ConnectionError:
                    self._forget(helper)  # it was killed; another one replaces it
                    break
                else:
                    return
        raise ChildLost(f"the helper process that starts {program} is killed repeatedly")

    def _ensure_helper(self, program: str) -> _Helper:
        """The helper process, started if there is none. Raises ChildNotStarted."""
        with self._lock:
            if self._closed:
                raise ChildNotStarted.of(program, "the launcher is closed")
            check_can_start(program)
            if self._helper is None:
                self._helper = _begin(self._prepare)
                _send_held(self._helper, self._held)
            return self._helper

    def _forget(self, helper: _Helper) -> None:
        with self._lock:
            if self._helper is helper:
                self._helper = None
                helper.asked.close()
                helper.process.wait()  # its socket has closed, so it has ended

    def _drop(self) -> None:
        """Close what a fork of the parent has inherited."""
        self._lock = threading.Lock()
        self._held = {}
        self._spares.close()
        self._spares = SpareWardens()
        if self._slots is not None:
            self._slots = Slots(self._slots.most)
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.asked.close()
            let_be(helper.process)
        children, self._children = self._children, set()
        for child in children:
            child.drop()
        let_be(children)


class _Ends:
    """Descriptors that are closed together."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def add(self, descriptor: int) -> int:
        self._held.append(descriptor)
        return descriptor

    def close(self) -> None:
        for each in self._held:
            os.close(each)
        self._held.clear()


def _open_stream(kind: Output, theirs: _Ends, ours: _Ends, *, reads: bool = False) -> tuple[int, int]:
    """Open a stream. Returns the child's descriptor, and our end, -1 if there is none."""
    if kind == "pipe":
        read, write = os.pipe()
        child, own = (read, write) if reads else (write, read)
        return theirs.add(child), ours.add(own)
    if isinstance(kind, int):
        return kind, -1
    return theirs.add(os.open(os.devnull, os.O_RDONLY if reads else os.O_WRONLY)), -1


def _request(program: str, words: list[str], folder: str, env: Mapping[str, str]) -> Any:
    try:
        variables = tuple((os.fsencode(name), os.fsencode(value)) for name, value in env.items())
        request = (tuple(map(os.fsencode, words)), os.fsencode(folder), variables)
    except UnicodeEncodeError as error:
        raise ChildNotStarted.of(repr(program), "its arguments are not valid text for the system") from error
    plain = [*request[0], folder.encode("utf-8", "replace"), *(each for pair in variables for each in pair)]
    if any(b"\0" in each for each in plain):
        raise ChildNotStarted.of(repr(program), "its arguments contain a NUL character")
    return request


def _begin(prepare: str | None) -> _Helper:
    """Start the helper process. Raises OSError."""
    asked, theirs = socket_pair()
    pidfd = os.pidfd_open(os.getpid()) if hasattr(os, "pidfd_open") else -1
    passed = [theirs.fileno(), *([pidfd] if pidfd >= 0 else [])]
    packages = str(Path(__file__).parents[2])
    arguments = [packages, str(theirs.fileno()), str(pidfd)]
    isolated, bootstrap = ["-I", "-S"], _BOOTSTRAP
    env = {name: os.environ[name] for name in _OF_INTERPRETER if name in os.environ}
    if prepare is not None:
        isolated, bootstrap = ["-I"], _BOOTSTRAP_WITH_PACKAGES
        arguments = [repr(search_path()), *arguments[1:], prepare]
    else:
        env["LD_BIND_NOW"] = "1"  # functions are looked up once, not by each process that is forked
    command = [sys.executable, *isolated, "-c", bootstrap, *arguments]
    if is_frozen():
        command = [sys.executable, MARK, *arguments[1:]]
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=env,
            pass_fds=passed,
            start_new_session=True,
        )
    except BaseException:
        asked.close()
        raise
    finally:
        theirs.close()
        if pidfd >= 0:
            os.close(pidfd)
    asked.setblocking(False)
    return _Helper(process, asked)


def _send_held(helper: _Helper, descriptors: Iterable[int]) -> None:
    """Send the helper the descriptors that it is to hold. Raises OSError."""
    for each in descriptors:
        socket.send_fds(helper.asked, [HOLD], [each])


async def _wait_for_end(asked: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv(asked, 64):
            pass


def _drop_all() -> None:
    for each in list(_launchers):
        each._drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_all)
