"""A rule for approval that can match no call is said to be one, with what was probably meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actors.llm.scripted import ScriptedClient
from actors.pod.approvals.rule_check import mistakes
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.approval import ApprovalRule
from protocol.events import Alert
from protocol.manifest import PodManifest


@tool
async def transfer(to: str, amount: int, urgent: bool = False, why: str | None = None) -> str:
    """Send money."""
    return f"{to}{amount}{urgent}{why}"


@tool
async def look() -> str:
    """Look."""
    return ""


SPECS = [transfer.spec, look.spec]


@pytest.mark.parametrize(
    ("name", "match", "why"),
    [
        ("trasnfer", {}, "the pod has no tool 'trasnfer'; did you mean 'transfer'?"),
        ("bash", {}, "the pod has no tool 'bash'; it has transfer, look"),
        ("git*", {}, "the pod has no tool 'git*'; it has transfer, look"),
        ("transfer", {"ammount": 1}, "'transfer' takes no argument 'ammount'; did you mean 'amount'?"),
        ("trans*", {"path": "x"}, "'transfer' takes no argument 'path'"),
        ("transfer", {"amount": "5*"}, "the argument 'amount' of 'transfer' cannot be a string"),
        ("transfer", {"to": 5}, "the argument 'to' of 'transfer' cannot be a number"),
        ("transfer", {"amount": [5]}, "the argument 'amount' of 'transfer' cannot be an array"),
        ("transfer", {"urgent": 1}, "the argument 'urgent' of 'transfer' cannot be a number"),
    ],
)
def test_a_rule_that_can_match_no_call_is_reported_with_the_nearest_right_name(
    name: str, match: dict[str, Any], why: str
) -> None:
    (found,) = mistakes([ApprovalRule(name, "ask", match)], SPECS)
    assert found.startswith(f"the rule ask {name!r}")
    assert found.endswith(f"matches no call: {why}")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("transfer", {}),
        ("transfer", {"to": "ann*", "amount": 1.0, "urgent": True, "why": "x"}),
        ("*", {"to": "ann"}),
        ("*", {}),
        ("shell", {"command": "git push*"}),
        ("TaskList", {}),
    ],
)
def test_a_rule_that_may_match_is_none_nor_is_one_of_a_built_in_tool_that_the_pod_has_not(
    name: str, match: dict[str, Any]
) -> None:
    assert mistakes([ApprovalRule(name, "deny", match)], SPECS) == ()


def test_where_tools_may_come_from_elsewhere_only_a_near_name_is_a_mistake() -> None:
    rules = [ApprovalRule("github__push", "ask"), ApprovalRule("lok", "ask")]
    (found,) = mistakes(rules, SPECS, more_may_come=True)
    assert "did you mean 'look'?" in found


@contextmanager
def alerts_of(manifest: PodManifest, tools: list[Tool]) -> Iterator[list[str]]:
    with PodSystem() as system, system.subscribe(kinds=Alert) as events:
        system.spawn(manifest, client=ScriptedClient([]), tools=tools).get(timeout=20)
        yield [each.text for each in events.drain() if isinstance(each, Alert)]


def test_a_pod_with_such_a_rule_publishes_an_alert_as_it_starts() -> None:
    rules = [{"tool": "trasnfer", "policy": "deny"}, {"tool": "transfer", "policy": "ask"}]
    with alerts_of(PodManifest.of(approval=rules), [transfer]) as texts:
        assert texts == [
            "the rule deny 'trasnfer' matches no call: the pod has no tool 'trasnfer'; did you mean 'transfer'?"
        ]
    with alerts_of(PodManifest.of(approval=rules[1:]), [transfer]) as texts:
        assert texts == []
