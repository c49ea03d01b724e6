"""Ctrl-C while the command is still being imported ends it, without a traceback."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_kit import COMMAND, ROOT

SCRIPT = str(Path(sys.executable).with_name("polypod"))

#: Presses Ctrl-C, as it were, when a module that the environment names is about to be imported.
PRESSES = """
import _signal, os, sys
class Presses:
    def find_spec(name, path=None, target=None):
        if name in os.environ["PRESSED_AT"].split():
            _signal.raise_signal(_signal.SIGINT)
sys.meta_path.insert(0, Presses)
"""


@pytest.mark.parametrize("command", [COMMAND, [SCRIPT]], ids=["module", "script"])
@pytest.mark.parametrize(
    "module", ["signal", "polypod.__main__", "protocol.wire", "asyncio", "actors.cli.errors"]
)
def test_ctrl_c_while_it_is_loaded_ends_it_without_a_traceback(
    command: list[str], module: str, tmp_path: Path
):
    done = started(command, module, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("module", ["actors.cli.run", "actors.cli.follow"])
def test_ctrl_c_while_the_command_to_run_is_loaded_ends_it_in_a_line(module: str, tmp_path: Path):
    done = started([SCRIPT, "run", "hi"], module, tmp_path)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "polypod: interrupted")


def test_ctrl_c_while_the_line_for_the_one_before_is_printed_ends_it_without_a_traceback(tmp_path: Path):
    master, slave = os.openpty()  # only a terminal has rich loaded
    done = started([SCRIPT, "run", "hi"], "actors.cli.run rich.console", tmp_path, stderr=slave)
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # how its end is reported
        while piece := os.read(master, 65536):
            said += piece
    os.close(master)
    assert (done.returncode, said.strip()) == (130, b"")


def test_a_program_that_imports_us_has_its_ctrl_c_as_always(tmp_path: Path):
    program = "try:\n import polypod\nexcept KeyboardInterrupt:\n print('mine')"
    assert started([sys.executable, "-c", program], "msgspec", tmp_path).stdout == "mine\n"


def test_a_process_that_the_command_starts_has_its_ctrl_c_as_always(tmp_path: Path):
    """One of multiprocessing's has its parent's ``sys.argv``."""
    program = "import sys; sys.argv[0] = '/usr/bin/polypod'\n"
    program += "try:\n import polypod\nexcept KeyboardInterrupt:\n print('mine')"
    assert started([sys.executable, "-c", program], "msgspec", tmp_path).stdout == "mine\n"


def started(
    command: list[str], module: str, folder: Path, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(PRESSES)
    env = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PRESSED_AT": module}
    words = [*command, "--version"]
    return subprocess.run(words, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)
