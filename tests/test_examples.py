"""The programs of the documentation that outlive their processes: killed, stopped, and gone on with."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from documented import loaded
from llm_server import STREAM_HEAD, Exchange, RawServer, chunk, stream_reply
from warm import Popen

from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from protocol.errors import ModelError
from protocol.manifest import PodManifest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@contextlib.contextmanager
def started(folder: Path, *command: str) -> Iterator[subprocess.Popen[Any]]:
    """A command of Python at work in a folder, which ends with the test."""
    pipe = subprocess.PIPE
    with Popen(
        [sys.executable, *command], cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[Any]) -> str:
    line: str = process.stdout.readline()  # type: ignore[union-attr]
    assert line, process.stderr.read()  # type: ignore[union-attr]
    return line


# -- the web chat ----------------------------------------------------------------------------------------


def piece(text: str) -> bytes:
    """A piece of an answer, as servers of OpenAI's kind send it."""
    data = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


END = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


async def break_off(exchange: Exchange) -> None:
    """A model that says one word, and then nothing as long as anybody listens."""
    await exchange.send(STREAM_HEAD, chunk(piece("one ")))
    await exchange.wait_until_gone()


Seen = tuple[str, str, dict[str, Any]]


@contextlib.asynccontextmanager
async def feed_of(url: str, since: str = "0") -> AsyncIterator[AsyncIterator[Seen]]:
    """The events that a browser gets, once it is connected: id, kind and data."""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("GET", f"{url}/feed", headers={"last-event-id": since}) as response,
    ):
        yield _events(response)


async def _events(response: httpx.Response) -> AsyncIterator[Seen]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, fields[name] = line.partition(": ")
        else:
            yield fields["id"], fields["event"], msgspec.json.decode(fields["data"])


async def url_of(process: subprocess.Popen[Any]) -> str:
    return f"http://127.0.0.1:{(await asyncio.to_thread(line_of, process)).strip()}/ada"


async def until(feed: AsyncIterator[Seen], kind: str) -> list[Seen]:
    """What comes, up to the first event of a kind."""
    seen: list[Seen] = []
    async for event in feed:
        seen.append(event)
        if event[1] == kind:
            break
    return seen


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_the_web_chat_goes_on_with_an_answer_that_its_process_did_not_live_to_see(
    how: signal.Signals, tmp_path: Path
) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    server = str(Path(__file__).with_name("web_chat_process.py"))
    async with RawServer(break_off, stream_reply(piece("one ") + piece("two") + END)) as model:
        with started(tmp_path, server, model.url) as process:
            url = await url_of(process)
            async with feed_of(url) as feed, httpx.AsyncClient(trust_env=False) as client:
                assert (await client.post(url, content="Count!")).status_code == 202
                seen = await until(feed, "TextDelta")
                assert [kind for _, kind, _ in seen] == ["UserMessage", "TextDelta"]
                process.send_signal(how)
                if how is signal.SIGTERM:
                    ended = await until(feed, "RunEnd")
                    assert ended[-1][2]["outcome"] == "paused"
                    seen += ended
            assert await asyncio.to_thread(process.wait, 30) == -how
        with started(tmp_path, server, model.url) as process:
            async with feed_of(await url_of(process), since=seen[-1][0]) as feed:
                rest = await until(feed, "RunEnd")
        assert "UserMessage" not in {kind for _, kind, _ in rest}
        answers = [data["item"]["content"][0]["text"] for _, kind, data in rest if kind == "AssistantMessage"]
        assert answers == ["one two"]
        assert rest[-1][2]["outcome"] == "finished"


# -- the batch and the swarm -----------------------------------------------------------------------------


def test_the_batch_is_gone_on_with_where_its_process_was_killed(tmp_path: Path) -> None:
    text = (EXAMPLES / "nightly_batch.py").read_text(encoding="utf-8")
    done = '    return f"archived: {job.instructions}"\n'
    hangs = text.replace(done, "    print(job.id, flush=True)\n    await asyncio.Event().wait()\n")
    assert hangs != text
    (tmp_path / "hangs.py").write_text(hangs, encoding="utf-8")
    with started(tmp_path, "hangs.py") as process:
        assert line_of(process).startswith("old-1-")
    with started(tmp_path, str(EXAMPLES / "nightly_batch.py")) as process:
        out, err = process.communicate(timeout=60)
    assert err == ""
    assert out.startswith("50 jobs, 50 done\n22 of 45 tickets are urgent\n")


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_agent_that_fails_is_started_again_and_one_is_approved_from_the_command_line(
    is_killed: bool, tmp_path: Path
) -> None:
    swarm = str(EXAMPLES / "careful_swarm.py")
    with contextlib.ExitStack() as processes:
        process = processes.enter_context(started(tmp_path, swarm))
        command = line_of(process).split()
        assert re.fullmatch(r"polypod approve [0-9a-f]{16} --store sqlite:swarm\.db", " ".join(command))
        if is_killed:
            process.kill()
            process.wait(30)
        approve = processes.enter_context(started(tmp_path, "-m", *command))
        assert approve.wait(30) == 0, approve.stderr.read()  # type: ignore[union-attr]
        if is_killed:
            process = processes.enter_context(started(tmp_path, swarm))
        out, err = process.communicate(timeout=60)
    assert err == ""
    fetcher, reader, clerk = out.splitlines()
    assert fetcher == "fetch done: fetched the news"
    assert reader.startswith("pod done: Hello")
    assert clerk == "pod done: transfer answered: sent 500 to ann"


# -- traces ----------------------------------------------------------------------------------------------


def test_every_span_ends_also_that_of_a_request_that_did_not_fit_the_context() -> None:
    tracing = loaded("tracing")
    made = tracing.InMemorySpanExporter()
    provider = tracing.TracerProvider()
    provider.add_span_processor(tracing.SimpleSpanProcessor(made))
    words = "what was said before " * 500
    overflow = ModelError("it does not fit", kind="context_overflow")
    script = [say(words), overflow, call("write_summary", {"text": "They talked."}), say("ok"), say("done")]

    async def main() -> None:
        spans = tracing.Spans(provider.get_tracer("polypod"))
        async with PodSystem() as system:
            following = asyncio.create_task(spans.follow(system.subscribe(kinds=tracing.TRACED)))
            pod = await system.spawn(PodManifest.of(name="clerk"), client=ScriptedClient(script))
            await pod.run(words)
            assert (await pod.run("go on")).text == "done"
        await following

    asyncio.run(main())
    ended = sorted(made.get_finished_spans(), key=lambda span: span.start_time)
    assert [(span.name, span.status.is_ok) for span in ended] == [
        ("invoke_agent clerk", True),
        ("chat scripted", True),
        ("invoke_agent clerk", True),
        ("chat scripted", False),
        ("chat scripted", True),
    ]
