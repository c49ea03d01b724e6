"""``Configuration``: the settings for work in a folder, from all ``polypod.toml`` files that apply there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from msgspec import structs

from actors.config.files import ConfigFile, find_files
from actors.runtime.arguments import path_of
from protocol.approval import ApprovalRule, ApprovalsSection, Policy
from protocol.closest import closest
from protocol.config import ChainSection, Config, LocalModelSection, PoolSection, RunnerSection
from protocol.errors import ConfigError
from protocol.manifest import ModelSection, PodManifest
from protocol.urls import without_secrets

T = TypeVar("T")
#: What has a name.
N = TypeVar("N", RunnerSection, ChainSection)


class Profile(NamedTuple):
    """A profile, and the file that it comes from."""

    name: str
    path: Path
    table: dict[str, Any]

    @property
    def names_a_model(self) -> bool:
        """Whether it names a model."""
        return bool(self.table.keys() & {"model", "scheme", "model_id", "base_url"})

    def over(self, manifest: PodManifest) -> PodManifest:
        """``manifest`` with the keys of the profile over its own."""
        return manifest.merged(self.table, f"{self.path}: profile.{self.name}", self.path.parent)


class Configuration:
    """The nearest ``polypod.toml`` above a folder, and after it the user's own.

    Each section, and each runner, chain and profile by name, is taken whole from the nearest file that has
    it. Taking something from a project's file raises NotTrusted until a person has looked at that file.
    """

    def __init__(self, files: Iterable[ConfigFile]) -> None:
        self.files = tuple(files)

    def __repr__(self) -> str:
        return f"<Configuration of {', '.join(str(each.path) for each in self.files) or 'nothing'}>"

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Configuration:
        """The configuration for ``folder``, by default the working directory. Raises ConfigError."""
        return cls(find_files(None if folder is None else path_of("folder", folder)))

    @property
    def local_model(self) -> LocalModelSection | None:
        """The local model; None if none is set, or its endpoint is empty. Raises NotTrusted."""
        section = self._nearest(lambda config: config.local_model)
        return section if section is not None and section.endpoint else None

    def model_of_pods(self) -> tuple[ModelSection | None, list[str]]:
        """The local model, for pods for which no other was named; None if there is none that can be used. And
        what a person should know of it, a line each.
        """
        file = next((each for each in self.files if each.config.local_model is not None), None)
        local = None if file is None else file.config.local_model
        if file is None or local is None or not local.endpoint:
            return None, []
        if not file.is_trusted:
            why = "is not trusted: review and trust it with `polypod config trust`"
        elif local.api_key and local.api_key_env is None:
            why = 'contains its key: name a variable that contains it, as in api_key = "env:MY_KEY"'
        else:
            return _as_model(local), [f"model: {_in_words(local)}, the local model of {file.path}"]
        return None, [f"the local model is not used, since {file.path} {why}"]

    @property
    def pool(self) -> PoolSection:
        """How the pool works. Raises NotTrusted."""
        return self._nearest(lambda config: config.pool) or PoolSection()

    def runner(self, name: str) -> RunnerSection | None:
        """The settings of the runner of that name; None if there are none. Raises NotTrusted."""
        return self._nearest(lambda config: _named(name, config.runner))

    def chain(self, name: str) -> ChainSection:
        """The chain of that name. Raises NotTrusted, and ConfigError if there is none."""
        found = self._nearest(lambda config: _named(name, config.chain))
        if found is None:
            raise self._unknown(
                "chain", name, [each.name for file in self.files for each in file.config.chain]
            )
        return found

    def chains(self) -> list[tuple[ChainSection, ConfigFile]]:
        """All chains by name, with the files that they come from, including files that nobody has
        looked at.
        """
        found: dict[str, tuple[ChainSection, ConfigFile]] = {}
        for file in self.files:
            for chain in file.config.chain:
                found.setdefault(chain.name, (chain, file))
        return [found[name] for name in sorted(found)]

    def file_of_chain(self, name: str) -> Path | None:
        """The file that defines the chain of that name."""
        return next((file.path for file in self.files if _named(name, file.config.chain)), None)

    def profile(self, name: str) -> Profile:
        """The profile of that name. Raises NotTrusted, and ConfigError if there is none."""
        for file in self.files:
            if name in file.config.profile:
                return Profile(name, file.path, file.trusted().profile[name])
        raise self._unknown("profile", name, [each for file in self.files for each in file.config.profile])

    def with_profile(self, manifest: PodManifest, name: str) -> PodManifest:
        """``manifest`` with the keys of the profile of that name over its own. Raises as ``profile``."""
        return self.profile(name).over(manifest)

    def with_approvals(self, manifest: PodManifest) -> tuple[PodManifest, list[str]]:
        """``manifest`` with the rules of all files after its own, and ``[approvals]`` of the nearest file if
        it has none; and notes that a person should see, a line each.

        From a file that nobody has looked at, only rules that ask or deny apply.
        """
        rules: list[ApprovalRule] = []
        notes: list[str] = []
        for file in self.files:
            strict = [rule for rule in file.config.approval if rule.policy != "allow"]
            rules += file.config.approval if file.is_trusted else strict
            if not file.is_trusted and len(strict) < len(file.config.approval):
                notes.append(
                    f"{file.path} is not trusted, so its rules that allow are ignored: review "
                    "and trust it with `polypod config trust`"
                )
        section = manifest.approvals if manifest.approvals != ApprovalsSection() else self._approvals()
        new = tuple(rule for rule in rules if rule not in manifest.approval)  # else it has them already
        return structs.replace(manifest, approval=(*manifest.approval, *new), approvals=section), notes

    def _approvals(self) -> ApprovalsSection:
        """``[approvals]`` of the nearest file; one that nobody has looked at relaxes nothing."""
        chosen = None
        for file in reversed(self.files):
            section = file.config.approvals
            if section is None:
                continue
            if chosen is None or file.was_looked_at or _is_as_strict(section, chosen):
                chosen = section
        return chosen or ApprovalsSection()

    def _nearest(self, part: Callable[[Config], T | None]) -> T | None:
        """What the nearest file has of it. Raises NotTrusted."""
        for file in self.files:
            if part(file.config) is not None:
                return part(file.trusted())
        return None

    def _unknown(self, section: str, name: str, known: list[str]) -> ConfigError:
        if not self.files:
            message = f"there is no {section} {name!r}: no polypod.toml was found here or in a folder above"
            return ConfigError(message, hint="create one that defines it")
        near = closest(name, known)
        guess = f"did you mean {near!r}? " if near else ""
        files = ", ".join(str(each.path) for each in self.files)
        names = f"there {'are' if len(known) > 1 else 'is'} {', '.join(sorted(set(known)))}"
        return ConfigError(
            f"there is no {section} {name!r} in {files}", hint=f"{guess}{names if known else 'set one there'}"
        )


def _as_model(local: LocalModelSection) -> ModelSection:
    return ModelSection(
        "openai", local.model, local.endpoint, local.api_key_env, temperature=local.default_temperature
    )


def _in_words(local: LocalModelSection) -> str:
    server = without_secrets(local.endpoint)
    return f"{local.model} at {server}" if local.model else f"that of {server}"


_STRICTNESS: tuple[Policy, ...] = ("allow", "ask", "deny")


def _is_as_strict(one: ApprovalsSection, other: ApprovalsSection) -> bool:
    return _STRICTNESS.index(one.default) >= _STRICTNESS.index(other.default)


def _named(name: str, sections: Iterable[N]) -> N | None:
    return next((each for each in sections if each.name == name), None)
