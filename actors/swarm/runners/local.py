"""``LocalRunner``: agents that do one task on a model of one's own, behind any server that speaks chat
completions: Ollama, vLLM, LM Studio, llama.cpp.

It asks the model directly: no pool, no store and no pod stands between, and what it does is the same for
whoever reads an agent: pieces of text as they come, one answer, one end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from actors.llm.base import Answer, Assembler, Block, LLMClient, Request, ThinkingChunk
from actors.llm.retry import ask
from actors.pod.models import local_client
from actors.pod.runs.outcomes import refused, said_nothing, tokens_reached
from actors.swarm.runners.base import Host, Launch, Life
from actors.swarm.runners.function import AgentContext, runner_func
from protocol.config import LocalModelSection
from protocol.errors import AgentFailed, Failure, ModelError
from protocol.events import AssistantMessage, Retry, RunOutcome, StreamRestart, TextDelta, ThinkingDelta
from protocol.items import AssistantItem, Item, UserItem
from protocol.usage import Usage


class LocalRunner:
    """The runner of agents that are answered by one model: that of ``[local_model]``, or a client, which is
    closed by its giver.

    What it says costs nothing: its runs have their tokens, and a cost of 0, or none that is known where the
    client is a chain with models that cost something. An agent that goes on is shown its conversation, as its
    log has it.
    """

    name = "local"
    one_shot = True

    def __init__(self, model: LocalModelSection | LLMClient) -> None:
        self._section = LocalModelSection()
        self._client: LLMClient | None = None
        if isinstance(model, LocalModelSection):
            self._section = model
        else:
            self._client = model

    def __repr__(self) -> str:
        return f"<LocalRunner {self._client or self._section}>"

    def start(self, launch: Launch, host: Host, /) -> Life:
        """Start an agent that asks the model."""
        launch = replace(launch, model=launch.model or self._section.model or None)
        runner = runner_func(self._work, name=self.name, joins=False, session=launch.agent_id)
        return runner.start(launch, host)

    async def _work(self, agent: AgentContext) -> None:
        words = agent.task if agent.task is not None else await agent.receive()
        before = await asyncio.to_thread(read_conversation, agent.launch.log) if agent.launch.resuming else []
        if before and before[-1] == UserItem.of(words):  # it is in the log already
            del before[-1]
        task = _Task(agent, self._section)
        if self._client is not None:
            await task.do(self._client, [*before, UserItem.of(words)])
            return
        async with contextlib.aclosing(local_client(self._section)) as client:
            await task.do(client, [*before, UserItem.of(words)])


class _Task:
    """One task: asks for its answer, and publishes how that comes; what ``ask`` calls a listener."""

    def __init__(self, agent: AgentContext, section: LocalModelSection) -> None:
        self._agent, self._section = agent, section
        self._attempt, self._assembler = 1, Assembler()
        self._cost: float | None = 0.0
        self.is_wanted: Callable[[], bool] = lambda: True
        self.text: Callable[[str, int], None] = self._show

    async def do(self, client: LLMClient, items: list[Item]) -> None:
        """Publish the answer and the end of the run. Raises AgentFailed, ModelError."""
        self._cost = None if getattr(client, "prices_of", ()) else 0.0
        request = Request(
            items,
            model=self._agent.launch.model or "",
            temperature=self._section.default_temperature,
            deadline=time.monotonic() + self._section.timeout_seconds,
        )
        try:
            answer = await ask(client, request, self)
        except asyncio.CancelledError:
            self._end("cancelled", self._assembler.usage)
            raise
        except ModelError as error:
            self._end("failed", self._assembler.usage, Failure.of(error))
            raise
        await self._agent.emit(
            AssistantMessage,
            item=answer.item,
            model=answer.model,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            cost=self._cost,
        )
        outcome, why = _judged(answer)
        self._end(outcome, answer.usage, why)
        if why is not None:
            raise AgentFailed(why.message, hint=why.hint)

    def _end(self, outcome: RunOutcome, usage: Usage | None, error: Failure | None = None) -> None:
        self._agent.end(outcome, steps=1, usage=usage or Usage(), cost=self._cost, error=error)

    # -- how the answer comes ------------------------------------------------------------------------

    def _show(self, text: str, attempt: int) -> None:
        self._agent.publish(TextDelta, text=text, attempt=attempt)

    def block(self, block: Block, attempt: int) -> None:
        """Publish a piece of reasoning."""
        if isinstance(block, ThinkingChunk) and block.text:
            self._agent.publish(ThinkingDelta, text=block.text, attempt=attempt)

    def begin(self, attempt: int, assembler: Assembler) -> None:
        """Know what the attempt takes."""
        self._attempt, self._assembler = attempt, assembler

    def announce_retry(self, error: ModelError, wait: float) -> None:
        """Publish that the request is sent again, and whether what was shown is void."""
        kind = StreamRestart if self._assembler.begun else Retry
        self._agent.publish(kind, attempt=self._attempt, error=Failure.of(error), wait=wait)


_CUT = Failure(
    "LimitReached",
    "the model's answer was cut by max_tokens, as its server sets it",
    "give the server a larger context, or the agent a smaller task",
    {"limit": "max_tokens", "value": None},
)


def _judged(answer: Answer) -> tuple[RunOutcome, Failure | None]:
    """How a run with this answer has ended."""
    if answer.item.refused:
        return "refused", refused(answer.item, answer.stop_reason)
    if answer.stop_reason == "max_tokens":
        return "limit_reached", tokens_reached(None)
    if not answer.item.text.strip():
        return "failed", said_nothing()
    return "finished", None


def read_conversation(log: Path) -> list[Item]:
    """What was said to an agent and what it answered, as its log has it; lines that are none are passed
    over.
    """
    items: list[Item] = []
    for path in (log.with_name(f"{log.name}.1"), log):
        try:
            with path.open("rb") as lines:
                items += (item for line in lines for item in _item_of(line))
        except OSError:
            continue
    return items


def _item_of(line: bytes) -> Iterator[Item]:
    try:
        said = msgspec.json.decode(line)
        kind, text = said["type"], "".join(block["text"] for block in said["content"])
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        return
    if text and kind in _KINDS:
        yield _KINDS[kind](text)


#: How the lines of a log are called that say something, and what they are in a conversation.
_KINDS: dict[str, Callable[[str], Item]] = {
    "user_message": UserItem.of,
    "assistant_message": AssistantItem.of,
}
