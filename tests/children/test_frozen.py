"""Children of an application that is frozen into an executable: that is started once more to be their helper."""

import subprocess
import sys
from pathlib import Path

import pytest

from actors.tools.filesystem.matching import Matcher
from protocol.errors import ChildNotStarted

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


_SEARCHING = """
import asyncio, sys
sys.frozen = True
sys.executable = sys.argv.pop(1)
print(*sys.argv[1:2], file=open("started", "a"))
from polypod import PodManifest, PodSystem, Scope, ScriptedClient, ToolResulted, call, freeze_support

async def main():
    grep = call("grep", {"pattern": "al+"})
    async with PodSystem() as system:
        manifest = PodManifest.of(tools={"builtin": ["search"]}, scope=Scope.readable("."))
        pod = await system.spawn(manifest, client=ScriptedClient([grep, "done"]))
        async for event in pod.stream("search"):
            if isinstance(event, ToolResulted):
                print(event.item.text)

if __name__ == "__main__" and len(open("started").readlines()) < 4:
    if SUPPORTED:
        freeze_support()
    asyncio.run(main())
"""


@pytest.mark.parametrize("supported", [True, False])
def test_grep_in_a_frozen_application_does_not_start_it_once_more_without_end(
    tmp_path: Path, *, supported: bool
) -> None:
    program = tmp_path / "program.py"
    program.write_text(_SEARCHING.replace("SUPPORTED", str(supported)))
    (tmp_path / "text").write_text("so\nall\n")
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
    started = (tmp_path / "started").read_text().split("\n")[:-1]
    if supported:
        assert "text:2: all" in done.stdout
        assert started == ["", "--polypod-program"]
    else:
        assert "nothing was searched: cannot start matching: a frozen application" in done.stdout
        assert started == [""]


def test_a_python_that_does_not_know_its_executable_starts_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ChildNotStarted, match="does not know its own executable"):
        Matcher("a", ignore_case=False, seconds=1.0)
