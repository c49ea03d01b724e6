"""A client for a model server that speaks JSON lines: one line asks, lines come back as its model speaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from polypod import (
    AssistantItem,
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    Item,
    ModelError,
    PodManifest,
    PodSystem,
    Request,
    TextChunk,
    ThinkingChunk,
    ToolResult,
    Usage,
    UsageReport,
    UserItem,
)


class LinesClient:
    """Asks the server at ``host`` and ``port``, over a connection for each request."""

    def __init__(self, host: str, port: int, model: str = "lines") -> None:
        self.model = model  # what events and prices call it
        self._host, self._port = host, port
        self._where = f"{host}:{port}"

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """The blocks of one answer. Raises ModelError."""
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 20)
        except OSError as error:
            raise self._error(f"cannot be reached: {error}", kind="connection") from error
        try:
            writer.write(json.dumps(_question(request)).encode() + b"\n")
            await writer.drain()
            block: Block | None = None
            while not isinstance(block, End):
                block = self._block(await reader.readline())
                yield block
        except OSError as error:
            raise self._error(f"broke the connection: {error}", kind="connection") from error
        except ValueError as error:  # a line without an end, or one that is not JSON
            raise self._error(f"sent what is not an answer: {error}", kind="protocol") from error
        finally:
            writer.close()  # also where the run was cancelled, and where nobody reads on

    def _block(self, line: bytes) -> Block:
        data = json.loads(line) if line else None
        match data:
            case None:
                raise self._error("ended its answer before it was whole", kind="connection")
            case {"error": str(words), "kind": "overloaded" | "context_overflow" as kind}:
                raise self._error(f"answered: {words}", kind=kind, status=data.get("status"))
            case {"input": int(sent), "output": int(said)}:
                return UsageReport(Usage(sent, said))
            case {"stop": "end_turn" | "tool_use" | "max_tokens" | "refusal" as reason}:
                return End(reason)
            case _:
                return _output(data)

    def _error(self, words: str, **details: Any) -> ModelError:
        return ModelError(f"{self._where} {words}", where=self._where, **details)


def _output(data: Any) -> Block:
    """What the model says, thinks or calls. Raises ValueError for what is none of it."""
    match data:
        case {"text": str(text), "at": int(at)}:
            return TextChunk(text, at)
        case {"thinking": str(text), "at": int(at)}:
            return ThinkingChunk(text, at)
        case {"call": int(number), "id": str(id_), "name": str(name)}:
            return CallStart(number, id_, name)
        case {"call": int(number), "arguments": str(piece)}:
            return CallChunk(number, piece)
        case {"call": int(number)}:
            return CallEnd(number)
        case _:
            raise ValueError(f"{data!r:.100}")


def _question(request: Request) -> dict[str, Any]:
    return {
        "system": request.system,
        "messages": [_message(item) for item in request.items],
        "tools": [
            {"name": each.name, "description": each.description, "arguments": each.input_schema}
            for each in request.tools
        ],
        "answer_as": request.output_schema,
        "most_tokens": request.max_tokens,
    }


def _message(item: Item) -> dict[str, Any]:
    if isinstance(item, AssistantItem):
        calls = [{"id": each.id, "name": each.name, "arguments": each.arguments} for each in item.calls]
        return {"from": "model", "text": item.text, "calls": calls}
    if isinstance(item, ToolResult):
        return {"from": "tool", "text": item.text, "call": item.call_id}
    return {"from": "user" if isinstance(item, UserItem) else "runtime", "text": item.text}


async def parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server to try it with, which says what it got."""
    question = json.loads(await reader.readline())
    for word in question["messages"][-1]["text"].split():
        writer.write(json.dumps({"text": f"{word}! ", "at": 0}).encode() + b"\n")
    writer.write(b'{"input": 7, "output": 3}\n{"stop": "end_turn"}\n')
    await writer.drain()
    writer.close()


async def main() -> None:
    """A pod that asks it."""
    async with await asyncio.start_server(parrot, "127.0.0.1", 0) as server:
        client = LinesClient(*server.sockets[0].getsockname())
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="parrot"), client=client)
            result = await pod.run("polly wants a cracker")
            print(result.text, result.outcome)


if __name__ == "__main__":
    asyncio.run(main())
