"""``Consolidation``: the blocking half of a consolidation: takes the lease, chooses staged files, commits the
result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from actors.compaction.policy import consolidation_due
from actors.compaction.tokens import text_tokens
from actors.memory.lease import Lease
from actors.memory.ledger import Ledger, carry_out, ledger_path, read_ledger, write_ledger
from actors.memory.notes import Note
from actors.memory.notes_draft import Change, NotesDraft, finding
from actors.memory.notes_folder import NotesFolder
from actors.memory.staging import Staged, Waiting, newest_readings, read_staged, set_aside, waiting
from protocol.errors import WireError
from protocol.manifest import MemorySection

#: After so many failed attempts with a model, the next consolidation is done without one.
MOST_ATTEMPTS = 3
#: The most tokens that a model is given to work in at once, and the most as a part of its context (a third).
FINDINGS_TOKENS = 20_000
_PART_OF_CONTEXT = 3


class Batch(NamedTuple):
    """Staged files that are consolidated together.

    ``findings`` is what a model reads of them, ``found`` the same as notes, in order; ``mechanical`` says
    that no model is asked.
    """

    files: list[Waiting]
    records: list[Staged]
    findings: list[str]
    found: list[Note]
    draft: NotesDraft
    mechanical: bool

    def complete(self) -> int:
        """Add to the draft what no model has worked in; returns how many findings that were. Blocks."""
        return self.draft.complete(self.found)

    @property
    def size(self) -> int:
        """The bytes of the files."""
        return sum(file.size for file in self.files)


class Consolidation:
    """One consolidation of a folder by a pod. Its methods block, and are called one after the other.

    What it decides is written to the ledger before any file is changed; until then any failure leaves
    everything as it was.
    """

    def __init__(
        self,
        memory: NotesFolder,
        section: MemorySection,
        pod: str,
        *,
        context_window: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._memory = memory
        self._section = section
        self._pod = pod
        window = FINDINGS_TOKENS * _PART_OF_CONTEXT if context_window is None else context_window
        self._budget = min(FINDINGS_TOKENS, window // _PART_OF_CONTEXT)
        self._clock = clock
        self._lease: Lease | None = None
        self._ledger = Ledger()
        #: What a person should know: staged files that were damaged.
        self.alerts: list[str] = []

    def begin(self, *, automatic: bool) -> Batch | None:
        """Take the lease, and return what is to be consolidated now. None if nothing is due, somebody else
        has the lease, or (``automatic``) the last attempts failed. Raises OSError.
        """
        memory = self._memory
        if not self._due(waiting(memory.staging)) and not ledger_path(memory).exists():
            return None
        self._lease = Lease.acquire(memory.machinery, self._pod)
        if self._lease is None:
            return None
        self._ledger = carry_out(memory, self._read_ledger())
        files = waiting(memory.staging, self._ledger.consumed)
        if not self._due(files) or (automatic and self._left_out()):
            return None
        batch = self._batch(files)
        if batch is not None:
            self._lease.note(tuple(file.id for file in batch.files))
            self._count(attempts=self._ledger.attempts + 1)
        return batch

    def commit(self, batch: Batch) -> int:
        """Write the changes of the batch's draft, then delete its files. Returns how many notes changed.

        Raises OSError. Once the ledger is written, whatever could not be finished is finished when the next
        one begins.
        """
        changes: list[Change] = batch.draft.changes()
        consumed = (*self._ledger.consumed, *(file.id for file in batch.files))
        self._ledger = write_ledger(self._memory, Ledger(consumed, tuple(changes)))
        self._ledger = carry_out(self._memory, self._ledger)
        return len(changes)

    def withdraw(self) -> None:
        """Leave the batch staged, and skip automatic consolidations for a while."""
        with contextlib.suppress(OSError):  # then the next one comes sooner
            self._count(left_out=2 ** min(max(self._ledger.attempts - 1, 0), 5))

    def release(self) -> None:
        """Let another consolidate. Idempotent."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _due(self, files: list[Waiting]) -> bool:
        return consolidation_due(self._section, len(files), sum(file.size for file in files))

    def _left_out(self) -> bool:
        left = self._ledger.left_out
        if left > 0:
            self._count(left_out=left - 1)
        return left > 0

    def _count(self, **counts: int) -> None:
        self._ledger = write_ledger(self._memory, replace(self._ledger, **counts))

    def _batch(self, files: list[Waiting]) -> Batch | None:
        """The oldest files, as many as a model may be given at once; damaged ones are set aside."""
        date = time.strftime("%Y-%m-%d", time.gmtime(self._clock()))
        taken: list[Waiting] = []
        records: dict[str, Staged] = {}
        used = 0
        for file in files:
            record = self._read(file)
            if record is None:
                continue
            used += text_tokens(finding(record.source, record.notes(file.date or date)))
            if taken and used > self._budget:
                break
            taken.append(file)
            records[file.id] = record
        if not taken:
            return None
        newest = newest_readings(records.values())
        dates = {id(records[file.id]): file.date or date for file in taken}
        dated = [(record.source, record.notes(dates[id(record)])) for record in newest]
        findings = [finding(source, notes) for source, notes in dated]
        found = [note for _, notes in dated for note in notes]
        too_much = sum(map(text_tokens, findings)) > self._budget
        mechanical = too_much or self._ledger.attempts >= MOST_ATTEMPTS
        draft = NotesDraft(self._memory.texts(), date=date, sources=[record.source for record in newest])
        if mechanical:
            for note in found:
                draft.add(note)
        return Batch(taken, newest, findings, found, draft, mechanical)

    def _read(self, file: Waiting) -> Staged | None:
        try:
            return read_staged(file.path)
        except FileNotFoundError:  # its extraction has withdrawn it
            return None
        except WireError as damaged:
            self._set_aside(file.path, damaged)
            return None

    def _read_ledger(self) -> Ledger:
        try:
            return read_ledger(self._memory)
        except WireError as damaged:
            self._set_aside(ledger_path(self._memory), damaged)
            return Ledger()

    def _set_aside(self, path: Path, damaged: WireError) -> None:
        aside = set_aside(path)
        self.alerts.append(f"{damaged.message}; it is set aside as {aside.name}")
