"""Checks and repairs sessions: finds broken chains, forks the sound part, exports and imports."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from actors.sessions.answers import wait, wait_durable
from actors.sessions.branch import stage_branch, stage_history
from actors.sessions.chain import first_break, head_of, verified
from actors.sessions.disk import name_file, store_error
from actors.sessions.head import SessionHead, check_session_name, is_lost_id
from actors.sessions.jsonl.files import draft_file
from actors.sessions.jsonl.lines import Header, LineReader, batch_lines, header_line, parse_header
from actors.sessions.log import SessionLog
from actors.sessions.replay import Replayed
from actors.sessions.store import SessionInfo, SessionStore, in_use
from protocol.entries import Head, Parent, SessionOpened, StoredEntry
from protocol.errors import (
    HeadConflict,
    InvalidInput,
    NewerVersion,
    SessionCorrupt,
    SessionError,
    SessionNotFound,
    StoreError,
    UnknownEntry,
    WireError,
)
from protocol.events import ApprovalRequested
from protocol.manifest import without_secrets_in
from protocol.wire import decode_entry, encode

_SLICE = 1000
#: The highest number that an entry may have, so that all stores can keep it and count further.
_LAST_NUMBER = 1 << 62
_CHANGED = "the file was changed after the export: export the session again"
#: Errors of the system for sessions that may be sound.
_MAY_BE_SOUND = frozenset(
    {errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
)


class Finding(Struct, frozen=True):
    """Something wrong with a session, or (without one) with the store.

    ``torn``: the end of a batch is missing; the next claim cuts it off. ``broken``: the chain breaks at entry
    ``seq``; the ``sound`` entries before it can be forked. ``unreadable``: the store cannot read the session.
    ``newer``: only a newer polypod can read it.
    """

    kind: Literal["torn", "broken", "unreadable", "newer", "store"]
    text: str
    session_id: str | None = None
    seq: int | None = None
    sound: int = 0


def check(store: SessionStore) -> Iterator[Finding]:
    """Read the whole store, and yield what is wrong; changes nothing."""
    for text in wait(store.problems()):
        yield Finding("store", text)
    for session_id, error in wait(store.unreadable()).items():
        kind: Literal["newer", "unreadable"] = "newer" if isinstance(error, NewerVersion) else "unreadable"
        yield Finding(kind, str(error), session_id)
    try:
        sessions = wait(store.sessions())
    except StoreError as error:
        yield Finding("store", str(error))
        return
    for info in sessions:
        yield from check_session(store, info.session_id)


def check_session(store: SessionStore, session_id: str) -> Iterator[Finding]:
    """Read one session, and yield what is wrong; one that is deleted meanwhile is skipped."""
    try:
        if torn := wait(store.torn(session_id)):
            yield Finding("torn", f"{torn} bytes of an unfinished batch", session_id)
        entries, broken = sound_prefix(store, session_id)
    except SessionNotFound:
        return
    except SessionError as error:
        yield Finding("unreadable", str(error), session_id)
        return
    if broken is not None:
        yield Finding("broken", broken.why, session_id, broken.seq, len(entries))


def sound_prefix(store: SessionStore, session_id: str) -> tuple[list[StoredEntry], SessionCorrupt | None]:
    """The entries before the first that is not sound, and the error for that one (None: all are sound)."""
    entries: list[StoredEntry] = []
    while True:
        try:
            found = wait(store.read(session_id, after=entries[-1].seq if entries else 0, limit=_SLICE))
        except SessionCorrupt as error:
            return entries, error
        if not found:
            return entries, None
        broken = first_break(found, head_of(entries) if entries else None)
        if broken is not None:
            seq, why = broken
            entries += [entry for entry in found if entry.seq < seq]
            return entries, SessionCorrupt(session_id, seq, why)
        entries += found


def fork(store: SessionStore, session_id: str, new_id: str, *, at: str | None = None) -> SessionInfo:
    """Create a session that branches off after the entry whose hex hash begins with ``at`` (None: the last
    sound one).

    Nobody holds it yet. Credentials in a ``base_url``, which early versions kept, are left out. Raises
    UnknownEntry if the session has no such entry or several, SessionCorrupt if the entry may be after a break
    or nothing is sound, SessionNotFound, StoreError.
    """
    entries, broken = sound_prefix(store, session_id)
    if at is not None:
        entries = _through(session_id, entries, broken, at)
    if not entries:
        raise broken or SessionCorrupt(session_id, 1, "it has no entries")
    opened, state = _replayed(session_id, entries)
    log, parent = _branch(store, session_id, opened, head_of(entries), new_id)
    left = (state.open, state.open_run)
    manifest = without_secrets_in(opened.manifest)
    for _ in stage_branch(log, manifest, parent, state.items, state.pointer, left):
        pass
    wait_durable(store, log.create(parent, claim=False))
    return wait(store.info(new_id))


def succeed(store: SessionStore, session_id: str, new_id: str) -> SessionInfo:
    """Create a session that takes the place of a damaged one, in the state at the end of its sound part: a
    run without an end is paused, usage is carried over, its sub-agents too, and so are calls that wait for a
    person and have certainly not begun.

    Nobody holds it yet. Raises SessionCorrupt if nothing is sound, SessionNotFound, StoreError.
    """
    entries, broken = sound_prefix(store, session_id)
    if not entries:
        raise broken or SessionCorrupt(session_id, 1, "it has no entries")
    opened, state = _replayed(session_id, entries)
    log, parent = _branch(store, session_id, opened, head_of(entries), new_id)
    carried = {**state.carried(), "waiting": _surely_waiting(store, session_id, state, broken)}
    log.open(without_secrets_in(opened.manifest), parent, **carried)
    for _ in stage_history(log, state.items, state.pointer):
        pass
    wait_durable(store, log.create(parent, claim=False))
    return wait(store.info(new_id))


def _replayed(session_id: str, entries: list[StoredEntry]) -> tuple[SessionOpened, Replayed]:
    opened, state = _opening(session_id, entries[0]), Replayed()
    try:
        state.read(entries)
    except NewerVersion as error:
        raise error.of(session_id, state.seq) from error
    except WireError as error:
        raise SessionCorrupt(session_id, state.seq, str(error)) from error
    return opened, state


def _branch(
    store: SessionStore, session_id: str, opened: SessionOpened, head: Head, new_id: str
) -> tuple[SessionLog, Parent]:
    """The log of a session that is to branch off after ``head``, and its parent."""
    parent = Parent("forked_from", session_id, head.hash.hex(), head.seq)
    return SessionLog(store, opened.pod, SessionHead(new_id, head.seq), _nobody_listens), parent


def _surely_waiting(
    store: SessionStore, session_id: str, state: Replayed, broken: SessionCorrupt | None
) -> tuple[ApprovalRequested, ...]:
    """The calls that wait for a person and cannot have begun: nobody has answered, and nothing after the
    sound part mentions them.
    """
    waiting = state.carried()["waiting"]
    if not waiting or not store.keeps_answers:
        return ()
    answered = {
        answer.approval_id
        for answer in wait(store.answers([request.approval_id for request in waiting]))
        if answer.session_id == session_id
    }
    behind = b"" if broken is None else _bodies(store, session_id, state.seq)
    return tuple(
        request
        for request in waiting
        if request.approval_id not in answered
        and encode(request.approval_id) not in behind
        and encode(request.call_id) not in behind
    )


def _bodies(store: SessionStore, session_id: str, after: int) -> bytes:
    """The bytes of all entries with numbers above ``after``, as far as they can be read."""
    bodies: list[bytes] = []
    with contextlib.suppress(SessionError):
        while found := wait(store.read(session_id, after=after, limit=_SLICE)):
            bodies += [entry.body for entry in found]
            after = found[-1].seq
    return b"\n".join(bodies)


def _nobody_listens(*_: object) -> None:
    """Publish nothing: a branch has no pod yet, so nobody is subscribed."""


def successor_id(finding: Finding) -> str:
    """The id of the session that takes the place of a damaged one. It depends only on the damage, so that a
    repair after one that was killed finds what that one has made.
    """
    digits = hashlib.sha256(f"{finding.session_id!a} {finding.seq} {finding.sound}".encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"  # RFC 9562, 5.8


def mend(
    store: SessionStore, finding: Finding, new_id: str, aside: Path
) -> tuple[SessionInfo | None, Path | None]:
    """Continue a damaged session from its sound beginning, if there is any, under ``new_id`` (see
    ``successor_id``), and put the damaged one aside.

    Returns the new session, and the file in the folder ``aside`` that keeps the damaged one as it was. An
    unfinished batch is cut off instead; what belongs to no session, or only to a newer version, is left
    alone. Raises SessionInUse while anybody holds the session, and StoreError, also if the system does not
    let the session be read, which then need not be damaged.
    """
    session_id = finding.session_id
    if session_id is None or finding.kind in {"store", "newer"}:
        return None, None
    if finding.kind == "torn":
        wait(store.claim(session_id, "repair"))
        wait(store.release(session_id))
        store.flush()
        return None, None
    if (holder := wait(store.holder(session_id))) is not None:
        raise in_use(session_id, holder)
    if finding.kind == "unreadable":
        return _mend_unreadable(store, session_id, aside)
    forked, made = _claimed_successor(store, session_id, new_id) if finding.sound else (None, False)
    try:
        kept = wait(store.put_aside(session_id, aside))
    except BaseException:
        wait(store.release(new_id))
        if made:
            with contextlib.suppress(SessionError):
                wait(store.info(session_id))  # otherwise the new one is all that is left of it
                # Otherwise each repair would leave one more, beside the damaged one.
                wait(store.delete(new_id))
        raise
    wait(store.release(new_id))
    return forked, kept


def _claimed_successor(store: SessionStore, session_id: str, new_id: str) -> tuple[SessionInfo, bool]:
    """The session that takes a damaged one's place, claimed, and whether it was created just now. Another
    repair that fails cannot delete it meanwhile. Raises SessionInUse if another repair is at work.
    """
    made = True
    try:
        succeed(store, session_id, new_id)
    except HeadConflict:  # a repair that was killed after this has created it
        made = False
    wait(store.claim(new_id, "repair"))
    return wait(store.info(new_id)), made


def _mend_unreadable(
    store: SessionStore, session_id: str, aside: Path
) -> tuple[SessionInfo | None, Path | None]:
    wait(store.bring_back(session_id))
    entries, broken = _what_can_be_read(store, session_id)
    if not entries:
        return None, wait(store.put_aside(session_id, aside))
    if broken is None:
        return None, None
    finding = Finding("broken", broken.why, session_id, broken.seq, len(entries))
    return mend(store, finding, successor_id(finding), aside)


def _what_can_be_read(
    store: SessionStore, session_id: str
) -> tuple[list[StoredEntry], SessionCorrupt | None]:
    """The ``sound_prefix`` of a session that could not be read before: another repair may have worked on it
    since. Raises StoreError if the system refuses to read what may be sound, because of a permission or a
    failing disk.
    """
    try:
        return sound_prefix(store, session_id)
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _MAY_BE_SOUND:
            raise
    except SessionError:
        pass
    return [], None


def _through(
    session_id: str, entries: list[StoredEntry], broken: SessionCorrupt | None, at: str
) -> list[StoredEntry]:
    found = [index for index, entry in enumerate(entries) if entry.hash.hex().startswith(at.lower())]
    if len(found) == 1:
        return entries[: found[0] + 1]
    if found:
        raise UnknownEntry(f"session {session_id} has {len(found)} entries whose hash begins with {at!r}")
    raise broken or UnknownEntry(
        f"session {session_id} has no entry with hash {at}",
        hint=f"polypod log {session_id} lists its entries and their hashes",
    )


def _opening(session_id: str, entry: StoredEntry) -> SessionOpened:
    try:
        opened = decode_entry(entry.body)
    except NewerVersion as error:
        raise error.of(session_id, entry.seq) from error
    except WireError as error:
        raise SessionCorrupt(session_id, entry.seq, str(error)) from error
    if not isinstance(opened, SessionOpened):
        raise SessionCorrupt(session_id, entry.seq, "this is not the beginning of a session")
    return opened


def export_lines(store: SessionStore, session_id: str) -> Iterator[bytes]:
    """A session as JSON lines with its hashes, the format of the JSON-lines store.

    Raises SessionCorrupt at the first entry that is not sound, SessionNotFound, StoreError.
    """
    info = wait(store.info(session_id))
    yield header_line(session_id, info.pod, info.created_at, info.parent)
    head = None
    while found := wait(store.read(session_id, after=head.seq if head else 0, limit=_SLICE)):
        verified(session_id, found, head)
        head = head_of(found)
        for entry in found:
            yield batch_lines([entry])


def export_session(store: SessionStore, session_id: str, path: Path) -> None:
    """Write a session to a file, whole or not at all; see ``export_lines``.

    Raises StoreError also if there is a file of that name, or it cannot be written.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder", hint="name a new file in this folder")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    data = b"".join(export_lines(store, session_id))
    try:
        with draft_file(draft, data, at=time.time_ns(), sync=True):
            name_file(draft, path)
    except FileExistsError as error:
        raise StoreError(
            f"{path} already exists", hint="name a new file: an export never overwrites one"
        ) from error
    except FileNotFoundError as error:
        raise StoreError(
            f"cannot write {path}: there is no folder {path.parent}", hint="create the folder first"
        ) from error
    except OSError as error:
        raise store_error(error, path) from error


