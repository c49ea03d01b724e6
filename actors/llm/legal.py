"""Makes a history acceptable to any server, pure; the log keeps the original.

Calls get ids that are unique in the history and of a form that servers take, and names of that form. Each
call is followed by its one result. What says nothing is left out. All of this depends on what came before
alone, so the same history is always sent in the same bytes, and a longer one begins like the shorter.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Sequence
from typing import Literal, TypeVar

from msgspec.structs import replace

from protocol.items import (
    AssistantItem,
    ImagePart,
    Item,
    Part,
    SystemItem,
    TextPart,
    ToolCall,
    ToolResult,
    VendorPart,
)
from protocol.pictures import sound_picture
from protocol.tools import ToolSpec

#: What stands before words of the runtime that a server gets as a user message.
NOTICE_MARK = "[System notice]\n"
#: What stands first where a history begins with the model's own words.
OPENING = f"{NOTICE_MARK}The conversation goes on from here."
#: What is said where the model would have to follow its own words.
GO_ON = f"{NOTICE_MARK}Go on."
#: What stands between results and a user's words, at servers that want the model to speak there.
BRIDGE = "Ok."
#: What answers a call that the history has no result of.
NO_RESULT = "no result of this call is known; it may or may not have taken effect"
#: What stands for a picture where the model takes none.
NO_PICTURE = "[a picture, which this model cannot see]"
#: What stands for a picture that no server takes.
NO_SOUND_PICTURE = "[a picture that cannot be shown: its data are none]"
#: What stands for a picture of a result that this server has refused.
REFUSED_PICTURE = "[a picture, which the model's server refused]"

#: ``own``: ids as they came from this server, others of a form that most take. ``short``: nine letters and
#: digits. ``letters``: what may stand in a name.
Ids = Literal["own", "short", "letters"]
#: ``within``: a result has its pictures. ``behind``: it has text alone, and they stand behind the results, in
#: words of the runtime. ``unseen``: the model sees none, wherever they are.
Pictures = Literal["within", "behind", "unseen"]

AnyItem = TypeVar("AnyItem", bound=Item)

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def short_id(given: str) -> str:
    """Nine letters and digits that stand for an id; always the same for one id."""
    number = int.from_bytes(hashlib.sha256(given.encode("utf-8", "replace")).digest())
    letters = []
    for _ in range(9):
        number, place = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[place])
    return "".join(letters)


def legal_name(name: str) -> str:
    """A tool's name in the characters that servers accept; changed names stay distinct."""
    if _NAME.fullmatch(name):
        return name
    return f"{re.sub('[^a-zA-Z0-9_-]', '_', name)[:54]}_{short_id(name)}"


def original_names(tools: Sequence[ToolSpec]) -> dict[str, str]:
    """The original names of tools that are sent under changed names, by those names, which a model then
    calls.
    """
    changed = [tool.name for tool in tools if not _NAME.fullmatch(tool.name)]
    if not changed:
        return {}
    own = {tool.name for tool in tools}
    return {sent: name for name in changed if (sent := legal_name(name)) not in own}


def first_change(items: Sequence[Item], done: list[Item]) -> int | None:
    """Where ``items`` first differ from ``done``; None if they begin with all of ``done``."""
    known = items[: len(done)]
    # list equality looks at identity first: 5 ns an item where nothing was replaced
    if (known if isinstance(known, list) else list(known)) == done:
        return None
    pairs = enumerate(zip(known, done, strict=False))
    return next((n for n, (a, b) in pairs if a != b), len(known))


