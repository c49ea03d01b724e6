"""``polypod demo``: a pod works on real files, is killed in the middle of a tool, and is resumed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from actors.cli.display.event_format import Line
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import PeopleView
from actors.cli.errors import FAILED, Exit
from actors.cli.sessions.store_reader import Reading
from protocol.entries import Entry, OtherEntry
from protocol.events import AssistantMessage, Event, ToolResulted, ToolStart
from protocol.items import ToolCall
from protocol.results import RunResult
from protocol.wire import decode_entry, decode_event

#: The files of the task and how often each holds its line; the last takes a while to count.
FILES = {
    "poem.txt": ("so much depends upon a red wheel barrow\n", 500),
    "letter.txt": ("I have eaten the plums that were in the icebox\n", 2_000),
    "logbook.txt": ("wind north by west, sea calm, all well aboard\n", 2_000_000),
}
SLOW = "logbook.txt"
#: What the pod leaves behind, and must leave behind once.
JOURNAL, LINES = "journal.txt", ["audit begun", "audit done"]
TASK = (
    f"append '{LINES[0]}' to {JOURNAL}, then count words in {', '.join(FILES)}, "
    f"then append '{LINES[1]}' to {JOURNAL}"
)


class Played(Struct):
    """What one process printed: its events, and the result it ended with, None if it was killed."""

    events: list[Event]
    result: RunResult | None = None

    @property
    def started(self) -> list[ToolStart]:
        """The tools that it ran."""
        return [event for event in self.events if isinstance(event, ToolStart)]


@click.command
@click.option("--keep", is_flag=True, help="Keep the folder with the files and the session.")
def demo(keep: bool) -> None:
    """Watch a pod do a task, be killed in the middle of a tool, and continue where it stopped.

    Needs no key and no network. Ends with 0 only if nothing was lost and nothing was run twice.
    """
    folder = Path(tempfile.mkdtemp(prefix="polypod-demo-"))
    try:
        if not _play(folder, Terminal(err=sys.stdout)):
            raise Exit(FAILED)
    finally:
        if keep:
            click.echo(f"\nkept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _play(folder: Path, terminal: Terminal) -> bool:
    """The whole demonstration; whether it ended as it must."""
    store = f"sqlite:{folder / 'pods.db'}"
    expected = _write_files(folder)
    _step(terminal, "1. A pod on the embedded model gets a task on real files", f"polypod run “{TASK}”")
    view = PeopleView(terminal)
    ask = ["run", TASK, "--model", "offline", "--name", "demo", "--store", store]
    before = _polypod(folder, ask, view, kill=True)
    if not before.events:
        return False  # it has said why
    session = before.events[-1].session_id
    terminal.idle()
    _step(
        terminal,
        "2. It was killed with SIGKILL in the middle of that tool. Continue:",
        f"polypod resume {session}",
    )
    left = _entries(store, session)
    after = _polypod(folder, ["resume", session, "--store", store], view)
    _step(terminal, "3. Was anything lost, or run twice?")
    terminal.note("(The model was informed that the outcome of the interrupted call is unknown. Counting")
    terminal.note("changes nothing, so it called again. Calls that had a result were not repeated.)")
    journal = (folder / JOURNAL).read_text(encoding="utf-8").splitlines()
    verdict = points(expected, before, left, after, _entries(store, session))
    verdict[f"{JOURNAL} has each of its {len(LINES)} lines once"] = journal == LINES
    for point, holds in verdict.items():
        terminal.say(Line("tool" if holds else "error", f"{'✓' if holds else '✗'} {point}"))
    return all(verdict.values())


def _step(terminal: Terminal, text: str, command: str | None = None) -> None:
    terminal.end_line()
    terminal.note("")
    terminal.say(Line("user", text))
    if command is not None:
        terminal.note(f"$ {command}")


def _write_files(folder: Path) -> dict[str, int]:
    """Make the files of the task; how many words each has."""
    for name, (line, times) in FILES.items():
        (folder / name).write_text(line * times, encoding="utf-8")
    return {name: len(line.split()) * times for name, (line, times) in FILES.items()}


def _polypod(folder: Path, arguments: list[str], view: PeopleView, *, kill: bool = False) -> Played:
    """A polypod process of its own, followed to its end, or killed when it counts the slow file."""
    played = Played([])
    with _process(folder, [*arguments, "--json"]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b'{"type":"RunResult"'):
                played.result = _result(line)
                if played.result is not None:
                    view.show_end(played.result)
                break
            event = decode_event(line)
            played.events.append(event)
            view.show(event)
            if kill and isinstance(event, ToolStart) and event.arguments.get("path") == SLOW:
                process.kill()
                break
    return played


def _process(folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    home = str(Path(__file__).parents[2])  # where this very polypod is, installed or not
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(  # noqa: S603 - it is ourselves
        [sys.executable, "-m", "polypod", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


def _result(line: bytes) -> RunResult | None:
    try:
        return msgspec.json.decode(line, type=RunResult)
    except msgspec.ValidationError:  # a run that failed has an error in its place
        return None


def _entries(store: str, session: str) -> list[Entry]:
    """The session's log, its chain checked."""
    with Reading(store) as reading:
        decoded = [decode_entry(entry.body) for entry in reading.checked(session)]
        return [entry for entry in decoded if not isinstance(entry, OtherEntry)]


def points(
    expected: dict[str, int], before: Played, left: list[Entry], after: Played, log: list[Entry]
) -> dict[str, bool]:
    """What must hold, and whether it does; ``left`` is the log as the crash left it."""
    asked = [entry.item for entry in left if isinstance(entry, AssistantMessage)]
    calls = {call.id: call for item in asked for call in item.calls}
    finished = {entry.item.call_id for entry in left if isinstance(entry, ToolResulted)}
    at_work = [call.arguments.get("path") for call in calls.values() if call.id not in finished]
    results = [entry.item.call_id for entry in log if isinstance(entry, ToolResulted)]
    ended_well = after.result is not None and after.result.outcome == "finished"
    text = after.result.text.replace(",", "") if after.result is not None else ""
    return {
        f"it was killed while {SLOW} was being counted": at_work == [SLOW],
        f"all {len(left)} entries from before are still in the log, its hash chain whole": (
            log[: len(left)] == left
        ),
        "each call has exactly one result": len(results) == len(set(results)) and set(calls) <= set(results),
        "no call that had begun was run again": not _run_twice(
            [calls[key] for key in finished], before, after
        ),
        f"the run finished with the right answer for {len(expected)} files": (
            ended_well and all(str(words) in text for words in expected.values())
        ),
    }


def _run_twice(finished: list[ToolCall], before: Played, after: Played) -> bool:
    """Whether the second process began a call of the first again, or repeated one that was done."""
    begun = {event.call_id for event in before.started}
    done = [(call.name, call.arguments) for call in finished]
    return any(event.call_id in begun or (event.name, event.arguments) in done for event in after.started)
