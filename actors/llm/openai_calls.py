"""Tool calls as servers of OpenAI's format stream them, pure: pieces in, calls begun, grown and ended out.

Which call a piece belongs to is told by its index, where servers keep to it. Some leave the index out, some
send all calls at index 0 under new ids, some send no ids, or a name late, or with every piece.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.answers import UNNAMED, is_object
from actors.llm.base import Block, CallChunk, CallEnd, CallStart, VendorChunk
from actors.llm.vendor import merged


class Function(Struct):
    """The name and argument text of a call, or a piece of them."""

    name: Any = None
    arguments: Any = None


class CallPiece(Struct):
    """What one chunk says of one call. ``vendor`` is no member of it: what it holds besides."""

    index: Any = None
    id: Any = None
    function: Function | None = None
    type: Any = None
    vendor: Any = msgspec.field(default=None, name="(besides)")


class _OpenCall:
    """A call under way.

    ``place`` is its number among the calls, ``told`` the id the server gave it (perhaps none), ``id`` the one
    it goes by, and ``shown`` whether its start was given out, which waits for a name.
    """

    __slots__ = ("arguments", "id", "index", "name", "place", "shown", "told", "vendor")

    def __init__(self, place: int, index: int | None) -> None:
        self.place = place
        self.index = index
        self.told = ""
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.shown = False
        self.vendor: dict[str, Any] | None = None

    def is_followed_by(self, function: Function) -> bool:
        """Whether ``function`` can only be a new call: this one is whole, and named anew or begun anew."""
        if not (self.name and isinstance(function.name, str) and function.name):
            return False
        begins = isinstance(function.arguments, dict) or _text_of(function.arguments).lstrip()[:1] == "{"
        return (begins or function.name != self.name) and is_object("".join(self.arguments))


class Calls:
    """The calls of one answer; blocks are added to the list that each method is given."""

    __slots__ = ("_all", "_by_index")

    def __init__(self) -> None:
        self._all: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, pieces: list[CallPiece], blocks: list[Block]) -> None:
        """Take the pieces of one chunk."""
        for position, piece in enumerate(pieces):
            function = piece.function or Function()
            index = piece.index if isinstance(piece.index, int) else None
            told = piece.id if isinstance(piece.id, str) else ""
            if index is not None:
                call = self._by_index.get(index)
            else:  # entries of one list are calls of their own
                call = self._all[-1] if self._all and not position else None
            call = self._call_for(call, index, told, function)
            self._extend(call, told, function, blocks)
            if piece.vendor:
                call.vendor = merged(call.vendor or {}, piece.vendor)

    def end(self, blocks: list[Block], *, cut: bool) -> None:
        """No more will come: end all calls, but for the last where it was ``cut`` before it was whole."""
        for call in sorted(self._all, key=lambda call: call.place):
            self._show(call, blocks, final=True)
            if not cut or call is not self._all[-1] or is_object("".join(call.arguments)):
                blocks.append(CallEnd(call.place))
            if call.vendor:
                blocks.append(VendorChunk(call.vendor, call.place, "call"))

    def _call_for(
        self, call: _OpenCall | None, index: int | None, told: str, function: Function
    ) -> _OpenCall:
        """The call that a piece belongs to: ``call``, unless it can only be another or a new one."""
        if told and (call is None or (call.told and told != call.told)):
            same = (each for each in self._all if each.told == told and each.index == index)
            call = next(same, None)
        elif call is not None and not (told and call.told) and call.is_followed_by(function):
            call = None
        return call or self._open(index)

    def _open(self, index: int | None) -> _OpenCall:
        places = {call.place for call in self._all}
        place = index if index is not None and index not in places else max(places, default=-1) + 1
        call = _OpenCall(place, index)
        self._all.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _extend(self, call: _OpenCall, told: str, function: Function, blocks: list[Block]) -> None:
        """Add a piece to its call; ids and names are set once and never added to."""
        call.told = call.told or told
        if not call.name and isinstance(function.name, str):
            call.name = function.name
        text = _text_of(function.arguments)
        if text:
            call.arguments.append(text)
        if not call.shown:
            self._show(call, blocks)
        elif text:
            blocks.append(CallChunk(call.place, text))

    def _show(self, call: _OpenCall, blocks: list[Block], *, final: bool = False) -> None:
        """Give out the start of a call, and what came before its name."""
        if call.shown or not (call.name or final):
            return
        taken = {each.id for each in self._all if each.shown}
        call.id = call.told if call.told and call.told not in taken else f"call_{os.urandom(12).hex()}"
        call.shown = True
        blocks.append(CallStart(call.place, call.id, call.name or UNNAMED))
        if call.arguments:
            blocks.append(CallChunk(call.place, "".join(call.arguments)))


def _text_of(arguments: Any) -> str:
    """Arguments as the JSON text that they are or should have been."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()
