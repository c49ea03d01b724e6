"""``Note``: one note of lasting memory as Markdown with front matter; and how notes are merged. Pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from actors.memory.findings import Attempt, Decision, Discussion, Extracted, UserRequest
from actors.memory.words import words_of
from actors.runtime.redact import redacted
from protocol.errors import WireError

Kind = Literal["summary", "decisions", "requests", "knowledge"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_LONGEST_TITLE = 80
_LONGEST_SLUG = 60
_MOST_SOURCES = 20


class Note(Struct, frozen=True):
    """One thing to remember.

    ``created`` and ``updated`` are dates (2026-01-31), ``sources`` name the sessions and items that it comes
    from, ``extra`` has lines of front matter that people have added.
    """

    kind: Kind
    title: str
    body: str
    created: str
    updated: str
    sources: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The path of the note in a memory folder; notes with one path are one note."""
        return f"{self.kind}/{slug(self.title)}.md"


def slug(title: str) -> str:
    """A title as a file name: letters, digits and dashes of any script, never empty."""
    plain = unicodedata.normalize("NFKC", title).lower().replace("_", " ")
    words = "-".join(words_of(plain))
    if 0 < len(words) <= _LONGEST_SLUG:
        return words
    mark = hashlib.sha256(title.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{words[: _LONGEST_SLUG - 9].rstrip('-')}-{mark}".lstrip("-")


def render(note: Note) -> str:
    """The note as the text of a file."""
    lines = ["---", f"kind: {note.kind}", f"title: {_quoted(note.title)}"]
    lines += [f"created: {note.created}", f"updated: {note.updated}"]
    if note.sources:
        lines += ["sources:", *(f"  - {_quoted(source)}" for source in note.sources)]
    return "\n".join([*lines, *note.extra, "---", "", note.body.strip(), ""])


def parse(text: str) -> Note:
    """The note in a file's text, including people's edits. Raises WireError."""
    found = re.match(r"\ufeff?---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)(.*)", text.replace("\r\n", "\n"), re.DOTALL)
    if found is None:
        raise WireError("not a note: it does not begin with front matter between two lines of ---")
    fields: dict[str, str] = {}
    sources: list[str] = []
    extra: list[str] = []
    key = ""
    for line in found[1].split("\n"):
        entry = re.match(r"([A-Za-z_][\w-]*):[ \t]*(.*)$", line)
        if entry is not None:
            key = entry[1]
        if key == "sources" and (source := re.match(r"\s*-\s+(.*)$", line)):
            sources.append(_unquoted(source[1]))
        elif entry is not None and key in {"kind", "title", "created", "updated"}:
            fields[key] = _unquoted(entry[2])
        elif key != "sources":
            extra.append(line)
    return _note(fields, found[2].strip(), tuple(sources), tuple(extra))


def read_note(path: str, text: str) -> Note:
    """The note at ``path``, even if people wrote no front matter, or a wrong one."""
    try:
        return parse(text)
    except WireError:
        folder, _, name = path.rpartition("/")
        kind: Kind = next((each for each in KINDS if each == folder), "knowledge")
        title = " ".join(name.removesuffix(".md").replace("-", " ").split()) or name
        return Note(kind, title, text.replace("\r\n", "\n").strip(), "", "")


def _note(fields: dict[str, str], body: str, sources: tuple[str, ...], extra: tuple[str, ...]) -> Note:
    kind = fields.get("kind")
    if kind not in KINDS:
        raise WireError(f"not a note: kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if not fields.get("title"):
        raise WireError("not a note: it has no title")
    created = fields.get("created", "")
    return Note(kind, fields["title"], body, created, fields.get("updated") or created, sources, extra)


def _quoted(text: str) -> str:
    """``text`` quoted for YAML: JSON strings are YAML too."""
    return msgspec.json.encode(" ".join(text.split())).decode()


def _unquoted(text: str) -> str:
    text = text.strip()
    if text.startswith('"'):
        try:
            return msgspec.json.decode(text, type=str)
        except msgspec.DecodeError:
            pass
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def merged(old: Note, new: Note, *, last_word: bool = False) -> Note:
    """Two notes of one path as one: ``old`` stays, and what it does not say yet is added from ``new``. With
    ``last_word``, what is repeated moves to the end, as the newest.
    """
    before, said = pieces_of(old.body), pieces_of(new.body)
    again = {key_of(piece) for piece in said} if last_word else set()
    stays = [piece for piece in before if key_of(piece) not in again]
    known = {key_of(piece) for piece in stays}
    worded = {key_of(piece): piece for piece in before}
    fresh = [worded.get(key_of(piece), piece) for piece in said if key_of(piece) not in known]
    changed = [*stays, *fresh] != before
    dates = [date for date in (old.created, new.created) if date]
    return Note(
        old.kind,
        old.title,
        _joined([*stays, *fresh]),
        min(dates, default=""),
        max(old.updated, new.updated) if changed else old.updated or new.updated,
        tuple(dict.fromkeys((*old.sources, *new.sources)))[-_MOST_SOURCES:],
        old.extra,
    )


def deduplicated(notes: Iterable[Note]) -> list[Note]:
    """The notes with those of one path merged, in order of their first appearance."""
    found: dict[str, Note] = {}
    for note in notes:
        known = found.get(note.path)
        found[note.path] = note if known is None else merged(known, note, last_word=True)
    return list(found.values())


def pieces_of(body: str) -> list[str]:
    """The pieces of a text that may be repeated elsewhere: bullets with what belongs to them, and
    paragraphs.
    """
    pieces: list[str] = []
    for block in re.split(r"\n\s*\n", body.strip()):
        pieces += re.split(r"\n(?=[-*] )", block)
    return [piece.rstrip() for piece in pieces if piece.strip()]


def _joined(pieces: list[str]) -> str:
    """Pieces as one text; consecutive bullets stay together."""
    text = ""
    for before, piece in zip(["", *pieces], pieces, strict=False):
        together = before.startswith(("- ", "* ")) and piece.startswith(("- ", "* "))
        text += ("" if not text else "\n" if together else "\n\n") + piece
    return text.lstrip()  # as it is read back: the indentation of the first piece has no meaning


def key_of(piece: str) -> str:
    """What identifies a piece: its words, with all signs that may change their meaning (``C++``, ``C#``, ``<
    5``), without punctuation around them.
    """
    plain = unicodedata.normalize("NFC", piece).casefold()
    return " ".join(word for word in map(_bare, plain.split()) if word not in _BETWEEN) or plain.strip()


def covers(text: str, piece: str) -> bool:
    """Whether ``text`` says what ``piece`` says, perhaps in other words: it has all words with digits or
    signs (``C++``), and half of the other meaningful words.
    """
    text, piece = text.casefold(), piece.casefold()
    said = words_of(text)
    stems = {word[:_STEM] for word in said}
    words = set(words_of(piece)) - _COMMON
    exact = {word for word in words if any(sign.isdigit() for sign in word)}
    others = words - exact
    found = sum(word[:_STEM] in stems for word in others)
    signed = set(re.findall(_SIGNED, piece)) <= set(re.findall(_SIGNED, text))
    return signed and exact <= set(said) and 2 * found >= len(others)


def _bare(word: str) -> str:
    """A word without the punctuation around it."""
    start, end = 0, len(word)
    while start < end and _says_nothing(word[start]):
        start += 1
    while start < end and _says_nothing(word[end - 1]):
        end -= 1
    return word[start:end]


def _says_nothing(sign: str) -> bool:
    return sign == "`" or (sign not in _SAYS_SOMETHING and unicodedata.category(sign).startswith("P"))


#: Punctuation that may change the meaning of a word, and what is between words.
_SAYS_SOMETHING = frozenset("-#%&@/\\")
_BETWEEN = frozenset({"", "-", "--"})
#: A word whose signs are part of its name.
_SIGNED = r"\w+(?:\+\+|#)"
#: How many characters of a word are compared, so that its inflected forms are equal.
_STEM = 5
#: Words that say nothing about the topic of a piece.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        a about also an and are as at be been but by did do does for from had has have how if in into is it
        its no not of on or so than that the their them then there these they this to was we were what when
        which who why will with work worked works you
        """,
    )
)


def notes_of(found: Extracted, *, source: str, date: str) -> list[Note]:
    """What one extraction found, as notes without secrets."""
    sections: list[tuple[Kind, str, str]] = [
        *(("decisions", _first(each.chosen, each.rationale), _decision(each)) for each in found.decisions),
        *(
            ("requests", _first(each.summary, each.intent, each.target or ""), _request(each))
            for each in found.requests
        ),
        *(("knowledge", _first(each.topic, *each.points), _discussion(each)) for each in found.discussions),
        *(("knowledge", _first(each.action, each.result), _attempt(each)) for each in found.attempts),
    ]
    return deduplicated(
        Note(kind, _title(redacted(title)), redacted(body), date, date, (source,))
        for kind, title, body in sections
        if title.strip()
    )


def _first(*texts: str) -> str:
    """The first text that is not blank: weak models leave out what would be the title."""
    return next((text for text in texts if text.strip()), "")


def _title(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TITLE else f"{text[: _LONGEST_TITLE - 1].rstrip()}…"


def _decision(found: Decision) -> str:
    options = f" (options: {', '.join(found.options)})" if found.options else ""
    why = f"\n  Why: {found.rationale}" if found.rationale else ""
    return f"- {found.chosen}{options}{why}"


def _request(found: UserRequest) -> str:
    target = f" ({found.target})" if found.target else ""
    more = f": {found.summary}" if found.summary and found.summary != found.intent else ""
    return f"- {found.intent}{target}{more}"


def _discussion(found: Discussion) -> str:
    return "\n".join(f"- {point}" for point in found.points) or f"- {found.topic}"


def _attempt(found: Attempt) -> str:
    outcome = "worked" if found.succeeded else "did not work"
    return f"- {found.action}: {outcome}{f', {found.result}' if found.result else ''}"
