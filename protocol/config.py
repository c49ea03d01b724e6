"""``Config``: all of a ``polypod.toml``, as people write it; data only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from protocol.approval import ApprovalRule, ApprovalsSection
from protocol.errors import ConfigError, ManifestError
from protocol.explain import explained
from protocol.foreign import shown
from protocol.manifest import PodManifest

#: How a key names a variable of the environment that holds it.
_ENV = "env:"


class LocalModelSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[local_model]``: a model on a server that speaks chat completions, for jobs, the
    classifier, and pods that a command starts.

    ``endpoint`` is the URL up to and including ``/v1``; if it is empty there is no local model. ``model`` may
    be empty if the server has only one. An answer may take ``timeout_seconds``. ``api_key`` is the key
    itself, or ``env:NAME``, the environment variable that holds it.
    """

    endpoint: str = ""
    model: str = ""
    timeout_seconds: float = 300.0
    default_temperature: float | None = None
    api_key: str = ""

    def __repr__(self) -> str:
        return f"LocalModelSection(endpoint={self.endpoint!r}, model={self.model!r})"  # and never the key

    @property
    def api_key_env(self) -> str | None:
        """The environment variable that holds the key, if one is named."""
        return self.api_key.removeprefix(_ENV) if self.api_key.startswith(_ENV) else None

    def key(self, environment: Mapping[str, str]) -> str:
        """The key itself; empty if there is none, or its variable is not set."""
        name = self.api_key_env
        return self.api_key if name is None else environment.get(name, "")


class RunnerSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[[runner]]``: what is changed about a runner.

    ``name`` is that of a runner (``claude``, ``acp:COMMAND``), or a new one for a ``command`` that prints our
    lines. ``command`` replaces the program's own, ``args`` are appended to it, ``env`` names further
    variables that it may have. ``max_retries``, ``max_wait`` and ``quiet_seconds`` limit what it does when
    its model server fails.
    """

    name: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    max_retries: int = 5
    max_wait: float = 60.0
    quiet_seconds: float = 1800.0


class ChainEntrySection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An entry of a ``[[chain]]`` that is more than the name of a model. What is not set is derived from the
    model's name. ``base_url`` is where its server answers, and ``api_key_env`` the variable that holds the
    key, as in a manifest.
    """

    model: str
    tier: Literal["local", "subagent", "managed"] | None = None
    cloud: bool | None = None
    base_url: str | None = None
    api_key_env: str | None = None


class VerifierSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``verifier`` of a ``[[chain]]``: a ``command`` that exits with code 0 if an answer is good, or a
    ``model`` that judges it by a ``rubric``, each within ``timeout_seconds``. If both are set, both have to
    accept.
    """

    command: tuple[str, ...] = ()
    model: str = ""
    rubric: str = ""
    timeout_seconds: float = 120.0


class ChainSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[[chain]]``: models that are asked in turn, until one's answer is accepted.

    ``entries`` are models (``ollama/qwen3``) or tables. ``warm_url`` is the server that is asked which models
    are loaded; with ``prefer_warm`` those come first.
    """

    name: str
    entries: tuple[str | ChainEntrySection, ...]
    verifier: VerifierSection | None = None
    warm_url: str = ""
    prefer_warm: bool = False


class PoolSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[pool]``: who does jobs, and how many at a time.

    ``runners`` are names of runners, ``limits`` how many jobs each may have at a time. ``classifier`` says
    whether a classifier chooses the runner of a job that names none: the local model, or, if there is none,
    the command given here. A job works in the folder itself, or in a ``worktree`` of its own.
    """

    runners: tuple[str, ...] = ()
    limits: dict[str, int] = {}
    classifier: bool | tuple[str, ...] = True
    workspace: Literal["shared", "worktree"] = "shared"


class Config(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All of a ``polypod.toml``. A profile's keys are those of ``PodManifest.of``."""

    local_model: LocalModelSection | None = None
    runner: tuple[RunnerSection, ...] = ()
    chain: tuple[ChainSection, ...] = ()
    pool: PoolSection | None = None
    profile: dict[str, dict[str, Any]] = {}
    approval: tuple[ApprovalRule, ...] = ()
    approvals: ApprovalsSection | None = None


#: The sections that only a manifest has.
_OF_MANIFESTS = {*PodManifest.__struct_fields__} - {*Config.__struct_fields__}


