"""Model settings: how a model is to answer, and how its server is asked; of a manifest or of one run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from protocol.errors import ManifestError
from protocol.explain import unknown_key
from protocol.foreign import shown
from protocol.mcp import variables_in

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

#: What a request has from elsewhere, whatever its format.
_OWN_FIELDS = frozenset({"model", "messages", "input", "instructions", "system", "tools", "stream"})
#: Names of headers that hold secrets, which stand in no manifest.
_CREDENTIAL_HEADER = r"(?i)authorization|cookie|.*(key|token|secret|password)"


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model answers and its server is asked; what is not set is left to the server.

    ``tool_choice`` is ``auto``, ``none``, ``required`` or the name of a tool; the last two hold for a run's
    first request alone, since a model that has to call a tool comes to no end. ``reasoning_effort`` and
    ``thinking_budget`` (tokens; 0 is none) say how much a model thinks. ``extra_headers`` and ``extra_body``
    go with each request as they are; a header's ``${NAME}`` stands for a variable of the environment.

    ``connect_timeout``, ``timeout`` (to the first byte of an answer) and ``idle_timeout`` (between bytes) are
    in seconds, ``attempts`` counts the first one. ``requests_per_minute`` and ``tokens_per_minute`` hold for
    all pods of a system that give that server, with that key, the same limits: a request waits for its turn.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] = ()
    tool_choice: str | None = None
    reasoning_effort: Effort | None = None
    thinking_budget: int | None = None
    extra_headers: dict[str, str] = {}
    extra_body: dict[str, Any] = {}
    timeout: float | None = None
    connect_timeout: float | None = None
    idle_timeout: float | None = None
    attempts: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop

    @classmethod
    def of(cls, settings: ModelSettings | Mapping[str, Any]) -> ModelSettings:
        """Settings as programs write them. Raises ManifestError for what is none."""
        if not isinstance(settings, ModelSettings):
            try:
                given: dict[Any, Any] = dict(settings)
            except (TypeError, ValueError):
                why = f"model_settings: expected a dict of settings by name, got {shown(settings)}"
                raise ManifestError(why, hint=f"the settings are {', '.join(NAMES)}") from None
            try:
                settings = msgspec.convert(given, ModelSettings)
            except (msgspec.ValidationError, TypeError, ValueError) as error:
                unknown = next((name for name in given if name not in NAMES), None)
                if unknown is not None:
                    name = unknown if isinstance(unknown, str) else shown(unknown)
                    raise unknown_key("model_settings", name, list(NAMES), "settings") from None
                raise ManifestError(f"model_settings: {error}") from None
        check_settings(settings, "model_settings")
        return settings


#: The names of all settings.
NAMES = ModelSettings.__struct_fields__
#: Those that say how a request is sent, and stand in none; and those that a request has anyway.
_ELSEWHERE = frozenset(
    {
        "temperature",
        "max_tokens",
        "extra_headers",
        "timeout",
        "connect_timeout",
        "idle_timeout",
        "attempts",
        "requests_per_minute",
        "tokens_per_minute",
    }
)
_DEFAULTS = msgspec.structs.asdict(ModelSettings())


def given(settings: ModelSettings) -> dict[str, Any]:
    """The settings that are set, by name."""
    values = {name: getattr(settings, name) for name in NAMES}
    return {name: value for name, value in values.items() if value != _DEFAULTS[name]}


def of_requests(settings: ModelSettings) -> ModelSettings | None:
    """What a request has of them besides temperature and max_tokens; None where nothing is set."""
    found = {name: value for name, value in given(settings).items() if name not in _ELSEWHERE}
    return ModelSettings(**found) if found else None


def joined(one: dict[str, Any], other: ModelSettings) -> dict[str, Any]:
    """The settings ``one``, by name, with those of ``other`` over them; of headers and bodies each entry."""
    result = {**one, **given(other)}
    for name in ("extra_headers", "extra_body"):
        if name in result:
            result[name] = {**one.get(name, {}), **getattr(other, name)}
    return result


_LEAST: dict[str, float] = {
    "temperature": 0,
    "top_p": 0,
    "max_tokens": 1,
    "thinking_budget": 0,
    "attempts": 1,
    "requests_per_minute": 1,
    "tokens_per_minute": 1,
}
_ABOVE_ZERO = ("timeout", "connect_timeout", "idle_timeout")
_WORDS = {0: "0 or more", 1: "at least 1"}


def check_settings(settings: ModelSettings, where: str) -> None:
    """What types alone do not say. Raises ManifestError."""
    for name, least in _LEAST.items():
        value = getattr(settings, name)
        if value is not None and not least <= value < math.inf:
            raise ManifestError(f"{where}.{name}: expected {_WORDS[int(least)]}, got {value}")
    for name in _ABOVE_ZERO:
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise ManifestError(f"{where}.{name}: expected more than 0, got {value}")
    _check_words(settings, where)


def _check_words(settings: ModelSettings, where: str) -> None:
    if settings.top_p is not None and settings.top_p > 1:
        raise ManifestError(f"{where}.top_p: expected at most 1, got {settings.top_p}")
    if not all(settings.stops):
        raise ManifestError(f"{where}.stop: expected non-empty strings")
    if settings.tool_choice == "":
        raise ManifestError(f"{where}.tool_choice: expected auto, none, required or the name of a tool")
    for name in _OWN_FIELDS & settings.extra_body.keys():
        raise ManifestError(f"{where}.extra_body: the field {name!r} is set by polypod itself")
    for name, value in settings.extra_headers.items():
        if re.fullmatch(_CREDENTIAL_HEADER, name) and (not variables_in(value) or ":-" in value):
            # The value is not shown: it may well be the secret itself.
            raise ManifestError(
                f"{where}.extra_headers.{name}: a manifest must not contain a secret",
                hint="export it, and write ${NAME} here",
            )
