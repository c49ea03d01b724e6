"""A test that hangs fails, and the run goes on."""

import subprocess
import sys
from pathlib import Path

import pytest
from warm import ROOT

HANGING = """
import subprocess, threading
import overdue
from hypothesis import given, settings, strategies as st

overdue.AGAIN = 4

@settings(database=None)
@given(st.integers())
def test_a_property(number):
    threading.Event().wait()

def test_a_process_that_is_waited_for():
    with subprocess.Popen(["sleep", "inf"]) as process:  # which waits for it again
        processes.append(process)
        process.wait()

def test_what_comes_after():
    processes.pop().kill()

processes = []
"""


@pytest.mark.slow
def test_a_test_that_hangs_fails_though_its_property_is_tried_again_or_its_clean_up_hangs_too(
    tmp_path: Path,
) -> None:
    (tmp_path / "conftest.py").write_text("from overdue import pytest_timeout_set_timer\n")
    (tmp_path / "test_hanging.py").write_text(HANGING)
    options = ("--timeout=1", "-o", f"pythonpath={ROOT / 'tests'}", "-p", "no:cacheprovider", "-rN")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", "/dev/null", "--rootdir", tmp_path, tmp_path],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "2 failed, 1 passed" in done.stdout
    assert done.stdout.count("Overdue: Timeout (>1.0s)") == 2
