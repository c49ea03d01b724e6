"""Makes the chains that manifests name as ``chain/NAME`` from their definitions in ``polypod.toml``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from actors.config.configuration import Configuration
from actors.llm.base import LLMClient
from actors.llm.http.presets import PRESETS
from actors.llm.prices import Prices
from actors.routing.chain.chain import EscalationChain
from actors.routing.command_verifier import CommandVerifier
from actors.routing.model_verifier import ModelVerifier
from actors.routing.verifiers import AllOf, Verifier
from actors.runtime.children.launcher import Launcher
from protocol.config import ChainEntrySection, ChainSection, LocalModelSection, VerifierSection
from protocol.errors import ChainInvalid, ConfigError
from protocol.manifest import ModelSection
from protocol.routing import ChainEntry, entry_for

#: Makes the client of one model.
ClientOf = Callable[[ModelSection], LLMClient]


def make_chain(
    name: str,
    folder: str,
    client_of: ClientOf,
    launcher: Callable[[], Launcher],
    prices: Prices | None = None,
) -> EscalationChain:
    """The chain of that name in the ``polypod.toml`` that applies in ``folder``. Raises NotTrusted,
    ConfigError if there is none, ChainInvalid if it could not work, and ManifestError or MissingKey for a
    model.
    """
    configuration = Configuration.load(folder or None)
    section = configuration.chain(name)
    try:
        return _chain_of(section, _Makers(client_of, launcher, folder, configuration), prices)
    except (ChainInvalid, ConfigError) as error:
        if error.__cause__ is not None:  # of a chain that is a tier of this one: it has its place
            raise
        file = configuration.file_of_chain(name)
        raise type(error)(f"{file}: chain {name!r}: {error.message}", hint=error.hint) from error


def _chain_of(section: ChainSection, made: _Makers, prices: Prices | None) -> EscalationChain:
    entries = tuple(map(_entry, section.entries))
    local, cloud = made.clients(section.entries, entries)
    _check_verified(section, entries)
    return EscalationChain(
        entries,
        local=local,
        cloud=cloud,
        verifier=None if section.verifier is None else made.verifier(section.verifier),
        warm_url=section.warm_url or None,
        prefer_warm=section.prefer_warm,
        verify_timeout=_longest(section),
        prices=prices,
        name=f"chain/{section.name}",
    )


def model_section(given: str | ChainEntrySection, local: LocalModelSection | None) -> ModelSection:
    """The model that a chain in the file names, alone or in a table; a name without a kind of server means
    the server of ``[local_model]``. Raises ConfigError.
    """
    if isinstance(given, str):
        return _named(given, local)
    if given.base_url is None and given.api_key_env is None:
        return _named(given.model, local)
    scheme, _, name = given.model.partition("/")
    if name and scheme in PRESETS:
        return ModelSection(scheme, name, given.base_url, given.api_key_env)
    # The key of [local_model] is for that server alone.
    raise ConfigError(
        f"the model {given.model!r} has a server of its own, but not its kind",
        hint=f"write it with the kind of its server, as in openai/{name or scheme}",
    )


def _named(model: str, local: LocalModelSection | None) -> ModelSection:
    scheme, slash, name = model.partition("/")
    if (slash and scheme in {"offline", "chain", *PRESETS}) or model == "offline":
        return ModelSection(scheme, name)
    if model.startswith("claude-"):
        return ModelSection("anthropic", model)
    if local is not None:
        return _on_local(local, model)
    raise ConfigError(
        f"the server of the model {model!r} is unknown",
        hint="write it with the scheme of its server, as in ollama/qwen3, or set [local_model]",
    )


def _check_verified(section: ChainSection, entries: tuple[ChainEntry, ...]) -> None:
    unverified = [each.model for each in entries if not each.is_cloud]
    if section.verifier is None and unverified:
        raise ChainInvalid(
            f"the answers of {', '.join(unverified)} cannot be verified",
            hint='set verifier = { command = ["pytest", "-q"] }, or cloud = true for a model that needs none',
        )


def _entry(given: str | ChainEntrySection) -> ChainEntry:
    if isinstance(given, str):
        return entry_for(given)
    derived = entry_for(given.model)
    is_cloud = derived.is_cloud if given.cloud is None else given.cloud
    tier = given.tier or ("subagent" if is_cloud else "local")
    return ChainEntry(given.model, tier, is_cloud)


def _longest(section: ChainSection) -> float:
    """How long all verifiers together may take, in seconds."""
    verifier = section.verifier
    if verifier is None:
        return VerifierSection().timeout_seconds
    return verifier.timeout_seconds * (2 if verifier.command and verifier.model else 1)


class _Makers:
    """Makes what the section of a chain names."""

    def __init__(
        self,
        client_of: ClientOf,
        launcher: Callable[[], Launcher],
        folder: str,
        configuration: Configuration,
    ) -> None:
        self._client_of = client_of
        self._launcher = launcher
        self._folder = folder
        self._configuration = configuration

    def clients(
        self, given: tuple[str | ChainEntrySection, ...], entries: tuple[ChainEntry, ...]
    ) -> tuple[dict[str, LLMClient], dict[str, LLMClient]]:
        """The clients of the local tiers and of those in a cloud, by model. Raises ConfigError,
        ManifestError, MissingKey, and ChainInvalid where one model is to be asked at two servers.
        """
        models: tuple[dict[str, ModelSection], dict[str, ModelSection]] = ({}, {})
        for each, entry in zip(given, entries, strict=True):
            model = model_section(each, self._configuration.local_model)
            if models[entry.is_cloud].setdefault(entry.model, model) != model:
                raise ChainInvalid(f"{entry.model} is the model of two tiers at different servers")
        local, cloud = ({name: self._client_of(model) for name, model in kind.items()} for kind in models)
        return local, cloud

    def verifier(self, section: VerifierSection) -> Verifier:
        """The verifier: a command, a model, or both in turn."""
        made: list[Verifier] = []
        if section.command:
            folder, seconds = self._folder or Path.cwd(), section.timeout_seconds
            made.append(
                CommandVerifier(section.command, cwd=folder, timeout=seconds, launcher=self._launcher)
            )
        if section.model:
            client = self._client_of(model_section(section.model, self._configuration.local_model))
            made.append(ModelVerifier(client, section.rubric, model=section.model))
        return made[0] if len(made) == 1 else AllOf(*made)


def _on_local(local: LocalModelSection, model: str) -> ModelSection:
    """A model on the server of ``[local_model]``."""
    if local.api_key and local.api_key_env is None:
        raise ConfigError(
            "a chain cannot use a key that is written in local_model.api_key",
            hint='name a variable that contains it: api_key = "env:MY_KEY"',
        )
    return ModelSection("openai", model, local.endpoint, local.api_key_env)
