"""Every command at a real terminal, wide and narrow, with colours and without: it works, and keeps to the width."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import terminals
from command_kit import Home
from rich.cells import cell_len
from warm import ROOT, Popen

from actors.cli.main import polypod

#: Of each command what is typed, and its exit code; S is a session's id, F a file with one exported.
CASES: list[tuple[str, int]] = [
    ("--help", 0), ("run --help", 0), ("chat --help", 0), ("bench --help", 0), ("resume --help", 0), ("help", 0), ("help run", 0), ("help nope", 2),
    ("ps", 0), ("ps --all", 0), ("ps --pod nope", 2), ("show S", 0), ("show nope", 2), ("log S", 0),
    ("log S --tree", 0), ("events", 0), ("approvals", 0), ("approvals --help", 0), ("approve --help", 0),
    ("approve nope", 2), ("deny nope", 2), ("agent --help", 0), ("agent --idle-timeout soon", 2), ("swarm --help", 0), ("swarm ls", 0), ("swarm stop nope", 2), ("top --help", 0), ("pool --help", 0), ("pool run --help", 0), ("pool add tests TASK", 0), ("pool ls", 0), ("pool run --runner pod --model offline", 0), ("pool show 1", 0), ("pool show nope", 2), ("pool run", 2), ("pool gc", 2), ("pool gc --older-than 1d", 0), ("pool gc --older-than soon", 2), ("memory", 0), ("memory search boat", 0), ("memory show boats", 0),
    ("memory show nope", 2), ("fsck", 0), ("doctor", 0), ("doctor --json", 0), ("config --help", 0), ("config check", 0), ("config trust", 2), ("gc --older-than 30d", 0), ("schema", 0), ("export S -", 0),
    ("fork S", 0), ("import F --store memory:", 0), ("run TASK --model offline", 0),
    ("run TASK --model offline --json", 0), ("run hi --model nonsense/x", 2), ("resume S TASK", 0), ("resume S", 2),
    ("compact S --retain 0", 0), ("bench --turns 3 --pods 2 --model offline", 0),
    ("bench --turns 3 --model offline --tools slow.py --prompt USE", 0),
    ("run USE --model offline --tools slow.py", 0), ("chat --model offline", 0), ("rm nope", 2), ("models", 0), ("models offline", 0), ("models nope", 1), ("completion zsh", 0),
]  # fmt: skip
#: Their lines are laid out to be looked down, and never wider than the terminal.
LAID_OUT = {
    "doctor",
    "config check",
    "--help",
    "run --help",
    "help",
    "ps",
    "log S",
    "log S --tree",
    "events",
    "pool ls",
    "memory",
    "memory search boat",
}
#: They take a while, and sessions of their own.
AT_ONCE = {command for command, _ in CASES if command.startswith(("run", "bench", "chat --model"))}
#: The demonstration takes seconds, and has tests of its own.
LEFT_OUT = {"demo"}
SETTINGS = {
    "wide": (100, {"TERM": "xterm-256color"}),
    "narrow": (40, {"TERM": "xterm-256color"}),
    "narrow without colours": (40, {"TERM": "xterm-256color", "NO_COLOR": "1"}),
    "dumb": (60, {"TERM": "dumb"}),
}
#: A tool that says how far it is, so that what goes on is shown in other words than before.
TOOL = '''
import time
from polypod import ToolContext, tool

@tool
def slow(text: str, ctx: ToolContext) -> str:
    """Say it, after a while."""
    for step in range(3):
        ctx.progress(f"step {step} " + "of very many " * 20)
        time.sleep(0.15)
    return text
'''
WORDS = {"TASK": "count words in a.txt", "USE": "use slow hello"}
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]")


class Seen(NamedTuple):
    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        """What stands on the lines, without colours and movements of the cursor."""
        return [
            line.split("\r")[-1] for line in _ESCAPES.sub("", self.text).replace("\r\n", "\n").split("\n")
        ]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Seen]:
    """What each command shows in each setting."""
    home = Home(tmp_path_factory.mktemp("terminals"))
    home.write("a.txt", "one two three\n")
    home.write("slow.py", TOOL)
    notes = home.state / "polypod" / "memory" / "knowledge"
    notes.mkdir(parents=True)
    note = "The boat is red, and its harbour is far away in the north, where the long words live"
    (notes / "boats.md").write_text(f"---\ntitle: {note}\n---\n{note}.\n")
    home.run(
        "count words in a.txt", "--name", "a-pod-with-a-name-that-is-longer-than-most-names-are@example.com"
    )
    session = home.session()
    home.polypod("export", session, "exported.jsonl")
    cases, asked = [], []
    for command, _ in CASES:
        words = [{"S": session, "F": "exported.jsonl", **WORDS}.get(word, word) for word in command.split()]
        keys = ["hello\r", "/nope\r", "//nope\r", "/help\r", "\x04"] if command.startswith("chat -") else []
        for setting, (columns, env) in SETTINGS.items():
            if setting == "wide" or command in LAID_OUT or "run" in command or "bench" in command:
                asked.append((command, setting))
                case = (words, columns, env, keys if setting != "dumb" else [])
                if command in AT_ONCE and asked[-2:-1] and asked[-2][0] == command:
                    cases[-1].append(case)
                else:
                    cases.append([case])
    command = [sys.executable, str(Path(terminals.__file__))]
    env = home.env | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    pipe = subprocess.PIPE
    with Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=home.folder, env=env) as process:
        out, _ = process.communicate(json.dumps(cases), timeout=120)
    assert process.returncode == 0
    return dict(zip(asked, (Seen(*each) for each in json.loads(out)), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_every_command_ends_as_it_should_and_without_a_traceback(seen: dict[tuple[str, str], Seen]):
    codes = dict(CASES)
    wrong = {
        case: (each.code, each.text[-500:])
        for case, each in seen.items()
        if each.code != codes[case[0]] or "Traceback" in each.text or "internal error:" in each.text
    }
    assert not wrong


def test_no_command_is_left_out():
    assert {command.split()[0] for command, _ in CASES} - {"--help"} == set(
        polypod.list_commands(click.Context(polypod))
    ) - LEFT_OUT


@pytest.mark.timeout(150)
def test_what_is_laid_out_is_never_wider_than_the_terminal(seen: dict[tuple[str, str], Seen]):
    wide = [
        (case, line)
        for case, each in seen.items()
        for line in each.lines
        if case[0] in LAID_OUT and cell_len(line) > SETTINGS[case[1]][0]
    ]
    assert not wide


@pytest.mark.timeout(150)
def test_a_narrow_list_of_sessions_says_how_each_last_run_stands(seen: dict[tuple[str, str], Seen]):
    narrow, wide = (seen["ps", setting].text.split("\r\n")[0].split() for setting in ("narrow", "wide"))
    assert narrow == ["SESSION", "LAST", "RUN", "TASK"]
    assert wide == ["SESSION", "POD", "CHANGED", "LAST", "RUN", "COST", "MODEL", "FOLDER", "TASK"]


def test_no_colours_are_shown_where_none_are_wanted(seen: dict[tuple[str, str], Seen]):
    coloured = [
        case
        for case, each in seen.items()
        if ("without" in case[1] or case[1] == "dumb") and re.search(r"\x1b\[[0-9;]*3[0-9]m", each.text)
    ]
    assert not [case for case in coloured if not case[0].startswith("chat")]
    assert re.search(r"\x1b\[32m", seen["run TASK --model offline", "wide"].text)


@pytest.mark.timeout(150)
def test_what_goes_on_is_shown_in_changing_words(seen: dict[tuple[str, str], Seen]):
    text = _ESCAPES.sub("", seen["run USE --model offline --tools slow.py", "wide"].text)
    assert "step 2 of very many" in text
    assert "slow answered" in text
    bench = "bench --turns 3 --model offline --tools slow.py --prompt USE"
    assert "2 of 3 turns" in _ESCAPES.sub("", seen[bench, "wide"].text)
