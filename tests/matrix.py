"""``make test-all``: the tests on every Python there is, with the oldest and the newest allowed dependencies.

Each combination has an environment of its own in ``.venvs``, which is made when it is missing, when
``pyproject.toml`` has changed, and, with the newest dependencies, when it is a week old. The oldest are the
lower bounds of ``pyproject.toml``. Words as arguments pick the combinations that hold one of them, and
options are handed to pytest: ``python -m tests.matrix 3.12-oldest 3.13 --timeout=300``.

Exits with 0 if all passed, with 1 if one failed or could not be made, with 2 if one that was asked for is not
there.
"""

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

from bench.interpreters import find_interpreter

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venvs"
VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
#: They check the source, which is the same everywhere.
NOT_TRIED_OLD = ("mypy", "ruff")
WEEK = 7 * 24 * 3600.0


class Combination(NamedTuple):
    """A Python with the oldest or the newest dependencies."""

    version: tuple[int, int]
    age: str

    @property
    def name(self) -> str:
        return f"{self.version[0]}.{self.version[1]}-{self.age}"

    @property
    def python(self) -> Path:
        return FOLDER / self.name / "bin" / "python"

    def is_ready(self) -> bool:
        """Whether its environment can be used as it is."""
        ready = FOLDER / self.name / ".ready"
        if not ready.exists() or not self.python.exists():  # the Python behind it may be gone
            return False
        made = ready.stat().st_mtime
        stale = self.age == "newest" and time.time() - made > WEEK
        return not stale and made >= (ROOT / "pyproject.toml").stat().st_mtime

    def make(self, python: str) -> None:
        """Make its environment with that interpreter. Raises ``CalledProcessError``."""
        print(f"{self.name}: setting up with {python}", flush=True)
        folder = FOLDER / self.name
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        constraints = folder / "constraints.txt"
        constraints.write_text(lower_bounds(self.version) if self.age == "oldest" else "")
        install = ["install", "--quiet", "--disable-pip-version-check", "--constraint", constraints]
        subprocess.run([self.python, "-m", "pip", *install, "--editable", ".[dev]"], cwd=ROOT, check=True)
        (folder / ".ready").touch()

    def test(self, options: Iterable[str]) -> str:
        """Run the tests in it; how that went."""
        print(f"{self.name}: running", flush=True)
        began = time.monotonic()
        command = [self.python, "-m", "pytest"]
        collect = [*command, "--collect-only"]  # which compiles them for all five
        subprocess.run(collect, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        code = subprocess.run([*command, "-n", "5", *options], cwd=ROOT, check=False).returncode
        return f"{'passed' if code == 0 else 'FAILED'} after {time.monotonic() - began:.0f} s"


def lower_bounds(version: tuple[int, int]) -> str:
    """The lower bounds of all dependencies on that Python, as a file of constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds: dict[str, Version] = {}
    extras = project["optional-dependencies"]
    tested = (lines for extra, lines in extras.items() if extra != "docs")
    for line in [*project["dependencies"], *chain.from_iterable(tested)]:
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({"python_version": "{}.{}".format(*version)}):
            continue
        if needed.name == project["name"]:  # with an extra
            continue
        lowest = [Version(each.version) for each in needed.specifier if each.operator == ">="]
        assert lowest, f"a dependency without a lower bound: {line}"
        bounds[needed.name] = max(*lowest, bounds.get(needed.name, Version("0")))
    return "".join(f"{name}=={bound}\n" for name, bound in bounds.items() if name not in NOT_TRIED_OLD)


def tried(combination: Combination, options: Iterable[str]) -> str:
    """Make the environment where it has to be, and run the tests; how that went."""
    if not combination.is_ready():
        python = find_interpreter(combination.version)
        if python is None:
            return "not installed here"
        try:
            combination.make(python)
        except subprocess.CalledProcessError as error:
            return f"COULD NOT BE MADE: {error}"
    return combination.test(options)


def main(arguments: list[str]) -> int:
    """Try all combinations, or those that were asked for; the exit code."""
    asked = [word for word in arguments if not word.startswith("-")]
    options = [word for word in arguments if word.startswith("-")]
    every = [Combination(version, age) for version in VERSIONS for age in ("oldest", "newest")]
    unknown = [word for word in asked if not any(word in each.name for each in every)]
    if unknown:
        print(f"{', '.join(unknown)}: there are {', '.join(each.name for each in every)}", file=sys.stderr)
        return 2
    chosen = [each for each in every if not asked or any(word in each.name for word in asked)]
    results = {each.name: tried(each, options) for each in chosen}
    print("\n".join(f"{name}: {how}" for name, how in results.items()))
    if any("FAILED" in how or "COULD NOT" in how for how in results.values()):
        return 1
    missing = {name for name, how in results.items() if how == "not installed here"}
    named = {each.name for each in chosen for word in asked if word[:1].isdigit() and word in each.name}
    return 2 if missing & named or missing == set(results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
