"""Histories to compact: short ways to write them, and any history as a hypothesis strategy."""

from __future__ import annotations

from hypothesis import strategies as st

from protocol.items import AssistantItem, Item, SystemItem, ToolCall, ToolResult, UserItem


def user(text: str) -> UserItem:
    return UserItem.of(text)


def said(text: str) -> AssistantItem:
    return AssistantItem.of(text)


def called(*ids: str, text: str = "", name: str = "look", **arguments: object) -> AssistantItem:
    return AssistantItem.of(text, tuple(ToolCall(each, name, arguments) for each in ids))


def result(call_id: str, text: str = "done", name: str = "look", **fields: object) -> ToolResult:
    return ToolResult.of(ToolCall(call_id, name), text, **fields)


def turn(number: int, size: int = 10) -> list[Item]:
    """A call with its result of ``size`` characters."""
    return [called(f"c{number}"), result(f"c{number}", "x" * size)]


texts = st.text(st.characters(codec="utf-8"), max_size=40)
#: Few ids, so that they come again, as they do with small models.
_ids = st.sampled_from(["a", "b", "c"])


@st.composite
def _turns(draw: st.DrawFn) -> list[Item]:
    """An answer with calls, their results (some may be missing), and words that came between."""
    ids = draw(st.lists(_ids, min_size=1, max_size=3, unique=True))
    answered = draw(st.permutations(ids))[: draw(st.integers(0, len(ids)))]
    items: list[Item] = [called(*ids, text=draw(texts))]
    for each in answered:
        if draw(st.integers(0, 9)) == 0:
            items.append(draw(_words))
        items.append(result(each, draw(texts) * draw(st.sampled_from([1, 1, 400]))))
    return items


_words = st.one_of(
    texts.map(user),
    texts.map(SystemItem.of),
    texts.map(lambda text: SystemItem.of("[Compacted context summary]\n" + text)),
)
_pieces = st.one_of(_words.map(lambda item: [item]), texts.map(lambda text: [said(text)]), _turns())
histories = st.lists(_pieces, max_size=25).map(lambda pieces: [item for piece in pieces for item in piece])


def owners(items: list[Item]) -> dict[int, int]:
    """Which answer each result belongs to: the newest before it with an unanswered call of its id."""
    waiting: dict[str, list[int]] = {}
    found: dict[int, int] = {}
    for index, item in enumerate(items):
        if isinstance(item, AssistantItem):
            for call in item.calls:
                waiting.setdefault(call.id, []).append(index)
        elif isinstance(item, ToolResult) and waiting.get(item.call_id):
            found[index] = waiting[item.call_id].pop()
    return found
