"""An answer on its way, whatever its format: bytes of the network in, blocks out."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.llm.base import Block
from actors.llm.errors import classify
from actors.llm.http.answers import AnswerReader, whole_ones
from actors.llm.http.http_pool import MAX_REFUSAL_BYTES, Peer
from actors.llm.http.reply import Reply
from actors.llm.http.sse import SSEParser
from actors.net.proxies import PROXY_WANTS_KEY
from protocol.errors import ModelError

#: How long to wait for more once the server has said why it stopped, in seconds: for its usage, and where
#: that has come for the end of the stream alone.
AFTER_FINISH = 5.0
AFTER_USAGE = 1.0


async def post(peer: Peer, path: str, body: bytes, deadline: float | None) -> Reply:
    """Send one request; returns its answer, and raises ModelError for a refusal."""
    reply = await peer.post(path, body, deadline=deadline)
    if reply.status == 200:
        return reply
    try:
        words = await _words_of(reply)
    finally:
        await reply.aclose()
    words = peer.without_secrets(words)
    if reply.status == PROXY_WANTS_KEY and (proxy := peer.failures.proxy_wants_key()) is not None:
        raise proxy
    raise classify(reply.status, reply.headers, words, where=peer.where, now=time.time(), keyed=peer.has_key)


async def _words_of(reply: Reply) -> bytes:
    """The body of a refusal; if that cannot be read, words that say so, since the status counts
    all the same.
    """
    try:
        return await reply.read_all(MAX_REFUSAL_BYTES)
    except ModelError as error:
        if error.kind == "timeout":
            raise
        return f"(its reason cannot be read: {error.message})".encode()


class Incoming:
    """Feeds ``answer`` with what ``reply`` brings, as a stream or as one whole object.

    ``give`` receives the blocks as they come. ``read`` waits for the next bytes, ``take`` makes blocks of
    them, until ``over``; the last ones come from ``end``. ``pour`` does all of it. ``aclose`` lets go of the
    connection in any case.
    """

    __slots__ = (
        "_answer",
        "_cut",
        "_is_stream",
        "_parser",
        "_pieces",
        "_reply",
        "_take",
        "_where",
        "give",
        "over",
    )

    give: Callable[[list[Block]], None]

    def __init__(self, where: str, reply: Reply, answer: AnswerReader) -> None:
        self._where = where
        self._reply = reply
        self._answer = answer
        self._parser = SSEParser()
        self._pieces: list[bytes] = []  # of an answer that comes whole
        self._cut = False  # what came behind the finish reason was lost
        self._is_stream = False
        self._take = self._begin
        self.over = False

    async def pour(self) -> None:
        """Give all blocks of the answer. Raises ModelError, and what ``give`` raises."""
        failure = await self._reply.pour(self.take)
        if failure is not None:
            self._look_behind(failure)
            self.take(b"")
        self.end()

    async def read(self) -> bytes:
        """The next bytes, ``b""`` being the end. Raises ModelError."""
        try:
            return await self._reply.read()
        except ModelError as failure:
            self._look_behind(failure)
            return b""

    def _look_behind(self, failure: ModelError) -> None:
        """Ignore an error that follows the finish reason: the answer has nothing left to lose."""
        if not self._answer.finish:
            raise failure
        self._cut = True

    def take(self, data: bytes) -> bool:
        """Give the blocks that come with the next bytes, ``b""`` being the end of the body; gives back
        ``over``. Raises ModelError, and what ``give`` raises.
        """
        answer = self._answer
        try:
            # without a call in between: this comes with every chunk
            blocks = answer.feed(self._parser.feed(data)) if data and self._is_stream else self._take(data)
        except ValueError as error:
            raise ModelError(f"{self._where} sent {error}", kind="protocol", where=self._where) from error
        if answer.done:
            self.over = True
        elif answer.finish:
            self._reply.patience = AFTER_USAGE if answer.metered else AFTER_FINISH
        if blocks:
            self.give(blocks)
        return self.over

    def end(self) -> None:
        """Give the last blocks of an answer that is over. Raises ModelError where it is not complete."""
        if self._answer.failure is not None:
            raise self._answer.failure
        blocks = self._answer.close()
        if not self._cut:
            self._reply.settle()
        self.give(blocks)

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._reply.aclose()

    def _begin(self, data: bytes) -> list[Block]:
        """Look at the first bytes: some servers send whole answers though a stream was asked for, and proxies
        send pages.
        """
        text = data.lstrip(b"\xef\xbb\xbf \r\n\t")
        head = text[:1]
        if not head and data:
            return []  # blanks before an answer say nothing
        if head in {b"{", b"["}:
            self._pieces.append(text)
            self._take = self._collect
            return []
        if head == b"<":
            raise ModelError(
                f"{self._where} answered with a web page",
                kind="protocol",
                hint="check base_url, which usually ends in /v1",
                where=self._where,
            )
        self._is_stream = True
        self._take = self._end_stream
        return self._answer.feed(self._parser.feed(data)) if data else self._end_stream(data)

    def _end_stream(self, data: bytes) -> list[Block]:  # noqa: ARG002 - there is none
        blocks = self._answer.feed(whole_ones(self._parser.end()))
        self._answer.done = True
        return blocks

    def _collect(self, data: bytes) -> list[Block]:
        """Read one object whole before it is decoded."""
        if data:
            self._pieces.append(data)
            return []
        return self._answer.whole(b"".join(self._pieces))
