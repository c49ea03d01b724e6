"""``Wishes``: what the options of a command say of a pod, and the manifest that comes of them and files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct

from actors.cli.options import source_of
from actors.config.configuration import Configuration
from protocol.errors import ConfigError, ManifestError
from protocol.manifest import DEFAULT_SCHEME, ModelSection, PodManifest, ToolsSection
from protocol.scope import Rule, Scope
from protocol.toml import read_toml

#: The words that a pod at a terminal is given where no manifest gives others.
SYSTEM_PROMPT = (
    "You work at a terminal, in the directory {pwd}. Use your tools to look before you answer and to do "
    "what you are asked; paths outside of your scope are refused. Answer briefly."
)
#: The tools that a pod at a terminal has where no manifest says otherwise.
TOOLS = ("files", "search", "shell")


class Wishes(Struct, frozen=True):
    """What the options of a command say about a pod; None and empty where they say nothing."""

    manifest: Path | None = None
    name: str | None = None
    model: str | None = None
    base_url: str | None = None
    allow: tuple[Path, ...] = ()
    profile: str | None = None


def manifest_for(
    wishes: Wishes, unsaid: Callable[[], PodManifest] | None = None, *, folder: str | None = None
) -> tuple[PodManifest, list[str]]:
    """The manifest that ``wishes`` come to, and what a person should know of it, a line each.

    ``unsaid`` makes the manifest where none was named (by default that of a pod at a terminal, and to that,
    as to one that was named, the profile and the rules of ``polypod.toml`` are added). ``folder`` are the
    words for where that pod works, instead of its path. Raises ManifestError.
    """
    notes: list[str] = []
    if wishes.manifest is not None:
        manifest, chosen = PodManifest.load(wishes.manifest), _names_a_model(wishes.manifest)
    elif unsaid is not None:
        manifest, chosen = unsaid(), False
    else:
        manifest, chosen = _at_terminal(), False
        notes.append(f"tools: {', '.join(TOOLS)}; may read and write {folder or manifest.pod.pwd}")
    configuration = Configuration.load() if unsaid is None else None
    if configuration is not None:
        if wishes.profile is not None:
            profile = configuration.profile(wishes.profile)
            manifest, chosen = profile.over(manifest), chosen or profile.names_a_model
            tools = ", ".join(manifest.tools.builtin) or "none"
            notes = [f"profile {profile.name} of {profile.path}; tools: {tools}"]
        manifest, of_rules = configuration.with_approvals(manifest)
        notes += of_rules
    manifest = allowing(manifest, wishes.allow)
    if wishes.name is not None:
        renamed = PodManifest.of(name=wishes.name).pod.name  # checks it
        manifest = manifest.replace(pod=msgspec.structs.replace(manifest.pod, name=renamed))
    if wishes.model is not None or wishes.base_url is not None:
        return with_model(manifest, wishes), notes
    if chosen:
        return manifest, notes
    model, of_model = (configuration or Configuration.load()).model_of_pods()
    if model is None:
        from actors.llm.http.presets import probe_local  # noqa: PLC0415 - paid for where no model is named

        model, why = choose_model(asyncio.run(probe_local()))
        of_model.append(why)
    return with_default_model(manifest, model), [*of_model, *notes]


#: How what is wrong with a model's scheme is said of a manifest that has no file.
_OF_SCHEME = "manifest: model.scheme: "


@contextmanager
def name_in_errors(path: Path | None) -> Iterator[None]:
    """Put the manifest's file, or the option, in front of a ManifestError that is raised in the body."""
    try:
        yield
    except ManifestError as error:
        if path is None and error.message.startswith(_OF_SCHEME):
            # Nobody wrote a manifest: it was said by --model or $POLYPOD_MODEL.
            given = source_of(click.get_current_context(), "model")
            message = f"{given}: {error.message.removeprefix(_OF_SCHEME)}"
            raise ManifestError(message, hint=error.hint) from error
        if path is None or isinstance(error, ConfigError) or error.message.startswith(f"{path}:"):
            raise
        message = f"{path}: {error.message.removeprefix('manifest: ')}"
        raise ManifestError(message, hint=error.hint) from error


def with_model(manifest: PodManifest, wishes: Wishes) -> PodManifest:
    """``manifest`` with the model that was named on the command line; other settings stay."""
    if wishes.model is None and wishes.base_url is None:
        return manifest
    named = PodManifest.of(model=wishes.model, base_url=wishes.base_url).model
    if wishes.model is None and manifest.model.scheme != DEFAULT_SCHEME:
        return manifest.replace(model=msgspec.structs.replace(manifest.model, base_url=named.base_url))
    if wishes.model is None:
        # A server alone is asked as what nearly all servers are: one that speaks chat completions.
        named = msgspec.structs.replace(named, scheme="openai")
    return manifest.replace(
        model=msgspec.structs.replace(
            manifest.model,
            scheme=named.scheme,
            model_id=named.model_id,
            base_url=named.base_url,
            **({} if named.scheme == manifest.model.scheme else _OF_ONE_SERVER),
        )
    )


#: What a model of another kind of server cannot have.
_OF_ONE_SERVER: dict[str, Any] = {"api_key_env": None, "num_ctx": None, "api_version": None}


def with_default_model(manifest: PodManifest, model: ModelSection) -> PodManifest:
    """``manifest``, which names no model, with ``model``; other settings stay."""
    own = manifest.model
    return manifest.replace(
        model=msgspec.structs.replace(
            own,
            scheme=model.scheme,
            model_id=model.model_id,
            base_url=model.base_url,
            temperature=model.temperature if own.temperature is None else own.temperature,
            **{
                **_OF_ONE_SERVER,
                "api_key_env": model.api_key_env,
                "num_ctx": own.num_ctx if model.scheme == "ollama" else None,
            },
        )
    )


def allowing(manifest: PodManifest, folders: tuple[Path, ...]) -> PodManifest:
    """``manifest`` with a scope that also allows to write in ``folders``."""
    rules = tuple(Rule(str(folder.resolve()), "write") for folder in folders)
    scope = manifest.scope
    return manifest.replace(scope=Scope((*scope.allow, *rules), scope.deny, scope.within))


def choose_model(server: tuple[str, list[str]] | None) -> tuple[ModelSection, str]:
    """Choose a model where none was named: the model, and a line that says which it is and why.

    ``server`` is the preset of a server that answers on this machine, with its models.
    """
    if server is None:
        return ModelSection(), (
            "model: offline, the embedded one "
            "(no model was named, and no local server answers at its usual port)"
        )
    scheme, models = server
    others = f", which has {len(models) - 1} more" if len(models) > 1 else ""
    named = f"model: {scheme}/{models[0]}, from the {scheme} server on this machine{others}"
    return ModelSection(scheme=scheme, model_id=models[0]), named


def _at_terminal() -> PodManifest:
    try:
        pwd = Path.cwd()
    except FileNotFoundError as error:
        raise click.UsageError("the current directory no longer exists: change to another one") from error
    return PodManifest.of(
        pwd=str(pwd),
        system_prompt=SYSTEM_PROMPT.format(pwd=pwd),
        tools=ToolsSection(builtin=TOOLS),
        scope=Scope.writable(pwd),
    )


def _names_a_model(path: Path) -> bool:
    """Whether a manifest (which was loaded without error) says which model answers."""
    try:
        data = read_toml(path, "a manifest")
    except ManifestError:  # a pipe, which gives what it has once: nothing stands over what it has said
        return True
    return bool(data.get("model", {}).keys() & {"scheme", "model_id", "base_url"})
