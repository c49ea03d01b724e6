"""Model settings as fields of Anthropic's messages, pure.

Source: the vendor's API reference: ``thinking`` with a budget for models up to 4.6, ``adaptive`` with
``output_config.effort`` for those since.
"""

from __future__ import annotations

from typing import Any

from actors.llm.anthropic.dialect import Dialect
from actors.llm.legal import legal_name
from protocol.errors import ManifestError
from protocol.model_settings import ModelSettings

#: The least that a model can be given to think, in tokens.
_LEAST_BUDGET = 1024
_CHOICES = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}


def fields_of(settings: ModelSettings, dialect: Dialect = Dialect()) -> dict[str, Any]:  # noqa: B008 - frozen
    """The fields of a request. Raises ManifestError for a setting that this API does not have."""
    _refuse(settings)
    fields: dict[str, Any] = {}
    if settings.top_p is not None:
        fields["top_p"] = settings.top_p
    if settings.stops:
        fields["stop_sequences"] = list(settings.stops)
    if settings.tool_choice is not None:
        named = {"type": "tool", "name": legal_name(settings.tool_choice)}
        fields["tool_choice"] = _CHOICES.get(settings.tool_choice, named)
    return {**fields, **_thinking(settings, dialect), **settings.extra_body}


def _refuse(settings: ModelSettings) -> None:
    budget = settings.thinking_budget
    if settings.seed is not None:
        raise ManifestError("manifest: model.seed: not supported by the anthropic API", hint="remove it")
    if settings.reasoning_effort == "minimal":
        raise ManifestError(
            "manifest: model.reasoning_effort: the anthropic API supports none, low, medium, "
            "high, xhigh and max"
        )
    if budget is not None and 0 < budget < _LEAST_BUDGET:
        raise ManifestError(
            f"manifest: model.thinking_budget: expected 0 or at least {_LEAST_BUDGET}, got {budget}"
        )
    if budget and settings.max_tokens is not None and settings.max_tokens <= budget:
        raise ManifestError(
            f"manifest: model.thinking_budget: {budget} tokens are more than max_tokens = "
            f"{settings.max_tokens} allows",
            hint="thinking counts as part of the answer: raise max_tokens",
        )


def _thinking(settings: ModelSettings, dialect: Dialect) -> dict[str, Any]:
    effort, budget = settings.reasoning_effort, settings.thinking_budget
    if budget == 0 or (effort == "none" and budget is None):
        return {"thinking": {"type": "disabled"}} if dialect.switchable else {}
    fields: dict[str, Any] = {}
    if budget is not None and dialect.budgets:
        fields["thinking"] = {"type": "enabled", "budget_tokens": budget}
    elif dialect.adaptive and (budget is not None or effort is not None):
        fields["thinking"] = {"type": "adaptive"}
    if effort is not None and effort != "none":
        fields["output_config"] = {"effort": effort}
    return fields
