"""Where nobody can be asked, a denial names its reason, by the rule or the setting, and what lets such calls run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from actors.tools.confinement import guarded_files
from protocol.events import ApprovalRequested, ToolResulted
from protocol.manifest import PodManifest


@tool
async def pay(to: str) -> str:
    """Send money."""
    return f"paid {to}"


async def write(to: str) -> str:
    """Write somewhere that no scope bounds."""
    return f"wrote {to}"


WRITES = Tool(write, asks=True)
CASES: dict[str, tuple[dict[str, Any], Any, list[str]]] = {
    "a rule that asks": (
        {"approval": [{"tool": "pay", "policy": "ask", "match": {"to": "a*"}}]},
        call("pay", {"to": "ann"}),
        ["the rule ask 'pay' with to = 'a*'", "an [[approval]] rule before that one can allow it"],
    ),
    "the default": (
        {"approvals": {"default": "ask"}},
        call("pay", {"to": "ann"}),
        ['[approvals] default = "ask", and no rule matches', "an [[approval]] rule can allow it"],
    ),
    "a tool that writes outside of every scope": (
        {},
        call("write", {"to": "ann"}),
        ["it may change things outside any scope", 'approval = "allow" for its server in [[tools.mcp]]'],
    ),
    "commands that nothing confines": (
        {"sandbox": {"mode": "off"}, "tools": {"builtin": ["shell"]}},
        call("shell", {"command": "echo hi"}),
        ['[sandbox] mode = "off", so commands are not confined', 'set [sandbox] mode = "scope"'],
    ),
    "a scope that cannot be confined": (
        {"tools": {"builtin": ["shell"]}},
        call("shell", {"command": "echo hi"}),
        [
            "folders to search for secret files",
            "allow only the folder that the work is in, not the folders above it",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_denial_names_its_reason_and_what_to_do(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, asked, words = CASES[case]
    if case == "a scope that cannot be confined":
        for number in range(3):
            (tmp_path / str(number)).mkdir()
        monkeypatch.setattr(guarded_files, "MOST_FOLDERS", 2)
        settings = settings | {"scope": {"allow": [{"target": str(tmp_path), "permission": "read"}]}}
    client = ScriptedClient([asked, say("done"), asked, say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(**settings), client=client, tools=[pay, WRITES])
        with pod.subscribe(ToolResulted) as results:
            await pod.run("go")
            (denied,) = results.drain()
        assert isinstance(denied, ToolResulted)
        for each in [*words, "nobody is there to give it", '[approvals] headless = "wait"']:
            assert each in denied.item.text
        with pod.subscribe(ApprovalRequested) as questions:
            run = pod.run("go")
            question = await anext(questions)
            assert isinstance(question, ApprovalRequested)
            why, hint = words
            assert why in (question.why or "")
            assert hint in (question.hint or "")
            await pod.deny(question.approval_id, by="nobody")
            await run
