"""A chain of two models of a real llama-server, whose router loads each as it is asked for.

POLYPOD_REAL_LLAMA   the program llama-server
POLYPOD_REAL_MODELS  a folder with two models that come to an end by themselves, tiny-ascii.gguf and tiny-parallel.gguf
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ports import unused_port

from actors.llm.http.presets import list_models
from actors.llm.openai.client import OpenAIClient
from polypod import (
    ChainRequest,
    EscalationChain,
    ModelError,
    ModelVerifier,
    PodManifest,
    PodSystem,
    RunFailed,
    TierAttempted,
    Verdict,
    WarmProbe,
    tool,
)

LLAMA = os.environ.get("POLYPOD_REAL_LLAMA", "")
MODELS = os.environ.get("POLYPOD_REAL_MODELS", "")
SMALL, LARGE = "tiny-ascii", "tiny-parallel"

pytestmark = pytest.mark.skipif(
    not LLAMA or not MODELS, reason="POLYPOD_REAL_LLAMA or POLYPOD_REAL_MODELS is not set"
)


def started(arguments: tuple[str, ...], port: int) -> subprocess.Popen[bytes]:
    """A llama-server, as it starts."""
    common = ("--host", "127.0.0.1", "--ctx-size", "4096", "--parallel", "2", "--threads", "1")
    return subprocess.Popen(
        [LLAMA, *arguments, "--port", str(port), *common, "--no-warmup", "--no-webui", "--jinja"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[str]:
    """A llama-server at work: its base URL."""
    port = unused_port()
    process = started(arguments, port)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    await list_models(url, seconds=2)
                    break
                except ModelError:
                    assert process.poll() is None, "llama-server ended at once"
                    await asyncio.sleep(0.05)  # another program's start is nothing to wait on but the clock
        yield url
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def router(folder: Path) -> AsyncIterator[str]:
    """A router with both models, neither of which is loaded."""
    for name in (SMALL, LARGE):
        (folder / f"{name}.gguf").symlink_to(Path(MODELS, f"{name}.gguf"))
    async with serving("--models-dir", str(folder), "--models-max", "2") as url:
        yield url


async def test_a_router_loads_each_tier_as_it_is_asked_for_and_the_probe_sees_it(tmp_path: Path):
    asked: list[str] = []

    async def second(_skill: str, _task: str, output: str) -> Verdict:
        asked.append(output)
        return Verdict(len(asked) % 2 == 0, "Say it in other words.")

    async with (
        router(tmp_path) as url,
        OpenAIClient(url, "") as client,
        WarmProbe(url, good_for=0.0) as probe,
    ):
        assert await probe.warm_models() == frozenset()
        chain = EscalationChain([SMALL, f"llama_cpp/{LARGE}"], local=client, verifier=second, warm_url=url)
        cold = await chain.run(ChainRequest("List the files.", "You list files."))
        assert [(each.model, each.verdict, each.warm_start) for each in cold.attempts] == [
            (SMALL, "escalate", False),
            (f"llama_cpp/{LARGE}", "accept", False),
        ]
        assert await probe.warm_models() == {SMALL, LARGE}
        await asyncio.sleep(1.1)  # for so long a look is good
        warm = await chain.run(ChainRequest("List the files.", "You list files."))
        assert [each.warm_start for each in warm.attempts] == [True, True]
        assert (warm.text, warm.model, warm.cost) == (asked[-1], LARGE, 0.0)
        assert all(each.usage.output_tokens > 0 for each in warm.attempts)
        await chain.aclose()


async def test_the_warm_model_comes_first_where_the_policy_says_so(tmp_path: Path):
    async with router(tmp_path) as url, OpenAIClient(url, LARGE) as client:
        chain = EscalationChain(
            [SMALL, LARGE], local=client, verifier=lambda *_: True, warm_url=url, prefer_warm=True
        )
        await EscalationChain([LARGE], local=client, verifier=lambda *_: True).run(ChainRequest("Hello."))
        result = await chain.run(ChainRequest("Hello."))
        assert [(each.model, each.warm_start) for each in result.attempts] == [(LARGE, True)]
        await chain.aclose()


async def test_a_pod_on_a_chain_of_real_models_calls_tools_and_pays_for_both_tiers(tmp_path: Path):
    ran: list[str] = []

    @tool(concurrency="read_only")
    def list_files(path: str = ".") -> str:
        """List the files of a folder."""
        ran.append(path)
        return "a.txt\nb.txt"

    verified = 0

    async def second(*_: str) -> bool:
        nonlocal verified
        verified += 1
        return verified == 2

    async with router(tmp_path) as url, OpenAIClient(url, "") as client:
        chain = EscalationChain([SMALL, LARGE], local=client, verifier=second)
        async with PodSystem(chains={"careful": chain}) as system:
            pod = await system.spawn(
                PodManifest.of(name="p", model="chain/careful", max_steps=20), tools=[list_files]
            )
            with system.subscribe(kinds=[TierAttempted]) as events:
                with contextlib.suppress(RunFailed):  # what random models say may be nothing
                    await pod.run("List the files.")
                attempts = [each.attempt for each in events.drain() if isinstance(each, TierAttempted)]
            described = await pod.describe()
        assert [each.model for each in attempts][:1] == [SMALL]
        assert described.usage.input_tokens >= sum(each.usage.input_tokens or 0 for each in attempts)


async def test_a_judge_on_a_real_server_gives_a_verdict_in_its_schema():
    async with (
        serving("-m", str(Path(MODELS, f"{SMALL}.gguf")), "--alias", SMALL) as url,
        OpenAIClient(url, SMALL) as client,
        WarmProbe(url, good_for=0.0) as probe,
    ):
        assert await probe.is_warm(SMALL)
        judge = ModelVerifier(client, "It lists files.", model=f"llama_cpp/{SMALL}", max_tokens=200)
        said = await judge.verify("You list files.", "List the files.", "a.txt, b.txt")
        assert isinstance(said.accept, bool)
        assert said.cost == 0.0
