"""The structure in numbers: what is counted, on a package small enough to count by hand."""

from pathlib import Path

import pytest

from bench.house import command
from bench.house.source import read_house
from bench.house.trace import Walk, walks


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text(
        "class Base:\n    def a(self): ...\n    def b(self): ...\nclass Other(Exception): ...\n"
    )
    (folder / "deep.py").write_text(
        "from small.base import Base\n"
        "class Deep(Base):\n    def b(self): ...\n    async def c(self):\n        return 1\n"
    )
    (folder / "one.py").write_text("from small import two\n")
    (folder / "two.py").write_text("if True:\n    import small.one\n")
    (folder / "lazy.py").write_text("def late():\n    import small.deep\n")
    (folder / "tests" / "test_x.py").write_text("class Test(A):\n    def x(self): ...\n")
    return folder


def test_methods_count_once_along_the_chain_and_foreign_bases_not_at_all(package: Path) -> None:
    house = read_house([package])
    assert house.deepest is not None
    assert (house.deepest.name, house.deepest.depth, house.deepest.methods) == ("Deep", 2, 3)
    assert house.modules == 6
    assert house.longest_function == ("small.deep.c", 2)


def test_a_circle_is_found_and_an_import_inside_a_function_makes_none(package: Path) -> None:
    (package / "deep.py").write_text("from small import lazy\n")
    assert read_house([package]).circles == [["small.one", "small.two"]]


def test_a_folder_without_python_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_walk_counts_calls_and_changes_of_file() -> None:
    assert Walk("x", ["a:f", "a:g", "b:f", "a:f"]).changes == 2


def test_the_walks_begin_at_the_handle_and_show_what_a_run_does() -> None:
    run, tooled, compaction = walks()
    assert run.steps[0].startswith("actors/pod/handle.py:")
    assert len(run.steps) < len(tooled.steps)
    assert any("compact" in step for step in compaction.steps)
