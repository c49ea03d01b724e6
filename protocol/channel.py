"""What travels between the handle of a pod and a pod that lives elsewhere: frames with ids, as bytes.

A frame is four bytes of length, most significant first, and so many bytes of JSON.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, Union

import msgspec
from msgspec import Raw, Struct

from protocol import commands
from protocol.errors import Failure, WireError
from protocol.items import Item
from protocol.results import PodDescription, RunResult
from protocol.text import UNDECODABLE
from protocol.wire import encode

if TYPE_CHECKING:
    AnyCommand = commands.Command
else:
    AnyCommand = Union[commands.COMMANDS]  # noqa: UP007

#: A frame of more bytes is refused, since its length is not a length.
LARGEST_FRAME = 1 << 30
_length = struct.Struct(">I")
#: The bytes that state a frame's length.
HEAD = _length.size


class Ask(Struct, frozen=True, tag=True, omit_defaults=True):
    """To the pod: a command, answered by a ``Reply`` or a ``Refusal`` of the same id. Where it ``checks``,
    each answer of the run that it begins or resumes is sent as a ``Check`` before that run ends with it.
    """

    id: int
    command: AnyCommand
    checks: bool = False


class Follow(Struct, frozen=True, tag=True, omit_defaults=True):
    """To the pod: send its events as ``Published`` from now on, of these kinds (None: all), the durable ones
    numbered above ``since`` first, with ``children`` also those of its sub-agents; ``Followed`` of the same
    id ends it, or a ``Refusal``.
    """

    id: int
    kinds: tuple[str, ...] | None = None
    since: int | dict[str, int] | None = None
    children: bool = False


class Unfollow(Struct, frozen=True, tag=True):
    """To the pod: send no more events of that ``Follow``."""

    id: int


class Checked(Struct, frozen=True, tag=True):
    """To the pod: what is wrong with the answer of that ``Check``, in words for the model; or None."""

    id: int
    why: str | None = None


class Reply(Struct, frozen=True, tag=True):
    """From the pod: what a command resolved with."""

    id: int
    value: Raw


class Refusal(Struct, frozen=True, tag=True):
    """From the pod: the error that a command, or a ``Follow``, ended with."""

    id: int
    failure: Failure


class Check(Struct, frozen=True, tag=True):
    """From the pod: is this the answer that was asked for by that ``Ask``? Answered by a ``Checked`` of the
    number ``check``.
    """

    id: int
    check: int
    text: str


class Published(Struct, frozen=True, tag="Told"):
    """From the pod: an event, as the bytes of ``protocol.wire``."""

    id: int
    event: Raw


class Followed(Struct, frozen=True, tag=True):
    """From the pod: no more events of that ``Follow``."""

    id: int


#: How a ``Published`` begins, up to its event; on the wire it keeps its first name.
_PUBLISHED = re.compile(rb'\{"type":"Told","id":(\d+),"event":')

ToPod = Ask | Follow | Unfollow | Checked
FromPod = Reply | Refusal | Check | Published | Followed

#: What each command resolves with; those that are not here resolve with None.
RESULTS: dict[type[commands.Command], Any] = {
    commands.Run: RunResult[Any],
    commands.Resume: RunResult[Any],
    commands.Compact: str,
    commands.WaitForMemoryJobs: bool,
    commands.WaitForSubAgents: bool,
    commands.History: list[Item],
    commands.Describe: PodDescription,
    commands.Passivate: bool,
    commands.Fork: str,
    commands.Stop: bool,
}
_results = {kind: msgspec.json.Decoder(RESULTS.get(kind)) for kind in commands.COMMANDS}
_to_pod: msgspec.json.Decoder[ToPod] = msgspec.json.Decoder(ToPod)
_from_pod: msgspec.json.Decoder[FromPod] = msgspec.json.Decoder(FromPod)


def frame(message: ToPod | FromPod) -> bytes:
    """A message as the bytes of its frame. Raises WireError for one that is too large."""
    body = encode(message)
    return head(len(body)) + body


def event_frame(follow: int, event: bytes) -> tuple[bytes, ...]:
    """The frame of a ``Published`` in parts, to be sent one after the other; the event's bytes are not
    decoded. Raises as ``frame``.
    """
    start = b'{"type":"Told","id":%d,"event":' % follow
    return head(len(start) + len(event) + 1), start, event, b"}"


def head(length: int) -> bytes:
    """The first bytes of a frame of that many bytes. Raises WireError for one that is too large."""
    if length > LARGEST_FRAME:
        raise WireError(f"a frame has at most {LARGEST_FRAME} bytes, not {length}")
    return _length.pack(length)


def frame_length(head: bytes) -> int:
    """How many bytes follow the ``HEAD`` bytes of a frame. Raises WireError if they are not a length."""
    length: int = _length.unpack(head)[0]
    if length > LARGEST_FRAME:
        raise WireError(f"a frame of {length} bytes: the other end does not speak this protocol")
    return length


def decode_to_pod(body: bytes) -> ToPod:
    """Decode what was sent to a pod. Raises WireError."""
    message: ToPod = _decode(_to_pod, body)
    return message


def decode_from_pod(body: bytes) -> FromPod:
    """Decode what a pod sent; the event of a ``Published`` is left as bytes. Raises WireError."""
    match = _PUBLISHED.match(body)
    if match is not None and body.endswith(b"}"):
        return Published(int(match[1]), Raw(memoryview(body)[match.end() : -1]))
    message: FromPod = _decode(_from_pod, body)
    return message


def decode_result(command: commands.Command, value: Raw) -> Any:
    """What a command resolved with. Raises WireError."""
    return _decode(_results[type(command)], value)


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes | Raw) -> Any:
    try:
        return decoder.decode(body)
    except UNDECODABLE as error:
        raise WireError(f"not a message of a pod's channel: {error}") from error
