"""What holds here by ``polypod.toml``, and whether it can work. Nothing is started, and no model is asked."""

from __future__ import annotations

import asyncio
import shlex
import stat
from collections.abc import AsyncIterator, Iterator

from actors.cli.config.sections import LOOK, Checking, Look, of_file
from actors.cli.config.servers import Servers
from actors.cli.display.checks import Check
from actors.config.configuration import Configuration
from actors.config.files import ConfigFile
from actors.runtime.user_folders import configuration_path
from protocol.errors import ConfigError


def summary() -> Check:
    """Which files hold here."""
    try:
        files = Configuration.load().files
    except ConfigError as error:
        return Check("configuration", "failed", error.message, error.hint)
    if not files:
        return _none()
    named = ", then ".join(str(each.path) for each in files)
    if all(each.is_trusted for each in files):
        return Check("configuration", "ok", f"{named}; `polypod config check` shows what is set")
    return Check("configuration", "missing", f"{named}; the first is not trusted", LOOK)


async def checks() -> AsyncIterator[Check]:
    """What holds here, a check for each thing that is set."""
    try:
        found = Configuration.load()
    except ConfigError as error:
        yield Check("polypod.toml", "failed", error.message, error.hint)
        return
    if not found.files:
        yield _none()
    for file in found.files:
        for each in _of_file(file):
            yield each
    async with Servers() as servers:
        look = Look(found, servers)
        nearest: dict[tuple[str, str], Checking] = {}
        for file in found.files:
            for kind, name, check in of_file(file):
                nearest.setdefault((kind, name), check)
        for task in [asyncio.ensure_future(check(look)) for check in nearest.values()]:
            yield await task


def _none() -> Check:
    own = configuration_path() / "polypod.toml"
    return Check("configuration", "ok", f"nothing is set: no polypod.toml here or above, and no {own}")


def _of_file(file: ConfigFile) -> Iterator[Check]:
    path, kind = file.path, "the user's own" if file.is_own else "a project's"
    if file.is_own:
        yield Check("file", "ok", f"{path}, {kind}")
    elif not file.needs:
        yield Check("file", "ok", f"{path}, {kind}; it starts and sends nothing that needs a review")
    elif file.is_trusted:
        yield Check("file", "ok", f"{path}, {kind}; reviewed in its current form")
    else:
        needs = "; ".join(file.needs)
        yield Check("file", "failed", f"{path}, {kind}, not reviewed in its current form: {needs}", LOOK)
    local = file.config.local_model
    if local is not None and local.api_key and local.api_key_env is None and _is_open(file):
        text = f"{path} contains a key and is readable by others"
        yield Check("key", "failed", text, f"chmod 600 {shlex.quote(str(path))}, or use a variable: env:NAME")


def _is_open(file: ConfigFile) -> bool:
    try:
        return bool(stat.S_IMODE(file.path.stat().st_mode) & 0o077)
    except OSError:
        return False
