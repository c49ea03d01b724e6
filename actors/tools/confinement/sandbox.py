"""``Sandbox``: how a pod's programs are confined to its scope, by what this machine can do."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.children.confinement import landlock, seccomp
from actors.runtime.children.confinement.confinement import Confinement, Limits
from actors.runtime.children.confinement.repository import is_unmade
from actors.runtime.children.environment import allowed_environment
from actors.runtime.in_thread import in_thread
from actors.tools.confinement.guarded_files import MOST_FOLDERS, Guarded, GuardedFiles, TooManyFolders
from actors.tools.confinement.program_homes import PREFIX, ProgramHome, close_home, make_home
from actors.tools.confinement.system_folders import System, system_folders
from protocol.errors import ChildError, ChildNotConfined
from protocol.guarded import is_secret
from protocol.manifest import SandboxSection
from protocol.scope import Permission, Rule, Scope, all_rules, unnamed

if TYPE_CHECKING:
    from actors.runtime.children.launcher import Launcher

#: What a confined program has of its own in their place.
_OWN = ("/proc", "/dev")
#: Names of a database that come and go while it is open: in their place no other may be put.
_COME_AND_GO = ("-wal", "-shm", "-journal")
_HINT = (
    "polypod doctor shows what this machine can confine; [sandbox] mode decides what happens where it cannot"
)


class Machine(Struct, frozen=True):
    """What a machine can confine programs by. ``why_no_namespaces`` is None where they can be made."""

    why_no_namespaces: str | None
    landlock: int
    seccomp: bool

    def why_not(self, *, needs_namespaces: bool) -> str | None:
        """Why a program cannot be confined here, None where it can."""
        if not self.seccomp:
            return "this machine has no seccomp filter"
        if self.why_no_namespaces is None:
            return None
        if needs_namespaces:
            return f"the scope denies something inside an allowed folder, and {self.why_no_namespaces}"
        if self.landlock < landlock.SCOPES:
            return (
                f"{self.why_no_namespaces}, and Landlock has version {self.landlock}, not {landlock.SCOPES}"
            )
        return None


_machines: WeakKeyDictionary[Launcher, Machine] = WeakKeyDictionary()


async def look_at_machine(launcher: Launcher) -> Machine:
    """What this machine can do for children of ``launcher``, found by a trial, once."""
    if launcher not in _machines:
        _machines[launcher] = await _look_at_machine(launcher)
    return _machines[launcher]


async def _look_at_machine(launcher: Launcher) -> Machine:
    why: str | None = None
    home = await make_home()
    trial = Confinement(home=home.path, readable=("/usr",))
    try:
        child = await launcher.start([], cwd="/", env={}, stdout="null", stderr="null", confinement=trial)
        await child.wait()
    except ChildNotConfined as error:
        why = error.why
    finally:
        await close_home(home)
    return Machine(why, landlock.version(), seccomp.is_known())


class Sandbox:
    """Makes the confinement for each program of one pod.

    ``scope`` is asked each time for what the pod may touch by then, ``resolved``. What is guarded by its name
    is looked for each time too. The programs have one home together, a folder that ``close`` removes.
    """

    def __init__(
        self,
        section: SandboxSection,
        scope: Callable[[], Scope],
        launcher: Callable[[], Launcher],
        *,
        search_path: str | None = None,
    ) -> None:
        self.section = section
        self._scope = scope
        self._launcher = launcher
        self._path = os.environ.get("PATH", os.defpath) if search_path is None else search_path
        self._guarded = GuardedFiles()
        self._home: ProgramHome | None = None
        self._closed = False

    async def why_not(self) -> ChildNotConfined | None:
        """Why programs are not confined, with what to do about it; None where they are.

        With ``mode = "scope"`` each call is to be asked for then. Raises ChildNotConfined with "require".
        """
        if self.section.mode == "off":
            off = '[sandbox] mode = "off"'
            return ChildNotConfined(
                f"{off}, so commands are not confined", hint='set [sandbox] mode = "scope"'
            )
        try:
            await self._make()
        except ChildNotConfined as error:
            if self.section.mode == "require":
                raise
            return error
        return None

    async def confine(self) -> Confinement | None:
        """The confinement for the next program; None where it runs without, which is to be asked for
        before. Raises ChildNotConfined with ``mode = "require"``.
        """
        if self.section.mode == "off":
            return None
        try:
            return await self._make()
        except ChildNotConfined:
            if self.section.mode == "require":
                raise
            return None

    def close(self) -> None:
        """Remove the programs' home."""
        self._closed = True
        home, self._home = self._home, None
        if home is not None:
            home.close()

    async def _make(self) -> Confinement:
        """Raises ChildNotConfined."""
        try:
            machine = await look_at_machine(self._launcher())
        except ChildError as error:
            raise ChildNotConfined(error.message, hint=error.hint) from error
        home = await self._get_home()
        confinement = await in_thread(self._confinement, self._scope(), home)
        why = machine.why_not(needs_namespaces=confinement.needs_namespaces)
        if why is not None:
            raise ChildNotConfined(f"programs cannot be confined to the scope: {why}", hint=_HINT)
        return replace(confinement, namespaces=machine.why_no_namespaces is None)

    async def _get_home(self) -> str:
        """Raises ChildNotConfined."""
        if self._home is None:
            # A command that is cancelled meanwhile leaves it to the next.
            self._keep_home(await make_home(await self._who_commits(), left=self._keep_home))
        if self._home is None:
            raise ChildNotConfined("programs cannot be confined to the scope: their home folder is closed")
        return self._home.path

    def _keep_home(self, home: ProgramHome) -> None:
        """Keep a home, unless another command has made one meanwhile, or all is closed."""
        if self._closed or self._home is not None:
            home.close()
        else:
            self._home = home

    def _confinement(self, scope: Scope, home: str) -> Confinement:
        system = system_folders(self._path)
        allowed = _Allowed(scope)
        try:
            guarded = self._guarded.find(
                (each for each in allowed.roots if not _is_in(each, system.readable)),
                lambda path: scope.permits(path, "read"),
            )
        except TooManyFolders:
            raise ChildNotConfined(
                f"programs cannot be confined to the scope: it has more than {MOST_FOLDERS:,} "
                "folders to search for secret files",
                hint="allow only the folder that the work is in, not the folders above it",
            ) from None
        return _confinement(self.section, allowed, guarded, system, home)

    async def _who_commits(self) -> bytes:
        """The user's name and address, as git's own file has them, and nothing else of that file."""
        argv = ["git", "config", "--global", "--get-regexp", r"^user\.(name|email)$"]
        try:
            child = await self._launcher().start(
                argv, cwd="/", env=allowed_environment(), stderr="null", wait=1
            )
        except ChildError:
            return b""
        text = b""
        while child.stdout is not None and (data := await child.stdout.read()):
            text += data
        lines = (line.partition(b" ") for line in text.splitlines())
        values = {key.removeprefix(b"user."): value for key, _, value in lines}
        quoted = {key: value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for key, value in values.items()}
        return b"[user]\n" + b"".join(b'\t%s = "%s"\n' % each for each in quoted.items())


