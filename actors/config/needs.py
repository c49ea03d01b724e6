"""What of a project's ``polypod.toml`` a person has to look at before it is followed; pure, but for the
symlinks on the way to the folders that it names.

That is whatever starts a program, runs code, sends what is said or a key to another machine, or lets a pod do
more than it may by itself. What only narrows needs no look.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from actors.net.proxies import is_loopback
from protocol.approval import ApprovalRule, in_words
from protocol.config import ChainEntrySection, Config, LocalModelSection, PoolSection, RunnerSection
from protocol.manifest import ModelSection, PodManifest
from protocol.mcp import McpServer, variables_in
from protocol.urls import without_secrets

_WITHOUT_RULE = 'has [approvals] default = "allow" for calls that match no rule'


def needs_of(config: Config, folder: Path) -> Iterator[str]:
    """What in a file in ``folder`` a person must look at, a line each."""
    for runner in config.runner:
        yield from _of_runner(runner)
    for chain in config.chain:
        yield from (f"chain {chain.name!r} {line}" for line in _of_entries(chain.entries))
        if chain.verifier is not None and chain.verifier.command:
            yield f"chain {chain.name!r} checks answers by: {shlex.join(chain.verifier.command)}"
        if chain.warm_url and not is_on_this_machine(chain.warm_url):
            url = without_secrets(chain.warm_url)
            yield f"chain {chain.name!r} asks another machine, {url}, which models are loaded"
    yield from _of_pool(config.pool or PoolSection())
    if config.local_model is not None:
        yield from _of_local_model(config.local_model)
    yield from (f"every pod {line}" for line in _of_rules(config.approval))
    if config.approvals is not None and config.approvals.default == "allow":
        yield f"every pod {_WITHOUT_RULE}"
    for name, profile in config.profile.items():
        manifest = PodManifest().merged(profile, name, folder)
        for line in _of_manifest(manifest, folder):
            yield f"profile {name!r} {line}"
        if "approvals" in profile and manifest.approvals.default == "allow":
            yield f"profile {name!r} {_WITHOUT_RULE}"


def _of_runner(runner: RunnerSection) -> Iterator[str]:
    if runner.command or runner.args:
        words = shlex.join((*(runner.command or (runner.name,)), *runner.args))
        yield f"runner {runner.name!r} starts: {words}"
    if runner.env:
        yield f"runner {runner.name!r} gets the variables {', '.join(runner.env)}"


def _of_entries(entries: tuple[str | ChainEntrySection, ...]) -> Iterator[str]:
    for each in entries:
        if isinstance(each, ChainEntrySection):
            yield from _of_model(ModelSection(base_url=each.base_url, api_key_env=each.api_key_env))


def _of_pool(pool: PoolSection) -> Iterator[str]:
    if isinstance(pool.classifier, tuple):
        yield f"the pool chooses runners by: {shlex.join(pool.classifier)}"
    for runner in pool.runners:
        if runner.startswith("acp:"):
            yield f"the pool starts: {runner.removeprefix('acp:')}"


def _of_local_model(local: LocalModelSection) -> Iterator[str]:
    if local.endpoint and not is_on_this_machine(local.endpoint):
        yield f"the local model is on another machine, {without_secrets(local.endpoint)}"
    if local.endpoint and local.api_key_env is not None:
        yield f"the local model receives the key in {local.api_key_env}"


def _of_rules(rules: tuple[ApprovalRule, ...]) -> Iterator[str]:
    return (f"has {in_words(rule)}" for rule in rules if rule.policy == "allow")


def _of_manifest(manifest: PodManifest, folder: Path) -> Iterator[str]:
    yield from _of_model(manifest.model)
    yield from _of_tools(manifest)
    yield from _of_rules(manifest.approval_rules)
    for rule in manifest.scope.allow:
        if (place := _outside(rule.target, folder)) is not None:
            yield f"may {rule.permission} {place}"
    if (place := _outside(manifest.pod.pwd, folder)) is not None:
        yield f"works in {place}"
    if manifest.memory.folder is not None and (place := _outside(manifest.memory.folder, folder)) is not None:
        yield f"keeps its memory in {place}"


def _outside(path: str, folder: Path) -> Path | None:
    """Where ``path`` leads, symlinks followed, which a project brings along; None where that is within
    ``folder``.
    """
    place = Path(os.path.realpath(path))
    return None if place.is_relative_to(os.path.realpath(folder)) else place


def _of_model(model: ModelSection) -> Iterator[str]:
    if model.base_url is not None and not is_on_this_machine(model.base_url):
        yield f"uses a model on another machine, {without_secrets(model.base_url)}"
    if model.api_key_env is not None:
        yield f"sends the key in {model.api_key_env} to its model"
    variables = sorted({name for text in model.extra_headers.values() for name in variables_in(text)})
    if variables:
        yield f"sends its model the variables {', '.join(variables)}"


def _of_tools(manifest: PodManifest) -> Iterator[str]:
    if manifest.tools.modules:
        yield f"runs the Python code in {', '.join(manifest.tools.modules)}"
    for server in manifest.tools.mcp:
        yield _of_server(server)
    if manifest.sandbox.mode == "off":
        yield "runs commands unconfined"
    if manifest.sandbox.network:
        yield "lets commands reach the network"
    if "fetch" in manifest.tools.builtin:
        yield "has the tool fetch, which accesses the network"
    if manifest.fetch.allow_private:
        yield "lets the tool fetch access this machine and its network"


def _of_server(server: McpServer) -> str:
    safe = server.without_secrets()
    if safe.url is not None:
        return f"uses the MCP server {server.name!r} at {safe.url}"
    return f"starts the MCP server {server.name!r}: {shlex.join(safe.words)}"


def is_on_this_machine(url: str) -> bool:
    """Whether a URL leads to a server on this machine, as it is written."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
