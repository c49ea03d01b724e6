"""Child processes of tests end with whoever started them, however that one ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Starts a child that halts for ever, says so, and waits to be killed.
PARENT = """
import signal, sys
from pathlib import Path
sys.path[:0] = [{here!r}, {tests!r}]
from {module} import Child
child = Child(Path(sys.argv[1]))
print(child.process.pid, flush=True)
signal.pause()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("module", "scene"), [("crash_child", ""), ("shut_down_child", ", 'deaf'")])
def test_a_child_that_waits_for_ever_ends_when_its_parent_is_killed(tmp_path: Path, module: str, scene: str):
    here = Path(__file__).parent
    program = PARENT.format(here=str(here), tests=str(here.parent), module=module)
    program = program.replace("argv[1])", f"argv[1]){scene}")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=writing
    ) as parent:
        os.close(writing)
        assert parent.stdout is not None
        assert int(parent.stdout.readline())
        parent.kill()
    with os.fdopen(reading, "rb") as end:
        assert end.read() == b"", "whoever holds the other end has ended"
