"""``configured_pool``: the pool that the ``[pool]`` of a ``polypod.toml`` describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from actors.config.configuration import Configuration
from actors.pod.client_factory import local_client
from actors.routing.classifier import Classifier
from actors.routing.pool.pool import Pool
from actors.routing.pool.settings import PoolRunner
from actors.runtime.closing import Closing
from actors.swarm.agents.home import Home
from protocol.errors import PoolError


def configured_pool(
    system: Any,
    *,
    runners: Mapping[str, PoolRunner] | None = None,
    limits: Mapping[str, int] | None = None,
    **options: Any,
) -> Pool:
    """A pool as ``[pool]`` configures it for the working directory. ``runners`` replace the configured ones;
    ``limits`` and the other options of ``Pool`` override what is configured.

    Raises PoolError if no runner is configured or given, NotTrusted if nobody has looked at what a project's
    file starts, and what ``Pool`` raises.
    """
    place = Path.cwd()
    configuration = Configuration.load(place)
    section = configuration.pool
    chosen = runners or {name: name for name in section.runners}
    if not chosen:
        raise PoolError(
            "no runner is configured",
            hint='name one (--runner), or set [pool] runners = ["claude"] in polypod.toml',
        )
    bounds = {name: limit for name, limit in section.limits.items() if name in chosen}
    classifier = options.pop("classifier", None) or _classifier(configuration, tuple(chosen), system.home())
    return Pool(system, chosen, {**bounds, **(limits or {})}, classifier, cwd=place, **options)


def _classifier(configuration: Configuration, agents: tuple[str, ...], home: Home) -> Classifier | None:
    wanted, model = configuration.pool.classifier, configuration.local_model
    if len(agents) < 2 or wanted is False:
        return None
    if model is not None:
        client = local_client(model)
        home.close_first(_OfClient(client))  # what is asked to close first was there last: the pool is before
        return Classifier(client, agents=agents)
    return None if wanted is True else Classifier(command=wanted, agents=agents, launcher=home.launcher())


class _Closes(Protocol):
    async def aclose(self) -> None: ...


class _OfClient(Closing):
    """Closes a client with its system."""

    def __init__(self, client: _Closes) -> None:
        self._client = client

    async def aclose(self) -> None:
        await self._client.aclose()
