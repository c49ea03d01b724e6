"""Files that are none: directories, pipes that nobody writes to, sockets. Each is reported, and none waited for."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from actors.cli.main import polypod
from actors.cli.pods.answer_schema import schema_of
from actors.cli.pods.attachments import attached
from actors.cli.pods.instructions import project_instructions
from actors.cli.pods.pictures import picture
from actors.cli.pods.schema_types import UnusableSchema
from actors.llm.prices import load_prices
from actors.tools.loading import load_tools
from protocol.errors import InvalidInput, ManifestError, PolypodError, ToolDefinitionError
from protocol.files import read_file
from protocol.manifest import PodManifest

READ: dict[str, tuple[Callable[[str], object], type[Exception]]] = {
    "a manifest": (PodManifest.load, ManifestError),
    "prices": (load_prices, ManifestError),
    "--schema": (schema_of, UnusableSchema),
    "--image": (picture, InvalidInput),
    "--file": (lambda path: attached((path,), None), click.UsageError),  # type: ignore[arg-type]
}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        yield {"folder": "directory", "pipe": "a pipe that nothing writes to", "socket": "a socket"}


@pytest.mark.parametrize("kind", READ)
def test_what_is_no_file_is_reported_where_a_person_names_it(kind: str, odd: dict[str, str]) -> None:
    read, error = READ[kind]
    for name, words in odd.items():
        with pytest.raises(error) as caught:
            read(f"./{name}")
        assert words in str(caught.value)


@pytest.mark.parametrize("words", [("run", "hi", "--model", "offline", "--mcp"), ("import",)])
def test_json_that_is_nested_too_deep_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "deep.json"
    file.write_text('{"mcpServers": ' + "[" * 50_000 + "]" * 50_000 + "}\n", encoding="utf-8")
    left = CliRunner().invoke(polypod, [*words, str(file)], standalone_mode=False).exception
    assert isinstance(left, PolypodError | click.UsageError)
    assert "deep.json" in str(left) or "session" in str(left)


def test_what_a_pipe_is_being_given_is_read(odd: dict[str, str]) -> None:
    del odd
    keeps_open = os.open("pipe", os.O_RDWR)
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(b"a" * 200_000))
    writer.start()
    assert read_file("pipe", 200_000, pipes=True) == b"a" * 200_000
    writer.join()
    os.close(keeps_open)


def test_the_home_of_nobody_is_an_error_of_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = "~no-such-user/x"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for arguments in (
        ["swarm", "start", "--cwd", nobody, "go"],
        ["pool", "add", "--cwd", nobody, "a", "b"],
        ["ps", "--store", f"sqlite:{nobody}"],
    ):
        ended = CliRunner().invoke(polypod, arguments)
        assert isinstance(ended.exception, PolypodError | SystemExit), arguments
        assert "no-such-user" in f"{ended.output}{ended.exception}"
    with pytest.raises(ToolDefinitionError, match="there is no file ~no-such-user"):
        load_tools([f"{nobody}.py"])


def test_instructions_that_are_no_file_are_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "AGENTS.md")
    found = project_instructions(tmp_path)
    assert found is not None
    assert found.notes == (f"{tmp_path / 'AGENTS.md'} cannot be read: it is not a regular file",)
    (tmp_path / "AGENTS.override.md").mkdir()
    found = project_instructions(tmp_path)
    assert found is not None
    assert found.notes == (f"{tmp_path / 'AGENTS.override.md'} cannot be read: it is a directory",)
