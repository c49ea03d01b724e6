"""Whatever becomes of a pod's runs, every request that it makes of them is one that strict servers take."""

import asyncio
import contextlib
import json
from collections import deque
from typing import Any

import pytest
from effort import times
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llm_server import STREAM_HEAD, Exchange, RawServer, chunk, error_reply, stream_reply
from messages_kit import END, argued, called, closed, event, opened, signed, start, stopped, text, thought
from strict_server import Rule, anthropic_faults, openai_faults

from actors import PodManifest, PodSystem, tool
from actors.pod.handle import Pod
from actors.sessions.memory.store import MemoryStore
from protocol.errors import CompactionFailed, NotRunning, RunFailed
from protocol.items import AssistantItem, ToolResult, UserItem
from protocol.lifecycle import PodState

#: What a model does when it is asked: words, calls (one that goes on until it is let go), and other ends.
WORDS, LOOK, BOTH, WAIT, NO, NO_CALL, FILTERED, REST, HANG = range(9)

SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
THINK = {"type": "thinking", "thinking": "hm", "signature": "sig"}
SAY = {"type": "text", "text": "words"}


def use(name: str, call_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {"path": "a"}}


#: The blocks of an answer in Anthropic's format, and why it ends; the ids come again and again.
ANSWERS: dict[int, tuple[list[dict[str, Any]], str]] = {
    WORDS: ([THINK, SAY], "end_turn"),
    LOOK: ([THINK, use("look", "toolu_1")], "tool_use"),
    BOTH: ([THINK, use("look", "toolu_1"), THINK, SAY, use("nothing", "toolu_2"), THINK], "tool_use"),
    WAIT: ([SAY, use("look", "toolu_1"), THINK, use("wait", "toolu_2")], "tool_use"),
    NO: ([SAY], "refusal"),
    NO_CALL: ([THINK, use("look", "toolu_1")], "refusal"),
    REST: ([THINK, SAY, SEARCH], "pause_turn"),
}


class Anthropic:
    """What a server of Anthropic's format says, and what it refuses: of blocks with reasoning also those that
    do not come back as it gave them.
    """

    scheme = "anthropic"
    half = (
        start() + opened(0, "thinking") + thought("half") + closed(0) + opened(1, "text") + text("half an", 1)
    )

    def given(self) -> list[list[dict[str, Any]]]:
        """The blocks of its answers, as they have to come back."""
        return [[_bare(block) for block in blocks] for blocks, _ in ANSWERS.values()]

    def faults(self, body: dict[str, Any]) -> Rule:
        yield from anthropic_faults(body)
        given = self.given()
        for message in body["messages"]:
            blocks = [_bare(block) for block in message["content"]]
            if THINK in blocks:
                while THINK in blocks:
                    came = [each for each in given if blocks[: len(each)] == each]
                    if not came:
                        yield f"`thinking` blocks in the latest message cannot be modified: {blocks}"
                        break
                    blocks = blocks[max(map(len, came)) :]

    def answer(self, what: int) -> bytes:
        blocks, reason = ANSWERS[what]
        return self._stream(blocks, reason)

    def summary(self) -> bytes:
        call = {"type": "tool_use", "id": "s1", "name": "write_summary", "input": {"text": "a summary"}}
        return self._stream([call], "tool_use")

    def _stream(self, blocks: list[dict[str, Any]], reason: str) -> bytes:
        sent = start(input_tokens=10, output_tokens=1)
        for n, block in enumerate(blocks):
            sent += self._block(n, block) + closed(n)
        return stream_reply(sent + stopped(reason, output_tokens=3) + END)

    def _block(self, n: int, block: dict[str, Any]) -> bytes:
        if block["type"] == "thinking":
            return opened(n, "thinking") + thought("hm", n) + signed("sig", n)
        if block["type"] == "text":
            return opened(n, "text", text="") + text(block["text"], n)
        if block["type"] == "tool_use":
            return called(n, block["name"], block["id"]) + argued(json.dumps(block["input"]), n)
        return event("content_block_start", index=n, content_block=block)


