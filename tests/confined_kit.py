"""Programs of tests that are confined, on every rung of the ladder of what a machine allows."""

from __future__ import annotations

import asyncio
import os
import platform
import struct
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from actors.runtime import in_thread
from actors.runtime.children.child import Child
from actors.runtime.children.confinement import privileges, seccomp
from actors.runtime.children.confinement.confinement import Confinement
from actors.runtime.children.kernel import PR_CAP_AMBIENT, PR_SET_SECUREBITS, call
from actors.runtime.children.launcher import Launcher

T = TypeVar("T")
#: What is in no scope.
TOKEN = "the-token-that-is-in-no-scope"
CAP_SETFCAP = 31
UNSHARE = {"x86_64": 272, "aarch64": 97}


def drop_privileges() -> None:
    """Leave the calling thread, and all it starts, no capability but the one that another user has no need of
    to have a namespace of users: one in which root is root.
    """
    if os.geteuid() != 0:
        return
    kept = 1 << CAP_SETFCAP
    call("prctl", PR_SET_SECUREBITS, 0b11)  # root by its number has none
    call("capset", struct.pack("Ii", 0x20080522, 0), struct.pack("6I", kept, kept, kept, 0, 0, 0))
    call("prctl", PR_CAP_AMBIENT, 2, CAP_SETFCAP, 0, 0)


def deny_namespaces() -> None:
    """Have the calling thread, and all it starts, make no namespace: as a container's rules do."""
    privileges.drop_capabilities()
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, UNSHARE[platform.machine()]), (0x06, 0, 0, 0x00050001)]
    seccomp.install(b"".join(struct.pack("HBBI", *step) for step in [*steps, (0x06, 0, 0, 0x7FFF0000)]))


#: As whom the programs are started: this user, this one without capabilities, and one who may make no namespace.
RUNGS: dict[str, Callable[[], None]] = {
    "as we are": lambda: None,
    "without privileges": drop_privileges,
    "without namespaces": deny_namespaces,
}


class Ended(NamedTuple):
    """What a program wrote, to both its outputs, and its exit code."""

    code: int
    text: str


class Place:
    """Folders of a test: ``scope`` is writable, ``reading`` readable, ``outside`` neither."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scope, self.reading, self.outside, self.home = (
            root / name for name in ("scope", "reading", "outside", "home")
        )
        for folder in (self.scope, self.reading, self.outside, self.home / "tmp"):
            folder.mkdir(parents=True)
        self.secret = self.outside / "secret.txt"
        self.secret.write_text(TOKEN)
        (self.reading / "readable.txt").write_text("readable")

    def confinement(self, **changes: Any) -> Confinement:
        folders = {"/usr", "/etc", *python_folders()}
        of_system = [Path("/") / name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")]
        links = tuple((str(each), str(each.readlink())) for each in of_system if each.is_symlink())
        readable = (*folders, *(str(each) for each in of_system if each.is_dir() and not each.is_symlink()))
        settings: dict[str, Any] = {
            "home": str(self.home),
            "writable": (str(self.scope),),
            "readable": (str(self.reading), *sorted(readable)),
            "links": links,
        }
        return Confinement(**{**settings, **changes})

    def snapshot(self) -> dict[str, str]:
        """All that is outside, and its content."""
        return {
            str(each): each.read_text() if each.is_file() else ""
            for folder in (self.outside, self.reading)
            for each in folder.rglob("*")
        }


def python_folders() -> set[str]:
    """Where this interpreter is, and what it needs."""
    return {os.path.realpath(each) for each in (sys.prefix, sys.base_prefix)}


class Runner:
    """A launcher in a thread of its own, which has a rung's privileges and no others."""

    def __init__(self, place: Place, rung: str) -> None:
        self.place, self.rung = place, rung
        self._loop = asyncio.new_event_loop()
        self.launcher = Launcher()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        RUNGS[self.rung]()
        in_thread._threads.cache_clear()  # threads have the privileges of the one that starts them
        self._loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def sh(self, script: str, **changes: Any) -> Ended:
        return self.run(["sh", "-c", script], **changes)

    def python(self, script: str, **changes: Any) -> Ended:
        return self.run([os.path.realpath(sys.executable), "-I", "-c", script], **changes)

    def run(self, argv: list[str], **changes: Any) -> Ended:
        return self.call(self._run(argv, changes))

    async def _run(self, argv: list[str], changes: dict[str, Any]) -> Ended:
        return await ended(await self.start(argv, **changes))

    async def start(
        self, argv: list[str], *, stdin: Literal["pipe", "null"] = "null", **changes: Any
    ) -> Child:
        env = {"PATH": os.environ["PATH"], "SECRET": str(self.place.secret), **changes.pop("env", {})}
        cwd = changes.pop("cwd", self.place.scope)
        confinement = self.place.confinement(**changes)
        return await self.launcher.start(
            argv, cwd=cwd, env=env, stdin=stdin, stderr="stdout", confinement=confinement
        )

    def close(self) -> None:
        self.call(self.launcher.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        in_thread._threads.cache_clear()


async def ended(child: Child) -> Ended:
    assert child.stdout is not None
    text = b""
    while data := await child.stdout.read():
        text += data
    return Ended((await child.wait()).code, text.decode(errors="replace"))
