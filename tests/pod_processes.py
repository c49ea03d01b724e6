"""Systems whose pods are processes, forked by one helper for the tests of a module: what that imports takes long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from actors.runtime.children.launcher import Launcher
from actors.swarm.processes import process_pods
from actors.system import PodSystem

SystemOn = Callable[..., AbstractAsyncContextManager[PodSystem]]


@pytest.fixture(scope="module")
def system_on() -> Iterator[SystemOn]:
    """A system that has the helper; it is called as ``PodSystem`` is."""
    launcher = Launcher(prepare=process_pods._PREPARE if process_pods._FORKS else None)

    @asynccontextmanager
    async def entered(*given: Any, **more: Any) -> AsyncIterator[PodSystem]:
        async with PodSystem(*given, **more) as system:
            launchers = system._here().assembly.launchers
            launchers._of_pods = launcher
            try:
                yield system
            finally:
                launchers._of_pods = None  # which is not the system's to close

    yield entered
    asyncio.run(launcher.aclose())
