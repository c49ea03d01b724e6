"""Whatever is typed behind ``polypod``: an exit code and one clear line, never a traceback or a defect."""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from effort import times
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.cli.display.help_format import each_command
from actors.cli.errors import run_guarded
from actors.cli.main import polypod

#: What people and their scripts put where something else was expected.
ODD = [
    "", " ", "-", "--", "-1", "0", "1e9", "nan", "inf", "9" * 40, "nope", ".", "..", "/", "/etc/passwd", "~",
    "../../x y\n", "\ud800", "é\u0301", "😀", "a" * 5000, "127.0.0.1:9", "http://", "http://[::1",
    "http://a:b@c:99999/v1", "gpt-4.1", "offline", "offline/x", "openai/", "/m", "memory:", "sqlite:", "sqlite:.",
    "jsonl:", "jsonl:/etc/passwd", "sqlite:/proc/x.db", "postgresql://x", "x.py", "x.py:", ":y", "os:path", "30d",
    "-5d", "1.5.2h", "{}", "[", "%s", "$HOME", "*", "reader@example.com", "--help", "--json",
]  # fmt: skip
#: These start processes, wait for what comes, or ask models that may be on this machine for long.
LEFT_OUT = {"demo", "bench", "chat", "agent"}  # an agent takes the descriptors and signals of its process
LEFT_OUT |= {"swarm", "top", "pool run"}


def commands_of(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """The commands of a group and of those in it, by the words that call them."""
    for word, command in each_command(group, click.Context(group)):
        name = f"{before}{word}"
        if name not in LEFT_OUT:
            yield name, command
            yield from commands_of(command, f"{name} ") if isinstance(command, click.Group) else ()


COMMANDS = dict(commands_of(polypod))


@st.composite
def typed(draw: st.DrawFn) -> list[str]:
    """A command with any of its arguments and options, and any values for them."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    values = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_characters="\0"), max_size=8))
    words: list[str] = []
    for param in COMMANDS[name].params:
        if param.param_type_name == "argument":
            words += draw(st.lists(values, max_size=2))
        elif draw(st.booleans()) and param.name != "follow":
            words.append(param.opts[0])
            if not getattr(param, "is_flag", False):
                words.append(draw(values))
    return [*name.split(), *words] if name != "run" else [name, *words, "--model", "offline/m"]


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with a state folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("POLYPOD_MODEL", "POLYPOD_BASE_URL", "POLYPOD_STORE", "POLYPOD_MEMORY", "POLYPOD_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    before, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    with Path(os.devnull).open(encoding="utf-8") as empty:  # the runner's own refuses to be read
        monkeypatch.setattr(sys, "stdin", empty)
        yield tmp_path
    os.dup2(before, 0)
    os.close(before)
    os.close(nothing)


@settings(
    max_examples=times(50),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(words=typed())
@example(words=["import", "-"])
@example(words=["pool", "show", "9" * 20])
@example(words=["pool", "ls", "--limit", "9" * 40])
@example(words=["run", "x", "--budget", "9" * 400])
@example(words=["import", "/etc/passwd", "nope"])
def test_no_words_bring_a_traceback(nowhere: Path, words: list[str]):
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace") for _ in range(2))
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        code = run_guarded(lambda: polypod(words, prog_name="polypod", standalone_mode=False))
        err.flush()
        out.flush()
    finally:
        sys.stdout, sys.stderr = kept
    reported = err.buffer.getvalue().decode()
    assert code in {0, 1, 2, 3}, (words, reported)
    assert "defect" not in reported, (words, reported)
    assert "Traceback" not in reported, (words, reported)
    report = out.buffer.getvalue().decode()
    failed_checks = "✗ " in report or '"failed"' in report  # what doctor finds wrong is its result
    assert code == 0 or "polypod: " in reported or failed_checks, (words, reported)


@pytest.mark.parametrize(
    "words",
    [
        ["agent", "--idle-timeout", "nan"],
        ["swarm", "serve", "--idle-seconds", "nan"],
        ["bench", "--manifest", "none.toml", "--timeout", "nan"],
    ],
)
def test_a_time_that_is_no_number_is_refused(nowhere: Path, words: list[str]):
    with pytest.raises(click.BadParameter, match="'nan' is not a number"):
        polypod(words, prog_name="polypod", standalone_mode=False)
