"""``forget_ended``: old jobs leave a queue, with their files, so that it does not grow for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

from actors.routing.pool.queue import TaskQueue
from protocol.jobs import Execution


def forget_ended(
    queue: TaskQueue, before: float, folder: Path | None, *, dry_run: bool = False
) -> list[Execution]:
    """Forget the jobs that ended before that moment (seconds since the epoch), and delete their folders in
    ``folder``; with ``dry_run`` just say which. Branches that have what they did are let be. Raises
    StoreError.
    """
    if dry_run:
        return queue.ended_before(before)
    with queue.transaction():
        ended = queue.ended_before(before)
        queue.forget(ended)
    if folder is not None:
        for each in ended:
            shutil.rmtree(folder / each.id, ignore_errors=True)
    return ended
