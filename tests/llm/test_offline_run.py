"""The offline model takes what it is asked to run as it is written, and as one step among others where it is quoted."""

import pytest

from actors.llm.offline.intents import Intent, Read, Run, UseTool
from actors.llm.offline.phrases import understood


@pytest.mark.parametrize(
    ("text", "intents"),
    [
        ("run ls", [Run("ls")]),
        ("run ls -la | wc -l; echo x and y, then z.", [Run("ls -la | wc -l; echo x and y, then z.")]),
        ("Please run the command: git status", [Run("git status")]),
        ("execute cat <<EOF\na\nEOF\n", [Run("cat <<EOF\na\nEOF")]),
        ("run `make test`, then read log.txt", [Run("make test"), Read("log.txt")]),
        ("read log.txt, then run ls", [Read("log.txt"), Run("ls")]),
        ("run list_files path=src", [UseTool("list_files", "path=src")]),
    ],
)
def test_what_is_to_be_run_is_one_command(text: str, intents: list[Intent]) -> None:
    assert understood(text, ["list_files", "shell"]) == intents
