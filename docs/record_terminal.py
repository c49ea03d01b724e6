"""``python docs/record_terminal.py`` runs commands at a terminal and draws it: ``terminal.svg``."""

import html
import io
import os
import pty
import re
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

_PICTURE = Path(__file__).with_name("terminal.svg")
_COLUMNS = 100
_COMMANDS = (
    'polypod run "count words in plan.txt"',
    "polypod ps",
    'polypod run --continue "read plan.txt"',
    "polypod log last",
)
_PLAN = "Ask the kernel, not the prompt.\nCommit first, then tell.\n"


def _run(command: str, folder: str) -> str:
    """What a command shows at a terminal, its colours included."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        bin_ = str(Path(sys.executable).parent)
        place = {"HOME": folder, "PATH": f"{bin_}:/usr/bin:/bin", "TERM": "xterm-256color"}
        words = shlex.split(command)
        os.execve(f"{bin_}/{words[0]}", words, place | {"COLUMNS": str(_COLUMNS), "POLYPOD_MODEL": "offline"})  # noqa: S606
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:  # the terminal ends with its program
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    return _final(shown.decode())


def _final(shown: str) -> str:
    """What is left on the screen, where progress was drawn and wiped out again (cursor up, erase line)."""
    lines = [""]
    for piece in re.split(r"(\r?\n|\r|\x1b\[1A|\x1b\[2K|\x1b\[\?25[hl])", shown):
        match piece:
            case "\n" | "\r\n":
                lines.append("")
            case "\x1b[1A":
                lines.pop()
            case "\x1b[2K":
                lines[-1] = ""
            case "\r" | "\x1b[?25h" | "\x1b[?25l":
                pass
            case _:
                lines[-1] += piece
    return "\n".join(lines)


def record() -> str:
    """The picture of what the commands print today."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    with tempfile.TemporaryDirectory(prefix="notes-") as folder:
        Path(folder, "plan.txt").write_text(_PLAN, encoding="utf-8")
        for command in _COMMANDS:
            console.print(Text.assemble(("$ ", "green"), (command, "bold")))
            console.print(Text.from_ansi(_run(command, folder)), end="\n")
    return console.export_svg(title="polypod")


def words(picture: str) -> list[str]:
    """The words of a picture without what differs each time: numbers, ids, times and the folder."""
    lines: dict[float, str] = {}
    for y, text in re.findall(r'<text class="[^"]*" x="[\d.]+" y="([\d.]+)"[^>]*>(.*?)</text>', picture):
        lines[float(y)] = lines.get(float(y), "") + html.unescape(text).replace("\xa0", " ")
    shown = " ".join(lines[y] for y in sorted(lines))
    ids = r"\b[0-9a-f]{8}(-[0-9a-f]+)*\b"
    changing = ids + r"|/\S*notes-\w+|\b(?=\w*\d)[\w:,.-]+( (us|ms|s)\b)?( ago)?|just now"
    return re.sub(changing, "#", shown).split()


def main() -> None:
    """Run them, and write the picture."""
    _PICTURE.write_text(record(), encoding="utf-8")


if __name__ == "__main__":
    main()
