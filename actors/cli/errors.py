"""How a command ends: its exit code, and one clear line for each error."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable

import click

from actors.cli.display.terminal import Terminal
from actors.cli.interrupts import Interrupted, ending_at_once
from actors.cli.streams import let_go_of_lost_terminal
from protocol.errors import (
    BudgetError,
    ChainInvalid,
    InvalidKey,
    ManifestError,
    MissingKey,
    PolypodError,
    PoolError,
    RunFailed,
    SessionNotFound,
    ToolDefinitionError,
    UnknownAgent,
    UnknownApproval,
    UnknownEntry,
    UnknownRunner,
)
from protocol.events import RunOutcome

FINISHED, FAILED, BAD_INPUT, LIMIT, REFUSED, CANCELLED, BROKEN_PIPE = 0, 1, 2, 3, 4, 130, 141

#: The exit code for each outcome of a run.
CODES: dict[RunOutcome, int] = {
    "finished": FINISHED,
    "paused": FINISHED,
    "failed": FAILED,
    "limit_reached": LIMIT,
    "refused": REFUSED,
    "budget": LIMIT,
    "cancelled": CANCELLED,
}
#: What writing to a full or broken output is refused with; of files, errors name the file.
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
#: Errors that say that what was typed, written or exported cannot work.
_BAD_INPUT = (
    click.ClickException,
    ManifestError,
    BudgetError,
    ChainInvalid,
    InvalidKey,
    MissingKey,
    PoolError,
    SessionNotFound,
    ToolDefinitionError,
    UnknownAgent,
    UnknownApproval,
    UnknownEntry,
    UnknownRunner,
)
#: Nobody reads standard output any more; click makes an exit of it.
_NO_READER = (BrokenPipeError, SystemExit)


class SeveralFit(click.UsageError):
    """What was typed fits several; ``lines`` lists them."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines


class Exit(Exception):  # noqa: N818 - an end, not an error
    """The command is over, with this exit code; all has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def code_of(error: BaseException) -> int:
    """The exit code that an error ends the command with."""
    if isinstance(error, Exit):
        return error.code
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, Interrupted):
        return 128 + error.number
    if isinstance(error, _BAD_INPUT):
        return BAD_INPUT
    if isinstance(error, KeyboardInterrupt | click.Abort | asyncio.CancelledError):
        return CANCELLED
    return BROKEN_PIPE if isinstance(error, _NO_READER) else FAILED


def _is_of_lost_terminal(error: BaseException) -> bool:
    """Whether a terminal was closed, and writing to it failed before its signal came."""
    return isinstance(error, OSError) and error.errno == errno.EIO and let_go_of_lost_terminal()


def words_for(error: BaseException) -> tuple[str, str | None] | None:
    """The message for an error, and a hint; None where nothing is to be printed."""
    said: tuple[str, str | None] | None
    match error:
        case Exit() | click.exceptions.Exit() | BrokenPipeError() | SystemExit():
            said = None
        case KeyboardInterrupt() | Interrupted() | click.Abort() | asyncio.CancelledError():
            said = "interrupted", None
        case SeveralFit():
            said = error.message, None
        case click.ClickException():
            said = _usage(error)
        case RunFailed():
            said = f"the run failed: {error.message}", error.hint
        case PolypodError():
            said = error.message, error.hint
        case OSError() if error.strerror:
            at = error.filename or ("the output cannot be written" if error.errno in _UNWRITABLE else None)
            hint = "check its permissions, and those of its folder" if error.errno == errno.EACCES else None
            said = f"{at}: {error.strerror}" if at else error.strerror, hint
        case _:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            said = (
                f"internal error: {what}",
                "run again with POLYPOD_DEBUG=1 to see where, and please report it",
            )
    return said


def _usage(error: click.ClickException) -> tuple[str, str | None]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "polypod"
    return error.format_message().rstrip("."), f"see {path} --help"


def run_guarded(command: Callable[[], object]) -> int:
    """Run ``command`` and return its exit code; an error is printed on one line, without a traceback."""
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # while it was imported
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
        sys.stdout.flush()
    except BaseException as caught:  # noqa: BLE001 - the outermost frame: nothing may leave as a traceback
        with ending_at_once():
            error = Interrupted(signal.SIGHUP) if _is_of_lost_terminal(caught) else caught
            code = code_of(error)
            if os.environ.get("POLYPOD_DEBUG") and code not in {FINISHED, BROKEN_PIPE}:
                traceback.print_exception(error)
            _report(error)
        return code
    return FINISHED


def _report(error: BaseException) -> None:
    try:
        _drop_output() if isinstance(error, _NO_READER) else _flush_output()
        said = words_for(error)
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            said = ("no command was given", None)
        if said is not None:
            terminal = Terminal()
            terminal.note(f"polypod: {' '.join(said[0].split())}", "error")
            for line in error.lines if isinstance(error, SeveralFit) else ():
                terminal.note(f"  {line}")
            if said[1]:
                terminal.note(f"  hint: {' '.join(said[1].split())}", "note")
    except OSError:
        _drop_output()


def _flush_output() -> None:
    """Write what is buffered, where it can be written: the error itself is being printed already."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """Discard what is buffered: nobody reads standard output any more, and the exit must not fail for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
