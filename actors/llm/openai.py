"""The client of every server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from actors.llm.address import base_url_of, where_of
from actors.llm.base import Block, Request
from actors.llm.endpoint import Entry
from actors.llm.errors import classify
from actors.llm.http import MAX_REFUSAL_BYTES, HttpPool, Peer, Reply
from actors.llm.openai_answer import ChatAnswer
from actors.llm.openai_request import Dialect, adapted, body_of, encode_some
from actors.llm.presets import start_command_for
from actors.llm.sse import SSEParser
from protocol.errors import ModelError

#: How long to wait for more once the server has said why it stopped, in seconds: for its usage, and where
#: that has come for the end of the stream alone.
AFTER_FINISH = 5.0
AFTER_USAGE = 1.0

_DIALECT = "openai.dialect"
#: Statuses by which servers say that they do not know an option.
_MISUNDERSTOOD = frozenset({400, 415, 422, 500, 501})


class OpenAIClient:
    """Talks to one model at one base URL (which usually ends in ``/v1``), with or without a key.

    ``http`` holds the connections and is shared by the clients of a system; a client without one makes its
    own and closes it in ``aclose``. ``streaming=False`` asks for whole answers instead of streams.
    """

    def __init__(
        self,
        base_url: str,
        model: str = "",
        api_key: str | None = None,
        *,
        http: HttpPool | None = None,
        start_command: str | None = None,
        streaming: bool = True,
    ) -> None:
        self.base_url = base_url_of(base_url)
        self.model = model
        self.where = where_of(self.base_url)
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = http or HttpPool()
        self._owns_http = http is None
        self._start_command = start_command or start_command_for(self.base_url)
        self._streaming = streaming

    def __repr__(self) -> str:
        return f"<OpenAIClient {self.model or 'any model'} at {self.where}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless they are shared."""
        if self._owns_http:
            await self._http.aclose()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer ``request``, as LLMClient says. Raises ModelError."""
        peer = self._http.peer(self.base_url, self._headers, start_command=self._start_command)
        entry = await peer.endpoint.enter(request.deadline)
        try:
            incoming = _Incoming(peer.where, await self._opened(peer, entry, request))
            try:
                while (blocks := await incoming.more()) is not None:
                    for block in blocks:
                        yield block
            finally:
                await incoming.aclose()
        finally:
            entry.leave()

    async def _opened(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        """The server's answer to the request, in the dialect it understands."""
        while encode_some(request):  # noqa: ASYNC110 - nothing to wait for: others get their turn
            await asyncio.sleep(0)
        dialect: Dialect = peer.learnt.get(_DIALECT) or _dialect_of(self.base_url)
        while True:
            body = body_of(request, request.model or self.model, dialect, streaming=self._streaming)
            try:
                reply = await self._posted(peer, body, request.deadline)
            except ModelError as error:
                entry.failed(error)
                if error.status not in _MISUNDERSTOOD:
                    raise
                known = peer.learnt.get(_DIALECT, dialect)  # another request may have learnt it meanwhile
                simpler = adapted(dialect, error.message, request) if known == dialect else known
                if simpler is None:
                    raise
                dialect = peer.learnt[_DIALECT] = simpler
            else:
                entry.answered()
                return reply

    async def _posted(self, peer: Peer, body: bytes, deadline: float | None) -> Reply:
        """The answer to one request; raises ModelError for a refusal."""
        reply = await peer.post("/chat/completions", body, deadline=deadline)
        if reply.status == 200:
            return reply
        try:
            words = await reply.read_all(MAX_REFUSAL_BYTES)
        finally:
            await reply.aclose()
        words = peer.without_secrets(words)
        raise classify(reply.status, reply.headers, words, where=peer.where, now=time.time())


def _dialect_of(base_url: str) -> Dialect:
    """What is known beforehand: OpenAI's own newer models refuse the old name of ``max_tokens``."""
    if urlsplit(base_url).hostname == "api.openai.com":
        return Dialect(max_tokens_field="max_completion_tokens")
    return Dialect()


class _Incoming:
    """An answer on its way: bytes of the network in, blocks out."""

    __slots__ = ("_answer", "_begun", "_cut", "_ended", "_parser", "_reply", "_where")

    def __init__(self, where: str, reply: Reply) -> None:
        self._where = where
        self._reply = reply
        self._answer = ChatAnswer(where)
        self._parser: SSEParser | None = None  # None until it is clear that it is a stream
        self._begun = b""
        self._ended = False
        self._cut = False  # what came behind the finish reason was lost

    async def more(self) -> list[Block] | None:
        """The blocks that came with the next bytes, or None behind the last. Raises ModelError."""
        answer = self._answer
        if answer.failure is not None:
            raise answer.failure
        if answer.done:
            return self._end()
        data = await self._read()
        if self._parser is None:
            return await self._begin(data)
        return self._feed(data)

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._reply.aclose()

    def _end(self) -> list[Block] | None:
        if self._ended:
            return None
        self._ended = True
        blocks = self._answer.close()
        if not self._cut:
            self._reply.settle()
        return blocks

    def _feed(self, data: bytes) -> list[Block]:
        assert self._parser is not None
        if not data:
            blocks = self._answer.feed(self._parser.end())
            self._answer.done = True
            return blocks
        try:
            return self._answer.feed(self._parser.feed(data))
        except ValueError as error:
            raise ModelError(f"{self._where} sent {error}", kind="protocol", where=self._where) from error

    async def _begin(self, data: bytes) -> list[Block]:
        """Look at the first bytes: whole answers come though a stream was asked for, and pages of proxies."""
        self._begun += data
        head = self._begun.lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
        if not head and data:
            return []
        if head in {b"{", b"["}:
            return self._answer.whole(await self._reply.read_all(begun=self._begun))
        if head == b"<":
            raise ModelError(
                f"{self._where} answered with a web page",
                kind="protocol",
                hint="check base_url, which usually ends in /v1",
                where=self._where,
            )
        self._parser = SSEParser()
        return self._feed(self._begun)

    async def _read(self) -> bytes:
        """The next bytes; once the finish reason is there an answer is not failed by what comes late."""
        if not self._answer.finished:
            return await self._reply.read()
        self._reply.patience = AFTER_USAGE if self._answer.metered else AFTER_FINISH
        try:
            return await self._reply.read()
        except ModelError:
            self._cut = True
            return b""
