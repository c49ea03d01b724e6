"""The documentation: every public name has its place in the API reference, and each program runs as pasted."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from readme_programs import PageProgram, page_programs

import actors

DOCS = Path(__file__).parents[1] / "docs"


def documented_modules() -> set[str]:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    return set(re.findall(r"automodule:: (\S+)", pages))


def test_each_public_class_and_function_is_in_the_api_reference() -> None:
    documented = documented_modules()
    missing = {
        name: value.__module__
        for name in actors.__all__
        if (inspect.isclass(value := getattr(actors, name)) or inspect.isfunction(value))
        and value.__module__.startswith(("actors.", "protocol."))
        and value.__module__ not in documented
    }
    assert not missing


def test_each_page_of_the_api_reference_is_in_its_index() -> None:
    index = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "api").glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in index


@pytest.mark.parametrize("program", page_programs(), ids=lambda program: program.page)
def test_each_program_runs_as_pasted(program: PageProgram, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert done.stdout.endswith(program.prints)
