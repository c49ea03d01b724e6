"""A user and a password in a manifest's ``base_url`` reach the server, and no record, event, log or error."""

import asyncio
import logging
from pathlib import Path

import pytest
from llm_server import RawServer, error_reply, stream_reply

from actors.llm.base import End, TextChunk
from actors.sessions.store import SessionStore
from actors.sessions.urls import open_store
from actors.system import PodSystem
from protocol.errors import ManifestError, PolypodError
from protocol.manifest import PodManifest

SECRET = "Tr0ub4dor-and-3"
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":"stop"}]}\n\n'
ECHO = error_reply("401 Unauthorized", f"user us, password {SECRET}: unknown")


def with_password(url: str) -> str:
    return url.replace("//", f"//us:{SECRET}@")


def bytes_of(store: SessionStore, folder: Path) -> bytes:
    """All that a store holds: its files, or what it has in memory."""
    files = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    sessions = store.sessions()
    entries = [entry.body for each in sessions for entry in store.read(each.session_id)]
    assert entries
    return files + b"".join(entries)


@pytest.mark.parametrize("kind", ["sqlite", "jsonl", "memory"])
def test_a_password_in_a_base_url_is_used_and_nowhere_kept_or_reported(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    url = {"sqlite": f"sqlite:{tmp_path}/s.db", "jsonl": f"jsonl:{tmp_path}", "memory": "memory:"}[kind]
    published: list[object] = []
    store = open_store(url)

    async def main() -> bytes:
        replies = (stream_reply(HELLO), stream_reply(HELLO), ECHO)
        async with RawServer(*replies) as server, PodSystem(store=store) as system:
            manifest = PodManifest.of(model="openai/m", base_url=with_password(server.url))
            with system.subscribe() as events:
                pod = await system.spawn(manifest)
                assert (await pod.run("hi")).text == "hello"
                branch = await system.spawn(manifest, resume=await pod.fork())
                assert (await branch.run("hi")).text == "hello"
                for failing in (pod.run("hi"), pod.compact()):
                    with pytest.raises(PolypodError) as caught:
                        await failing
                    published.append((caught.value, caught.value.details(), caught.value.__cause__))
                published.append((await pod.describe(), pod, branch, system, events.drain()))
            assert all("authorization" in each.headers for each in server.received)
            return bytes_of(store, tmp_path)

    try:
        kept = asyncio.run(main())
    finally:
        store.close()
    assert b"\xe2\x80\xa6@127.0.0.1" in kept
    assert SECRET.encode() not in kept
    assert SECRET not in repr(published)
    assert SECRET not in caplog.text


async def test_a_session_that_was_opened_with_a_password_asks_for_it_again(tmp_path: Path):
    async with RawServer(stream_reply(HELLO)) as server:
        manifest = PodManifest.of(model="openai/m", base_url=with_password(server.url))
        store = f"sqlite:{tmp_path}/s.db"
        async with PodSystem(store=store) as system:
            pod = await system.spawn(manifest)
            session = (await pod.run("hi")).session_id
        async with PodSystem(store=store) as system:
            with pytest.raises(ManifestError, match="sessions do not store them") as caught:
                await system.spawn(manifest.without_secrets(), resume=session)
            assert "base_url" in caught.value.hint
            assert server.url.partition("//")[2] in caught.value.message
            pod = await system.spawn(manifest, resume=session)
            assert (await pod.run("again")).text == "hello"
        assert len(server.received) == 2


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:9/v1?api_key={SECRET}",
        f"http://127.0.0.1:9/v1?key={SECRET}",
        f"http://127.0.0.1:9/v1#{SECRET}",
        f"http://us:{SECRET}/x@127.0.0.1:9/v1",
        f"http://us:{SECRET}?x@127.0.0.1:9/v1",
        f"us:{SECRET}@127.0.0.1:9/v1",
    ],
)
async def test_a_base_url_that_is_none_is_refused_and_recorded_without_what_may_be_secret(url: str):
    class Parrot:
        model = "parrot"

        async def stream(self, request):
            yield TextChunk("hello")
            yield End("end_turn")

    manifest = PodManifest.of(model="openai/m", base_url=url)
    store = open_store("memory:")
    async with PodSystem(store=store) as system:
        with pytest.raises(ManifestError, match="not a base URL") as caught:
            await system.spawn(manifest)
        assert SECRET not in f"{caught.value} {caught.value.hint} {caught.value.__cause__!r}"
        pod = await system.spawn(manifest, client=Parrot())
        assert (await pod.run("hi")).text == "hello"
        assert SECRET.encode() not in bytes_of(store, Path("/nonexistent"))
