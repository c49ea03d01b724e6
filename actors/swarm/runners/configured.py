"""``configured_runner``: the runner that a name means in a folder, according to its ``polypod.toml``."""

from __future__ import annotations

from pathlib import Path

from actors.config.configuration import Configuration
from actors.swarm.runners.base import Runner, RunnerSpec
from actors.swarm.runners.named import runner_of


def configured_runner(spec: RunnerSpec, folder: Path) -> Runner:
    """As ``runner_of``, with what is configured for work in ``folder``. Raises UnknownRunner, ConfigError,
    and NotTrusted if a project's file says how that runner is started and nobody has looked at it.
    """
    if not isinstance(spec, str):
        return runner_of(spec)
    configuration = Configuration.load(folder)
    section = configuration.runner(spec)
    local = configuration.local_model if spec == "local" else None
    return runner_of(spec, [] if section is None else [section], local)
