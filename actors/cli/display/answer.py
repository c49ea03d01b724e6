"""The answer of a run, alone on standard output."""

from __future__ import annotations

import msgspec

from actors.cli.display.terminal import Terminal
from protocol.results import RunResult


def write_answer(terminal: Terminal, text: str, result: RunResult) -> None:
    """Write the answer; one that had to fit a schema is JSON, on one line where it is piped on."""
    if result.output is not None:
        encoded = msgspec.json.encode(result.output)
        text = (msgspec.json.format(encoded, indent=2) if terminal.live else encoded).decode()
    terminal.write(text)
    terminal.end_line()