class _Allowed:
    """A scope as what is mounted: folders and files, and what of these is denied or cannot be written."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.writable: list[str] = []
        self.readable: list[str] = []
        for target in dict.fromkeys(rule.target for rule in _rules(scope, "allow")):
            self._add(target)
        inner = [each for each in self.readable if _is_in(each, self.writable)]
        self.readable = [each for each in self.readable if each not in inner]
        self.denied: list[str] = []
        self.read_only: list[str] = inner
        for target in dict.fromkeys(rule.target for rule in _rules(scope, "deny")):
            self._take_away(target)

    @property
    def roots(self) -> list[str]:
        """What is mounted."""
        return [*self.writable, *self.readable]

    def _add(self, target: str) -> None:
        if target == "/":
            for each in _names("/"):
                if not os.path.islink(f"/{each}"):
                    self._add(f"/{each}")
        elif target in _OWN or not os.path.lexists(target) or os.path.islink(target):
            pass
        elif os.path.isdir(target) and not _is_uniform(self._scope, target):
            for each in _names(target):  # what is directly there, and nothing below
                if os.path.isfile(f"{target}/{each}") and not os.path.islink(f"{target}/{each}"):
                    self._mount(f"{target}/{each}")
        else:
            self._mount(target)

    def _mount(self, path: str) -> None:
        permission = _permission(self._scope, path)
        if permission == "write":
            self.writable.append(path)
        elif permission == "read":
            self.readable.append(path)

    def _take_away(self, target: str) -> None:
        if not _is_in(target, self.roots):
            return
        permission = _permission(self._scope, target)
        if permission is None:
            self.denied.append(target)
        elif permission == "read" and _is_in(target, self.writable):
            self.read_only.append(target)


@functools.lru_cache(maxsize=1024)
def _permission(scope: Scope, path: str) -> Permission | None:
    """What a scope allows for a path, which does not change: the next program asks for the same."""
    return scope.permission(PurePath(path))


@functools.lru_cache(maxsize=1024)
def _is_uniform(scope: Scope, folder: str) -> bool:
    """Whether what is allowed for a folder is for all below it: no rule ends at what is right there."""
    other = unnamed(all_rules(scope))
    return _permission(scope, folder) == scope.permission(PurePath(folder, other, other))


def _rules(scope: Scope | None, kind: str) -> Iterator[Rule]:
    """The rules of a scope, and of those that it was narrowed from."""
    while scope is not None:
        yield from (scope.allow if kind == "allow" else scope.deny)
        scope = scope.within


def _confinement(
    section: SandboxSection, allowed: _Allowed, guarded: Guarded, system: System, home: str
) -> Confinement:
    writable = tuple(dict.fromkeys(allowed.writable))
    of_system = (each for each in system.readable if not _is_in(each, writable))
    folders = [each for each in writable if os.path.isdir(each)]
    repositories = [f"{each}/.git" for each in folders if is_unmade(f"{each}/.git")]
    # It would steer polypod from there.
    reserved = [f"{each}/polypod.toml" for each in folders]
    fixed = [each for each in allowed.denied if not each.endswith(_COME_AND_GO)]
    moving = [each for each in allowed.denied if each.endswith(_COME_AND_GO)]
    # What is secret together with its folder's name alone would be open by another name of that.
    fixed += [each for each in guarded.hidden if not is_secret(os.path.basename(each))]
    fixed += _other_homes(allowed.roots, home)
    return Confinement(
        home=home,
        writable=writable,
        readable=tuple(dict.fromkeys((*allowed.readable, *of_system))),
        denied=tuple(dict.fromkeys((*fixed, *reserved))),
        hidden=tuple(dict.fromkeys((*guarded.hidden, *moving, *system.hidden))),
        read_only=tuple(dict.fromkeys((*allowed.read_only, *guarded.read_only))),
        repositories=tuple(repositories),
        links=system.links,
        network=section.network,
        limits=Limits(section.memory_bytes, section.cpu_seconds, section.processes, section.file_bytes),
    )


def _other_homes(roots: list[str], home: str) -> list[str]:
    """The homes of other pods' programs, where what is allowed has the folder that they are in."""
    folder, own = os.path.split(home)
    if not _is_in(folder, roots):
        return []
    return [f"{folder}/{each}" for each in _names(folder) if each.startswith(PREFIX) and each != own]


def _names(folder: str) -> list[str]:
    """What is in a folder; nothing where it may not be listed, or is gone. Raises OSError, since what is
    not seen is not covered.
    """
    try:
        return os.listdir(folder)
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return []


def _is_in(path: str, folders: list[str] | tuple[str, ...]) -> bool:
    return any(path == each or path.startswith(f"{each.rstrip('/')}/") for each in folders)
