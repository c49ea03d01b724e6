"""The wire format of OpenAI's Responses, as far as it is read: events and whole answers.

Source: the vendor's API reference of streaming events; and llama-server, whose events do not number outputs.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.lenient import decode_mended


class Event(Struct):
    """One event of a stream, or a whole answer (which has ``output`` and ``status``)."""

    type: Any = None
    output_index: Any = None
    item_id: Any = None
    delta: Any = None
    arguments: Any = None
    summary_index: Any = None
    item: Any = None
    response: Any = None
    error: Any = None
    detail: Any = None
    object: Any = None
    output: Any = None


_decode = msgspec.json.Decoder(Event).decode


def read(data: bytes) -> tuple[Event, bool]:
    """An event, and whether anything in it had to be mended; raises one of UNREADABLE."""
    try:
        return _decode(data), False
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeError):
        return decode_mended(data, Event), True