class LegalHistory:
    """Makes the items of one history legal, in their order, for the server that ``origin`` names."""

    __slots__ = ("_held", "_ids", "_open", "_origin", "_pictures", "_used")

    def __init__(self, origin: str | None, ids: Ids, pictures: Pictures = "within") -> None:
        self._origin = origin
        self._ids = ids
        self._pictures = pictures
        #: The ids that were sent, and the place of the item each came with; in that order.
        self._used: dict[str, int] = {}
        #: The calls that wait for their results: the id each goes by in the log, and as it is sent.
        self._open: list[tuple[str, ToolCall]] = []
        #: Results that no call asked for, and pictures; nothing may stand between the open calls and theirs.
        self._held: list[SystemItem] = []

    def take(self, item: Item, place: int) -> list[Item]:
        """What is sent for the item at ``place``; nothing if it says nothing."""
        item = self._with_sound_pictures(item)
        if isinstance(item, ToolResult):
            return self._answer(item)
        if isinstance(item, AssistantItem):
            return self._speak(item, place)
        if not says_anything(item.content):
            return []
        return [*self.close(), item] if self._open else [item]

    def unanswered(self) -> list[Item]:
        """Results for the calls that have none, and what waits behind these."""
        missing = [
            ToolResult(call.id, call.name, (TextPart(NO_RESULT),), is_error=True) for _, call in self._open
        ]
        return [*missing, *self._held]

    def close(self) -> list[Item]:
        """Results for the calls that have none; nothing answers them any more."""
        items = self.unanswered()
        self._open, self._held = [], []
        return items

    def go_back(self, items: Sequence[Item], length: int) -> None:
        """Forget what followed the first ``length`` of ``items``, which are those that were taken."""
        while self._used:
            sent, place = self._used.popitem()
            if place < length:
                self._used[sent] = place
                break
        self._open, self._held = [], []
        start = length
        while start and self._leaves_calls_open(items[start - 1]):
            start -= 1
        spoken = items[start - 1] if start else None
        if not isinstance(spoken, AssistantItem):
            return
        sent_ids: list[str] = []
        for sent, place in reversed(self._used.items()):
            if place < start - 1:
                break
            sent_ids.insert(0, sent)
        self._open = [
            (call.id, replace(call, id=sent, name=legal_name(call.name)))
            for call, sent in zip(spoken.calls, sent_ids, strict=True)
        ]
        for item in items[start:length]:
            if isinstance(item, ToolResult):
                self._answer(self._with_sound_pictures(item))

    def _with_sound_pictures(self, item: AnyItem) -> AnyItem:
        """The item with its pictures as the server takes them, or words in their places."""
        for part in item.content:
            if type(part) is ImagePart:
                shown = tuple([self._shown(each) for each in item.content])
                return replace(item, content=shown)
        return item

    def _shown(self, part: Part) -> Part:
        if not isinstance(part, ImagePart):
            return part
        if self._pictures == "unseen":
            return TextPart(NO_PICTURE)
        return sound_picture(part) or TextPart(NO_SOUND_PICTURE)

    def _without_pictures(self, item: ToolResult) -> ToolResult:
        """The result with words for its pictures, which are held to be shown behind all results."""
        number = sum(isinstance(part, ImagePart) for held in self._held for part in held.content)
        content: list[Part] = []
        for part in item.content:
            if isinstance(part, ImagePart):
                number += 1
                content.append(TextPart(f"[picture {number}, shown below]"))
                words = TextPart(f"Picture {number}, of the result of the tool {item.name}:")
                self._held.append(SystemItem((words, part)))
            else:
                content.append(part)
        return replace(item, content=tuple(content))

    def _answer(self, item: ToolResult) -> list[Item]:
        for number, (given, call) in enumerate(self._open):
            if given == item.call_id:
                del self._open[number]
                result = item if call.id == given else replace(item, call_id=call.id)
                if self._pictures == "behind":
                    result = self._without_pictures(result)
                return [result] if self._open else [result, *self.close()]
        words = f"A result of the tool {item.name} that no call here asked for: "
        notice = SystemItem((TextPart(words), *item.content))
        if not self._open:
            return [notice]
        self._held.append(notice)
        return []

    def _speak(self, item: AssistantItem, place: int) -> list[Item]:
        if not self._is_sent(item):
            return []
        before = self.close() if self._open else []
        if not item.calls:
            return [*before, item]
        native = item.origin is not None and item.origin == self._origin
        calls = tuple([self._legal(call, place, native=native) for call in item.calls])
        self._open = [(call.id, sent) for call, sent in zip(item.calls, calls, strict=True)]
        if all(call is sent for call, sent in zip(item.calls, calls, strict=True)):
            return [*before, item]
        return [*before, replace(item, calls=calls)]

    def _leaves_calls_open(self, item: Item) -> bool:
        """Whether calls before the item may still wait for results behind it."""
        if isinstance(item, AssistantItem):
            return not self._is_sent(item)
        return isinstance(item, ToolResult) or not says_anything(item.content)

    def _is_sent(self, item: AssistantItem) -> bool:
        return not item.refused and bool(item.calls or self._says_anything(item))

    def _says_anything(self, item: AssistantItem) -> bool:
        if says_anything(item.content):
            return True
        # what is the vendor's own alone goes on where it paused; reasoning alone is not an answer
        native = item.origin is not None and item.origin == self._origin
        return native and is_paused(item)

    def _legal(self, call: ToolCall, place: int, *, native: bool) -> ToolCall:
        wanted = self._wanted(call.id, native=native)
        number = 1
        while wanted in self._used:
            number += 1
            wanted = short_id(f"{call.id} {number}")
        self._used[wanted] = place
        name = legal_name(call.name)
        return call if (wanted, name) == (call.id, call.name) else replace(call, id=wanted, name=name)

    def _wanted(self, given: str, *, native: bool) -> str:
        if self._ids == "letters":
            given = re.sub(r"[^a-zA-Z0-9_-]", "_", given)
            return given if 0 < len(given) <= _LONGEST_ID else short_id(given)
        form = _SHORT_ID if self._ids == "short" else _ID
        own = native and self._ids == "own" and given.strip()
        return given if own or form.fullmatch(given) else short_id(given)


_LONGEST_ID = 64


def is_paused(item: AssistantItem) -> bool:
    """Whether the server goes on with the item as it stands: it ends in a block of the vendor's own."""
    return bool(item.content) and isinstance(item.content[-1], VendorPart) and not item.calls


def without_result_pictures(items: Sequence[Item], length: int) -> list[Item] | None:
    """The items with words for the pictures of tools' results among the first ``length``; None where there
    are none.
    """
    first = [
        _without_refused_pictures(item) if isinstance(item, ToolResult) else item for item in items[:length]
    ]
    return None if all(map(operator.is_, first, items)) else [*first, *items[length:]]


def _without_refused_pictures(item: ToolResult) -> ToolResult:
    if not any(isinstance(part, ImagePart) for part in item.content):
        return item
    words = TextPart(REFUSED_PICTURE)
    return replace(
        item, content=tuple([words if isinstance(part, ImagePart) else part for part in item.content])
    )


def says_anything(content: tuple[Part, ...]) -> bool:
    """Whether there is a picture, or a text that is not blank."""
    for part in content:
        if isinstance(part, TextPart):
            if part.text.strip():
                return True
        elif isinstance(part, ImagePart):
            return True
    return False
