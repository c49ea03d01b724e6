"""How the requests of a client are sent, according to its model's settings; pure."""

from __future__ import annotations

import os

from msgspec import Struct
from msgspec.structs import replace

from actors.llm.http.contract import Timeouts
from actors.llm.http.rate import RateLimits
from protocol.errors import ManifestError
from protocol.mcp import expand
from protocol.model_settings import ModelSettings, of_requests


class Sending(Struct, frozen=True):
    """The headers that go with each request, how long a server may take (None: as the pool says), how much it
    accepts per minute (None: any number), and the settings for requests that have none of their own.
    """

    headers: dict[str, str] = {}
    timeouts: Timeouts | None = None
    limits: RateLimits | None = None
    settings: ModelSettings | None = None


def sending_of(settings: ModelSettings | None) -> Sending:
    """The part of the settings that concerns sending. Raises ManifestError for a header whose variable is not
    set.
    """
    if settings is None:
        return Sending()
    timeouts = {
        "connect": settings.connect_timeout,
        "first_byte": settings.timeout,
        "idle": settings.idle_timeout,
    }
    set_ones = {name: seconds for name, seconds in timeouts.items() if seconds is not None}
    # Whoever asks a model for something else than a run, a summary say, neither ends nor calls as a run does.
    besides = replace(settings_of_model(settings), tool_choice=None, stop=())
    return Sending(
        {name: _value(name, value) for name, value in settings.extra_headers.items()},
        replace(Timeouts(), **set_ones) if set_ones else None,
        RateLimits.of(settings),
        of_requests(besides),
    )


def settings_of_model(settings: ModelSettings) -> ModelSettings:
    """The plain ModelSettings of a section that has more fields."""
    return ModelSettings(**{name: getattr(settings, name) for name in ModelSettings.__struct_fields__})


def _value(name: str, text: str) -> str:
    try:
        return expand(text, os.environ)
    except ManifestError as error:
        raise ManifestError(
            f"manifest: model.extra_headers.{name}: {error.message}", hint=error.hint
        ) from None
