"""The interpreters of a machine, as the tests on every Python and the peers' environments find them."""

import os
import sys
from pathlib import Path

from bench.interpreters import find_interpreter

HERE = sys.version_info[:2]
NAME = f"python{HERE[0]}.{HERE[1]}"


def put(path: Path, content: str | None = None) -> Path:
    """Put the interpreter of these tests under that name, or a program of that content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.symlink_to(sys.executable)
    else:
        path.write_text(content)
        path.chmod(0o755)
    return path


def environ(tmp_path: Path, *folders: str) -> dict[str, str]:
    return {"PATH": os.pathsep.join(str(tmp_path / each) for each in folders), "HOME": str(tmp_path)}


def test_one_on_the_path_is_found_behind_shims_that_cannot_run(tmp_path: Path):
    put(tmp_path / "shims" / NAME, "#!/bin/sh\necho 'pyenv: no such command' >&2\nexit 127\n")
    put(tmp_path / "broken" / NAME, "no program at all")
    there = put(tmp_path / "bin" / NAME)
    found = find_interpreter(HERE, environ(tmp_path, "shims", "missing", "", "broken", "bin"))
    assert found == str(there)


def test_one_that_only_pyenv_has_is_found_newest_patch_first(tmp_path: Path):
    put(tmp_path / "shims" / NAME, "#!/bin/sh\nexit 127\n")
    major, minor = HERE
    for patch in ("2", "9", "10", "0rc1"):
        put(tmp_path / ".pyenv" / "versions" / f"{major}.{minor}.{patch}" / "bin" / "python")
    found = find_interpreter(HERE, environ(tmp_path, "shims"))
    assert found == str(tmp_path / ".pyenv" / "versions" / f"{major}.{minor}.10" / "bin" / "python")
    elsewhere = environ(tmp_path, "shims") | {"PYENV_ROOT": str(tmp_path / "elsewhere")}
    assert find_interpreter(HERE, elsewhere) is None
    there = put(tmp_path / "elsewhere" / "versions" / f"{major}.{minor}.0" / "bin" / "python")
    assert find_interpreter(HERE, elsewhere) == str(there)


def test_one_of_another_version_than_its_name_says_is_passed_over(tmp_path: Path):
    put(tmp_path / "bin" / "python3.2")
    assert find_interpreter((3, 2), environ(tmp_path, "bin")) is None
