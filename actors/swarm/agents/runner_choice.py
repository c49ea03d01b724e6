"""``RunnerChoice``: which runner is meant by what a program gives, or by what is recorded of an agent."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from actors.runtime.arguments import table_of
from actors.runtime.frozen import is_frozen
from actors.swarm.agents.history import POD_RUNNERS
from actors.swarm.agents.home import Home
from actors.swarm.agents.keeper import Keeper
from actors.swarm.agents.pod_runner import Given, PodRunner, pod_manifest
from actors.swarm.runners.base import Runner, RunnerSpec
from actors.swarm.runners.configured import configured_runner
from actors.swarm.runners.function import runner_func
from actors.swarm.runners.named import runner_of
from protocol.config import RunnerSection
from protocol.errors import AgentError, UnknownRunner
from protocol.foreign import shown
from protocol.manifest import PodManifest


class RunnerChoice:
    """Chooses the runners of one swarm's agents."""

    def __init__(self, home: Home, sections: Iterable[RunnerSection | Mapping[str, Any]] | None) -> None:
        """``sections`` are as ``[[runner]]``; None is for those of the ``polypod.toml`` that holds where an
        agent works. Raises AgentError.
        """
        self._home = home
        self._sections = None if sections is None else [_section_of(each) for each in sections]

    def of(
        self, runner: RunnerSpec | Callable[..., Any], manifest: PodManifest | None, given: Given, cwd: Path
    ) -> tuple[Runner, str | tuple[str, ...]]:
        """The runner that is meant, and its name. Raises UnknownRunner, AgentError, ConfigError."""
        if runner in POD_RUNNERS:
            made = PodRunner(self._home, manifest, given, process=runner == "process")
            return made, made.name
        if isinstance(runner, str) or _is_command(runner):
            named = runner if isinstance(runner, str) else tuple(cast("Iterable[str]", runner))
            if self._sections is None:
                return configured_runner(named, cwd), named
            return runner_of(named, self._sections), named
        if inspect.iscoroutinefunction(runner):
            function = runner_func(runner)
            return function, function.name
        if not hasattr(runner, "start"):
            raise UnknownRunner(f"{shown(runner)} is not a runner", hint="see docs/swarm.md")
        own = cast("Runner", runner)
        return own, own.name

    def again(
        self, keeper: Keeper, runner: RunnerSpec | None = None, given: Mapping[str, Any] | None = None
    ) -> Runner | None:
        """The runner that an agent is resumed with: ``runner``, else the recorded one; None if that is
        unknown. Raises ConfigError.
        """
        spec = keeper.spec
        again: Any = spec.runner if runner is None else runner
        manifest = None
        if again in POD_RUNNERS and keeper.state.session is None:  # it never was up
            manifest = pod_manifest(None, Path(spec.cwd), spec.model, spec.provider)
        with contextlib.suppress(UnknownRunner):
            return self.of(again, manifest, Given(**(given or {})), Path(spec.cwd))[0]
        return None

    def kept(
        self, runner: RunnerSpec | Callable[..., Any], manifest: PodManifest | None, given: Given
    ) -> RunnerSpec:
        """The command of a program that can outlive us. Raises AgentError."""
        if runner == "process" and manifest is None and given.is_empty and not is_frozen():
            return [sys.executable, "-m", "polypod", "agent", "--store", self._home.store.url]
        if _is_command(runner):
            return cast("RunnerSpec", runner)
        raise AgentError(
            f"an agent of the runner {shown(runner)} cannot be kept: it ends with this process",
            hint='runner="process" with only model=, or a command that speaks polypod\'s JSON '
            "lines, can be kept",
        )


def _is_command(runner: object) -> bool:
    return isinstance(runner, list | tuple) and bool(runner) and all(isinstance(each, str) for each in runner)


def _section_of(section: RunnerSection | Mapping[str, Any]) -> RunnerSection:
    """Raises AgentError."""
    if isinstance(section, RunnerSection):
        return section
    try:
        return msgspec.convert(table_of("runners", section), RunnerSection)
    except msgspec.ValidationError as error:
        raise AgentError(f"[[runner]]: {error}") from error
