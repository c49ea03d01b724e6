"""What is shipped: a source distribution is the whole checkout, and says what it is."""

import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: What setuptools takes without being asked.
ALWAYS = {"pyproject.toml", "MANIFEST.in", "LICENSE"}
#: What a checkout alone has a use for.
CHECKOUT = (".*", ".*/*")


def taken() -> list[str]:
    """Patterns of what MANIFEST.in takes."""
    patterns = []
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        what, *names = line.split()
        if what == "include":
            patterns += names
        elif what == "graft":
            patterns += [f"{name}/*" for name in names]
    return patterns


def test_a_source_distribution_has_every_file_of_the_checkout() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is not a checkout")
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    patterns = [*CHECKOUT, *taken(), *(f"{each.rstrip('*')}*" for each in packages)]
    missing = [
        name
        for name in listed.stdout.splitlines()
        if name not in ALWAYS and not any(fnmatch(name, each) for each in patterns)
    ]
    assert missing == []


def test_the_metadata_say_who_made_it_and_what_it_is_for() -> None:
    project = PROJECT["project"]
    assert all(
        project[each] for each in ("authors", "classifiers", "keywords", "license", "description", "readme")
    )
