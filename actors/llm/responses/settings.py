"""Turns model settings into fields of OpenAI's Responses; pure."""

from __future__ import annotations

from typing import Any

from actors.llm.legal import legal_name
from protocol.errors import ManifestError
from protocol.model_settings import ModelSettings


def fields_of(settings: ModelSettings) -> dict[str, Any]:
    """The fields of a request. Raises ManifestError for a setting that this API does not have."""
    for name, value in (("seed", settings.seed), ("thinking_budget", settings.thinking_budget)):
        if value is not None:
            hint = "use reasoning_effort instead" if name == "thinking_budget" else "remove it"
            raise ManifestError(
                f"manifest: model.{name}: not supported by the openai_responses API", hint=hint
            )
    if settings.stops:
        raise ManifestError(
            "manifest: model.stop: not supported by the openai_responses API", hint="remove it"
        )
    fields: dict[str, Any] = {}
    if settings.top_p is not None:
        fields["top_p"] = settings.top_p
    if settings.reasoning_effort is not None:
        fields["reasoning"] = {"effort": settings.reasoning_effort}
    if settings.tool_choice is not None:
        fields["tool_choice"] = choice_of(settings.tool_choice)
    return {**fields, **settings.extra_body}


def choice_of(choice: str) -> Any:
    """A tool choice in this API's form."""
    if choice in {"auto", "none", "required"}:
        return choice
    return {"type": "function", "name": legal_name(choice)}