def _check_header(header: Header, entries: list[StoredEntry], name: str) -> None:
    """Raise StoreError if the header of ``name`` does not fit its entries, which are hashed, if no store can
    keep their numbers, or if no session can have its id, which is printed as it is. A session that a repair
    found again under a ``lost_id`` has entries that name another.
    """
    before = 0 if header.parent is None else header.parent.at_seq
    if entries[0].seq < 1 or max(entries[-1].seq, before) > _LAST_NUMBER:
        raise StoreError(f"{name} has an entry with an impossible number", hint=_CHANGED)
    with contextlib.suppress(NewerVersion, SessionCorrupt):  # damage is reported where the entries are read
        opened = _opening(header.session, entries[0])
        for what, said, found in (
            ("session", header.session, opened.session_id),
            ("pod", header.pod, opened.pod),
            ("parent", _place(header.parent), _place(opened.parent)),
        ):
            if said != found and not (what == "session" and is_lost_id(header.session)):
                raise StoreError(
                    f"{name} names the {what} {said!r}, but its entries belong to {found}", hint=_CHANGED
                )
    try:
        check_session_name(header.session)
    except InvalidInput as error:
        raise StoreError(f"{name}: {error.message}", hint=_CHANGED) from error


def _place(parent: Parent | None) -> str:
    return "none" if parent is None else f"{parent.session_id} at entry {parent.at_seq} ({parent.kind})"


def import_session(store: SessionStore, lines: Iterable[bytes], *, name: str = "the file") -> SessionInfo:
    """Import a session that was exported, under its id and with its hashes, which are checked.

    Nobody holds it yet. Raises StoreError if the lines (called ``name``) are not a whole session,
    SessionCorrupt if its chain breaks, HeadConflict if the store has a session with that id.
    """
    first, _, rest = b"".join(lines).partition(b"\n")
    header = parse_header(first, name)
    if header is None:
        raise StoreError(f"{name} is not an exported session", hint="create one with: polypod export")
    reader = LineReader()
    entries = reader.feed(rest)
    if reader.sound < len(rest) or not entries:
        raise StoreError(f"{name} is truncated", hint="export the session again")
    verified(header.session, entries)
    _check_header(header, entries, name)
    try:
        wait_durable(store, store.create(header.session, header.pod, header.parent, entries, claim=False))
    except HeadConflict as error:
        raise HeadConflict(
            f"session {header.session} already exists in {store.url}",
            hint="an import never overwrites a session",
        ) from error
    return wait(store.info(header.session))
