"""Makes HTML Markdown in a child process with bounds: what nested lists and tables come to has none."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from actors.runtime.children.child import Child, Ladder
from actors.runtime.children.environment import allowed_environment
from actors.runtime.children.launcher import Launcher
from actors.runtime.frozen import own_program
from protocol.errors import ChildError, ChildNotListening, ToolError

_PROGRAM = Path(__file__).with_name("html_child.py")
_AT_ONCE = Ladder(term_wait=0.0)
#: Seconds that it waits for other children to end, where there are as many as there may be.
_WAIT = 20.0


async def markdown(html: str, url: str, launcher: Launcher, most: int) -> tuple[str, bool]:
    """The page at ``url`` as Markdown, and whether that was cut to ``most`` bytes. Raises ToolError."""
    spec = find_spec("html_to_markdown")
    library = "" if spec is None or spec.origin is None else str(Path(spec.origin).parents[1])
    try:
        child = await launcher.start(
            own_program("actors.tools.web.html_child", str(_PROGRAM), library, url, str(most + 1)),
            cwd="/",
            env=allowed_environment(of=os.environ),
            stdin="pipe",
            stderr="null",
            ladder=_AT_ONCE,
            wait=_WAIT,
        )
    except ChildError as error:
        raise ToolError(
            f"{url} cannot be converted to Markdown: {error}", hint='fetch it with "as": "raw"'
        ) from error
    try:
        made = await _convert_in(child, html.encode("utf-8", "replace"))
        code = (await child.wait()).code
    except ChildError as error:
        raise ToolError(f"{url} was not converted to Markdown: {error}") from error
    finally:
        child.ask_to_stop()
    if code != 0:
        raise ToolError(
            f"{url} cannot be converted to Markdown: that takes too much memory or time",
            hint='fetch it with "as": "raw"',
        )
    return made[:most].decode("utf-8", "ignore" if len(made) > most else "replace"), len(made) > most


async def _convert_in(child: Child, html: bytes) -> bytes:
    """Have the child convert ``html``, all of which it reads before it writes anything."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        await child.stdin.write(html)
    except ChildNotListening:
        return b""  # it ends with an error
    child.stdin.close()
    made = bytearray()
    while piece := await child.stdout.read():
        made += piece
    return bytes(made)
