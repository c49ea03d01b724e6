"""``CassetteClient``: records to a file what any client answers, and replays it in tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from actors.llm.base import Block, End, LLMClient, Request, models_of
from actors.llm.tape import (
    VERSION,
    Exchange,
    Header,
    TapedError,
    cleaned_blocks,
    difference,
    digest,
    plain,
    read,
    written,
)
from actors.runtime.arguments import path_of
from actors.runtime.closing import Closing
from actors.runtime.redact import Redact, redacted
from protocol.errors import ModelError, ScriptExhausted, ScriptLeftover, WireError


class CassetteClient(Closing):
    """A client with a cassette; made by ``record`` or ``replay``. ``redact`` removes secrets from texts; a
    cassette is replayed with the same function it was recorded with.
    """

    model: str
    path: Path

    @staticmethod
    def record(client: LLMClient, path: str | Path, *, redact: Redact = redacted) -> Recorder:
        """Pass requests on to ``client``, and write what is asked and answered to a new file.

        Raises WireError where it cannot be written.
        """
        return Recorder(client, path_of("path", path), redact)

    @staticmethod
    def replay(path: str | Path, *, redact: Redact = redacted) -> Player:
        """Answer from a file what was asked when it was recorded.

        Raises WireError where it is not a cassette.
        """
        return Player(path_of("path", path), redact)

    async def aclose(self) -> None:
        """Nothing is held open here."""


class Recorder(CassetteClient):
    """Records: each exchange becomes a line of the file once it has ended, even if it failed or broke off."""

    def __init__(self, client: LLMClient, path: Path, redact: Redact) -> None:
        self.model = str(getattr(client, "model", ""))
        self.path = path
        self._client = client
        if (models := models_of(client)) is not None:
            self.prices_of = models  # whose calls who asks counts
        self._redact = redact
        self._last: Exchange | None = None
        self._put(msgspec.json.encode(Header(VERSION, self.model)) + b"\n", "wb")

    def __repr__(self) -> str:
        return f"<CassetteClient recording {self._client!r} to {self.path}>"

    async def aclose(self) -> None:
        """Close the client that is recorded, where it can be closed."""
        close = getattr(self._client, "aclose", None)
        if close is not None:
            await close()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer as the recorded client does. Raises what it raises, and WireError."""
        asked = plain(request, self._redact)
        blocks: list[Block] = []
        stream = self._client.stream(request)
        try:
            async for block in stream:
                blocks.append(block)
                yield block
            self._keep(asked, blocks)
        except ModelError as error:
            self._keep(asked, blocks, TapedError.of(error))
            raise
        except (GeneratorExit, asyncio.CancelledError):
            self._keep(asked, blocks, broken_off=not (blocks and isinstance(blocks[-1], End)))
            raise
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def _keep(
        self,
        asked: Exchange,
        blocks: list[Block],
        error: TapedError | None = None,
        *,
        broken_off: bool = False,
    ) -> None:
        if error is not None:
            hint = None if error.hint is None else self._redact(error.hint)
            error = msgspec.structs.replace(error, message=self._redact(error.message), hint=hint)
        clean = cleaned_blocks(blocks, self._redact)
        exchange = Exchange(asked.fields, asked.items, clean, error, broken_off)
        self._put(written(exchange, self._last), "ab")
        self._last = exchange

    def _put(self, data: bytes, mode: str) -> None:
        try:
            with self.path.open(mode) as file:
                file.write(data)
        except OSError as error:
            raise WireError(
                f"the cassette {self.path} cannot be written: {error.strerror or error}",
                hint="check that its folder exists",
            ) from error


class Player(CassetteClient):
    """Replays: a request gets the first unplayed answer that was given to the same request. ``check()``
    raises ScriptLeftover if answers are left.
    """

    def __init__(self, path: Path, redact: Redact) -> None:
        self.path = path
        self._redact = redact
        try:
            lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        except OSError as error:
            raise WireError(
                f"the cassette {path} cannot be read: {error.strerror or error}", hint="record it first"
            ) from error
        header, exchanges = read(lines, str(path))
        self.model = header.model
        self._count = len(exchanges)
        self._left = {number: (digest(each), each) for number, each in enumerate(exchanges, 1)}

    def __repr__(self) -> str:
        return f"<CassetteClient {self._count - self.remaining} of {self._count} played from {self.path}>"

    @property
    def remaining(self) -> int:
        """How many answers are left."""
        return len(self._left)

    def check(self) -> None:
        """Raise ScriptLeftover if answers are left."""
        if self._left:
            raise ScriptLeftover(
                f"{self.remaining} of {self._count} answers of the cassette {self.path} were never requested"
            )

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer as was recorded. Raises ModelError: the recorded one, or one that says what differs."""
        exchange = self._take(plain(request, self._redact))
        for block in exchange.blocks:
            yield block
        if exchange.error is not None:
            raise exchange.error.error()
        if exchange.broken_off:
            raise ModelError(
                f"{self.path}: the recorded answer was cancelled here by its caller",
                kind="protocol",
                retryable=False,
            )

    def _take(self, asked: Exchange) -> Exchange:
        wanted = digest(asked)
        for number, (known, exchange) in self._left.items():
            if known == wanted:
                del self._left[number]
                return exchange
        if not self._left:
            raise ScriptExhausted(
                f"the cassette {self.path} has {self._count} answers, but one more was requested"
            )
        number, (_, expected) = next(iter(self._left.items()))
        raise ModelError(
            f"{self.path}: this request was not recorded; it differs from the next recorded one, "
            f"number {number}, in {difference(expected.asked(), asked.asked())}",
            kind="invalid_request",
            hint="record the cassette again if the change is intended",
            retryable=False,
        )
