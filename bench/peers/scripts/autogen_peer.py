"""autogen: autogen-core's runtime and agents, autogen-agentchat's AssistantAgent."""

import asyncio
from dataclasses import dataclass

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import TextMessage
from autogen_core import (
    AgentId,
    FunctionCall,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    message_handler,
)
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    FunctionExecutionResultMessage,
    RequestUsage,
    UserMessage,
)
from autogen_ext.models.openai import OpenAIChatCompletionClient
from harness import (
    ANSWER,
    CHUNKS,
    QUESTION,
    TURNS,
    Stopwatch,
    imported,
    main,
    reading,
    rss,
    server,
    streams,
    timed,
)
from openai import DefaultAioHttpClient

INFO = {
    "vision": False,
    "function_calling": True,
    "json_output": False,
    "family": "unknown",
    "structured_output": False,
}
USAGE = RequestUsage(prompt_tokens=10, completion_tokens=5)


class Parrot(ChatCompletionClient):
    """Gives every request the same answer; with a tool it calls that first."""

    component_type = "model"

    def __init__(self, tool=None):
        self._tool = tool

    async def create(self, messages, **_):
        if self._tool and not isinstance(messages[-1], FunctionExecutionResultMessage):
            call = FunctionCall(id="1", name=self._tool, arguments='{"text":"one two three"}')
            return CreateResult(finish_reason="function_calls", content=[call], usage=USAGE, cached=False)
        return CreateResult(finish_reason="stop", content=ANSWER, usage=USAGE, cached=False)

    async def create_stream(self, messages, **_):
        yield await self.create(messages)

    async def close(self):
        pass

    def actual_usage(self):
        return USAGE

    def total_usage(self):
        return USAGE

    def count_tokens(self, messages, **_):
        return 0

    def remaining_tokens(self, messages, **_):
        return 100_000

    @property
    def capabilities(self):
        return INFO

    @property
    def model_info(self):
        return INFO


@dataclass
class Words:
    """A message between agents."""

    text: str


class Answering(RoutedAgent):
    """Asks its model and keeps the history in a list."""

    def __init__(self, client=None):
        super().__init__("bench")
        self._client = client
        self._history = []

    @message_handler
    async def on_words(self, message: Words, ctx: MessageContext) -> Words:
        if self._client is None:
            return message
        self._history.append(UserMessage(content=message.text, source="user"))
        answer = await self._client.create(self._history)
        self._history.append(AssistantMessage(content=answer.content, source="assistant"))
        return Words(answer.content)


class Counting(RoutedAgent):
    """Counts its messages."""

    seen = 0

    @message_handler
    async def on_words(self, message: Words, ctx: MessageContext) -> None:
        Counting.seen += 1


async def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def _start(count):
    runtime = SingleThreadedAgentRuntime()
    await Answering.register(runtime, "pod", lambda: Answering(None))
    before = rss()
    with Stopwatch() as starting:
        for number in range(count):
            await runtime.try_get_underlying_agent_instance(AgentId("pod", str(number)), Answering)
    after = rss()
    return [
        starting.rate("starts", count, "cpu"),
        reading("memory each", "B", (after - before) / count),
        reading("memory of the process", "B", after),
    ]


async def _ask(count, client=None):
    runtime = SingleThreadedAgentRuntime()
    await Answering.register(runtime, "pod", lambda: Answering(client))
    runtime.start()
    with Stopwatch() as watch:
        for number in range(count):
            await runtime.send_message(Words(QUESTION), AgentId("pod", str(number // TURNS if client else 0)))
    await runtime.stop()
    if client is not None:
        return [watch.each("time of a turn", count)]
    return [watch.rate("asks", count, "cpu")]


async def _publish(events, subscribers, metric):
    runtime = SingleThreadedAgentRuntime()
    for number in range(subscribers):
        await Counting.register(runtime, f"reader{number}", lambda: Counting("bench"))
        await runtime.add_subscription(TypeSubscription("events", f"reader{number}"))
    Counting.seen = 0
    runtime.start()
    with Stopwatch() as watch:
        for _ in range(events):
            await runtime.publish_message(Words("token"), TopicId("events", "bench"))
        await runtime.stop_when_idle()
    assert Counting.seen == events * subscribers
    return [watch.rate(metric, events * subscribers, "cpu")]


async def _turns(count):
    with Stopwatch() as watch:
        for number in range(count):
            if number % TURNS == 0:
                agent = AssistantAgent("bench", Parrot(), system_message=None)
            await agent.run(task=QUESTION)
    return [watch.each("time of a turn", count)]


async def _at_once(count):
    agents = [AssistantAgent(f"bench{number}", Parrot(), system_message=None) for number in range(count)]
    with Stopwatch() as watch:
        await asyncio.gather(*(agent.run(task=QUESTION) for agent in agents))
    return [watch.each("time of a turn", count)]


async def _tool(count):
    with Stopwatch() as watch:
        for number in range(count):
            if number % TURNS == 0:
                agent = AssistantAgent(
                    "bench", Parrot("count_words"), tools=[count_words], reflect_on_tool_use=True
                )
            await agent.run(task="How many words?")
    return [watch.each("time of a run", count)]


async def _history(turns):
    agent = AssistantAgent("bench", Parrot(), system_message=None)
    for number in range(5000):
        text = f"{number}: " + "The quick brown fox jumps over the lazy dog. " * 8
        await agent.model_context.add_message(UserMessage(content=text, source="user"))
        await agent.model_context.add_message(AssistantMessage(content=text, source="bench"))
    with Stopwatch() as watch:
        for _ in range(turns):
            await agent.run(task=QUESTION)
    return [watch.each("time of a turn", turns)]


def _http(at_once, rhythm="each"):
    async def work(url, count):
        client = OpenAIChatCompletionClient(
            model="bench",
            base_url=url,
            api_key="none",
            model_info=INFO,
            include_name_in_message=False,
            http_client=DefaultAioHttpClient(timeout=600),
        )
        agents = [
            AssistantAgent(f"bench{number}", client, system_message=None, model_client_stream=True)
            for number in range(at_once)
        ]

        async def turn(number):
            chunks = 0
            async for event in agents[number].run_stream(task=[TextMessage(content="Say.", source="user")]):
                chunks += type(event).__name__ == "ModelClientStreamingChunkEvent"
            assert chunks == CHUNKS, chunks

        readings = await timed(turn, at_once, max(1, count // at_once))
        await client.close()
        return readings

    def measure(count):
        with server(rhythm) as url:
            return asyncio.run(work(url, count))

    return measure


main(
    {
        "import/import polypod/autogen-agentchat": imported("autogen_agentchat.agents"),
        "start/10k pods/autogen-core, no session": lambda n: asyncio.run(_start(n)),
        "mailbox/in one loop/autogen-core": lambda n: asyncio.run(_publish(n, 1, "tells")),
        "mailbox/in one loop, awaited/autogen-core": lambda n: asyncio.run(_ask(n)),
        "turn/one pod/autogen-core, no session": lambda n: asyncio.run(_ask(n, Parrot())),
        "turn/one pod/autogen-agentchat, no session": lambda n: asyncio.run(_turns(n)),
        "turn/1000 pods at once/autogen-agentchat, no session": lambda n: asyncio.run(_at_once(n)),
        "tool/async tool/autogen-agentchat, no session": lambda n: asyncio.run(_tool(n)),
        "fanout/of one pod/autogen-core": lambda n: asyncio.run(_publish(n, 100, "deliveries")),
        "history/model in memory/autogen-agentchat, no session": lambda n: asyncio.run(_history(n)),
        **streams("autogen-agentchat, no session", _http),
    }
)
