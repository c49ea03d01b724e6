"""Packs the entries of a commit into rows of a SQLite store, and unpacks them.

A row has the number of its first entry, a mark and a body. If it holds one entry, the mark is the entry's
hash and the body its bytes, as in all rows of a file of the first format. If it holds several, the mark has
the length and the hash of each, one after the other, and the body has their bytes, a line each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from struct import Struct

from protocol.entries import StoredEntry

#: The first format in which a row may hold several entries.
FIRST_WITH_SHARED = 2
#: The most bytes in the body of a row with several entries.
LARGEST_ROW = 8 << 10
#: Bytes of a hash; bytes in a mark for each of several entries.
HASH, MARK = 32, 36
_mark = Struct(f">I{HASH}s")
_pack, _marks = _mark.pack, _mark.iter_unpack
_two_marks = Struct(f">I{HASH}sI{HASH}s")
_pack_two, _unpack_two = _two_marks.pack, _two_marks.unpack

#: The number of a row's first entry, its mark and its body.
Row = tuple[int, bytes, bytes]
#: A row as it is read, without a body that would be too long.
ReadRow = tuple[int, bytes, bytes | None]


def pack(batch: Sequence[StoredEntry], size: int) -> list[Row]:
    """Pack a batch, whose bodies have ``size`` bytes, into rows in its order."""
    if size <= LARGEST_ROW:
        return [together(batch)] if batch else []
    rows: list[Row] = []
    start = size = 0
    for index, entry in enumerate(batch):
        length = len(entry.body)
        if size + length > LARGEST_ROW and index > start:
            rows.append(together(batch[start:index]))
            start, size = index, 0
        size += length
    return [*rows, together(batch[start:])]


def together(batch: Sequence[StoredEntry]) -> Row:
    """Pack a batch, which must not be empty, into one row."""
    first = batch[0]
    if len(batch) == 1:
        return first.seq, first.hash, first.body
    if len(batch) == 2:  # nearly all: a run's begin and input, an answer and the run's end
        second = batch[1]
        one, other = first.body, second.body
        marks = _pack_two(len(one), first.hash, len(other), second.hash)
        return first.seq, marks, one + b"\n" + other
    marks = b"".join([_pack(len(entry.body), entry.hash) for entry in batch])
    return first.seq, marks, b"\n".join([entry.body for entry in batch])


def pack_singly(batch: Sequence[StoredEntry]) -> list[Row]:
    """Pack a batch into a row for each entry, as in a file of the first format."""
    return [(entry.seq, entry.hash, entry.body) for entry in batch]


def unpack(rows: Iterable[ReadRow], after: int, limit: int | None) -> list[StoredEntry]:
    """Unpack the entries with numbers above ``after``, at most ``limit``. ``rows`` are in order, and the
    first one has the next entry. Stops at a row whose body was not read, and asks for no more rows than
    necessary.

    If somebody has changed a row, its entries come out with hashes that do not fit. Raises TypeError if
    damage has changed the types of the very first row.
    """
    found: list[StoredEntry] = []
    most = sys.maxsize if limit is None else limit
    try:
        _unpack(rows, after, most, found)
    except TypeError:
        if found and type(found[-1].seq) is not int:  # the next one's number shows it
            found.pop()
        if not found:
            raise
    return found if len(found) <= most else found[:most]


def _unpack(rows: Iterable[ReadRow], after: int, most: int, found: list[StoredEntry]) -> None:
    append = found.append
    for first, mark, body in rows:
        if body is None:
            break
        size = len(mark)
        if size == HASH or size < 2 * MARK or size % MARK:
            if first > after:
                append(StoredEntry(first, mark, body))
        else:
            if size == 2 * MARK:  # most that hold several: saves a fifth of the time of the general way
                length, hash_, _, last = _unpack_two(mark)
                append(StoredEntry(first, hash_, body[:length]))
                append(StoredEntry(first + 1, last, body[length + 1 :]))
            else:
                seq, begin = first, 0
                for length, hash_ in _marks(mark):
                    end = begin + length
                    append(StoredEntry(seq, hash_, body[begin:end]))
                    seq, begin = seq + 1, end + 1
                if end < len(body):  # surplus bytes belong to the last one, and do not fit its hash
                    found[-1] = StoredEntry(seq - 1, hash_, body[end - length :])
            if first <= after:
                del found[: after + 1 - first]
        if len(found) >= most:
            break
