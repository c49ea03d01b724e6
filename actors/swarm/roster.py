"""``Roster``: the living pods of a system by name, and those of them that are still being started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.pod.handle import Pod
from actors.pod.local import actor_of, lives_here, remote_pod
from actors.runtime.future import AsyncFuture
from actors.sessions.head import composed
from protocol.errors import NameTaken, PodNotFound
from protocol.foreign import shown
from protocol.names import check_name

if TYPE_CHECKING:
    from actors.pod.pod import PodActor


class Roster:
    """The living pods. Changed only on their loop; listed from any thread."""

    __slots__ = ("_next_number", "pods", "reserved", "starting")

    def __init__(self) -> None:
        #: In order of their start.
        self.pods: dict[str, Pod] = {}
        #: Those among them that are not there yet, since the store has to be waited for.
        self.starting: dict[str, AsyncFuture[Pod]] = {}
        #: Names that are agents', which share one name space with pods.
        self.reserved: set[str] = set()
        self._next_number: dict[str, int] = {}

    def get(self, name: str) -> Pod:
        """The living pod of that name. Raises PodNotFound."""
        try:
            return self.pods[composed(name)]
        except (KeyError, AttributeError):  # what is not text
            raise PodNotFound(f"no pod named {shown(name)}", hint="list them with pods()") from None

    def forget(self, pod: Pod) -> None:
        """Forget a pod that has ended for good."""
        if self.pods.get(pod.name) is pod:
            del self.pods[pod.name]

    # -- names -------------------------------------------------------------------------------------

    def choose_name(self, base: str, explicit: str | None) -> str:
        """A free name: the explicit one, else ``base``, with a number if that is in use; always in composed
        form. Raises ManifestError for an invalid name, NameTaken.
        """
        check_name(base if explicit is None else explicit, "the name of a pod")
        name = base = composed(base if explicit is None else explicit)
        if explicit is not None or self.is_free(name):
            self.check_free(name)
            return name
        number = self._next_number.get(base, 2)
        while not self.is_free(name := f"{base}-{number}"):
            number += 1
        self._next_number[base] = number + 1
        return name

    def is_free(self, name: str) -> bool:
        """Whether no living pod, and no agent, has that name."""
        return name not in self.pods and name not in self.reserved

    def check_free(self, name: str) -> None:
        """Raise NameTaken where a living pod, or an agent, has that name."""
        if name in self.pods:
            raise NameTaken(f"there is already a pod named {name!r}", hint="stop it, or choose another name")
        if name in self.reserved:
            raise NameTaken(f"there is already an agent named {name!r}", hint="choose another name")

    # -- those that have started -------------------------------------------------------------------

    def started(self, name: str) -> PodActor | None:
        """The actor of a living pod of this process; None where there is none, or not yet."""
        pod = None if name in self.starting else self.pods.get(name)
        return None if pod is None or not lives_here(pod) else actor_of(pod)

    async def wait_until_started(self, name: str) -> None:
        """Wait for a pod that is being started."""
        if (starting := self.starting.get(name)) is not None:
            await asyncio.wait((asyncio.ensure_future(starting),))

    def position(self, name: str) -> tuple[str, int] | None:
        """The session of a pod that lives, and its last durable entry."""
        if (actor := self.started(name)) is not None:
            return actor.durable_position()
        remote = remote_pod(self.pods.get(name))
        return None if remote is None else remote.durable_position()
