"""What comes of each section, runner, chain and profile that a ``polypod.toml`` has."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

from msgspec.structs import replace

from actors.cli.config.servers import Servers
from actors.cli.display.checks import Check
from actors.cli.display.format import count
from actors.config.configuration import Configuration
from actors.config.files import ConfigFile
from actors.routing.chain.named import model_section
from actors.swarm.runners.named import runner_of
from protocol.config import ChainSection, LocalModelSection, PoolSection, RunnerSection
from protocol.errors import NotTrusted, UnknownRunner
from protocol.manifest import PodManifest

#: What a person does about a file that nobody has looked at.
LOOK = "`polypod config trust` shows what needs a review, and asks"
_PROGRAMS = ("claude", "codex", "gemini")
_INSTALL = "install it, or correct its name"
_WORKSPACES = {"shared": "the folder itself", "worktree": "their own worktrees"}


class Look(NamedTuple):
    """What checks look at: all that holds, and servers."""

    found: Configuration
    servers: Servers


#: Looks whether one thing can work.
Checking = Callable[[Look], Awaitable[Check]]


def of_file(file: ConfigFile) -> Iterator[tuple[str, str, Checking]]:
    """What a file sets: its kind, its name, and what looks whether it can work."""
    config = file.config
    if config.local_model is not None:
        yield "local model", "", partial(_local, file, config.local_model)
    for runner in config.runner:
        yield "runner", runner.name, partial(_runner, file, runner)
    for chain in config.chain:
        yield "chain", chain.name, partial(_chain, file, chain)
    if config.pool is not None:
        yield "pool", "", partial(_pool, file, config.pool)
    for name in config.profile:
        yield "profile", name, partial(_profile, file, name)
    if config.approval:
        yield "approvals", str(file.path), partial(_rules, file)


def _trusted(file: ConfigFile, check: Check) -> Check:
    """The check of what comes from a file: what is not trusted is not used."""
    if file.is_trusted:
        return check
    text = f"{check.text}; not used until {file.path} is trusted"
    return replace(check, status="failed", text=text, todo=None)


def _is_there(words: Sequence[str]) -> bool:
    # A path that is relative is so to where the program is started.
    return ("/" in words[0] and not words[0].startswith("/")) or shutil.which(words[0]) is not None


async def _local(file: ConfigFile, local: LocalModelSection, look: Look) -> Check:
    if not local.endpoint:
        return Check(
            "local model", "missing", "its endpoint is empty, so there is no local model and no runner local"
        )
    if not file.is_trusted:
        return _trusted(file, Check("local model", "failed", "is set"))
    status, text, todo = await look.servers.local(local)
    return Check("local model", status, text, todo)


async def _runner(file: ConfigFile, section: RunnerSection, _: Look) -> Check:
    name = f"runner {section.name}"
    try:
        runner_of(section.name, [section], LocalModelSection("http://localhost"))
    except UnknownRunner as error:
        return _trusted(file, Check(name, "failed", error.message, error.hint))
    words = (*_command_of(section), *section.args)
    if words and not _is_there(words):
        return _trusted(file, Check(name, "failed", f"there is no program {words[0]}", _INSTALL))
    text = f"starts {shlex.join(words)}" if words else "asks the local model"
    if section.env:
        text += f"; gets the variables {', '.join(section.env)}"
    unset = [each for each in section.env if each not in os.environ]
    if unset:
        text += f"; not set: {', '.join(unset)}"
        return _trusted(file, Check(name, "missing", text, "export the missing variables"))
    return _trusted(file, Check(name, "ok", text))


def _command_of(section: RunnerSection) -> tuple[str, ...]:
    if section.command or section.name == "local":
        return section.command
    return tuple(shlex.split(section.name.removeprefix("acp:")))


async def _chain(file: ConfigFile, chain: ChainSection, look: Look) -> Check:
    name = f"chain {chain.name}"
    models = list(chain.entries)
    text = " → ".join(each if isinstance(each, str) else each.model for each in models)
    if (verifier := chain.verifier) is not None:
        judges = [f"`{shlex.join(verifier.command)}`"] if verifier.command else []
        judges += [verifier.model] if verifier.model else []
        text += f"; answers are judged by {' and '.join(judges)}"
        models += [verifier.model] if verifier.model else []
        if verifier.command and not _is_there(verifier.command):
            text += f"; there is no program {verifier.command[0]}"
            return _trusted(file, Check(name, "failed", text, _INSTALL))
    if not file.is_trusted:
        return _trusted(file, Check(name, "failed", text))
    if (error := look.servers.why_no_chain(chain.name)) is not None:
        why = error.message.removeprefix(f"{file.path}: chain {chain.name!r}: ")
        return Check(name, "failed", f"{text}; {why}", error.hint)
    for model in dict.fromkeys(models):
        status, why, todo = await look.servers.model(model_section(model, look.found.local_model))
        if status == "failed":
            return Check(name, "failed", f"{text}; {why}", todo)
    if not chain.warm_url:
        return Check(name, "ok", text)
    status, why, todo = await look.servers.warm(chain.warm_url)
    return Check(name, status, f"{text}; {why}", todo)


async def _pool(file: ConfigFile, pool: PoolSection, look: Look) -> Check:
    known = {each.name for one in look.found.files for each in one.config.runner}
    known |= {*_PROGRAMS, "pod", "process", "local"}
    unknown = [each for each in pool.runners if each not in known and not each.startswith("acp:")]
    if unknown:
        todo = f"choose from {', '.join(sorted(known))}, or add a [[runner]]"
        return Check("pool", "failed", f"there is no runner {', '.join(unknown)}", todo)
    limits = {name: f"{name} ({limit} at a time)" for name, limit in pool.limits.items()}
    runners = [limits.get(each, each) for each in pool.runners or limits]
    text = f"{', '.join(runners) or 'all runners'}; jobs work in {_WORKSPACES[pool.workspace]}"
    text += f"; {_classifier(pool, look.found)}"
    command = _classifying_command(pool, look.found)
    if command and not _is_there(command):
        return _trusted(file, Check("pool", "failed", f"{text}; there is no program {command[0]}", _INSTALL))
    unused = [each for each in limits if pool.runners and each not in pool.runners]
    if unused:
        text += f"; limits for runners it does not have: {', '.join(unused)}"
    return _trusted(file, Check("pool", "missing" if unused else "ok", text))


def _classifier(pool: PoolSection, found: Configuration) -> str:
    if command := _classifying_command(pool, found):
        return f"`{shlex.join(command)}` classifies"
    if len(pool.runners) == 1 or pool.classifier is False or not _has_local_model(found):
        return "no classifier"
    return "the local model classifies"


def _classifying_command(pool: PoolSection, found: Configuration) -> tuple[str, ...]:
    """The words of the program that classifies; none where the local model does, or nobody."""
    if len(pool.runners) == 1 or not isinstance(pool.classifier, tuple) or _has_local_model(found):
        return ()
    return pool.classifier


def _has_local_model(found: Configuration) -> bool:
    sections = (each.config.local_model for each in found.files)
    nearest = next((each for each in sections if each is not None), None)
    return nearest is not None and bool(nearest.endpoint)


async def _profile(file: ConfigFile, name: str, look: Look) -> Check:
    title = f"profile {name}"
    try:
        profile = look.found.profile(name)
    except NotTrusted:
        return _trusted(file, Check(title, "failed", "is set"))
    manifest = profile.over(PodManifest())
    servers = manifest.tools.mcp
    tools = [*manifest.tools.builtin, *manifest.tools.modules, *(each.name for each in servers)]
    text = f"tools: {', '.join(tools)}" if tools else "tools from the command"
    text += "".join(f"; {rule.permission} {rule.target}" for rule in manifest.scope.allow)
    if servers and find_spec("mcp") is None:
        return Check(title, "failed", f"{text}; MCP servers need an extra", "pip install 'polypod[mcp]'")
    for each in servers:
        if each.url is None and not _is_there(each.words):
            return Check(title, "failed", f"{text}; there is no program {each.words[0]}", _INSTALL)
    if not profile.names_a_model:
        return Check(title, "ok", f"model from the command; {text}")
    status, said, todo = await look.servers.model(manifest.model)
    return Check(title, status, f"{said}; {text}", todo)


async def _rules(file: ConfigFile, _: Look) -> Check:
    rules = file.config.approval
    allowing = sum(each.policy == "allow" for each in rules)
    text = f"{count(len(rules), 'rule')} of {file.path}, for every pod that a command starts"
    if allowing and not file.is_trusted:
        return Check("approvals", "failed", f"{text}; {allowing} that allow are not in force yet", LOOK)
    return Check("approvals", "ok", text)
