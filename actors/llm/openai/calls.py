"""Reads tool calls as servers of OpenAI's format stream them: pieces in, calls begun, grown and ended out.
Pure.

A piece's index says which call it belongs to, if the server keeps to it. Some omit the index, some send all
calls at index 0 under new ids, some send no ids or a new one with every piece, or the name late, or with
every piece.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.base import Block, CallChunk, CallEnd, CallStart, VendorChunk
from actors.llm.http.answers import argument_text, is_object, means_something
from actors.llm.pieces import Braces, HalfPairs
from actors.llm.vendor import merged
from protocol.text import encodable


class Function(Struct):
    """The name and argument text of a call, or a piece of them."""

    name: Any = None
    arguments: Any = None


class CallPiece(Struct):
    """What one chunk says of one call. ``vendor`` is not a member: it has all other members."""

    index: Any = None
    id: Any = None
    function: Function | None = None
    type: Any = None
    vendor: Any = msgspec.field(default=None, name="(besides)")


class _OpenCall:
    """A call that is arriving.

    ``place`` is its position among the calls, ``given_id`` the server's first id for it (or none), ``id`` the
    one that it is given out with. ``shown`` says whether its start was given out, which waits for a name.
    """

    __slots__ = (
        "_braces",
        "_looked_at",
        "arguments",
        "given_id",
        "halves",
        "id",
        "index",
        "name",
        "place",
        "shown",
        "vendor",
    )

    def __init__(self, place: int, index: int | None) -> None:
        self.place = place
        self.index = index
        self.given_id = ""
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.shown = False
        self.vendor: dict[str, Any] | None = None
        self.halves = HalfPairs()
        self._braces = Braces()
        self._looked_at = 0

    @property
    def text(self) -> str:
        """The argument text so far."""
        return "".join(self.arguments)

    def is_whole(self) -> bool:
        """Whether the arguments, which are an object, are complete."""
        if not self._braces.closed and self._looked_at < len(self.arguments):
            self._braces.feed("".join(self.arguments[self._looked_at :]))
            self._looked_at = len(self.arguments)
        return self._braces.closed

    def goes_on_with(self, function: Function) -> bool:
        """Whether ``function``, which came under another id, can only be more of this call.

        A call begins with a name, and its arguments with a brace.
        """
        if not _name_of(function):
            return not self.is_whole()
        text = argument_text(function.arguments).lstrip()
        begins = not text or text[0] == "{"
        return not begins and _name_of(function) == self.name and bool(self.arguments) and not self.is_whole()

    def is_repeated_by(self, function: Function) -> bool:
        """Whether ``function`` is this whole call once more, as some servers send it at the end."""
        return (
            _name_of(function) == self.name
            and self.is_whole()
            and argument_text(function.arguments).strip() == self.text.strip()
        )

    def is_followed_by(self, function: Function) -> bool:
        """Whether ``function`` can only be a new call: this one is complete, and it has a new name or new
        arguments.
        """
        if not (self.name and _name_of(function)):
            return False
        begins = argument_text(function.arguments).lstrip()[:1] == "{"
        return (begins or _name_of(function) != self.name) and self.is_whole()


class Calls:
    """The calls of one answer; each method adds blocks to the list it is given."""

    __slots__ = ("_all", "_by_given_id", "_by_index", "_last_place", "_places", "_taken")

    def __init__(self) -> None:
        self._all: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}
        self._by_given_id: dict[tuple[int | None, str], _OpenCall] = {}
        self._places: set[int] = set()
        self._last_place = -1
        self._taken: set[str] = set()

    def __bool__(self) -> bool:
        """Whether any call has a name; an entry without one is not a call."""
        return bool(self._all) and any(call.name for call in self._all)

    def has_lost_one(self) -> bool:
        """Whether arguments came for a tool that was never named."""
        return any(not call.name and means_something(call.text) for call in self._all)

    def has_entries(self) -> bool:
        """Whether the server sent anything in the list of calls."""
        return bool(self._all)

    def add(self, pieces: list[CallPiece], blocks: list[Block]) -> None:
        """Take the pieces of one chunk."""
        last = self._all[-1] if self._all else None
        here: set[str] = set()  # entries without an index: each id is a call of its own
        for piece in pieces:
            function = piece.function or Function()
            index = _index_of(piece.index)
            given_id = piece.id if isinstance(piece.id, str) else ""
            if index is not None:
                call = self._call_for(self._by_index.get(index), index, given_id, function)
            elif given_id in here:
                call = self._open(None)
            else:
                call = self._call_for(None if here else last, None, given_id, function)
                here.add(given_id)
            if not (given_id and given_id == call.given_id and call.is_repeated_by(function)):
                self._extend(call, given_id, function, blocks)
            if piece.vendor:
                call.vendor = merged(call.vendor or {}, piece.vendor)

    def show(self, blocks: list[Block]) -> None:
        """Give out again what there is of the calls, for a list that has nothing of them yet."""
        for call in self._all:
            if call.shown:
                self._show(call, blocks)

    def end(self, blocks: list[Block], *, cut: bool) -> None:
        """End all calls, since no more comes; except the last, if the answer was ``cut`` before it was
        complete.
        """
        for call in sorted(self._all, key=lambda call: call.place):
            if not call.name:
                continue
            if rest := call.halves.rest():
                call.arguments.append(rest)
                blocks.append(CallChunk(call.place, rest))
            if not cut or call is not self._all[-1] or is_object(call.text):
                blocks.append(CallEnd(call.place))
            if call.vendor:
                blocks.append(VendorChunk(call.vendor, call.place, "call"))

    def _call_for(
        self, call: _OpenCall | None, index: int | None, given_id: str, function: Function
    ) -> _OpenCall:
        """The call that a piece belongs to: ``call``, unless it can only be another or a new one."""
        if given_id and (known := self._by_given_id.get((index, given_id))) is not None:
            return known
        if call is None:
            moved = self._latest_with(given_id) if given_id and not _name_of(function) else None
            return moved if moved is not None and not moved.is_whole() else self._open(index)
        known_by_id = given_id and call.given_id
        parts = not call.goes_on_with(function) if known_by_id else call.is_followed_by(function)
        return self._open(index) if parts else call

    def _latest_with(self, given_id: str) -> _OpenCall | None:
        """The last call with an id: its next piece may have another index."""
        return next((call for call in reversed(self._all) if call.given_id == given_id), None)

    def _open(self, index: int | None) -> _OpenCall:
        place = self._last_place + 1 if index is None or index in self._places else index
        self._last_place = max(self._last_place, place)
        call = _OpenCall(place, index)
        self._all.append(call)
        self._places.add(place)
        if index is not None:
            self._by_index[index] = call
        return call

    def _extend(self, call: _OpenCall, given_id: str, function: Function, blocks: list[Block]) -> None:
        """Add a piece to its call; ids and names are set once and never extended."""
        if given_id:
            self._by_given_id.setdefault((call.index, given_id), call)
            call.given_id = call.given_id or given_id
        if not call.name:
            call.name = _name_of(function)
        text = call.halves.join(argument_text(function.arguments))
        if text:
            call.arguments.append(text)
        if not call.shown:
            self._show(call, blocks)
        elif text:
            blocks.append(CallChunk(call.place, text))

    def _show(self, call: _OpenCall, blocks: list[Block]) -> None:
        """Give out the start of a call, and what came before its name."""
        if not call.name:
            return
        given_id = encodable(call.given_id)
        call.id = given_id if given_id and given_id not in self._taken else f"call_{os.urandom(12).hex()}"
        self._taken.add(call.id)
        call.shown = True
        blocks.append(CallStart(call.place, call.id, call.name))
        if call.arguments:
            blocks.append(CallChunk(call.place, call.text))


def _index_of(value: Any) -> int | None:
    """A usable index; otherwise the order of arrival counts."""
    return value if type(value) is int and 0 <= value < 2**31 else None


def _name_of(function: Function) -> str:
    return encodable(function.name).strip() if isinstance(function.name, str) else ""
