"""The contract of model clients: a request in, blocks out, then exactly one end."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from actors.llm.lenient import UNREADABLE, decode_any
from protocol.errors import ModelError
from protocol.foreign import shown
from protocol.items import AssistantItem, Item, Part, TextPart, ThinkingPart, ToolCall, VendorPart
from protocol.model_settings import ModelSettings
from protocol.routing import AttemptRecord
from protocol.text import encodable
from protocol.tools import ToolSpec
from protocol.usage import Usage

StopReason = Literal["end_turn", "tool_use", "max_tokens", "content_filter", "refusal", "pause"]


class Request(Struct, frozen=True):
    """One request to a model.

    ``items`` is the history as the model is to see it: a view that must not be changed, and that grows only
    at its end from one request of a pod to the next (until a prune, a compaction, or a hook that replaces
    it). ``scratch`` is a dict that the pod keeps from request to request for its client only, for example for
    items that are already encoded. ``deadline`` (``time.monotonic()`` seconds) bounds all attempts.
    ``forced_tool`` names the one of ``tools`` that must be called, for servers that can enforce that.
    ``settings`` are the other model settings of the pod or the run; None if nobody has set any.
    ``output_kind`` is the type that ``output_schema`` was made from, ``task_items`` how many of the last
    items belong to the current task (None: unknown), ``earlier_attempts`` the results of tiers that were
    asked for it before the session was restored, ``is_of_helper`` says that a helper agent asks. ``meter`` is
    set if the caller counts each call that a client makes for this one request: see ``Meter``.
    """

    items: Sequence[Item]
    system: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    output_schema: dict[str, Any] | None = None
    forced_tool: str | None = None
    deadline: float | None = None
    scratch: dict[str, Any] = {}
    settings: ModelSettings | None = None
    output_kind: Any = None
    task_items: int | None = None
    is_of_helper: bool = False
    meter: Meter | None = None
    earlier_attempts: tuple[AttemptRecord, ...] = ()


class TextChunk(Struct, frozen=True, gc=False):
    """A piece of text of block ``index``."""

    text: str
    index: int = 0


class ThinkingChunk(Struct, frozen=True, gc=False, omit_defaults=True):
    """A piece of reasoning of block ``index``, or (last) the signature that must go back with it."""

    text: str = ""
    index: int = 0
    signature: str | None = None
    redacted: str | None = None


class CallStart(Struct, frozen=True, gc=False, omit_defaults=True):
    """The model began a tool call; ``id`` is unique within the answer.

    ``in_order`` says that calls are numbered together with text and reasoning, so that ``index`` is also the
    call's place among these.
    """

    index: int
    id: str
    name: str
    in_order: bool = False


class CallChunk(Struct, frozen=True, gc=False):
    """A piece of the argument text (JSON) of the call at ``index``."""

    index: int
    text: str


class CallEnd(Struct, frozen=True, gc=False):
    """The argument text of the call at ``index`` is complete; without this the call was cut."""

    index: int


class VendorChunk(Struct, frozen=True, gc=False, omit_defaults=True):
    """Data that the server gave and wants back, unread: for the message, the call at ``index`` or the block
    at ``index``. A block that consists of nothing else is one of the vendor's own.
    """

    data: dict[str, Any]
    index: int = 0
    of: Literal["message", "call", "block"] = "message"


class UsageReport(Struct, frozen=True, gc=False):
    """The call's tokens so far, as the server reports them; a later report replaces an earlier one."""

    usage: Usage


class End(Struct, frozen=True, gc=False, omit_defaults=True):
    """The one terminal block: the answer is complete, with the reason why it stopped. ``origin`` and
    ``reasoning_as`` as of AssistantItem.
    """

    stop_reason: StopReason
    model: str | None = None
    origin: str | None = None
    reasoning_as: str | None = None


class TierStarted(Struct, frozen=True, gc=False):
    """What follows comes from that tier of an escalation chain."""

    model: str


class TierEnded(Struct, frozen=True, gc=False):
    """A tier of an escalation chain is done, with its result; nothing of a tier that was not accepted is part
    of the answer.
    """

    attempt: AttemptRecord


Block = (
    TextChunk
    | ThinkingChunk
    | CallStart
    | CallChunk
    | CallEnd
    | VendorChunk
    | UsageReport
    | TierStarted
    | TierEnded
    | End
)


class Meter(Protocol):
    """Counts the calls of a client that asks several models for one request, each at its own price.
    Such a client says so with ``prices_of``: the names of all that it may ask.
    """

    def check(self) -> None:
        """Raise OverBudget where nothing more may be asked."""

    def exchange(
        self, client: LLMClient, model: str | None, request: Request, *, answers: bool = True
    ) -> Any:
        """What counts one call of ``client``, at the price of ``model`` (``scheme/model_id``; None: it costs
        nothing): an ``Exchange``. ``answers`` says whether what it gives may be the answer to the request
        that is counted.
        """


