"""Children of an application that is frozen into an executable: that is started once more to be their helper."""

import subprocess
import sys
from pathlib import Path

import pytest

_APPLICATION = """
import asyncio, sys
sys.frozen = True
sys.executable = sys.argv.pop(1)
from polypod import ChildNotStarted, PodManifest, PodSystem, freeze_support

async def main():
    async with PodSystem("sqlite:pods.db") as system:
        pod = await system.spawn(PodManifest.of(name="p"), process=True)
        result = await pod.run("hello")
        print(result.outcome, pod.address.pid is not None)

if __name__ == "__main__":
    if SUPPORTED:
        freeze_support()
    try:
        asyncio.run(main())
    except ChildNotStarted as error:
        print(error.hint)
"""


@pytest.mark.parametrize("supported", [True, False])
def test_a_frozen_application_is_its_own_helper(tmp_path: Path, *, supported: bool) -> None:
    program = tmp_path / "program.py"
    program.write_text(_APPLICATION.replace("SUPPORTED", str(supported)))
    executable = tmp_path / "application"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} {program} {executable} "$@"\n')
    executable.chmod(0o700)
    done = subprocess.run(
        [executable],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "XDG_STATE_HOME": str(tmp_path)},
    )
    assert done.stderr == ""
    assert done.stdout == (
        "finished True\n"
        if supported
        else 'call polypod.freeze_support() first, under if __name__ == "__main__":\n'
    )