def _bare(block: dict[str, Any]) -> dict[str, Any]:
    """A block without what a client may change: the mark of a cache, and an id."""
    return {name: value for name, value in block.items() if name not in {"cache_control", "id"}}


class OpenAI:
    """What a server of OpenAI's format says, and what it refuses."""

    scheme = "openai"
    half = b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"half","content":"half an"}}]}\n\n'
    faults = staticmethod(openai_faults)

    def answer(self, what: int) -> bytes:
        blocks, reason = ANSWERS[what]
        finish = {"refusal": "content_filter", "tool_use": "tool_calls"}.get(reason, "stop")
        return self._stream(blocks, finish)

    def summary(self) -> bytes:
        call = {"type": "tool_use", "id": "s1", "name": "write_summary", "input": {"text": "a summary"}}
        return self._stream([call], "tool_calls")

    def _stream(self, blocks: list[dict[str, Any]], finish: str) -> bytes:
        deltas: list[dict[str, Any]] = []
        for n, block in enumerate(blocks):
            if block["type"] == "text":
                deltas.append({"content": block["text"]})
            elif block["type"] == "thinking":
                deltas.append({"reasoning_content": "hm"})
            elif block["type"] == "tool_use":
                function = {"name": block["name"], "arguments": json.dumps(block["input"])}
                deltas.append({"tool_calls": [{"index": n, "id": block["id"], "function": function}]})
        choices = [{"index": 0, "delta": each} for each in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": finish})
        events = [b"data: %b\n\n" % json.dumps({"choices": [each]}).encode() for each in choices]
        return stream_reply(b"".join(events) + b"data: [DONE]\n\n")


class StrictModel:
    """A server that refuses what breaks a rule, and else does what ``plan`` says next."""

    def __init__(self, form: Anthropic | OpenAI, refused: list[str]) -> None:
        self.form = form
        self.refused = refused
        self.plan: deque[int] = deque()
        self.hanging = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        body = exchange.received.json
        if (fault := next(self.form.faults(body), None)) is not None:
            self.refused.append(fault)
            await exchange.send(error_reply("400 Bad Request", fault))
            return
        tools = [each.get("name") or each["function"]["name"] for each in body.get("tools", ())]
        if "write_summary" in tools:
            over = b"tool_result" in exchange.received.body or b'"tool"' in exchange.received.body
            await exchange.send(self.form.answer(WORDS) if over else self.form.summary())
            return
        what = self.plan.popleft() if self.plan else WORDS
        if what == FILTERED:
            await exchange.send(error_reply("400 Bad Request", "filtered", "content_filter"))
        elif what == HANG:
            await exchange.send(STREAM_HEAD, chunk(self.form.half))
            self.hanging.set()
            await exchange.wait_until_gone()
        else:
            await exchange.send(self.form.answer(what))


class Life:
    """One session, whose pods come and go, at two servers."""

    def __init__(self, servers: list[tuple[str, StrictModel]]) -> None:
        self._servers = deque(servers)
        self._store = MemoryStore()
        self._session: str | None = None
        self._begun, self._free = asyncio.Event(), asyncio.Event()
        self.pod: Pod
        self.model: StrictModel

    async def lead(self, actions: list[tuple[str, list[int]]]) -> None:
        """Do all that, where "move" goes on at the other server."""
        rest = deque(actions)
        while rest or self._session is None:
            url, self.model = self._servers[0]
            self._servers.rotate()
            manifest = PodManifest.from_toml(
                f'[model]\nscheme = "{self.model.form.scheme}"\nmodel_id = "m"\nbase_url = "{url}"\n'
                "[worker]\nmax_steps = 8\n"
            )
            async with PodSystem(store=self._store) as system:
                self.pod = await system.spawn(manifest, tools=self._tools(), resume=self._session)
                while rest and rest[0][0] != "move":
                    await self._act(*rest.popleft())
                if not rest:
                    await self._act("run", [])
                self._session = (await self.pod.describe()).session_id
            if rest:
                rest.popleft()

    def _tools(self) -> list[Any]:
        @tool
        async def look(path: str) -> str:
            return path

        @tool
        async def wait(path: str) -> str:
            self._begun.set()
            await self._free.wait()
            return path

        return [look, wait]

    async def _act(self, verb: str, plan: list[int]) -> None:
        self._begun.clear()
        self._free.clear()
        self.model.hanging.clear()
        self.model.plan = deque(plan)
        if verb == "compact":
            with contextlib.suppress(CompactionFailed):
                await self.pod.compact(40)
        elif verb == "push":
            for item in (AssistantItem.of("pushed"), ToolResult("x", "look"), UserItem.of("pushed")):
                await self.pod.push_item(item)
        elif verb != "resume":
            await self._run(verb, self.pod.run(verb))
        elif (await self.pod.describe()).state is PodState.PAUSED:
            await self._run("run", self.pod.resume())

    async def _run(self, verb: str, run: Any) -> None:
        """See a run through; where its tool waits, or its model is silent, what ``verb`` says happens."""
        going = [asyncio.ensure_future(each.wait()) for each in (self._begun, self.model.hanging)]
        ended = asyncio.ensure_future(_await_end(run))
        asked = []
        while not ended.done():
            waiting = going if not self._free.is_set() else going[1:]
            await asyncio.wait([*waiting, ended], return_when=asyncio.FIRST_COMPLETED)
            silent = self.model.hanging.is_set()
            if verb in {"cancel", "pause"} or silent:
                asked.append(self.pod.pause() if verb == "pause" else self.pod.cancel())
                await ended
            elif verb == "steer":
                asked.append(self.pod.steer("rather that"))
            self._free.set()
        for each in asked:
            with contextlib.suppress(NotRunning):
                await each
        for each in going:
            each.cancel()


async def _await_end(run: Any) -> None:
    with contextlib.suppress(RunFailed):
        await run


_verbs = st.sampled_from(["run", "run", "cancel", "pause", "resume", "steer", "compact", "push", "move"])
_plans = st.lists(st.integers(WORDS, HANG), max_size=4)
lives = st.builds(
    lambda plan, rest: [("run", plan), *rest],
    _plans,
    st.lists(st.tuples(_verbs, _plans), min_size=1, max_size=7),
)


@pytest.mark.parametrize("forms", [(Anthropic, OpenAI), (OpenAI, Anthropic), (Anthropic, Anthropic)])
@settings(max_examples=times(5))
@given(actions=lives)
@example(
    actions=[("run", [BOTH, BOTH, WORDS]), ("run", [REST, LOOK]), ("cancel", [LOOK, WAIT]), ("run", [NO])]
)
@example(
    actions=[("pause", [HANG]), ("resume", [LOOK, NO]), ("steer", [WAIT, BOTH]), ("move", []), ("run", [])]
)
@example(actions=[("pause", [WAIT]), ("move", []), ("resume", [BOTH]), ("compact", []), ("cancel", [HANG])])
@example(
    actions=[("run", [LOOK, FILTERED]), ("push", []), ("run", [LOOK, NO_CALL]), ("move", []), ("push", [])]
)
def test_no_request_of_a_pod_is_refused(forms: tuple[Any, Any], actions: list[tuple[str, list[int]]]):
    refused: list[str] = []

    async def main() -> None:
        models = [StrictModel(form(), refused) for form in forms]
        async with RawServer(models[0]) as one, RawServer(models[1]) as other:
            life = Life([(one.url, models[0]), (other.url, models[1])])
            await asyncio.wait_for(life.lead(actions), 60)
            assert one.received or other.received

    asyncio.run(main())
    assert refused == []
