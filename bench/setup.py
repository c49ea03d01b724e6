"""``run_setup``: benchmarks your own set-up from a program, like ``polypod bench``, and returns data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from actors.cli.bench.figures import BenchResult, result_of
from actors.cli.bench.measuring import PROMPT, Plan, run_benchmark
from actors.llm.base import LLMClient
from actors.pod.client_factory import label
from protocol.manifest import PodManifest


def run_setup(
    manifest: PodManifest,
    *,
    tools: Iterable[Any] = (),
    client: LLMClient | None = None,
    turns: int = 20,
    pods: int = 1,
    prompt: str = PROMPT,
    warmup: int = 1,
    fresh: bool = False,
    store: str = "memory:",
    timeout: float | None = None,
) -> BenchResult:
    """Have ``pods`` pods of ``manifest`` do ``turns`` turns in all, and return what was measured.

    The parameters are those of ``polypod bench``; ``client`` answers instead of the manifest's model. Raises
    RunFailed if a warm-up turn fails, ManifestError, and RuntimeError inside a running loop.
    """
    plan = Plan(turns, pods, prompt, warmup, fresh, store, timeout)
    measured = asyncio.run(run_benchmark(manifest, tools=tools, client=client, plan=plan))
    name = label(manifest.model) if client is None else str(getattr(client, "model", type(client).__name__))
    return result_of(measured, name, manifest.model.base_url if client is None else None)
