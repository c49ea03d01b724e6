"""``ChildOutput`` and ``ChildInput``: our ends of a child's standard streams, for the loop that
started it.
"""

from __future__ import annotations

import asyncio
import os

from protocol.errors import ChildNotListening, LineTooLong

_CHUNK = 65536
#: The longest line that is read, in bytes, unless more is asked for.
LONGEST_LINE = 1 << 24
#: Bytes of the beginning and of the end of a longer one that its error has.
_KEPT = 1024
#: Chunks that are read in a row before the loop gets its turn.
_IN_A_ROW = 16


class _Pipe:
    """Our end of a pipe, used on the loop that made it."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        #: Whether the loop calls ``_on_ready``. It keeps doing so until nobody waits any more: starting and
        #: stopping it for each wait would take as long as a read.
        self._watched = False

    def drop(self) -> None:
        """Close what a forked process inherited; the loop belongs to its parent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.drop()

    def _watch(self) -> None:
        """Have the loop call ``_on_ready`` while the pipe is ready."""
        raise NotImplementedError

    def _unwatch(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        if self._watched and self._descriptor >= 0 and not self._loop.is_closed():
            self._unwatch()
        self._watched = False
        self.drop()
        self._wake()

    async def _wait(self) -> None:
        """Wait until the pipe is ready, or closed."""
        self._waiter = self._loop.create_future()
        if not self._watched:
            self._watch()
            self._watched = True
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _on_ready(self) -> None:
        if self._waiter is not None:
            self._wake()
        else:
            self._unwatch()
            self._watched = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ChildOutput(_Pipe):
    """What a child writes. Nothing is read before somebody asks for it, so a child that writes too fast must
    wait.

    It ends when the last process of the child has ended, even if others hold the other end of the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        #: Whether all processes of the child have ended: nothing more will come than what is in the pipe.
        self._no_more = False
        self._rest = bytearray()
        self._in_a_row = 0

    async def read(self, size: int = _CHUNK) -> bytes:
        """The next bytes, at most ``size``; empty at the end. One reader at a time."""
        if self._rest:
            taken = bytes(self._rest[:size])
            del self._rest[:size]
            return taken
        return await self._receive(size)

    async def _receive(self, size: int = _CHUNK) -> bytes:
        """The next bytes from the pipe itself."""
        self._in_a_row += 1
        if self._in_a_row % _IN_A_ROW == 0:
            await asyncio.sleep(0)  # a child that always has more would keep the loop from everything else
        while self._descriptor >= 0:
            try:
                data = os.read(self._descriptor, size)
            except BlockingIOError:
                if self._no_more:
                    break
                await self._wait()
                continue
            if data:
                return data
            break
        self.close()
        return b""

    async def readline(self, limit: int = LONGEST_LINE) -> bytes:
        """The next line with its newline; the last one may lack it. Empty at the end.

        Raises LineTooLong for a line of more than ``limit`` bytes, after skipping it.
        """
        searched = 0
        begin = b""
        while (end := self._rest.find(b"\n", searched)) < 0:
            if begin or len(self._rest) > limit:
                begin = begin or bytes(self._rest[:_KEPT])
                del self._rest[:-_KEPT]
            searched = len(self._rest)
            data = await self._receive()
            self._rest += data
            if not data:
                end = len(self._rest) - 1
                break
        line, self._rest = self._rest[: end + 1], self._rest[end + 1 :]
        if begin or len(line) > limit:
            error = LineTooLong(f"a line of more than {limit:,} bytes")
            error.begin, error.end = begin or bytes(line[:_KEPT]), bytes(line[-_KEPT:])
            raise error
        return bytes(line)

    def finish(self) -> None:
        """End with what is in the pipe now, since nobody writes any more."""
        self._no_more = True
        self._wake()

    def close(self) -> None:
        """Stop reading; a child that writes on gets an error from the system."""
        self._close()

    def _watch(self) -> None:
        self._loop.add_reader(self._descriptor, self._on_ready)

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._descriptor)


class ChildInput(_Pipe):
    """What a child reads."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._lock = asyncio.Lock()

    async def write(self, data: bytes) -> None:
        """Write all of ``data``, as fast as the child reads; concurrent writes follow each other.

        Raises ChildNotListening if the child has closed its input.
        """
        async with self._lock:
            left = memoryview(data)
            while left:
                written = self.write_some(left)
                left = left[written:]
                if not written:
                    await self._wait()

    def write_some(self, data: bytes | memoryview) -> int:
        """Write as much of ``data`` as the pipe takes now, and return how many bytes that was. Not allowed
        during a ``write``.

        Raises ChildNotListening.
        """
        if self._descriptor < 0:
            raise ChildNotListening("the child's standard input is closed")
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.close()
            raise ChildNotListening("the child no longer reads its standard input") from error

    def close(self) -> None:
        """Close the input: the child reads its end."""
        self._close()

    def _watch(self) -> None:
        self._loop.add_writer(self._descriptor, self._on_ready)

    def _unwatch(self) -> None:
        self._loop.remove_writer(self._descriptor)
