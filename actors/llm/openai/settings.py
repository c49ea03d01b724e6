"""Turns model settings into fields of chat completions, under the names that each kind of server uses; pure.

Sources: the API references of OpenAI, OpenRouter (``reasoning``), Google (``extra_body.google``), DeepSeek
(``thinking``) and Mistral (``random_seed``).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from actors.llm.legal import legal_name
from protocol.errors import ManifestError
from protocol.model_settings import ModelSettings

#: Kinds of servers with their own names for settings, by the end of their hosts' names.
_HOSTS = {
    "openrouter.ai": "openrouter",
    "generativelanguage.googleapis.com": "gemini",
    "api.deepseek.com": "deepseek",
    "mistral.ai": "mistral",
}


def kind_of(base_url: str, scheme: str = "") -> str:
    """The kind of server at a base URL: the scheme in the manifest, or else judged by its host."""
    host = urlsplit(base_url).hostname or ""
    known = (kind for end, kind in _HOSTS.items() if host == end or host.endswith(f".{end}"))
    return next(known, scheme)


def fields_of(settings: ModelSettings, kind: str) -> dict[str, Any]:
    """The fields of a request. Raises ManifestError for a setting that such a server does not have."""
    fields: dict[str, Any] = {}
    if settings.top_p is not None:
        fields["top_p"] = settings.top_p
    if settings.seed is not None:
        fields["random_seed" if kind == "mistral" else "seed"] = settings.seed
    if settings.stops:
        fields["stop"] = list(settings.stops)
    if settings.tool_choice is not None:
        fields["tool_choice"] = _choice(settings.tool_choice)
    return {**fields, **_thinking(settings, kind), **settings.extra_body}


def _choice(choice: str) -> Any:
    if choice in {"auto", "none", "required"}:
        return choice
    return {"type": "function", "function": {"name": legal_name(choice)}}


def _thinking(settings: ModelSettings, kind: str) -> dict[str, Any]:
    effort, budget = settings.reasoning_effort, settings.thinking_budget
    if effort is not None and budget is not None:
        raise ManifestError(
            "manifest: model: reasoning_effort and thinking_budget mean the same here",
            hint="set only one of them",
        )
    if budget is not None:
        return _with_budget(budget, kind)
    if effort is None:
        return {}
    if kind == "openrouter":
        return {"reasoning": {"effort": effort}}
    if kind == "deepseek":
        thinks = {"thinking": {"type": "disabled" if effort == "none" else "enabled"}}
        return thinks if effort == "none" else {**thinks, "reasoning_effort": effort}
    return {"reasoning_effort": effort}


def _with_budget(budget: int, kind: str) -> dict[str, Any]:
    if kind == "openrouter":
        return {"reasoning": {"max_tokens": budget} if budget else {"effort": "none"}}
    if kind == "gemini":
        return {"extra_body": {"google": {"thinking_config": {"thinking_budget": budget}}}}
    raise ManifestError(
        f"manifest: model.thinking_budget: not supported by servers of the scheme {kind or 'openai'!r}",
        hint="use reasoning_effort instead, or the server's own setting in extra_body",
    )
