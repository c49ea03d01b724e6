"""Notifies a pod of what happened outside it, retrying until the pod accepts that or ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from protocol.errors import PodStopped, PodUnreachable

if TYPE_CHECKING:
    from actors.pod.pod import PodActor

#: Seconds after which a notify is sent again to a pod that could not take it.
_AGAIN = 5.0


async def notify(pod: PodActor, words: str) -> bool:
    """Notify a pod, even one that cannot be notified yet because calls of it wait for a person, or its store
    refuses an entry. Returns False if it ends before that.
    """
    while not pod.stopping:
        try:
            await pod.notify(words)
        except (PodStopped, PodUnreachable):
            return False
        except Exception:  # noqa: BLE001 - a store may raise anything; the pod lives on
            await asyncio.sleep(_AGAIN)
        else:
            return True
    return False
