"""``SessionHead``: the current end and history of a session, shared by its pod and the pod's memory actors.

Also session ids and names.
"""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Callable
from itertools import chain, count
from urllib.parse import quote

from protocol.entries import GENESIS, Head
from protocol.errors import InvalidInput
from protocol.events import Activity
from protocol.foreign import shown
from protocol.items import Item


class SessionHead:
    """The state of a session: its id, its last entry, its history, and how far memory has read.

    Only the pod changes it, on the loop. Background actors on the same loop read ``session_id``, ``pointer``
    and ``items`` together, between two awaits. ``items`` only grows; a compaction replaces it by a new list.
    """

    __slots__ = ("hash", "items", "open", "open_run", "pointer", "seq", "session_id")

    def __init__(self, session_id: str, seq: int = 0, hash_: bytes = GENESIS) -> None:
        self.session_id = session_id
        self.seq = seq
        self.hash = hash_
        self.items: list[Item] = []
        self.pointer: int | None = None
        #: The id of a run that has begun and not ended; a pause is not an end.
        self.open_run: str | None = None
        #: The activities that have started and not ended.
        self.open: tuple[Activity, ...] = ()

    def __repr__(self) -> str:
        return f"<SessionHead {self.session_id} at {self.seq}, {len(self.items)} items>"

    @property
    def last(self) -> Head:
        """The last entry's number and hash."""
        return Head(self.seq, self.hash)


#: Characters of a session's short id: the last group of a UUID, which is random.
SHORT = 12
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def short_id(session_id: str) -> str:
    """The end of a session's id, which is unique; the beginning is the time, the same for many sessions. A
    name given to a session is returned whole.
    """
    return session_id[-SHORT:] if re.fullmatch(_UUID, session_id) else session_id


def fits(session_id: str, beginning: str) -> bool:
    """Whether the id of a session, or its short id, begins so."""
    return session_id.startswith(beginning) or session_id[-SHORT:].startswith(beginning)


_LOST = r"lost-\d+(-\d+)?"


def lost_id(number: int, is_taken: Callable[[str], bool]) -> str:
    """An id for a session that is found again, but not by its own id: ``lost-NUMBER``, or where that
    is taken ``lost-NUMBER-2`` and so on.
    """
    ids = chain((f"lost-{number}",), (f"lost-{number}-{again}" for again in count(2)))
    return next(each for each in ids if not is_taken(each))


def is_lost_id(session_id: str) -> bool:
    """Whether an id may be one of ``lost_id``, so that the session's entries name another."""
    return re.fullmatch(_LOST, session_id) is not None


#: The longest name of a session, such that it fits a file name.
_LONGEST = 200


def check_session_name(name: object) -> None:
    """Raise InvalidInput if no session can have this name."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InvalidInput(f"session: expected a name in printable letters, got {shown(name)}")
    if len(quote(name, safe="", errors="replace")) > _LONGEST:
        raise InvalidInput(f"session: the name {name[:40]!r}… is too long", hint="use at most 60 letters")


def composed(name: str) -> str:
    """A name in the form that new sessions use: marked characters as one character if there is one. Typed
    text has this form, file names on macOS do not.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(name: str) -> tuple[str, ...]:
    """A name as given, and the other form that a session which people mean by it may have."""
    if name.isascii():
        return (name,)
    return tuple(dict.fromkeys((name, composed(name), unicodedata.normalize("NFD", name))))


def new_session_id() -> str:
    """A UUID of version 7 (RFC 9562): unique, and ordered by time."""
    millis = time.time_ns() // 1_000_000
    number = int.from_bytes(os.urandom(10))  # programs may seed ``random`` with the same value
    high, low = number >> 68, number & (1 << 62) - 1
    digits = (millis << 80 | 7 << 76 | high << 64 | 2 << 62 | low).to_bytes(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