@runtime_checkable
class LLMClient(Protocol):
    """A model client: streams the answer to a request.

    Contract of ``stream``: it is called on the pod's event loop, any number of times concurrently. It yields
    blocks and ends after exactly one ``End``, or raises a ModelError (before or between blocks) and then
    yields nothing more. It must not retry once it has yielded a block. Closing the iterator early
    (``aclose``) frees the connection. A client may have ``model`` (its name) and ``async aclose()`` (called
    when its owner is done with it); a client given to ``spawn`` is closed by whoever made it.
    """

    def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer ``request``."""
        ...


def is_client(value: object) -> bool:
    """Whether a value can be an LLMClient: it has a method ``stream`` and is not a class."""
    if hasattr(type(value), "stream"):  # as nearly always, and quicker to ask for
        return True
    return not isinstance(value, type) and callable(getattr(value, "stream", None))


def models_of(client: object) -> tuple[str, ...] | None:
    """The names of the models that a client may ask for one request (``prices_of``); None if it asks only its
    own server.
    """
    names = getattr(client, "prices_of", None)
    return names if isinstance(names, tuple) else None


class Answer(Struct, frozen=True, gc=False):
    """A whole answer, assembled from blocks."""

    item: AssistantItem
    stop_reason: StopReason
    usage: Usage | None
    model: str | None


#: The characters of one answer; a client that gives more does not stop by itself.
MOST_OUTPUT = 64 << 20
#: What a piece takes besides its characters.
_PIECE = 64


class Assembler:
    """Blocks in, the whole answer out; blocks may overlap and are put in order of their index."""

    __slots__ = ("_calls", "_closed", "_end", "_room", "_texts", "_tier", "_usage", "_vendor")

    def __init__(self) -> None:
        self._texts: dict[int, list[TextChunk | ThinkingChunk]] = {}
        self._calls: dict[int, tuple[CallStart, list[str]]] = {}
        self._closed: set[int] = set()
        self._usage: Usage | None = None
        self._room = MOST_OUTPUT
        self._end: End | None = None
        self._vendor: dict[str, dict[int, dict[str, Any]]] | None = None
        self._tier: str | None = None

    def feed(self, block: Block) -> None:
        """Take the next block. Raises ModelError for one that a client may not give."""
        kind = type(block)
        if kind is TextChunk or kind is ThinkingChunk:
            text = block.text  # type: ignore[union-attr]
            if type(text) is not str:
                raise _no_block(block)
            room = self._room = self._room - len(text) - _PIECE
            if room < 0:
                raise _endless()
            chunks = self._texts.get(block.index)  # type: ignore[union-attr]
            if chunks is None:
                self._texts[block.index] = [block]  # type: ignore[union-attr,list-item]
            else:
                chunks.append(block)  # type: ignore[arg-type]
        elif kind is UsageReport:
            self._usage = sound_usage(block.usage)  # type: ignore[union-attr]
        elif kind is End:
            self._end = block  # type: ignore[assignment]
        else:
            self._feed_call(block)

    def _feed_call(self, block: Block) -> None:
        if type(block) is CallChunk:
            if type(block.text) is not str or block.index not in self._calls:
                raise _no_block(block)
            self._take_room(block.text)
            self._calls[block.index][1].append(block.text)
        elif type(block) is CallStart:
            if type(block.id) is not str or type(block.name) is not str:
                raise _no_block(block)
            self._take_room(block.name)
            self._calls[block.index] = (block, [])
        elif type(block) is CallEnd:
            self._closed.add(block.index)
        elif type(block) is VendorChunk:
            if self._vendor is None:
                self._vendor = {"message": {}, "call": {}, "block": {}}
            self._vendor[block.of][block.index] = block.data
        elif type(block) is TierStarted:
            self._tier = block.model
        elif type(block) is not TierEnded:
            raise _no_block(block)

    def _take_room(self, text: str) -> None:
        self._room -= len(text) + _PIECE
        if self._room < 0:
            raise _endless()

    @property
    def usage(self) -> Usage | None:
        """What is known of the call's tokens up to now."""
        return self._usage

    def call_at(self, index: int) -> CallStart:
        """The call that was started at ``index``."""
        return self._calls[index][0]

    @property
    def begun(self) -> bool:
        """Whether any output has arrived."""
        return bool(self._texts or self._calls or self._vendor)

    @property
    def ended(self) -> bool:
        """Whether the terminal block has arrived."""
        return self._end is not None

    @property
    def size(self) -> int:
        """How many characters of output have arrived: text, reasoning and calls."""
        texts = sum(len(str(chunk.text)) for chunks in self._texts.values() for chunk in chunks)
        return texts + sum(len(str(piece)) for _, pieces in self._calls.values() for piece in pieces)

    def cut(self) -> AssistantItem:
        """What has arrived of an answer that will not be completed: its text and reasoning, without calls and
        without data that a vendor wants back whole.
        """
        content = tuple(part for _, chunks in sorted(self._texts.items()) for part in _parts(chunks))
        return AssistantItem(content, cut=True, tier=self._tier)

    def answer(self) -> Answer:
        """The whole answer. Raises ModelError if the terminal block has not arrived."""
        end = self._end
        if end is None:
            raise ModelError("the model's stream ended without an End block", kind="protocol")
        if not self._calls and self._vendor is None and len(self._texts) == 1:
            (chunks,) = self._texts.values()
            item = AssistantItem(tuple(_parts(chunks)))
        else:
            item = self._item()
        reason = end.stop_reason
        if item.calls and reason == "end_turn":
            reason = "tool_use"  # the presence of calls decides, whatever the server says
        if end.origin is not None and _holds_more_than_text(item):
            item = msgspec.structs.replace(item, origin=end.origin, reasoning_as=end.reasoning_as)
        if reason in _REFUSED:
            item = msgspec.structs.replace(item, refused=True)
        if self._tier is not None:
            item = msgspec.structs.replace(item, tier=self._tier)
        model = encodable(end.model) if type(end.model) is str else None
        return Answer(item, reason, self._usage, model)

    def _item(self) -> AssistantItem:
        vendor = self._vendor or _NO_VENDOR
        blocks = vendor["block"]
        content: list[Part] = []
        places: list[int] = []  # the index of the block that each part is of
        for index in sorted({*self._texts, *blocks}):
            content += _parts(self._texts.get(index, []), blocks.get(index))
            places += [index] * (len(content) - len(places))
        calls = []
        for index, (start, pieces) in sorted(self._calls.items()):
            call = _call(start, "".join(pieces), vendor["call"].get(index), complete=index in self._closed)
            before = bisect_left(places, index) if start.in_order else len(content)
            in_between = before < len(content)
            calls.append(msgspec.structs.replace(call, after=before) if in_between else call)
        return AssistantItem(tuple(content), tuple(calls), vendor["message"].get(0))


