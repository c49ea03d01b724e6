"""The names of models that a shell offers where one is typed."""

from __future__ import annotations

import asyncio

import click
from click.shell_completion import CompletionItem


def complete_models(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """The kinds of servers, and the models of those on this machine once their kind is typed."""
    from actors.llm.http.presets import PRESETS, answering_servers  # noqa: PLC0415 - pays for an HTTP client

    async def models() -> list[str]:
        return [f"{preset.scheme}/{model}" async for preset, found in answering_servers() for model in found]

    names = asyncio.run(models()) if "/" in typed else ["offline", *(f"{scheme}/" for scheme in PRESETS)]
    return [CompletionItem(name) for name in names if name.startswith(typed)]
