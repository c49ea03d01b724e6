"""``polypod doctor``: what this machine can and cannot do, each with what to do about it."""

from __future__ import annotations

import asyncio
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import click

from actors.cli import options
from actors.cli.config.checks import summary
from actors.cli.display.checks import Check, check_lines
from actors.cli.display.format import count
from actors.cli.display.views import put_json
from actors.cli.errors import Exit
from actors.cli.places import default_store
from actors.cli.sessions.store_reader import Reading, exists
from actors.runtime.children.confinement import landlock
from actors.runtime.children.launcher import Launcher
from actors.sessions.urls import place_of
from actors.tools.confinement.sandbox import Machine, look_at_machine
from protocol.errors import ChildError, ManifestError, PolypodError
from protocol.manifest import PodManifest
from protocol.mcp import McpServer, expand, header_value

#: What is not there for a confined command.
_INSIDE = (
    "inside, sudo, docker, ssh-agent, debuggers and the real home folder are not available; MCP "
    "servers and the programs of other agents are not confined"
)
_ALLOW_NAMESPACES = (
    "allow user namespaces: kernel.unprivileged_userns_clone = 1, "
    "kernel.apparmor_restrict_unprivileged_userns = 0; in a container, by its seccomp profile"
)
_ASKED_FOR = 'each command needs approval, or is refused with [sandbox] mode = "require"'
_DEPENDENCIES = ("pykka", "msgspec", "httpx", "aiohttp", "structlog", "click", "rich", "pathspec")
_EXTRAS = {"acp": "acp", "fetch": "html_to_markdown", "mcp": "mcp", "top": "textual"}


@click.command
@options.store
@options.looked_at
@options.as_json
def doctor(store: str | None, manifest: Path | None, as_json: bool) -> None:
    """Show what this machine can and cannot do, and what to do about it; exit 1 if something that is set up
    cannot work. With --manifest, also check the MCP servers that it names.
    """
    failed = False
    for check in chain(_checks(store), _mcp_servers(manifest)):
        failed = failed or check.status == "failed"
        if as_json:
            put_json(check)
        else:
            click.echo(check_lines(check))
    if failed:
        raise Exit(1)


def _checks(store: str | None) -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.release()}")
    yield _dependencies()
    yield from _isolation()
    yield _processes()
    yield from asyncio.run(_servers())
    yield summary()
    yield _store(default_store() if store is None else store)
    for name, module in _EXTRAS.items():
        if find_spec(module) is None:
            yield Check(f"extra {name}", "missing", "not installed", f"pip install 'polypod[{name}]'")
        else:
            yield Check(f"extra {name}", "ok", "installed")
    yield _terminal()


def _dependencies() -> Check:
    try:
        versions = [f"{name} {metadata.version(name)}" for name in _DEPENDENCIES]
    except metadata.PackageNotFoundError as error:
        return Check("libraries", "missing", f"the version of {error.name} is unknown")
    return Check("libraries", "ok", ", ".join(versions))


def _isolation() -> Iterator[Check]:
    """What the commands of pods can be confined by."""
    if sys.platform != "linux":
        yield Check("sandbox", "missing", "only Linux has namespaces, Landlock and seccomp", _ASKED_FOR)
        return
    try:
        machine = asyncio.run(_machine())
    except ChildError as error:
        yield Check("sandbox", "failed", error.message, error.hint or _ASKED_FOR)
        return
    why = machine.why_no_namespaces
    if why is None:
        yield Check("namespaces", "ok", "a program can get its own mounts, processes and network")
    else:
        yield Check("namespaces", "missing", why, _ALLOW_NAMESPACES)
    if machine.landlock >= landlock.SCOPES:
        yield Check("landlock", "ok", f"version {machine.landlock}")
    else:
        text = f"version {machine.landlock}" if machine.landlock else "the kernel lacks it, or it is off"
        yield Check("landlock", "missing", text, "use kernel 6.12 or later, with landlock in its lsm=")
    if machine.seccomp:
        yield Check("seccomp", "ok", "filters can be set")
    else:
        yield Check("seccomp", "missing", "there is no filter for this processor, or the kernel accepts none")
    yield _sandbox(machine)


def _processes() -> Check:
    """What becomes of pods that are processes."""
    unconfined = "they are not confined themselves, but the commands of their models are"
    if sys.platform == "linux":
        return Check("processes", "ok", f"pods in processes leave nothing behind; {unconfined}")
    text = f"pods in processes start slowly, and processes that leave their group are not ended; {unconfined}"
    return Check("processes", "missing", text, "use Linux, which forks them and tracks what they leave")


