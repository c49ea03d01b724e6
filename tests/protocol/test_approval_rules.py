"""Approval rules: deny wins, else the first that matches, else the default; patterns and exact matches."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.approval import ApprovalRule, Policy, verdict
from protocol.errors import ManifestError
from protocol.manifest import PodManifest

TEXTS = st.text("ab*?/ \n", max_size=8)
VALUES: st.SearchStrategy[Any] = st.one_of(
    TEXTS, st.integers(0, 2), st.booleans(), st.none(), st.lists(st.integers(0, 1), max_size=2)
)
ARGUMENTS = st.dictionaries(st.sampled_from("xy"), VALUES)
POLICIES = st.sampled_from(["allow", "ask", "deny"])
RULES = st.lists(
    st.builds(ApprovalRule, st.sampled_from(["run", "r*", "*", "fetch"]), POLICIES, ARGUMENTS, st.booleans()),
    max_size=5,
)


@given(RULES, POLICIES, st.sampled_from(["run", "fetch", "read"]), ARGUMENTS)
def test_deny_wins_else_the_first_that_matches_else_the_default(
    rules: list[ApprovalRule], default: Policy, tool: str, arguments: dict[str, Any]
) -> None:
    said = [rule.policy for rule in rules if rule.matches(tool, arguments)]
    expected = "deny" if "deny" in said else said[0] if said else default
    assert verdict(rules, default, tool, arguments).policy == expected


@given(RULES, POLICIES, ARGUMENTS, RULES)
def test_no_rule_behind_or_before_lifts_a_denial(
    rules: list[ApprovalRule], default: Policy, arguments: dict[str, Any], more: list[ApprovalRule]
) -> None:
    if verdict(rules, default, "run", arguments).policy == "deny" and any(
        rule.policy == "deny" and rule.matches("run", arguments) for rule in rules
    ):
        assert verdict([*more, *rules], default, "run", arguments).policy == "deny"
        assert verdict([*rules, *more], default, "run", arguments).policy == "deny"


@given(TEXTS, TEXTS)
def test_a_pattern_is_that_of_a_shell_without_brackets(pattern: str, text: str) -> None:
    assert ApprovalRule("t", "ask", {"x": pattern}).matches("t", {"x": text}) == fnmatchcase(text, pattern)


@given(ARGUMENTS, ARGUMENTS)
def test_an_exact_rule_speaks_of_those_arguments_alone(one: dict[str, Any], other: dict[str, Any]) -> None:
    rule = ApprovalRule("t", "allow", one, exact=True)
    assert rule.matches("t", one)
    if rule.matches("t", other):
        assert repr(sorted(one.items())) == repr(sorted(other.items()))


def test_what_is_no_text_has_to_be_equal_and_true_is_not_one() -> None:
    rule = ApprovalRule("t", "ask", {"n": 1, "deep": {"k": [True]}})
    assert rule.matches("t", {"n": 1, "deep": {"k": [True]}, "more": "x"})
    assert not rule.matches("t", {"n": True, "deep": {"k": [True]}})
    assert not rule.matches("t", {"n": 1, "deep": {"k": [1]}})
    assert not rule.matches("t", {"n": 1})
    assert not ApprovalRule("t", "ask", {"n": "*"}).matches("t", {"n": 5})


def test_a_long_pattern_of_stars_takes_no_time() -> None:
    rule = ApprovalRule("t", "ask", {"x": "*a" * 40 + "b"})
    assert not rule.matches("t", {"x": "a" * 20_000})


def test_rules_stand_in_a_manifest() -> None:
    manifest = PodManifest.from_toml(
        """
        [approvals]
        default = "ask"

        [[approval]]
        tool = "shell"
        match = { command = "git push*" }
        policy = "deny"
        """
    )
    assert manifest.approval == (ApprovalRule("shell", "deny", {"command": "git push*"}),)
    assert manifest == PodManifest.of(approval=list(manifest.approval), approvals={"default": "ask"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"approval": [{"tool": "x"}]}, r"approval\[0\]: the key 'policy' is missing"),
        ({"approval": [{"tool": "x", "policy": "may"}]}, r"approval\[0\].policy: expected one of 'allow'"),
        ({"approval": [{"tool": "", "policy": "ask"}]}, r"approval\[0\].tool: expected the name of a tool"),
        ({"approval": [{"tool": "x", "policy": "ask", "mach": {}}]}, "did you mean 'match'"),
        ({"approval": [{"tool": "x", "policy": "ask", "match": "a"}]}, "match: expected a table, got 'a'"),
        ({"approval": {"tool": "x"}}, "approval: expected a list of tables"),
        ({"approvals": {"timeout": 0}}, "approvals.timeout: expected more than 0, got 0"),
        ({"approvals": {"timeout": float("inf")}}, "approvals.timeout: expected more than 0"),
        ({"approvals": {"timeout": "soon"}}, "approvals.timeout"),
        ({"approvals": {"headless": "hang"}}, "approvals.headless: expected one of 'deny', 'wait'"),
    ],
)
def test_a_bad_rule_is_refused_by_its_key(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        PodManifest.of(**settings)
