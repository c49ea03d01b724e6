"""The public names: all there, all from `actors`, and cheap to have."""

import importlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import actors
import protocol

HEAVY = {"httpx", "aiohttp", "rich", "click", "prompt_toolkit", "structlog"}


def python(code: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("package", [actors, protocol])
def test_every_public_name_is_there_once(package: object):
    names = package.__all__
    assert len(set(names)) == len(names)
    assert not [name for name in names if not hasattr(package, name)]


def test_a_program_need_never_import_protocol():
    assert set(protocol.__all__) <= set(actors.__all__)


def test_every_public_type_of_the_protocol_is_exported():
    for path in Path(protocol.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"protocol.{path.stem}")
        for name, value in vars(module).items():
            of_ours = isinstance(value, type) and value.__module__ == module.__name__ and name[0] != "_"
            if of_ours and issubclass(value, msgspec.Struct | Exception):
                assert name in protocol.__all__, f"{name} of {module.__name__}"


def test_importing_actors_brings_no_http_client_and_no_terminal():
    done = python(f"import actors, sys; print(sorted({HEAVY!r} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("stranger", ["protocol.py", "protocol/__init__.py"])
def test_another_package_of_the_name_protocol_is_named_with_what_to_do(stranger: str, tmp_path: Path):
    path = tmp_path / stranger
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    root = Path(actors.__file__).parents[1]
    done = python(f"import sys; sys.path[1:1] = [{str(root)!r}]; import actors", cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: polypod needs its own package 'protocol'")
    assert str(path) in last
    assert "Rename or move that file" in last
