"""A path that leads outside never passes, whatever words, links and rules it is made of."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tools.scope import check, resolve, resolved
from protocol.errors import ScopeRefused
from protocol.scope import Rule, Scope

NAMES = st.sampled_from(["a", "b", "c", "A"])
PATHS = st.lists(NAMES, max_size=4).map(lambda names: "/" + "/".join(names))
RULES = st.builds(Rule, target=PATHS, permission=st.sampled_from(["read", "write"]), recursive=st.booleans())
PLAIN = st.builds(
    Scope, allow=st.lists(RULES, max_size=4).map(tuple), deny=st.lists(RULES, max_size=3).map(tuple)
)
LEVEL = {None: 0, "read": 1, "write": 2}


@given(PLAIN, PLAIN, PLAIN, PATHS.map(PurePosixPath))
def test_narrowing_never_widens(outer, middle, inner, path):
    child = outer.narrow(middle)
    grandchild = child.narrow(inner)
    again = outer.narrow(middle.narrow(inner))
    granted = [LEVEL[scope.permission(path)] for scope in (outer, middle, child)]
    assert LEVEL[child.permission(path)] <= min(granted)
    for scope in (grandchild, again):
        assert LEVEL[scope.permission(path)] <= min(*granted, LEVEL[inner.permission(path)])


@given(PLAIN, PATHS.map(PurePosixPath))
def test_a_deny_caps_strictly_below_its_own_permission(scope, path):
    granted = LEVEL[scope.permission(path)]
    for rule in scope.deny:
        if rule.matches(path):
            assert granted < LEVEL[rule.permission]


WORDS = st.lists(
    st.sampled_from(
        ["in", "out", "deep", "..", ".", "up", "across", "down", "loop", "dangling", "new", "//"]
    ),
    min_size=1,
    max_size=7,
).map("/".join)


@pytest.fixture(scope="module")
def maze():
    """``in`` may be written; links lead up, across, down, in a circle and to nothing."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        for folder in ("in/deep", "out/deep", "in/out"):
            (root / folder).mkdir(parents=True)
        for folder in ("in", "in/deep", "out"):
            (root / folder / "up").symlink_to("..")
            (root / folder / "across").symlink_to(root / "out")
            (root / folder / "down").symlink_to(root / "in" / "deep")
            (root / folder / "loop").symlink_to("loop")
            (root / folder / "dangling").symlink_to(root / "out" / "nothing")
        yield root


@given(st.data(), WORDS, st.booleans())
def test_a_path_that_resolves_outside_never_passes(maze, data, words, absolute):
    scope = Scope.writable(maze / "in")
    text = f"{maze}/{words}" if absolute else words
    try:
        path = check(scope, maze / "in", text, "write")
    except ScopeRefused:
        return
    inside = maze / "in"
    assert path == inside or inside in path.parents
    assert os.path.realpath(maze / "in" / text) == str(path)
    assert not any(each.is_symlink() for each in (path, *path.parents))


def test_relative_paths_are_seen_from_the_working_directory(tmp_path):
    assert resolve("a/../b/./c", tmp_path) == tmp_path / "b" / "c"
    assert resolve(".", tmp_path) == tmp_path


def test_dots_climb_from_where_a_link_leads_not_from_where_it_stands(tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "far" / "away")
    assert resolve("near/../x", tmp_path) == tmp_path / "far" / "x"


def test_a_file_to_be_created_below_a_link_or_through_a_dangling_one_is_placed_where_it_would_be(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "dangling").symlink_to(tmp_path / "out" / "new")
    scope = Scope.writable(tmp_path / "in")
    for text in ("link/new/file", "dangling"):
        with pytest.raises(ScopeRefused, match="out/new"):
            check(scope, tmp_path / "in", text, "write")


def test_a_tilde_is_a_name_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert resolve("~/x", tmp_path) == tmp_path / "~" / "x"
    assert resolve("~/x", tmp_path, expand_user=True) == tmp_path / "home" / "x"


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800", "loop/x", "loop/../up"])
def test_what_names_no_place_is_refused(tmp_path, text):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("..")
    with pytest.raises(ScopeRefused):
        resolve(text, tmp_path)


def test_an_unknown_home_is_refused(tmp_path):
    with pytest.raises(ScopeRefused, match="is invalid"):
        resolve("~nobody-of-that-name/x", tmp_path, expand_user=True)


def test_case_matters(tmp_path):
    scope = Scope(allow=(Rule(str(tmp_path / "Docs")),))
    assert check(scope, tmp_path, "Docs/a", "read")
    with pytest.raises(ScopeRefused):
        check(scope, tmp_path, "docs/a", "read")


def test_a_refusal_names_the_path_where_it_leads_and_what_is_allowed(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    scope = Scope(allow=(Rule(f"{tmp_path}", "write"), Rule("/srv", "read", recursive=False)))
    with pytest.raises(ScopeRefused) as caught:
        check(scope, tmp_path, "link", "read")
    assert str(caught.value) == (
        f"not allowed to read 'link' (/etc/passwd) (allowed: write {tmp_path} and everything below, read /srv)"
    )
    with pytest.raises(ScopeRefused, match=r"write '/srv/a' \(you may read it\)"):
        check(scope, tmp_path, "/srv/a", "write")


def test_an_empty_scope_allows_nothing_and_a_long_one_is_put_in_short(tmp_path):
    with pytest.raises(ScopeRefused, match="the scope allows nothing"):
        check(Scope(), tmp_path, ".", "read")
    many = Scope(allow=tuple(Rule(f"/r{n}") for n in range(9)))
    with pytest.raises(ScopeRefused, match="/r5 and everything below, and 3 more"):
        check(many, tmp_path, ".", "read")


def test_what_a_bound_takes_away_is_not_reported_as_allowed(tmp_path):
    narrowed = Scope.readable("/srv/a").narrow(Scope(allow=(Rule("/srv/a/b", "write"), Rule("/etc"))))
    with pytest.raises(ScopeRefused) as caught:
        check(narrowed, tmp_path, "x", "read")
    assert caught.value.hint == "allowed: read /srv/a/b and everything below"


def test_the_rules_own_links_are_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    scope = Scope.writable(tmp_path).narrow(
        Scope(allow=(Rule(f"{tmp_path}/alias", "write"),), deny=(Rule(f"{tmp_path}/alias/secret", "read"),))
    )
    ready = resolved(scope)
    assert check(ready, tmp_path, "alias/x", "write") == tmp_path / "real" / "x"
    assert check(ready, tmp_path, "real/x", "write")
    with pytest.raises(ScopeRefused):
        check(ready, tmp_path, "real/secret", "read")
    with pytest.raises(ScopeRefused):
        check(scope, tmp_path, "alias/x", "write")
