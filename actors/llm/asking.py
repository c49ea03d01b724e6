"""``answer_of``: asks a client for one whole answer, without a pod."""

from __future__ import annotations

from collections.abc import Callable

from actors.llm.base import Answer, Assembler, Block, LLMClient, Request
from actors.llm.retry import ask
from protocol.errors import ModelError


class _Nobody:
    """A listener for whom nobody watches the answer arrive."""

    def __init__(self) -> None:
        self.is_wanted: Callable[[], bool] = lambda: False
        self.text: Callable[[str, int], None] = lambda _text, _attempt: None

    def begin(self, attempt: int, assembler: Assembler) -> None:
        """Allow it to be sent."""

    def block(self, block: Block, attempt: int) -> None:
        """Show nothing."""

    def announce_retry(self, error: ModelError, wait: float) -> None:
        """Show nothing."""


async def answer_of(client: LLMClient, request: Request) -> Answer:
    """The model's answer to ``request``, which is sent again where the server's failure allows that. Raises
    ModelError.
    """
    return await ask(client, request, _Nobody())
