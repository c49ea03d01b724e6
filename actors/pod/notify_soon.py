"""Sends a pod a notify about what happened beside it, as soon as it takes one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from protocol.errors import PolypodError, WaitingForApproval

if TYPE_CHECKING:
    from actors.pod.pod import PodActor

#: Seconds after which a notify is sent again to a pod whose calls wait for a person.
_AGAIN = 5.0


async def notify(pod: PodActor, words: str) -> bool:
    """Notify a pod; one that is paused, and whose calls wait for a person, once they have been answered.
    False where it ends first.
    """
    while not pod.stopping:
        try:
            await pod.notify(words)
        except WaitingForApproval:
            await asyncio.sleep(_AGAIN)
        except PolypodError:  # it is about to end
            return False
        else:
            return True
    return False
