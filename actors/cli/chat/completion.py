"""What a chat's prompt offers: its commands behind a slash, files behind an @."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from actors.cli.chat.files import names_of
from actors.cli.chat.slash import COMMANDS
from actors.cli.chat.typed import mention_before
from actors.cli.display.format import clean

if TYPE_CHECKING:
    from actors.tools.base import ToolContext


class ChatCompleter(Completer):
    """Commands and files; ``context`` gives what the pod may read now, None where nobody knows."""

    def __init__(self, context: Callable[[], ToolContext | None]) -> None:
        self._context = context

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
        before = document.text_before_cursor
        if before.startswith("/") and not before.startswith("//") and not any(map(str.isspace, before)):
            return self._commands(before[1:])
        typed = mention_before(before)
        return () if typed is None else self._files(typed, before)

    @staticmethod
    def _commands(typed: str) -> Iterator[Completion]:
        for each in COMMANDS:
            if each.name.startswith(typed):
                yield Completion(f"/{each.name}", -len(typed) - 1, display_meta=each.does)

    def _files(self, typed: str, before: str) -> Iterator[Completion]:
        context = self._context()
        quoted = before[: len(before) - len(typed)].endswith('@"')
        for name in () if context is None else names_of(typed, context):
            if name != clean(name) or '"' in name or "\n" in name:
                continue
            if quoted or not any(map(str.isspace, name)):
                yield Completion(name, -len(typed), display=name)
            else:
                yield Completion(f'"{name}"', -len(typed), display=name)


def wants_menu(before: str) -> bool:
    """Whether what stands before the cursor is offered completions while it is typed."""
    command = before.startswith("/") and not any(map(str.isspace, before))
    return command or mention_before(before) is not None
