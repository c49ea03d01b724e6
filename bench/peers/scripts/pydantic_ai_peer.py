"""pydantic-ai: one Agent, its message history passed from run to run; it has no session of its own."""

import asyncio

from harness import ANSWER, CHUNKS, QUESTION, TURNS, Stopwatch, imported, main, server, streams, timed
from openai import AsyncOpenAI, DefaultAioHttpClient
from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

SAID = ModelResponse(parts=[TextPart(ANSWER)])


async def parrot(messages, info):
    """Give every request the same answer."""
    return SAID


async def caller(messages, info):
    """Call the tool first."""
    if isinstance(messages[-1].parts[-1], ToolReturnPart):
        return SAID
    return ModelResponse(parts=[ToolCallPart("count_words", {"text": "one two three"})])


async def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def _turns(count, agent, metric):
    with Stopwatch() as watch:
        for number in range(count):
            if number % TURNS == 0:
                history = []
            result = await agent.run(QUESTION, message_history=history)
            history = result.all_messages()
    return [watch.each(metric, count)]


async def _at_once(count):
    agent = Agent(FunctionModel(parrot))
    with Stopwatch() as watch:
        await asyncio.gather(*(agent.run(QUESTION) for _ in range(count)))
    return [watch.each("time of a turn", count)]


async def _history(turns):
    agent = Agent(FunctionModel(parrot))
    words = "The quick brown fox jumps over the lazy dog. " * 8
    history = []
    for number in range(5000):
        history.append(ModelRequest(parts=[UserPromptPart(f"{number}: {words}")]))
        history.append(ModelResponse(parts=[TextPart(f"{number}: {words}")]))
    with Stopwatch() as watch:
        for _ in range(turns):
            history = (await agent.run(QUESTION, message_history=history)).all_messages()
    return [watch.each("time of a turn", turns)]


def _http(at_once, rhythm="each"):
    async def work(url, count):
        http = DefaultAioHttpClient(timeout=600)
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http)
        model = OpenAIChatModel("bench", provider=OpenAIProvider(openai_client=client))
        agent = Agent(model)
        histories = [[] for _ in range(at_once)]

        async def turn(number):
            chunks = 0
            async with agent.run_stream("Say.", message_history=histories[number]) as streamed:
                async for _ in streamed.stream_text(delta=True, debounce_by=None):
                    chunks += 1
                histories[number] = streamed.all_messages()
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
        "import/import polypod/pydantic-ai": imported("pydantic_ai"),
        "turn/one pod/pydantic-ai, no session": lambda n: asyncio.run(
            _turns(n, Agent(FunctionModel(parrot)), "time of a turn")
        ),
        "turn/1000 pods at once/pydantic-ai, no session": lambda n: asyncio.run(_at_once(n)),
        "tool/async tool/pydantic-ai, no session": lambda n: asyncio.run(
            _turns(n, Agent(FunctionModel(caller), tools=[count_words]), "time of a run")
        ),
        "history/model in memory/pydantic-ai, no session": lambda n: asyncio.run(_history(n)),
        **streams("pydantic-ai, no session", _http),
    }
)
