"""What was said before, shown where a session is taken up again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actors.cli.display.event_format import Line, call_words
from actors.cli.display.format import count, cut
from actors.cli.display.terminal import Terminal
from protocol.items import AssistantItem, Item, UserItem

#: Turns that are shown, and lines of an answer's end.
_TURNS, _LINES = 3, 30


def show_earlier(items: Sequence[Item], terminal: Terminal) -> None:
    """Show the last turns of a history: a person's words, the calls, the answers."""
    begins = [n for n, item in enumerate(items) if isinstance(item, UserItem)]
    if not begins:
        return
    start = begins[-_TURNS:][0]
    if start:
        terminal.note(f"… {count(start, 'item')} before")
    for item in items[start:]:
        if isinstance(item, UserItem):
            terminal.note(f"> {cut(item.text, 2 * terminal.width)}", "user")
        elif isinstance(item, AssistantItem):
            _show_answer(item, terminal)


def _show_answer(item: AssistantItem, terminal: Terminal) -> None:
    text = item.text.strip()
    lines = text.splitlines()
    if len(lines) > _LINES:
        terminal.note(f"… {len(lines) - _LINES} earlier lines")
        text = "\n".join(lines[-_LINES:])
    if text and terminal.renders:
        terminal.markdown(text)
    elif text:
        terminal.note(text, "answer")
    for line in _calls(item, terminal.width):
        terminal.say(line)


def _calls(item: AssistantItem, width: int) -> Iterator[Line]:
    for call in item.calls:
        yield Line("tool", cut(f"▸ {call_words(call, width // 2)}", max(width - 1, 10)))