def config_of(data: dict[str, Any], where: str, base: Path) -> Config:
    """The config that a TOML text was decoded to; relative paths of profiles are relative to ``base``. Raises
    ConfigError, which names ``where``, the key and what was expected.
    """
    try:
        config = msgspec.convert(data, Config)
        _check(config, where, base)
    except msgspec.ValidationError as error:
        found = explained(error, data, Config, where, what="configuration")
        foreign = next((key for key in data if found.message.endswith(f"unknown key {key!r}")), None)
        here = (
            "in polypod.toml, put this section of a manifest in a profile: "
            f"[profile.NAME.{foreign}], used with --profile NAME"
        )
        hint = here if foreign in _OF_MANIFESTS else found.hint
        raise ConfigError(found.message, hint=hint) from None
    except ManifestError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    return config


def _check(config: Config, where: str, base: Path) -> None:
    """Check what the types alone do not express. Raises ManifestError."""
    _check_names("runner", [each.name for each in config.runner], where)
    _check_names("chain", [each.name for each in config.chain], where)
    local = config.local_model
    if local is not None:
        _check_local_model(local, f"{where}: local_model")
    for number, runner in enumerate(config.runner):
        at = f"{where}: runner[{number}]"
        _check_number(f"{at}.max_retries", runner.max_retries, 0)
        _check_number(f"{at}.max_wait", runner.max_wait, 0)
        _check_number(f"{at}.quiet_seconds", runner.quiet_seconds)
    for number, chain in enumerate(config.chain):
        _check_chain(chain, f"{where}: chain[{number}]")
    pool = config.pool or PoolSection()
    for name, limit in pool.limits.items():
        _check_number(f"{where}: pool.limits.{name}", limit, 1)
    if pool.classifier == ():
        raise ConfigError(
            f"{where}: pool.classifier: expected a command as a list of strings, or false, got []"
        )
    for number, rule in enumerate(config.approval):
        if not rule.tool:
            raise ConfigError(f"{where}: approval[{number}].tool: expected the name of a tool, got ''")
    if config.approvals is not None and config.approvals.timeout is not None:
        _check_number(f"{where}: approvals.timeout", config.approvals.timeout)
    for name, profile in config.profile.items():
        PodManifest().merged(profile, f"{where}: profile.{name}", base)


def _check_names(section: str, names: list[str], where: str) -> None:
    for number, name in enumerate(names):
        at = f"{where}: {section}[{number}].name"
        if not name.strip():
            raise ConfigError(f"{at}: expected a name, got {shown(name)}")
        if names.index(name) < number:
            raise ConfigError(f"{at}: there is already a {section} {shown(name)}")


def _check_number(at: str, value: float, least: int | None = None) -> None:
    """``least`` is None where all above 0 will do."""
    # A TOML number may be nan or inf.
    if math.isfinite(value) and (value > 0 if least is None else value >= least):
        return
    word = {None: "more than 0", 0: "0 or more"}.get(least, f"at least {least}")
    raise ConfigError(f"{at}: expected {word}, got {value}")


def _check_local_model(local: LocalModelSection, at: str) -> None:
    _check_number(f"{at}.timeout_seconds", local.timeout_seconds)
    if local.default_temperature is not None:
        _check_number(f"{at}.default_temperature", local.default_temperature, 0)
    if local.endpoint and not local.endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"{at}.endpoint: expected a URL that begins with http:// or https://",
            hint="write it including /v1, as in http://127.0.0.1:11434/v1",
        )
    if local.api_key_env is not None and not local.api_key_env.isidentifier():
        raise ConfigError(f"{at}.api_key: expected env:NAME, with the name of an environment variable")


def _check_chain(chain: ChainSection, at: str) -> None:
    if not chain.entries:
        raise ConfigError(f"{at}.entries: expected at least one model", hint='entries = ["ollama/qwen3"]')
    for number, entry in enumerate(chain.entries):
        if not (entry if isinstance(entry, str) else entry.model):
            raise ConfigError(f"{at}.entries[{number}]: expected the name of a model, got ''")
    verifier = chain.verifier
    if verifier is None:
        return
    if not verifier.command and not verifier.model:
        raise ConfigError(
            f"{at}.verifier: expected a command, or a model with a rubric",
            hint='as in verifier = { command = ["pytest", "-q"] }',
        )
    if bool(verifier.model) != bool(verifier.rubric):
        raise ConfigError(f"{at}.verifier: a model needs a rubric: set both or neither")
    _check_number(f"{at}.verifier.timeout_seconds", verifier.timeout_seconds)
