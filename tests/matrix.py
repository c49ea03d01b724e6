"""``make test-all``: the tests on every Python there is, with the newest and the oldest allowed dependencies.

Each combination has an environment of its own in ``.venvs``, which is made when it is missing or
``pyproject.toml`` has changed. Names as arguments pick some: ``python tests/matrix.py 3.12 oldest``.
The oldest versions are the lower bounds of ``pyproject.toml``, and are tried on the oldest Python there is.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venvs"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
#: They check the source, which is the same everywhere.
NOT_TRIED_OLD = ("mypy", "ruff")


def pythons() -> Iterator[tuple[str, str]]:
    """Each version that is installed, with its interpreter: on the path, or where pyenv puts them."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in VERSIONS:
        patches = sorted(pyenv.glob(f"{version}.*/bin/python"), key=lambda path: path.parts[-3].split("."))
        # One on the path may be a shim that knows no such version.
        for found in (shutil.which(f"python{version}"), *map(str, reversed(patches))):
            if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
                yield version, found
                break


def lower_bounds() -> str:
    """The lower bounds of all dependencies as a file of constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    bounds = [re.fullmatch(r"([\w-]+)>=([\d.]+).*", each) for each in needed]
    assert all(bounds), f"a dependency without a lower bound: {needed}"
    return "".join(f"{each[1]}=={each[2]}\n" for each in bounds if each and each[1] not in NOT_TRIED_OLD)


def environment(name: str, python: str, *, oldest: bool) -> Path:
    """The interpreter of an environment of that name, which is made anew where ``pyproject.toml`` is newer."""
    folder = FOLDER / name
    ready, interpreter = folder / ".ready", folder / "bin" / "python"
    if not ready.exists() or ready.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        print(f"{name}: setting up with {python}", flush=True)
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        constraints = folder / "constraints.txt"
        constraints.write_text(lower_bounds() if oldest else "")
        install = ["install", "--quiet", "--disable-pip-version-check", "--constraint", constraints]
        subprocess.run([interpreter, "-m", "pip", *install, "--editable", ".[dev]"], cwd=ROOT, check=True)
        ready.touch()
    return interpreter


def main(asked: list[str]) -> int:
    """Run the tests in all environments, or those whose names hold what is asked for; 1 if any failed."""
    there = list(pythons())
    if not there:
        sys.exit(f"none of Python {', '.join(VERSIONS)} is installed")
    wanted = [(f"{version}-newest", python, False) for version, python in there]
    wanted.insert(0, (f"{there[0][0]}-oldest", there[0][1], True))
    results: dict[str, str] = {}
    for name, python, oldest in wanted:
        if asked and not any(word in name for word in asked):
            continue
        interpreter, began = environment(name, python, oldest=oldest), time.monotonic()
        print(f"{name}: running", flush=True)
        code = subprocess.run([interpreter, "-m", "pytest", "-n", "2"], cwd=ROOT, check=False).returncode
        results[name] = f"{'passed' if code == 0 else 'FAILED'}, {time.monotonic() - began:.0f} s"
    missing = sorted(set(VERSIONS) - {version for version, _ in there})
    print("\n".join(f"{name}: {how}" for name, how in results.items()))
    print(f"not installed here: Python {', '.join(missing)}" if missing else "")
    return int(any("FAILED" in how for how in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
