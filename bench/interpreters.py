"""Finds the Python interpreters of this machine: those on the path, and those that pyenv keeps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path


def find_interpreter(version: tuple[int, int], environ: Mapping[str, str] = os.environ) -> str | None:
    """The first interpreter of exactly this version that runs, or None.

    Every folder of ``PATH`` is searched, then pyenv's, newest patch first. A pyenv shim is on the path even
    for versions that it cannot run at the moment, so each one found is tried.
    """
    return next((found for found in _candidates(version, environ) if _runs(found, version)), None)


def _candidates(version: tuple[int, int], environ: Mapping[str, str]) -> Iterator[str]:
    major, minor = version
    for folder in filter(None, environ.get("PATH", "").split(os.pathsep)):
        found = Path(folder) / f"python{major}.{minor}"
        if os.access(found, os.X_OK):
            yield str(found)
    versions = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/")) / ".pyenv") / "versions"
    yield from map(str, sorted(versions.glob(f"{major}.{minor}.*/bin/python"), key=_patch, reverse=True))


def _patch(python: Path) -> tuple[int, str]:
    """Sorts 3.12.10 after 3.12.9, and any other name (3.14.0rc1, 3.14-dev) before all."""
    patch = python.parts[-3].split(".")[2]
    return (int(patch), "") if patch.isdecimal() else (-1, patch)


def _runs(python: str, version: tuple[int, int]) -> bool:
    program = f"import sys, venv; sys.exit(sys.version_info[:2] != {version!r})"
    try:
        return subprocess.run([python, "-c", program], check=False, capture_output=True).returncode == 0
    except OSError:  # a script without an interpreter line, or for another machine
        return False
