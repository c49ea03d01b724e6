"""Asks the process that looks after a swarm, and starts it where there is none."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from actors.cli.peers import is_strangers
from actors.cli.places import default_store
from actors.cli.swarm.wire import Asked, Said, decode_said, line_of, lock_of, socket_of
from actors.runtime.user_folders import make_private
from actors.sessions.urls import place_of
from protocol.error_of import error_of
from protocol.errors import AgentError
from protocol.events import Event
from protocol.wire import decode_event

#: Seconds that a service has to listen, and between two looks whether it does.
_PATIENCE, LOOK = 20.0, 0.02
#: How often the same is asked for where the service is killed each time, and what is said then.
_TRIES, _GONE = 5, "the swarm's service ended in the middle of its answer"
#: Bytes of what a service that would not start has said, and of a log to which no other service is added.
_TAIL, _LONGEST_LOG = 2000, 1 << 20


class Client:
    """The service of one folder, as commands ask it."""

    def __init__(self, root: Path, store: str | None) -> None:
        self._root, self._store = root, _absolute(store) if store else ""
        #: Whether a service was there to be asked.
        self.is_reached = False
        #: Where the service that we start begins to write in its log.
        self._log_start = 0

    def ask(self, asked: Asked) -> Said:
        """Ask the service, and return what it answers. Raises PolypodError."""
        for said in self.stream(asked):
            if said.done:
                return said
        raise gone()

    def wait(self, agent_id: str) -> Said:
        """How the task of an agent ends, also where the service is killed meanwhile: the next one goes on
        with what outlives it, and with what is to be started again. Raises PolypodError.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self.ask(Asked(do="wait", id=agent_id))
            except AgentError as error:
                if error.message != _GONE or not left:
                    raise
        raise gone()

    def events(self, asked: Asked, again: Callable[[], object]) -> Iterator[Event]:
        """The events of an agent, also where the service is killed meanwhile: then ``again`` is called, and
        the next one gives what comes behind those that came before. Raises PolypodError.
        """
        given: dict[str, int] = {}
        left = _TRIES
        while True:
            try:
                for said in self.stream(asked):
                    if not said.event:
                        continue
                    event = decode_event(said.event.encode())
                    if event.durable:
                        if event.seq <= given.get(event.pod, 0):
                            continue
                        given[event.pod], left = event.seq, _TRIES
                    yield event
            except AgentError as error:
                left -= 1
                if error.message != _GONE or not (asked.follow and left):
                    raise
                again()
            else:
                return

    def stream(self, asked: Asked) -> Iterator[Said]:
        """All that it answers, the last of it included. Raises PolypodError."""
        with self._connect() as connection, connection.makefile("rwb") as file:
            with contextlib.suppress(ConnectionError):
                file.write(self.line(asked))
                file.flush()
                for line in file:
                    yield (said := said_in(line))
                    if said.done:
                        return
            raise gone()

    def line(self, asked: Asked) -> bytes:
        """A question as it is sent."""
        return line_of(replace(asked, store=self._store))

    def _connect(self) -> socket.socket:
        for connection in self.connections():
            if connection is not None:
                self.is_reached = True
                return connection
            time.sleep(LOOK)
        raise gone()

    def connections(self) -> Iterator[socket.socket | None]:
        """A connection to the service, which is started where there is none; before it None, as often
        as its caller has to wait for ``LOOK`` seconds. Raises AgentError.
        """
        path = socket_of(self._root)
        if (connection := self._try()) is not None:
            yield connection
            return
        process = self._start()
        try:
            until = time.monotonic() + _PATIENCE
            while time.monotonic() < until:
                if (connection := self._try()) is not None:
                    yield connection
                    return
                if process.poll():  # 0: another was there first
                    raise AgentError(f"the swarm's service did not start: {self._last_words()}")
                yield None
            raise AgentError(f"the swarm's service does not answer at {path}", hint=f"see {self._log}")
        finally:
            process.returncode = process.returncode or 0  # it goes on, and nobody waits for its end

    def _try(self) -> socket.socket | None:
        """A connection to the service, also where its runtime folder is another than ours."""
        paths = [socket_of(self._root)]
        with contextlib.suppress(OSError):
            paths.append(Path(os.fsdecode(lock_of(self._root).read_bytes())))
        found = (_try(each) for each in dict.fromkeys(paths))
        return next((each for each in found if each is not None), None)

    @property
    def _log(self) -> Path:
        return self._root / "serve.log"

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the service; it goes on when this command, and its terminal, have ended."""
        make_private(self._root)
        log = _open_log(self._log)
        self._log_start = os.fstat(log).st_size
        words = [sys.executable, "-m", "polypod", "swarm", "serve", "--root", str(self._root)]
        try:
            return subprocess.Popen(  # noqa: S603 - our own
                [*words, "--store", self._store or default_store()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._root,
            )
        finally:
            os.close(log)

    def _last_words(self) -> str:
        words = ""
        with contextlib.suppress(OSError):
            words = self._log.read_bytes()[self._log_start :].decode(errors="replace")[-_TAIL:].strip()
        return words or f"it could not write the reason to {self._log} (the disk may be full)"


def _open_log(path: Path) -> int:
    """Open the log of services behind what those before have written; a long one is put aside, and the one
    that was aside goes.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size > _LONGEST_LOG:
            path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _absolute(store: str) -> str:
    """The URL of a store with an absolute path: the service works in another folder than who asks it."""
    place = place_of(store)
    _, mark, options = store.partition("?")
    return f"{place.scheme}:{Path(place.path).absolute()}{mark}{options}" if place.path else store


def said_in(line: bytes) -> Said:
    """What a line of an answer says. Raises the PolypodError that it is."""
    try:
        said = decode_said(line)
    except msgspec.DecodeError:  # half a line is its last
        raise gone() from None
    if said.error is not None:
        raise error_of(said.error)
    return said


def _try(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)  # one that stands still, and has many waiting, would hold up who connects
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    if is_strangers(connection):  # what we start instead says so
        connection.close()
        return None
    connection.setblocking(True)
    return connection


def gone() -> AgentError:
    """The service has ended, and its answer is not whole."""
    return AgentError(_GONE, hint="try again")
