"""Scopes: what rules allow, that denying wins, and that narrowing never widens."""

from pathlib import PurePosixPath as Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.scope import Rule, Scope

#: A small world, so that rules and paths meet often.
names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, max_size=4).map(lambda parts: Path("/", *parts))
rules = st.builds(Rule, paths.map(str), st.sampled_from(["read", "write"]), st.booleans())
flat = st.builds(Scope, st.lists(rules, max_size=4).map(tuple), st.lists(rules, max_size=3).map(tuple))
scopes = flat | st.builds(lambda outer, inner: outer.narrow(inner), flat, flat)
LEVEL = {None: 0, "read": 1, "write": 2}


@given(scopes, scopes, paths)
def test_narrowing_never_allows_more_than_either_side(parent: Scope, child: Scope, path: Path):
    narrowed = LEVEL[parent.narrow(child).permission(path)]
    assert narrowed <= LEVEL[parent.permission(path)]
    assert narrowed <= LEVEL[child.permission(path)]


@given(flat, flat, flat, paths)
def test_a_grandchild_is_bounded_by_all_before_it(first: Scope, second: Scope, third: Scope, path: Path):
    last = LEVEL[first.narrow(second).narrow(third).permission(path)]
    assert last <= min(LEVEL[scope.permission(path)] for scope in (first, second, third))


@given(scopes, paths)
def test_what_may_be_written_may_be_read(scope: Scope, path: Path):
    assert scope.permits(path, "read") or not scope.permits(path, "write")


@given(flat, rules, paths)
def test_one_more_deny_never_allows_more(scope: Scope, rule: Rule, path: Path):
    denied = Scope(scope.allow, (*scope.deny, rule))
    assert LEVEL[denied.permission(path)] <= LEVEL[scope.permission(path)]
    if rule.matches(path):
        assert not denied.permits(path, rule.permission)


@given(flat, st.permutations(range(4)), paths)
def test_the_order_of_rules_means_nothing(scope: Scope, order: list[int], path: Path):
    shuffled = tuple(scope.allow[index] for index in order if index < len(scope.allow))
    assert Scope(shuffled, scope.deny[::-1]).permission(path) == scope.permission(path)


@given(paths, paths)
def test_an_empty_scope_allows_nothing_whatever_it_is_narrowed_from(path: Path, root: Path):
    assert Scope().permission(path) is None
    assert Scope.writable(root).narrow(Scope()).permission(path) is None


@pytest.mark.parametrize(
    ("path", "permission"),
    [
        ("/work", "write"),
        ("/work/src/deep/file", "write"),
        ("/work/.git", None),
        ("/work/.git/config", None),
        ("/work/docs/page", "read"),
        ("/works", None),
        ("/", None),
    ],
)
def test_a_deny_to_write_leaves_reading_and_a_deny_to_read_leaves_nothing(path: str, permission: str | None):
    scope = Scope((Rule("/work", "write"),), (Rule("/work/.git", "read"), Rule("/work/docs", "write")))
    assert scope.permission(Path(path)) == permission


def test_a_rule_that_is_not_recursive_means_the_target_and_what_lies_directly_in_it():
    rule = Rule("/work", recursive=False)
    assert [rule.matches(Path(path)) for path in ("/work", "/work/a", "/work/a/b", "/")] == [
        True,
        True,
        False,
        False,
    ]
