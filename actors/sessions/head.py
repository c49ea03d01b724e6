"""The session head: where a session stands, shared by its pod and the pod's memory actors."""

from __future__ import annotations

from protocol.entries import GENESIS, Head
from protocol.items import Item


class SessionHead:
    """Where a session stands: its id, its last entry, its history, and how far memory has read.

    The pod alone changes it, on the loop; background actors on the same loop read ``session_id``,
    ``pointer`` and ``items`` together, between two awaits. ``items`` only grows; a compaction puts a
    new list in its place.
    """

    __slots__ = ("hash", "items", "pointer", "seq", "session_id")

    def __init__(self, session_id: str, seq: int = 0, hash_: bytes = GENESIS) -> None:
        self.session_id = session_id
        self.seq = seq
        self.hash = hash_
        self.items: list[Item] = []
        self.pointer: int | None = None

    def __repr__(self) -> str:
        return f"<SessionHead {self.session_id} at {self.seq}, {len(self.items)} items>"

    @property
    def last(self) -> Head:
        """The last entry's number and hash."""
        return Head(self.seq, self.hash)
