"""Claim: the cost of starting a child process, over all processes that take part."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.llm.scripted import ScriptedClient, call, say
from actors.runtime.children.launcher import Launcher
from actors.system import PodSystem
from actors.tools.confinement.sandbox import Sandbox
from actors.tools.shell.command import shell_program
from bench.claim import Claim, at_most
from bench.results import Reading
from protocol.approval import ApprovalRule
from protocol.manifest import PodManifest, SandboxSection
from protocol.scope import Scope

CLAIM = Claim("children", "children: a process that runs `true`, from its start to the end of the last of it")

_PROGRAM = "/usr/bin/true"
_METRIC = "processor time of a child"


def _used() -> float:
    """Processor seconds of this process and of all that it has waited for."""
    both = (resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


async def _start(count: int, folder: Path, *, confined: bool) -> None:
    launcher = Launcher()
    sandbox = Sandbox(
        SandboxSection(mode="require" if confined else "off"),
        lambda: Scope.writable(folder),
        lambda: launcher,
    )
    try:
        for _ in range(count):
            child = await launcher.start(
                [_PROGRAM],
                cwd=folder,
                env={"PATH": "/usr/bin"},
                stdout="null",
                stderr="null",
                confinement=await sandbox.confine(),
            )
            await child.wait()
    finally:
        await launcher.aclose()
        sandbox.close()


def _by_launcher(count: int, *, confined: bool) -> list[Reading]:
    with _folder() as folder:
        before = _used()
        asyncio.run(_start(count, folder, confined=confined))
        return [Reading(_METRIC, "s", (_used() - before) / count, "cpu")]


@CLAIM.case("confined to a folder", full=400, quick=100, targets={_METRIC: at_most(7e-3)})
def confined(count: int) -> list[Reading]:
    """Namespaces, mounts, Landlock and seccomp for each; they share the start of the helper."""
    return _by_launcher(count, confined=True)


@CLAIM.case("not confined", full=400, quick=100)
def plain(count: int) -> list[Reading]:
    """A warden for each."""
    return _by_launcher(count, confined=False)


async def _run_commands(count: int, folder: Path, *, confined: bool) -> None:
    manifest = PodManifest.of(
        pwd=str(folder),
        scope=Scope.writable(folder),
        sandbox=SandboxSection(mode="require" if confined else "off"),
        tools={"builtin": ["shell"]},
        worker={"max_repeats": 0, "max_steps": count + 1},
        approval=[ApprovalRule("shell", "allow")],
    )
    client = ScriptedClient([*(call("shell", {"command": "true"}) for _ in range(count)), say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client)
        await pod.run("go")


def _by_shell(count: int, *, confined: bool) -> list[Reading]:
    with _folder() as folder:
        before = _used()
        asyncio.run(_run_commands(count, folder, confined=confined))
        return [Reading(_METRIC, "s", (_used() - before) / count, "cpu")]


@CLAIM.case("the tool `shell`, confined to a folder", full=400, quick=100)
def by_tool_confined(count: int) -> list[Reading]:
    """A turn for each, and a confined bash."""
    return _by_shell(count, confined=True)


@CLAIM.case("the tool `shell`, not confined", full=400, quick=100)
def by_tool(count: int) -> list[Reading]:
    """A turn for each, and bash."""
    return _by_shell(count, confined=False)


def _spawned(count: int, argv: list[str]) -> list[Reading]:
    before = _used()
    for _ in range(count):
        os.waitpid(os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin"}), 0)
    return [Reading(_METRIC, "s", (_used() - before) / count, "cpu")]


def _by_spawn(count: int) -> list[Reading]:
    return _spawned(count, [_PROGRAM])


def _shell_by_spawn(count: int) -> list[Reading]:
    return _spawned(count, [shutil.which(shell_program()) or "/bin/sh", "-c", "true"])


for _case in ("confined to a folder", "not confined"):
    CLAIM.case(_case, by="posix_spawn", kind="floor", full=400, quick=100)(_by_spawn)
    CLAIM.case(f"the tool `shell`, {_case}", by="posix_spawn of a shell", kind="floor", full=400, quick=100)(
        _shell_by_spawn
    )
