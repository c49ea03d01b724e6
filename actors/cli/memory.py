"""``polypod memory``: lists, searches and shows the notes of lasting memory."""

from __future__ import annotations

from pathlib import Path

import click
from msgspec import UNSET, UnsetType

from actors.cli import options
from actors.cli.display.event_format import Line
from actors.cli.display.format import count, cut
from actors.cli.display.help_format import Commands
from actors.cli.display.json_rows import NoteRow
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.places import memory_folder
from actors.memory.notes import KINDS, Note
from actors.memory.notes_folder import NotesFolder
from actors.memory.staging import waiting
from protocol.closest import closest
from protocol.text import unshortened

_kind = click.option(
    "--kind", metavar="KIND", type=click.Choice(KINDS), help=f"Only notes of this kind: {', '.join(KINDS)}."
)


class _ListsByItself(Commands):
    """Without a command's name, the notes are listed; options are then those of ``list``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["list", *args])


@click.group(cls=_ListsByItself)
def memory() -> None:
    """List, search and show the notes that pods keep from their sessions, as Markdown files in a folder.

    Without a command it lists them.
    """


@memory.command("list")
@_kind
@options.memory
@options.as_json
def list_notes(kind: str | None, folder: Path | None, as_json: bool) -> None:
    """List the notes, by their paths in the memory folder."""
    kept = _memory(folder)
    notes = {path: note for path, note in kept.notes().items() if kind in {None, note.kind}}
    if as_json:
        for path, note in notes.items():
            put_json(_row(path, note))
        return
    terminal = Terminal()
    if notes:
        rows = [(path, note.updated or "-", cut(note.title, 80)) for path, note in notes.items()]
        terminal.table([("NOTE", "UPDATED", "TITLE"), *rows])
    else:
        terminal.note(f"no notes in {kept.folder}")
    if staged := len(waiting(kept.staging)):
        terminal.note(f"{count(staged, 'file')} of findings staged but not yet merged")


@memory.command(short_help="Find notes by their words.")
@click.argument("words", metavar="QUERY...", nargs=-1, required=True)
@_kind
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="The maximum number of notes to show.",
)
@options.memory
@options.as_json
def search(words: tuple[str, ...], kind: str | None, limit: int, folder: Path | None, as_json: bool) -> None:
    """Find notes by their words, the best matches first; also what is staged."""
    kept = _memory(folder)
    from actors.memory.note_index import search as search_notes  # noqa: PLC0415 - paid for by who searches

    hits = search_notes(kept, " ".join(words), kind=kind, limit=limit)
    if as_json:
        for hit in hits:
            put_json(hit)
        return
    terminal = Terminal()
    if not hits:
        terminal.note(f"nothing found in {kept.folder}")
    for hit in hits:
        state = ", staged" if hit.staged else ""
        terminal.row(Line("answer", f"{hit.path}  {cut(hit.title, 80)} ({hit.kind}{state})"))
        terminal.row(Line("quiet", f"    {cut(hit.snippet, max(terminal.width - 4, 20))}"))


@memory.command(short_help="Print a note.")
@click.argument("name")
@options.memory
@options.as_json
def show(name: str, folder: Path | None, as_json: bool) -> None:
    """Print the note NAME: its path as list prints it, or the unique beginning of its file's name."""
    kept = _memory(folder)
    path = _found(kept, name)
    note = kept.note(path)
    if note is None:
        raise _not_there(name, kept, [])
    if as_json:
        put_json(_row(path, note, note.body))
        return
    terminal = Terminal()
    terminal.line(Line("user", note.title))
    terminal.line(Line("quiet", f"{path}, updated {note.updated or 'by hand'}"))
    terminal.write(f"\n{note.body}")
    terminal.end_line()


def _memory(folder: Path | None) -> NotesFolder:
    chosen = folder or memory_folder()
    if chosen.exists() and not chosen.is_dir():
        raise click.UsageError(
            f"{chosen} is not a folder: set the memory folder with --memory or $POLYPOD_MEMORY"
        )
    return NotesFolder(chosen)


def _row(path: str, note: Note, body: str | UnsetType = UNSET) -> NoteRow:
    return NoteRow(
        path=path,
        kind=note.kind,
        title=note.title,
        created=note.created,
        updated=note.updated,
        sources=note.sources,
        body=body,
    )


def _found(kept: NotesFolder, name: str) -> str:
    """The path of the one note that ``name`` means."""
    paths = list(kept.stamps())
    if name in paths:
        return name
    files = {path: path.partition("/")[2].removesuffix(".md") for path in paths}
    exact = [path for path, file in files.items() if name in {file, f"{file}.md"}]
    start = unshortened(name)
    found = exact or [
        path for path in paths if name and (path.startswith(start) or files[path].startswith(start))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise click.UsageError(f"{name!r} matches {len(found)} notes: {', '.join(found[:5])}")
    raise _not_there(name, kept, [*files.values(), *paths])


def _not_there(name: str, kept: NotesFolder, known: list[str]) -> click.UsageError:
    near = closest(name, known)
    guess = f"; did you mean {near!r}?" if near else ""
    return click.UsageError(f"no note {name!r} in {kept.folder}{guess}; polypod memory lists all notes")
