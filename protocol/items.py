"""Items: what a conversation is made of, in the one vocabulary used inside polypod."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from protocol.errors import InvalidInput
from protocol.foreign import shown


class TextPart(Struct, frozen=True, gc=False, tag="text", omit_defaults=True):
    """A piece of text. ``vendor`` as of AssistantItem, for the block that held it."""

    text: str
    vendor: dict[str, Any] | None = None


class ImagePart(Struct, frozen=True, gc=False, tag="image"):
    """A picture for models that see: base64 ``data`` with its media type, or a ``url``."""

    media_type: str = "image/png"
    data: str | None = None
    url: str | None = None

    @property
    def text(self) -> str:
        """What stands for the picture where only text is shown."""
        return f"[image {self.media_type}]"


class ThinkingPart(Struct, frozen=True, gc=False, tag="thinking", omit_defaults=True):
    """Reasoning a model showed. ``signature`` must go back unchanged where a vendor gave one;
    ``redacted`` holds the opaque form that some vendors send instead of text. ``vendor`` as of
    AssistantItem, for the block that held it.
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    vendor: dict[str, Any] | None = None


class VendorPart(Struct, frozen=True, gc=False, tag="vendor"):
    """A block of a vendor's own (a search that its server ran, say), whole and unread."""

    data: dict[str, Any]

    @property
    def text(self) -> str:
        """Nothing of it is shown."""
        return ""


Part = TextPart | ImagePart | ThinkingPart | VendorPart


def _joined(parts: tuple[Part, ...]) -> str:
    """The visible text of parts; reasoning is not part of what was said."""
    if len(parts) == 1 and type(parts[0]) is TextPart:
        return parts[0].text
    return "".join(part.text for part in parts if not isinstance(part, ThinkingPart))


def parts_of(content: str | Iterable[str | Part]) -> tuple[Part, ...]:
    """Content as users write it (a text, or parts and texts) as the tuple that items hold. Raises
    InvalidInput.
    """
    if isinstance(content, str):
        return (TextPart(content),)
    try:
        return tuple([TextPart(part) if isinstance(part, str) else part for part in content])
    except TypeError:
        raise InvalidInput(
            f"content: expected a string, or a list of strings and parts, got {shown(content)}"
        ) from None


class UserItem(Struct, frozen=True, gc=False, tag="user"):
    """Words (and pictures) of a user."""

    content: tuple[Part, ...]

    @classmethod
    def of(cls, content: str | Iterable[str | Part]) -> UserItem:
        """A user item from a text or parts."""
        return cls(parts_of(content))

    @property
    def text(self) -> str:
        """All text of the item."""
        return _joined(self.content)


class SystemItem(Struct, frozen=True, gc=False, tag="system"):
    """Words of the runtime itself to the model: a summary, a snapshot, a notice."""

    content: tuple[Part, ...]

    @classmethod
    def of(cls, content: str | Iterable[str | Part]) -> SystemItem:
        """A system item from a text or parts."""
        return cls(parts_of(content))

    @property
    def text(self) -> str:
        """All text of the item."""
        return _joined(self.content)


class ToolCall(Struct, frozen=True, gc=False, tag="call", omit_defaults=True):
    """A model's wish to have a tool run.

    ``invalid`` holds the raw argument text where it was not a JSON object (malformed, or cut by
    ``max_tokens``); such a call is never run and is answered with an error result. ``vendor`` as of
    AssistantItem, for this call. ``after`` is how many parts of the answer's content came before the call,
    where others came behind it; None where all came before.
    """

    id: str
    name: str
    arguments: dict[str, Any] = {}
    invalid: str | None = None
    vendor: dict[str, Any] | None = None
    after: int | None = None


class AssistantItem(Struct, frozen=True, gc=False, tag="assistant", omit_defaults=True):
    """One answer of a model: its text and reasoning in order, and its calls in order.

    ``vendor`` is what the server gave with the answer and wants back: members of the message that are
    none of ours, unread. ``origin`` names the kind of server that gave it, the only one that gets reasoning
    and vendor data back; ``reasoning_as`` is the member of its messages that reasoning goes back in, where
    servers of one format differ. ``refused`` says that the model or its provider would not answer: later
    requests leave out the turn that this item ends, and ``refused_items`` how many items before it are of its
    run (0: not known). ``cut`` marks what was shown of an answer that never
    came to its end, because of a cancel, a pause or a stream that broke: it has no calls, and a request
    shows the model that it was cut. ``tier`` names the tier of an escalation chain that gave it.
    """

    content: tuple[Part, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    vendor: dict[str, Any] | None = None
    origin: str | None = None
    reasoning_as: str | None = None
    refused: bool = False
    cut: bool = False
    refused_items: int = 0
    tier: str | None = None

    @classmethod
    def of(cls, content: str | Iterable[str | Part], calls: tuple[ToolCall, ...] = ()) -> AssistantItem:
        """An assistant item from a text or parts, and calls."""
        return cls(parts_of(content) if content else (), calls)

    @property
    def text(self) -> str:
        """All text of the item, without reasoning."""
        return _joined(self.content)


class ToolResult(Struct, frozen=True, gc=False, tag="result", omit_defaults=True):
    """What a tool gave back, or why it could not. ``kept`` names the file that holds the whole
    output where ``content`` was cut.
    """

    call_id: str
    name: str
    content: tuple[Part, ...] = ()
    is_error: bool = False
    kept: str | None = None

    @classmethod
    def of(
        cls,
        call: ToolCall,
        content: str | Iterable[str | Part],
        *,
        is_error: bool = False,
        kept: str | None = None,
    ) -> ToolResult:
        """The result that answers ``call``."""
        return cls(call.id, call.name, parts_of(content), is_error, kept)

    @property
    def text(self) -> str:
        """All text of the result."""
        return _joined(self.content)


Item = UserItem | AssistantItem | SystemItem | ToolResult
