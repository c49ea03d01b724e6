"""The commands of a chat that show something, and /model: /help, /cost, /tools."""

from __future__ import annotations

from actors.cli.chat.footer import short
from actors.cli.chat.lines import Asker
from actors.cli.chat.slash import help_lines
from actors.cli.chat.talk import Talk
from actors.cli.display.event_format import Line
from actors.cli.display.format import cut, dollars, seconds, tokens
from actors.cli.models import known_models
from actors.cli.pods.manifest import Wishes, with_model
from protocol.errors import ManifestError


async def help_(_: str, talk: Talk, asker: Asker) -> None:  # noqa: ARG001
    """Show the commands and keys."""
    for line in help_lines(talk.terminal.width):
        talk.terminal.note(line)


async def cost(_: str, talk: Talk, asker: Asker) -> None:  # noqa: ARG001
    """Show what the session has used."""
    described = await talk.current.look()
    window = talk.current.plan.manifest.model.context_window
    of = f" of {short(window)}" if window else ""
    talk.terminal.note(f"used     {tokens(described.usage)}")
    talk.terminal.note(f"cost     {dollars(described.cost)}")
    talk.terminal.note(f"time     {seconds(described.seconds)}")
    talk.terminal.note(f"context  {short(described.occupancy)} tokens{of}")
    talk.terminal.note(f"session  {described.session_id}")


async def tools(_: str, talk: Talk, asker: Asker) -> None:  # noqa: ARG001
    """Show the tools that the model has."""
    terminal = talk.terminal
    specs = [tool.spec for tool in talk.current.tools(lambda text: terminal.note(text, "error"))]
    if not specs:
        terminal.note("the model has no tools")
    width = min(max((len(spec.name) for spec in specs), default=0), 24)
    for spec in sorted(specs, key=lambda spec: spec.name):
        first = spec.description.strip().partition("\n")[0]
        room = max(terminal.width - width - 3, 8)
        terminal.say(Line("quiet", f"{cut(spec.name, width):<{width}}  {cut(first, room)}"))


async def model(rest: str, talk: Talk, asker: Asker) -> None:  # noqa: ARG001
    """Answer with another model from here on, or show which there are."""
    current, terminal = talk.current, talk.terminal
    if not rest:
        terminal.note(f"answers now: {current.model}")
        async for found in known_models():
            terminal.note(f"  {found.name}{f'  ({found.note})' if found.note else ''}")
        terminal.note("/model SCHEME/ID chooses one")
        return
    name, _, base_url = rest.partition(" ")
    now = current.plan.manifest.model
    if not base_url and name.partition("/")[0] == now.scheme:
        base_url = now.base_url or ""  # another model of the same server
    manifest = with_model(current.plan.manifest, Wishes(model=name, base_url=base_url.strip() or None))
    try:
        await current.become(current.described.session_id, manifest)
    except ManifestError as error:  # nobody wrote a manifest: it was said here
        message = error.message.removeprefix("manifest: model.scheme: ")
        raise ManifestError(f"/model: {message}", hint=error.hint) from error
    terminal.note(f"answers from now on: {current.model}")
