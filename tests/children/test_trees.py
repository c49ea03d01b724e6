"""Trees of files that programs made are removed, and nothing beside them."""

import os
from pathlib import Path
from typing import Any

import pytest
from child_kit import in_child
from hypothesis import given
from hypothesis import strategies as st
from process_kit import descriptors

from actors.runtime.children.trees import remove_tree

#: The number of some user who is not root.
SOMEBODY = 12345


def nest(folder: Path, depth: int) -> None:
    """Make folders in each other, deeper than a path may be long."""
    here = os.open(folder, os.O_RDONLY)
    for number in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        if number % 500 == 0:
            os.symlink("..", "up", dir_fd=below)
            os.mkdir("beside", 0o000, dir_fd=below)
        os.close(here)
        here = below
    os.close(here)


def test_a_tree_deeper_than_recursion_and_paths_may_be_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nest(tree, 3000)
    before = descriptors()
    remove_tree(tree)
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before


def test_what_symlinks_lead_to_stays(tmp_path: Path) -> None:
    tree, kept = tmp_path / "tree", tmp_path / "kept"
    for each in (tree, kept / "below"):
        each.mkdir(parents=True)
    (kept / "file").touch()
    (tree / "link").symlink_to(kept)
    link = tmp_path / "link"
    link.symlink_to(kept)
    remove_tree(tree)
    remove_tree(link)
    remove_tree(tmp_path / "nowhere")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["kept", "link"]
    assert sorted(each.name for each in kept.iterdir()) == ["below", "file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders of others")
def test_empty_folders_of_others_are_removed_where_their_place_is_ours(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    ours = [tmp_path, tree, tree / "below"]
    for each in (*ours[1:], tree / "theirs", tree / "below" / "theirs"):
        each.mkdir()
    for each in ours:
        os.chown(each, SOMEBODY, -1)

    def remove() -> bool:
        os.chdir(tmp_path)
        os.setuid(SOMEBODY)
        remove_tree("tree")
        return not list(Path().iterdir())

    assert in_child(remove) == 0


NAMES = st.sampled_from(["a", "b", "c d", "\n", "ä", "-rf"])
TREES = st.recursive(st.none(), lambda inner: st.dictionaries(NAMES, inner, max_size=4))


@given(TREES)
def test_any_tree_is_removed(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    top = tmp_path_factory.mktemp("any")
    make(top / "tree", tree or {})
    remove_tree(top / "tree")
    assert list(top.iterdir()) == []


def make(path: Path, tree: Any) -> None:
    """Make files for what is None, and for the rest folders that nobody may change."""
    if tree is None:
        path.touch(mode=0o000)
        return
    path.mkdir()
    for name, below in tree.items():
        make(path / name, below)
    path.chmod(0o100)
