"""``Driver``: a user of one pod under test: gives it work without a pause, and judges the result of each
command.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from actors.pod.handle import Pod
from bench.crash.reports import Alive, Broke, Made, Refused, Returned, Teller
from protocol.errors import (
    CompactionFailed,
    NotPaused,
    NotRunning,
    SessionCorrupt,
    SessionNotFound,
    StoreError,
)
from protocol.lifecycle import PodState
from protocol.results import RunResult

#: Errors of a command that comes too late, which is normal for a run that goes on.
_TOO_LATE = (NotPaused, NotRunning)
#: Errors of a passive pod if a backup has less of its session than it wrote.
_HISTORY_GONE = (SessionNotFound, SessionCorrupt)
_COMMANDS = ("run", "fork", "compact", "notify", "steer", "cancel", "pause", "passivate")
_WEIGHTS = (60, 6, 9, 5, 6, 6, 8, 8)


class Driver:
    """Drives one pod. ``faults`` says whether the store may refuse commands, ``swapped`` whether the history
    of a passive pod may be lost with the file that had it, ``unnoticed`` whether the fault may be noticed
    only by the first commit after it.
    """

    def __init__(
        self,
        pod: Pod,
        chance: random.Random,
        teller: Teller,
        *,
        faults: bool,
        swapped: bool = False,
        unnoticed: bool = False,
    ) -> None:
        self.pod = pod
        self._chance = chance
        self._teller = teller
        self._faults = faults
        self._swapped = swapped
        self._unnoticed = unnoticed

    async def live(self, until: asyncio.Event) -> None:
        """Continue what was interrupted (or leave it), then work until asked to stop."""
        if self._chance.random() < 0.8:
            await self.go_on()
        while not until.is_set():
            (command,) = self._chance.choices(_COMMANDS, _WEIGHTS)
            await getattr(self, f"_{command}")()

    async def go_on(self) -> RunResult | None:
        """Resume the interrupted run, if there is one."""
        described = await self._attempt("describe", self.pod.describe())
        if described is None or described.state is not PodState.PAUSED:
            return None
        return await self._note_returned("resume", self.pod.resume())

    async def prove(self) -> None:
        """After the faults: check that the pod takes a run, and that its result is durable.

        Changes to a store's files may be noticed only now; then the first run is refused.
        """
        result = None
        for must in (False, True) if self._unnoticed else (True,):
            result = result or await self._note_returned("run", self.pod.run("Are you there?"), must=must)
        self._teller.tell(Alive(self.pod.name, result is not None))

    async def _run(self) -> None:
        await self._note_returned("run", self.pod.run("Give me some numbers."))

    async def _fork(self) -> None:
        await self._note_made("fork", self.pod.fork())

    async def _compact(self) -> None:
        await self._note_made("compact", self.pod.compact())

    async def _passivate(self) -> None:
        await self._attempt("passivate", self.pod.passivate())

    async def _notify(self) -> None:
        await self._attempt("notify", self.pod.notify("By the way: it rains."))

    async def _steer(self) -> None:
        await self._meanwhile(lambda: self._attempt("steer", self.pod.steer("Only even ones.")))

    async def _cancel(self) -> None:
        await self._meanwhile(lambda: self._attempt("cancel", self.pod.cancel()))

    async def _pause(self) -> None:
        await self._meanwhile(lambda: self._attempt("pause", self.pod.pause()))

    async def _meanwhile(self, interfere: Callable[[], Awaitable[Any]]) -> None:
        """Start a run, and ask something of the pod in the middle of it."""
        run = asyncio.ensure_future(self._run())
        await asyncio.sleep(self._chance.uniform(0, 0.01))
        await interfere()
        # The paused run may be another one that a notification began, with ours behind it.
        while not (await asyncio.wait([run], timeout=0.02))[0]:
            await self.go_on()
        await self.go_on()

    async def _note_made(self, command: str, future: Awaitable[str]) -> None:
        session_id = await self._attempt(command, future)
        if session_id is not None:
            self._teller.tell(Made(session_id))

    async def _note_returned(
        self, command: str, future: Awaitable[RunResult], *, must: bool = False
    ) -> RunResult | None:
        result: RunResult | None = await self._attempt(command, future, must=must)
        if result is not None:
            self._teller.tell(Returned(result.session_id, result.run_id, result.outcome))
        return result

    async def _attempt(self, command: str, future: Awaitable[Any], *, must: bool = False) -> Any:
        """The result of a command; None if it was refused for a legitimate reason."""
        try:
            return await future
        except _TOO_LATE:
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
            gone = self._swapped and any(_stands_behind(error, kind) for kind in _HISTORY_GONE)
            if gone or (self._faults and not must and of_the_store(error)):
                self._teller.tell(Refused(command, str(error)))
            elif not isinstance(error, CompactionFailed) or of_the_store(error):
                # A history may be too short to be folded, but only a fault makes the store refuse it.
                self._teller.tell(Broke(f"{self.pod.name}: {command}: {type(error).__name__}: {error}"))
        return None


def of_the_store(error: BaseException) -> bool:
    """Whether the cause of an error is a typed error of the store."""
    return _stands_behind(error, StoreError)


def _stands_behind(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__
    return False