_NO_VENDOR: Mapping[str, Mapping[int, dict[str, Any]]] = {"message": {}, "call": {}, "block": {}}

#: How an answer ends that the model or its provider would not give.
_REFUSED = frozenset({"refusal", "content_filter"})


def _endless() -> ModelError:
    return ModelError(
        f"the client produced more than {MOST_OUTPUT >> 20} million characters without stopping",
        kind="protocol",
    )


def _no_block(block: Any) -> ModelError:
    return ModelError(
        f"the client yielded {shown(block, 200)}, which is not a block",
        kind="protocol",
        hint="see Block: text is a str, and the pieces of a call follow its CallStart",
    )


def _holds_more_than_text(item: AssistantItem) -> bool:
    """Whether the item holds anything that concerns only us and the server it came from."""
    if item.calls or item.vendor is not None:
        return True
    return any(type(part) is not TextPart or part.vendor is not None for part in item.content)


def _parts(chunks: list[TextChunk | ThinkingChunk], vendor: dict[str, Any] | None = None) -> list[Part]:
    """The parts of one block; none for an empty thinking block."""
    if not chunks:
        return [VendorPart(vendor)] if vendor is not None else []
    text = encodable(chunks[0].text if len(chunks) == 1 else "".join([chunk.text for chunk in chunks]))
    if isinstance(chunks[0], TextChunk):
        return [TextPart(text, vendor)] if text else []
    thinking = [chunk for chunk in chunks if isinstance(chunk, ThinkingChunk)]
    signature = "".join(chunk.signature or "" for chunk in thinking) or None
    redacted = "".join(chunk.redacted or "" for chunk in thinking) or None
    return [ThinkingPart(text, signature, redacted, vendor)] if text or signature or redacted else []


def _call(start: CallStart, text: str, vendor: dict[str, Any] | None, *, complete: bool) -> ToolCall:
    """A call with its arguments, or with the text that is not valid arguments in ``invalid``."""
    id_, name, text = encodable(start.id), encodable(start.name), encodable(text)
    if complete:
        if not text.strip():
            return ToolCall(id_, name, vendor=vendor)
        try:
            arguments = decode_any(text)
        except UNREADABLE:
            return ToolCall(id_, name, {}, text, vendor)
        if isinstance(arguments, str):  # written as JSON twice
            arguments = _object_in(arguments)
        if isinstance(arguments, dict):
            return ToolCall(id_, name, arguments, vendor=vendor)
    return ToolCall(id_, name, {}, text, vendor)


def _object_in(text: str) -> Any:
    try:
        return decode_any(text)
    except UNREADABLE:
        return None


def sound_usage(usage: Any) -> Usage | None:
    """A client's report of a call's tokens as whole numbers, none negative; None if it is not a report."""
    if type(usage) is not Usage:
        return None
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
    )
    for count in counts:
        if count is not None and (type(count) is not int or count < 0):
            break
    else:
        return usage
    a, b, c, d, e = map(_whole, counts)
    return Usage(a, b, c, d, incomplete=bool(usage.incomplete), cache_write_1h_tokens=e)


def _whole(count: Any) -> int | None:
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count < math.inf:
        return None
    return int(count)
