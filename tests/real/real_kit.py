"""A real model server for tests: the one that POLYPOD_REAL_BASE_URL names, or one that a test starts itself.

POLYPOD_REAL_BASE_URL   where a llama-server answers, with /v1 (``http://127.0.0.1:8080/v1``)
POLYPOD_REAL_SERVER_CMD what starts one in the foreground, with ``{port}`` in it; for tests that kill it
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
from typing import Any, Self

import pytest
from ports import unused_port

from actors import PodManifest
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.base import Answer, Assembler, Request
from actors.llm.http.presets import list_models
from actors.llm.openai.client import OpenAIClient
from actors.llm.responses.client import ResponsesClient
from protocol.errors import ModelError
from protocol.items import UserItem

BASE_URL = os.environ.get("POLYPOD_REAL_BASE_URL", "")
SERVER_CMD = os.environ.get("POLYPOD_REAL_SERVER_CMD", "")

#: The formats that such a server speaks, by the manifest's scheme.
SCHEMES = ("openai", "anthropic", "openai_responses")
CLIENTS = {"openai": OpenAIClient, "anthropic": AnthropicClient, "openai_responses": ResponsesClient}

needs_server = pytest.mark.skipif(not BASE_URL, reason="POLYPOD_REAL_BASE_URL is not set")
needs_command = pytest.mark.skipif(not SERVER_CMD, reason="POLYPOD_REAL_SERVER_CMD is not set")
in_all_formats = pytest.mark.parametrize("scheme", SCHEMES)


def ask(words: str = "list the files", **fields: Any) -> Request:
    return Request([UserItem.of(words)], **{"max_tokens": 40, "temperature": 0.0, **fields})


async def answer_from(client: Any, request: Request) -> Answer:
    assembler = Assembler()
    async for block in client.stream(request):
        assembler.feed(block)
    return assembler.answer()


def answered(scheme: str, request: Request, **settings: Any) -> Answer:
    """What the server answers to one request."""

    async def main() -> Answer:
        async with CLIENTS[scheme](BASE_URL, "tiny", **settings) as client:
            return await answer_from(client, request)

    return asyncio.run(main())


def garbled(error: Exception) -> bool:
    """Whether the server itself could not make sense of what its random model wrote."""
    return "does not match the expected" in str(error)


def manifest(scheme: str, base_url: str = BASE_URL, **settings: Any) -> PodManifest:
    return PodManifest.of(
        name="real", model=f"{scheme}/tiny", base_url=base_url, system_prompt="You list files.", **settings
    )


class RealServer:
    """A server of the test's own, which can be killed and started again at the same place."""

    def __init__(self) -> None:
        self.port = unused_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        await self.ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        argv = [
            os.path.expandvars(word) for word in shlex.split(SERVER_CMD.replace("{port}", str(self.port)))
        ]
        self._process = subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    async def ready(self) -> None:
        """Wait until it names its models."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await list_models(self.base_url, seconds=2)
                except ModelError:
                    assert self._process is not None
                    assert self._process.poll() is None, "POLYPOD_REAL_SERVER_CMD ended at once"
                    await asyncio.sleep(0.05)  # another program's start is nothing to wait on but the clock
                else:
                    return

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
