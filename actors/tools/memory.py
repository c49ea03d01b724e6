"""The tool by which a model searches lasting memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta, Struct

from actors.tools.base import ToolContext, tool
from actors.tools.extras import MEMORY
from protocol.errors import ToolError


class Note(Protocol):
    """What a search finds of a note."""

    @property
    def title(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def snippet(self) -> str: ...


#: ``search(query, kind=…, limit=…)``, called in a thread; takes any text and raises OSError.
Search = Callable[..., Sequence[Note]]


class Found(Struct, frozen=True):
    """A note as the model sees it; ``file`` is its path in the memory folder."""

    title: str
    kind: str
    file: str
    snippet: str


@tool(concurrency="read_only", timeout=30)
def memory_search(
    query: Annotated[str, Meta(description="words to find in notes; the best matches come first")],
    kind: Literal["summary", "decisions", "requests", "knowledge"] | None = None,
    limit: Annotated[int, Meta(ge=1, le=50)] = 5,
    *,
    ctx: ToolContext,
) -> str | list[Found]:
    """Search what was kept of earlier sessions: decisions, requests, knowledge, summaries."""
    search: Any = ctx.extras.get(MEMORY)
    if search is None:
        raise ToolError("this pod has no memory")
    hits: Sequence[Note] = search(query, kind=kind, limit=limit)
    found = [Found(hit.title, hit.kind, hit.path, hit.snippet) for hit in hits]
    return found or "nothing found"


MEMORY_TOOLS = (memory_search,)
