"""``polypod models``: the models and chains that can be asked for by name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import click

from actors.cli import options
from actors.cli.display.event_format import Line
from actors.cli.display.json_rows import ModelRow
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.config.configuration import Configuration
from actors.config.files import ConfigFile
from actors.net.proxies import basic_credentials, is_loopback
from protocol.config import ChainSection
from protocol.errors import ConfigError, ManifestError, ModelError


async def known_models() -> AsyncIterator[ModelRow]:
    """The embedded model, those of the servers that answer on this machine, and what there is of vendors
    whose key is exported: these are not asked.
    """
    from actors.llm.http.presets import PRESETS, answering_servers  # noqa: PLC0415 - pays for an HTTP client

    async for preset, models in answering_servers():
        for model in models:
            yield ModelRow(f"{preset.scheme}/{model}", preset.base_url)
    for preset in PRESETS.values():
        if preset.key_env and os.environ.get(preset.key_env):
            yield ModelRow(f"{preset.scheme}/…", preset.base_url, f"${preset.key_env} is set")
    yield ModelRow("offline", None, "embedded, no language model")
    with suppress(ConfigError):  # who asks for a chain sees why
        for each in chains():
            yield each


def chains() -> list[ModelRow]:
    """The chains that ``polypod.toml`` has here. Raises ConfigError."""
    return [_row(chain, file) for chain, file in Configuration.load().chains()]


def _row(chain: ChainSection, file: ConfigFile) -> ModelRow:
    models = " → ".join(each if isinstance(each, str) else each.model for each in chain.entries)
    unused = "" if file.is_trusted else f"; not used until {file.path} is trusted"
    return ModelRow(f"chain/{chain.name}", None, f"{models}{unused}")


async def models_of(scheme: str, base_url: str | None, api_key_env: str | None) -> list[ModelRow]:
    """The models that one server lists. Raises ModelError, ManifestError where it has no address yet, and
    MissingKey.
    """
    from actors.llm.http.presets import PRESETS, server_for  # noqa: PLC0415 - the same
    from actors.pod import server_clients  # noqa: PLC0415 - the same

    try:
        server = server_for(scheme, base_url=base_url, api_key_env=api_key_env)
    except ManifestError as error:
        error.message = error.message.removeprefix("manifest: model.base_url: ")
        raise
    try:
        found = await server_clients.models_of(PRESETS[scheme], server)
    except ModelError as error:
        if error.kind == "auth":
            variable = api_key_env or PRESETS[scheme].key_env if server.api_key else None
            error.hint = key_hint(server.base_url, variable)
        elif error.kind == "not_found":
            error.hint = "check the URL, which usually ends in /v1"
        raise
    return [ModelRow(f"{scheme}/{model}", server.base_url) for model in found]


def key_hint(url: str, variable: str | None) -> str:
    """What to do about a server that refuses to list its models, and was sent the key in that variable."""
    from actors.llm.http.presets import PRESETS, vendor_of  # noqa: PLC0415 - the same

    if variable is not None:
        return f"check the key in ${variable}"
    if basic_credentials(url) is not None:
        return "check the user and password in the URL"
    vendor = vendor_of(url)
    if vendor is not None:
        return f"no key was sent: polypod models {vendor} sends that in ${PRESETS[vendor].key_env}"
    return (
        "no key was sent: name the variable that contains it with --api-key-env, or put a user and password "
        "into --base-url"
    )


@click.command
@click.argument("scheme", required=False)
@options.base_url_again
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="The environment variable that contains the server's key  [default: the vendor's usual one]",
)
@options.as_json
def models(scheme: str | None, base_url: str | None, api_key_env: str | None, as_json: bool) -> None:
    """List the models of the servers that answer on this machine, and the chains of polypod.toml; with
    SCHEME or --base-url only those of that server, with "chain" only the chains.
    """
    if api_key_env is not None and base_url is None and scheme in {None, "chain", "offline"}:
        raise click.UsageError("--api-key-env is for one server: name it by SCHEME or --base-url")
    if scheme is None and base_url is None:
        found = asyncio.run(_all())
    elif scheme == "chain" and base_url is None:
        found = chains()
    elif scheme == "offline":
        found = [ModelRow("offline")]
    else:
        found = asyncio.run(models_of(scheme or "openai", base_url, api_key_env))
    terminal = Terminal()
    for each in found:
        if as_json:
            put_json(each)
        else:
            note = f"  {each.note}" if each.note else ""
            terminal.row(Line("answer", f"{each.name}{note}"))
    if scheme == "chain" and not found and not as_json:
        terminal.note("no chains: no polypod.toml here or in a folder above has a [[chain]]")
    if (
        scheme is None
        and not as_json
        and not any(each.base_url and _is_here(each.base_url) for each in found)
    ):
        terminal.note("no model server answers at its usual port on this machine; see polypod doctor")


async def _all() -> list[ModelRow]:
    return [each async for each in known_models()]


def _is_here(base_url: str) -> bool:
    return is_loopback(urlsplit(base_url).hostname or "")
