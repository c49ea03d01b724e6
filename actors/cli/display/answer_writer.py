"""How the text of an answer is written while it comes: as it is, or rendered block by block."""

from __future__ import annotations

from typing import Protocol

from actors.cli.display.format import clean
from actors.cli.display.markdown_blocks import Block, MarkdownBlocks
from actors.cli.display.terminal import Terminal


class AnswerWriter(Protocol):
    """Writes an answer piece by piece."""

    def piece(self, text: str) -> None:
        """Take the next piece."""

    def end(self) -> None:
        """Show what has come of the answer, which is whole or was given up."""


class PlainWriter:
    """Writes each piece as it comes."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def piece(self, text: str) -> None:
        self._terminal.write(text)

    def end(self) -> None:
        self._terminal.end_line()


class MarkdownWriter:
    """Writes each block once it is whole; the end of what has come is shown where the terminal has a place
    for what goes on.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._blocks = MarkdownBlocks()
        self._wrote = False

    def piece(self, text: str) -> None:
        self._show(self._blocks.feed(clean(text)))
        self._terminal.show_tail(self._blocks.rest)

    def end(self) -> None:
        self._terminal.show_tail("")
        self._show(self._blocks.end())
        self._wrote = False

    def _show(self, blocks: list[Block]) -> None:
        for block in blocks:
            if self._wrote and not block.joins:
                self._terminal.write("\n")
            self._terminal.markdown(block.text)
            self._wrote = True
