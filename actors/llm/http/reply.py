"""``Reply``: a server's answer as it arrives, with a time-out for each wait and every failure translated."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping

from actors.llm.http.contract import Response, Timeouts
from actors.llm.http.server_failures import MAX_ANSWER_BYTES, ServerFailures, explained
from actors.llm.http.stream_timeout import Watch
from actors.net.encodings import unpacking
from protocol.errors import ModelError


class Reply:
    """A server's answer: its status and headers, and its body as it arrives.

    ``settle`` or ``aclose`` ends it. ``patience`` is how long the next read may take, in seconds.
    """

    def __init__(
        self,
        response: Response,
        watch: Watch,
        timeouts: Timeouts,
        failures: ServerFailures,
        deadline: float | None,
    ) -> None:
        self.status = response.status
        self.patience = timeouts.first_byte
        self._idle = timeouts.idle
        self._failures = failures
        self._response = response
        self._watch = watch
        self._deadline = deadline
        self._next = unpacking(response.read, response.coding)
        pour = None if response.coding else getattr(response, "pour", None)
        self._pour: Callable[[Callable[[bytes], bool]], Awaitable[None]] | None = pour
        self._room = MAX_ANSWER_BYTES
        self._settled = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by names in any case."""
        return self._response.headers

    async def read(self) -> bytes:
        """The bytes that are there, waiting for some where there are none; ``b""`` is the end.

        Raises ModelError: ``timeout``, ``connection`` where the answer was cut, ``protocol`` where it never
        ends or is packed in a way that cannot be read.
        """
        seconds = self.patience
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        watch = self._watch
        watch.begin(seconds)  # and not `over`: this comes with every chunk
        try:
            data = await self._next()
        except asyncio.CancelledError:
            if watch.has_rung():
                raise self._failures.translated(TimeoutError(), seconds, self._deadline) from None
            raise
        except Exception as error:
            raise self._failures.translated(error, seconds, self._deadline) from error
        finally:
            watch.end()
        self.patience = self._idle
        self._room -= len(data)
        if self._room < 0:
            raise self._failures.endless()
        return data

    async def pour(self, take: Callable[[bytes], bool]) -> ModelError | None:
        """Hand over the body as it arrives, ``b""`` at its end, until ``take`` has enough: like repeated
        ``read``, but without a wait for each piece if the transport supports that.

        ``take`` may be called outside any task, and sets ``patience`` for what follows. Returns the error
        that ``read`` would raise; raises what ``take`` raises.
        """
        if self._pour is None:
            return await self._read_into(take)
        watch, deadline = self._watch, self._deadline
        most = math.inf if deadline is None else deadline - time.monotonic()
        broke: BaseException | None = None

        def arrive(data: bytes) -> bool:
            nonlocal broke
            self.patience = self._idle
            self._room -= len(data)
            try:
                if self._room < 0:
                    raise self._failures.endless()  # noqa: TRY301 - to be raised where it is waited for
                enough = take(data)
            except BaseException as error:  # noqa: BLE001 - as any other
                broke = error
                return True
            watch.prolong(self.patience)
            return enough

        watch.begin(min(self.patience, most), most)
        try:
            await self._pour(arrive)
        except asyncio.CancelledError:
            if watch.has_rung():
                return self._failures.translated(TimeoutError(), self.patience, deadline)
            raise
        except Exception as error:  # noqa: BLE001 - a defect is raised again
            failure = self._failures.translated(error, self.patience, deadline)
            failure.__cause__ = error
            return failure
        finally:
            watch.end()
        if broke is not None:
            raise broke
        return None

    async def _read_into(self, take: Callable[[bytes], bool]) -> ModelError | None:
        enough = False
        while not enough:
            try:
                data = await self.read()
            except ModelError as error:
                return error
            enough = take(data) or not data
        return None

    async def read_all(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body, cut at ``limit`` bytes. Raises ModelError as ``read`` does."""
        pieces: list[bytes] = []
        size = 0
        while size < limit and (data := await self.read()):
            pieces.append(data)
            size += len(data)
        return b"".join(pieces)[:limit]

    def settle(self) -> None:
        """Keep the connection for the next request, if the end of the complete answer is near."""
        self._settled = self._response.settle()

    async def aclose(self) -> None:
        """Release the answer and, unless it has ended, close its connection."""
        self._watch.stop()
        if self._settled:
            return
        try:
            await self._response.aclose()
        except Exception as error:  # noqa: BLE001 - a defect is raised again, the network's failures are over
            explained(error)
