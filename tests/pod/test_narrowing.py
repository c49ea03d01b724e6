"""What sub-agents are given of a scope and a budget only narrows, and adds up; properties."""

from __future__ import annotations

from pathlib import PurePosixPath as Path

from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.pod.accounts.budget import Budget, ChildBudget, SharingBudget, check_left, set_aside
from actors.pod.delegation.narrowing import beyond, withdrawn
from protocol.errors import BudgetError
from protocol.manifest import BudgetSection
from protocol.scope import Rule, Scope
from protocol.usage import Usage

names = st.sampled_from(["a", "b", ".env", ".git", ".ssh"])
paths = st.lists(names, max_size=4).map(lambda parts: Path("/", *parts))
rules = st.builds(Rule, paths.map(str), st.sampled_from(["read", "write"]), st.booleans())
flat = st.builds(Scope, st.lists(rules, max_size=3).map(tuple), st.lists(rules, max_size=2).map(tuple))
scopes = flat | st.builds(lambda outer, inner: outer.narrow(inner), flat, flat)
LEVEL = {None: 0, "read": 1, "write": 2}


@given(scopes, flat, paths)
@settings(max_examples=times(120))
def test_what_is_not_beyond_allows_nothing_more_anywhere(own: Scope, asked: Scope, path: Path) -> None:
    if beyond(own, asked) is None:
        assert LEVEL[asked.permission(path)] <= LEVEL[own.permission(path)]


@given(scopes, flat)
@settings(max_examples=times(120))
def test_what_is_beyond_is_so_at_the_place_and_by_the_rule_that_is_named(own: Scope, asked: Scope) -> None:
    found = beyond(own, asked)
    if found is not None:
        assert asked.allow[found.index] == found.rule
        assert asked.permits(found.path, found.wanted)
        assert not own.permits(found.path, found.wanted)
        if found.denied_by is not None:
            assert found.denied_by.matches(found.path)


@given(scopes)
def test_a_scope_is_not_beyond_itself(own: Scope) -> None:
    assert beyond(own, own) is None


@given(scopes, st.lists(flat, max_size=5), paths)
@settings(max_examples=times(120))
def test_of_a_pod_and_its_sub_agents_one_at_most_may_write_a_path(
    own: Scope, wanted: list[Scope], path: Path
) -> None:
    given_away: list[Scope] = []
    for asked in wanted:
        if beyond(withdrawn(own, given_away), asked) is None:
            given_away.append(asked)
    left = withdrawn(own, given_away)
    writers = [
        scope for scope in (left, *(own.narrow(each) for each in given_away)) if scope.permits(path, "write")
    ]
    assert len(writers) <= 1
    assert left.permits(path, "read") == own.permits(path, "read")


# -- budgets -------------------------------------------------------------------------------------

limits = st.none() | st.integers(0, 1000)
sections = st.builds(lambda tokens: BudgetSection(tokens=tokens), limits)
acts = st.lists(
    st.tuples(
        st.sampled_from(["spawn", "share", "call", "end"]), st.integers(0, 7), limits, st.integers(0, 300)
    ),
    max_size=25,
)


def call(node: Budget, tokens: int) -> None:
    """Take so much, where the tree lets it."""
    if node.exceeded(tokens) is None:
        node.settle(node.reserve(tokens, 0.0), Usage(tokens, 0), 0.0)


@given(sections, sections, acts)
@settings(max_examples=times(200))
def test_a_tree_of_budgets_never_spends_more_than_any_of_its_limits_and_gives_back_what_is_left(
    system: BudgetSection, root: BudgetSection, acts: list[tuple[str, int, int | None, int]]
) -> None:
    top = Budget(system)
    nodes: list[Budget] = [Budget(root, top)]
    for act, which, limit, tokens in acts:
        node = nodes[which % len(nodes)]
        if act == "spawn":
            try:
                check_left(BudgetSection(tokens=limit), node)
            except BudgetError:
                continue
            made = set_aside(BudgetSection(tokens=limit), node)
            assert made is not None
            nodes.append(made)
        elif act == "share":
            nodes.append(SharingBudget(BudgetSection(tokens=limit), node))
        elif act == "call":
            call(node, tokens)
        elif isinstance(node, ChildBudget) and not node.children:
            node.close()
            nodes.remove(node)
        for each in (top, *nodes):
            limit_of = each.limits.tokens
            assert limit_of is None or each.tokens <= limit_of
    for node in reversed(nodes):
        if isinstance(node, ChildBudget):
            node.close()
    assert top.children is None
    assert top.tokens == top.spent_tokens
    assert nodes[0].tokens == nodes[0].spent_tokens


def test_seconds_that_a_sub_agent_has_are_set_aside_and_given_back() -> None:
    parent = Budget(BudgetSection(seconds=10))
    child = set_aside(BudgetSection(seconds=6), parent)
    assert isinstance(child, ChildBudget)
    assert parent.seconds_left() == 4
    child.spend_seconds(2)
    assert (child.seconds_left(), parent.seconds_left()) == (4, 4)
    child.close()
    assert parent.seconds_left() == 8


def test_a_restored_sub_agent_counts_with_its_parent_what_it_had_used() -> None:
    parent = Budget(BudgetSection(tokens=100))
    child = set_aside(BudgetSection(tokens=60), parent)
    assert isinstance(child, ChildBudget)
    child.carry(Usage(20, 10), None, 1.0)
    assert (parent.spent_tokens, parent.tokens) == (30, 60)
    child.close()
    assert parent.tokens == 30