def _sandbox(machine: Machine) -> Check:
    why = machine.why_not(needs_namespaces=True)
    if why is None:
        return Check("sandbox", "ok", f"commands of pods are confined to their scope; {_INSIDE}")
    if machine.why_not(needs_namespaces=False) is None:
        text = (
            "commands are confined only if the scope allows no writing, and denies nothing "
            "inside what may be read"
        )
        return Check("sandbox", "missing", text, _ASKED_FOR)
    return Check("sandbox", "missing", "commands of pods cannot be confined", _ASKED_FOR)


async def _machine() -> Machine:
    launcher = Launcher()
    try:
        return await look_at_machine(launcher)
    finally:
        await launcher.aclose()


async def _servers() -> list[Check]:
    from actors.llm.http.http_pool import HttpPool  # noqa: PLC0415 - the command's own needs alone
    from actors.llm.http.presets import answering_servers  # noqa: PLC0415 - the same

    http = HttpPool()
    try:
        found = [
            Check(f"model server {preset.scheme}", "ok", f"{preset.base_url}, {count(len(models), 'model')}")
            async for preset, models in answering_servers(http=http)
        ]
    finally:
        await http.aclose()
    todo = "start one, for example with `ollama serve`, or choose a model with --model"
    return found or [
        Check("model servers", "missing", "none answers at its usual port on this machine", todo)
    ]


def _store(url: str) -> Check:
    try:
        there = exists(url)
        if (where := _unwritable(place_of(url).path)) is not None:
            text = (
                f"{url} can be opened, but not written"
                if there
                else f"{url} cannot be created: {where} is in the way"
            )
            return Check("store", "failed", text, "check its permissions, or choose another with --store")
        if not there:
            return Check("store", "ok", f"{url}, created with the first session")
        with Reading(url) as reading:
            reading.sessions(limit=1)
            return Check("store", "ok", f"{url} opens")
    except (PolypodError, OSError) as error:
        hint = getattr(error, "hint", None) or "check its location, or choose another with --store"
        return Check("store", "failed", f"{url}: {getattr(error, 'message', error)}", hint)


def _unwritable(place: str) -> Path | None:
    """What of a store's place, or of the way there, may not be written; None where all may, as in memory."""
    if not place:
        return None
    path = Path(os.path.expanduser(place)).absolute()  # noqa: PTH111 - raises nothing
    there = next(each for each in (path, *path.parents) if each.exists())
    if there != path and not there.is_dir():
        return there
    touched = (there,) if there.is_dir() else (there, there.parent)  # a database has files beside it
    return next((each for each in touched if not os.access(each, os.W_OK)), None)


def _mcp_servers(manifest: Path | None) -> Iterator[Check]:
    """The servers that a manifest names; none of them is started."""
    if manifest is None:
        return
    try:
        servers = PodManifest.load(manifest).tools.mcp
    except ManifestError as error:
        yield Check("manifest", "failed", error.message, error.hint)
        return
    if not servers:
        yield Check("MCP servers", "ok", f"{manifest} names none")
    for each in servers:
        name = f"MCP server {each.name}"
        try:
            where = _place_of(each)
        except ManifestError as error:
            yield Check(name, "failed", error.message, error.hint)
            continue
        if each.url is None and shutil.which(each.words[0]) is None:
            yield Check(
                name, "failed", f"there is no program {each.words[0]}", "install it, or correct its name"
            )
            continue
        calls = "calls of tools that are not read-only need approval"
        if each.approval is not None:
            calls = f"the policy for all calls is {each.approval}"
        yield Check(name, "ok", f"{where}; not confined; unless a rule says otherwise, {calls}")


def _place_of(server: McpServer) -> str:
    """How a server is reached, without secrets. Raises ManifestError for a variable that is not set."""
    for text in (*server.words, *server.env.values(), server.url or ""):
        expand(text, os.environ)
    for text in server.headers_env.values():
        header_value(text, os.environ)
    safe = server.without_secrets()
    return safe.url if safe.url is not None else shlex.join(safe.words)


def _terminal() -> Check:
    if not sys.stdout.isatty():
        return Check("terminal", "ok", "none: the output goes to a file or a pipe")
    columns = shutil.get_terminal_size().columns
    kind = os.environ.get("TERM", "")
    if kind in {"", "dumb"}:
        return Check(
            "terminal", "missing", f"{columns} columns, no colours", "set TERM to the terminal's type"
        )
    return Check("terminal", "ok", f"{kind}, {columns} columns, {sys.stdout.encoding}")
