"""Folders that are a user's alone."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from actors.runtime.user_folders import make_private
from actors.sessions.answer_token import answer_token
from actors.tools.output import write_new

ACTORS = Path(__file__).parents[2] / "actors"


@pytest.fixture
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_what_is_made_on_the_way_to_a_private_folder_is_nobody_elses_though_the_umask_is_0(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
    answer_token()
    write_new(tmp_path / "kept" / "outputs", "shell", b"text")
    make_private(tmp_path / "a" / "b")
    made = [each for each in tmp_path.rglob("*") if each.is_dir()]
    assert len(made) == 7
    assert {each.stat().st_mode & 0o777 for each in made} == {0o700}


def test_a_file_in_the_place_of_a_private_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_private(tmp_path / "file")


def test_no_private_folder_is_made_with_parents_that_the_umask_alone_closes():
    pattern = re.compile(r"mkdir\([^)]*0o700[^)]*parents")
    assert [path for path in ACTORS.rglob("*.py") if pattern.search(path.read_text("utf-8"))] == []
