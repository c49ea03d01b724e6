"""``!command``: a person's own command, in the pod's sandbox; what it writes goes with the next words."""

from __future__ import annotations

from actors.cli.chat.current import Current
from actors.cli.display.terminal import Terminal
from actors.tools.shell.rules import programs_in
from actors.tools.toolbox import Checked
from protocol.approval import verdict
from protocol.errors import ToolError
from protocol.items import TextPart, ToolCall

_TOOL = "shell"


async def run_shell_line(command: str, current: Current, terminal: Terminal) -> TextPart:
    """Run a command as the pod's model could, show what it writes, and give that as a part of the next words.
    The person's own typing counts as their word where the model would have to ask. Raises ToolError where the
    pod has no shell, a rule denies the command, or it may run nowhere but in a sandbox that cannot be had.
    """
    runner, manifest = current.runner, current.plan.manifest
    call = ToolCall("", _TOOL, {"command": command})
    checked = runner.toolbox.check(call)
    if not isinstance(checked, Checked):
        if runner.toolbox.get(_TOOL) is None:
            raise ToolError("this pod cannot run commands", hint="give it the tool group shell in a manifest")
        raise ToolError(checked.text)
    programs = programs_in(_TOOL, call.arguments)
    found = verdict(manifest.approval_rules, "allow", _TOOL, call.arguments, programs)
    if found.policy == "deny":
        raise ToolError(f"the command was not run: {found.why} denies it")
    terminal.busy(f"{command}…")
    result = await runner.toolbox.carry_out(checked, runner.context(current.pod.name))
    terminal.idle()
    if result.is_error:
        raise ToolError(result.text)
    terminal.note(result.text.rstrip(), "quiet")
    return TextPart(f"\n\nI ran the command {command!r}, which wrote:\n{result.text}\n")
