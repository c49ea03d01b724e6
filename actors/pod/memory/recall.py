"""``Recall``: searches lasting memory for a session's first words, and finds what joins the history."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actors.pod.resources import PodResources
from actors.pod.session.journal import Journal
from actors.runtime.in_thread import in_thread
from actors.runtime.interruptible import Interruptible
from protocol.errors import Failure
from protocol.events import Alert
from protocol.items import Part, SystemItem, TextPart

#: How long the first run of a session waits for what memory holds of its input, in seconds.
RECALL_SECONDS = 3.0


class Recall:
    """Searches memory once, for the first run of a session that continues no other."""

    __slots__ = ("_done", "_journal", "_template")

    def __init__(self, resources: PodResources, journal: Journal) -> None:
        self._template = resources.template
        self._journal = journal
        self._done = False

    def is_due(self) -> bool:
        """Whether the run that begins is the first of a new session."""
        if self._done:
            return False
        from actors.compaction.compose import is_of_compaction  # noqa: PLC0415 - paid for by whoever recalls

        return not any(map(is_of_compaction, self._journal.head.items))

    async def search(self, content: tuple[Part, ...], waits: Interruptible) -> SystemItem | None:
        """Search memory for ``content``, before its run is recorded; a failure never fails the run."""
        words = "\n".join(part.text for part in content if isinstance(part, TextPart))
        self._done = True
        budget = self._template.manifest.memory.recall_tokens
        try:
            return await waits.apart(_search(self._template.memory, words, budget), "the search in memory")
        except (OSError, TimeoutError) as error:
            self._journal.log.record(Alert, text="memory could not be searched", error=Failure.of(error))
            return None
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - the run goes on without it
            return None


async def _search(memory: Path, words: str, budget: int) -> SystemItem | None:
    from actors.memory.notes_folder import NotesFolder  # noqa: PLC0415 - paid for by whoever recalls
    from actors.memory.recall import recall_notes  # noqa: PLC0415 - the same

    return await asyncio.wait_for(in_thread(recall_notes, NotesFolder(memory), words, budget), RECALL_SECONDS)
