"""A person's agents, as ``polypod swarm`` and ``polypod top`` have them."""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command_kit import Done, Home
from process_kit import living, wait_until_none

from actors.cli.swarm.wire import decode_said


class Swarm(Home):
    """A person's agents; the process that looks after them ends with the test."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        super().__init__(folder)
        self.root = folder / "swarm"
        self.env |= {"POLYPOD_SWARM": str(self.root), "XDG_RUNTIME_DIR": str(runtime)}
        self.env |= {"POLYPOD_SWARM_IDLE": "60"}

    def swarm(self, *arguments: str, words: str = "") -> Done:
        return self.polypod("swarm", *arguments, words=words)

    def started(self, task: str, *arguments: str) -> str:
        """The id of a new agent of the embedded model."""
        done = self.swarm("start", task, "--model", "offline", *arguments)
        assert done.code == 0, done.err
        return done.out.strip()

    @property
    def socket(self) -> Path:
        [found] = Path(self.env["XDG_RUNTIME_DIR"]).glob("polypod/s-*.sock")
        return found

    def service(self) -> int:
        """The number of the process that looks after the agents."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(b'{"do":"ping"}\n')
            return decode_said(connection.makefile("rb").readline()).pid

    def end(self) -> None:
        if list(Path(self.env["XDG_RUNTIME_DIR"]).glob("polypod/s-*.sock")):
            pid = self.service()
            os.kill(pid, signal.SIGTERM)
            wait_until_none(lambda: {pid} & living())


@contextmanager
def swarm_in(folder: Path) -> Iterator[Swarm]:
    """Agents of a person whose service ends with the body."""
    with tempfile.TemporaryDirectory(prefix="pp") as runtime:
        swarm = Swarm(folder, Path(runtime))
        try:
            yield swarm
        finally:
            swarm.end()
