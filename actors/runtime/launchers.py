"""``Launchers``: the two launchers of one system, each made when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.runtime.children.launcher import Launcher


class Launchers:
    """One launcher starts the programs of tools and agents, the other the processes that are pods."""

    def __init__(self, most: int | None = None) -> None:
        """``most`` programs may be at work at once; None is any number."""
        self._most = most
        self._of_programs: Launcher | None = None
        self._of_pods: Launcher | None = None
        #: Whether the system is at its end, so that nothing is started any more.
        self._ended = False
        #: Descriptors that stay open as long as there are child processes.
        self._held: set[int] = set()

    def of_programs(self) -> Launcher:
        """Starts child processes for tools, sources of tools and agents. The launcher raises ChildNotStarted
        where the system is at its end.
        """
        if self._of_programs is None:
            from actors.runtime.children.launcher import Launcher  # noqa: PLC0415 - paid for by whoever starts any

            self._of_programs = self._set_up(Launcher(self._most))
        return self._of_programs

    def of_pods(self, prepare: str | None) -> Launcher:
        """Starts processes that are pods, which do not count as programs. Raises as ``of_programs``."""
        if self._of_pods is None:
            from actors.runtime.children.launcher import Launcher  # noqa: PLC0415 - paid for by whoever starts any

            self._of_pods = self._set_up(Launcher(prepare=prepare))
        return self._of_pods

    def _set_up(self, launcher: Launcher) -> Launcher:
        for each in self._held:
            launcher.hold(each)
        if self._ended:
            launcher.abandon()
        return launcher

    def hold(self, descriptor: int) -> None:
        """Keep a descriptor open, however this process ends, until the last child process is gone."""
        self._held.add(descriptor)
        for each in self._all():
            each.hold(descriptor)

    def drop_held(self, descriptor: int) -> None:
        """Hold a descriptor no longer, since it is about to be closed."""
        self._held.discard(descriptor)
        for each in self._all():
            each.drop_held(descriptor)

    def _all(self) -> list[Launcher]:
        return [each for each in (self._of_programs, self._of_pods) if each is not None]

    async def aclose(self) -> None:
        """End all child processes by their ladders, and start no more."""
        self._ended = True
        for each in self._all():
            await each.aclose()

    def abandon(self) -> None:
        """End them without waiting, since the loop is closed."""
        self._ended = True
        for each in self._all():
            each.abandon()
