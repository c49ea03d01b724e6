"""``EndHooks``: notifies hooks of the end of a run, which is durable whatever they do."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from actors.pod.resources import PodResources
from actors.pod.runs.run_state import Run
from actors.pod.session.journal import Journal
from protocol.errors import PodError, SessionError
from protocol.results import RunResult

if TYPE_CHECKING:
    from actors.tools.hooks import Hooks


class EndHooks:
    """Notifies hooks of the ends of one pod's runs."""

    __slots__ = ("_hooks", "_journal", "_resources")

    def __init__(self, hooks: Hooks, resources: PodResources, journal: Journal) -> None:
        self._hooks = hooks
        self._resources = resources
        self._journal = journal

    async def notify(self, run: Run, result: RunResult) -> None:
        """Notify the hooks. After an interrupted run they have as long as a cancelled tool has to end. Raises
        Left.
        """
        waits = run.waits
        waits.check()
        ctx = self._resources.context(run.deps)
        failed: tuple[PodError, ...] = ()
        grace = self._resources.template.grace
        hurry = asyncio.get_running_loop().call_later(grace, waits.interrupt) if waits.asked else None
        waits.asked = False
        try:
            failed = await waits.apart(self._hooks.at_run_end(result, ctx), "a hook")
        except PodError as error:
            failed = (error,)
        except asyncio.CancelledError:
            pass
        finally:
            if hurry is not None:
                hurry.cancel()
        for each in failed:
            self._journal.alert(each.message)
        with contextlib.suppress(SessionError):  # the run has its end, whatever becomes of the hooks' alerts
            await self._journal.commit()
