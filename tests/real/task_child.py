"""A program with one pod that does a task of four steps on a real model, to be killed in the middle: see test_real_task.

The model writes every call itself, and chooses at random; hooks offer it the tool of the next step alone, and put the
step's own arguments in the place of what it wrote. What happens is printed, a line each: the kind of an event, and the
tool or the id that it is about.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from polypod import (
    ApprovalRequested,
    ModelView,
    PodManifest,
    PodSystem,
    Replace,
    RunEnd,
    Scope,
    ToolCall,
    ToolResult,
    ToolResulted,
    ToolStart,
    UserItem,
)

#: Nothing else on the machine sleeps so long.
SLEEP = "sleep 613.25"


def steps(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The tool of each step, and what it is called with."""
    return [
        ("shell", {"command": "echo first >> log.txt"}),
        ("git__git_add", {"repo_path": str(folder), "files": ["log.txt"]}),
        ("git__git_commit", {"repo_path": str(folder), "message": "by the model"}),
        ("shell", {"command": f"echo begun >> slow.txt; {SLEEP}; echo never >> slow.txt"}),
    ]


class OneStepAtATime:
    """Offers the tool of the next step, and calls it with what the step says."""

    def __init__(self, folder: Path) -> None:
        self._steps = steps(folder)
        self._arguments: dict[str, Any] = {}

    def before_request(self, view: ModelView) -> Replace:
        done = sum(isinstance(item, ToolResult) for item in view.items)
        if done == len(self._steps):
            return Replace(ModelView((*view.items, UserItem.of("What was done?")), view.system, ()))
        name, self._arguments = self._steps[done]
        offered = tuple(tool for tool in view.tools if tool.name == name)
        return Replace(ModelView((*view.items, UserItem.of(f"Call {name}.")), view.system, offered))

    def before_tool(self, call: ToolCall) -> Replace:
        return Replace(self._arguments)


def manifest(folder: Path, scheme: str, base_url: str, git: str) -> PodManifest:
    return PodManifest.of(
        name="worker",
        pwd=str(folder),
        model=f"{scheme}/tiny",
        base_url=base_url,
        system_prompt="You do as you are told.",
        max_tokens=400,
        temperature=0.8,
        scope=Scope.writable(str(folder)),
        tools={"builtin": ["shell"]},
        mcp=[{"name": "git", "command": [git, "--repository", str(folder)]}],
        approval=[{"tool": "*", "policy": "ask"}],
        approvals={"headless": "wait"},
    )


def say(what: str, about: str) -> None:
    sys.stdout.write(f"{what} {about}\n")
    sys.stdout.flush()


async def main(store: str, session: str | None, asked: PodManifest, folder: Path) -> None:
    async with PodSystem(store=store) as system:
        pod = await system.spawn(asked, resume=session, hooks=[OneStepAtATime(folder)])
        say("session", (await pod.describe()).session_id)
        with pod.subscribe([ApprovalRequested, ToolStart, ToolResulted, RunEnd]) as events:
            run = pod.run("Do your task.") if session is None else pod.resume()
            async for event in events:
                match event:
                    case ApprovalRequested():
                        say("asks", event.approval_id)
                    case ToolStart():
                        say("starts", event.name)
                    case ToolResulted():
                        say("result", json.dumps(event.item.text))
                    case RunEnd():
                        break
        say("end", (await run).outcome)


if __name__ == "__main__":
    place, url, git_server, form, *sessions = sys.argv[1:]
    here = Path.cwd()
    made = manifest(here, form, url, git_server)
    asyncio.run(main(place, sessions[0] if sessions else None, made, here))
