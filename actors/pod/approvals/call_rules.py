"""``CallRules``: decides by rules whether a pod's call runs, is denied, or needs a person's approval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from actors.pod.resources import PodResources
from actors.tools.base import Tool
from protocol.approval import A_RULE, ApprovalRule, ApprovalVerdict, ProgramText, verdict
from protocol.items import ToolCall


class CallRules:
    """The rules of one pod's manifest, and whether its commands are confined."""

    __slots__ = ("_commands", "_default", "_rules")

    def __init__(self, resources: PodResources) -> None:
        manifest = resources.template.manifest
        self._rules: tuple[ApprovalRule, ...] = manifest.approval_rules
        self._default = manifest.approvals.default
        self._commands = resources.commands

    def verdict(self, call: ToolCall, tool: Tool | None, always: tuple[ApprovalRule, ...]) -> ApprovalVerdict:
        """What the rules say of a ``call`` of ``tool``. Rules that people have added by answering "always"
        come before those of the manifest.
        """
        default = self._default
        asks = default == "allow" and tool is not None and tool.asks and not self._is_confined(tool)
        programs = _programs_in(call) if call.name == "shell" else {}
        unbounded = self._unbounded(call.name) if asks else None
        return verdict((*always, *self._rules), default, call.name, call.arguments, programs, unbounded)

    def _unbounded(self, tool: str) -> ApprovalVerdict:
        """Why a call that no scope bounds needs approval, and what would let it run without."""
        unconfined = None if tool != "shell" or self._commands is None else self._commands.unconfined
        if unconfined is None:
            allowed = f'set approval = "allow" for its server in [[tools.mcp]]; or {A_RULE}'
            return ApprovalVerdict("ask", "it may change things outside any scope", allowed)
        hint = f"{unconfined.hint}; or {A_RULE}" if unconfined.hint else A_RULE
        return ApprovalVerdict("ask", unconfined.message, hint)

    def _is_confined(self, tool: Tool) -> bool:
        return tool.name == "shell" and self._commands is not None and self._commands.unconfined is None

    async def look_at_commands(self, calls: Iterable[ToolCall]) -> str | None:
        """Find out whether commands can be confined, if one of ``calls`` is a command; returns what people
        should know about that.
        """
        if self._commands is None or self.knows_confinement(calls):
            return None
        return await self._commands.look()

    def knows_confinement(self, calls: Iterable[ToolCall]) -> bool:
        """Whether ``look_at_commands`` has nothing left to find out."""
        commands = self._commands
        return commands is None or commands.has_looked or not any(call.name == "shell" for call in calls)


def _programs_in(call: ToolCall) -> Mapping[str, ProgramText]:
    from actors.tools.shell.rules import programs_in  # noqa: PLC0415 - paid for by pods with a shell

    return programs_in(call.name, call.arguments)
