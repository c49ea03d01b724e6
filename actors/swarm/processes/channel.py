"""``ProcessChannel``: the connection to a process that is a pod."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

import msgspec

from actors.pod.channel import Channel
from actors.runtime.future import AsyncFuture
from protocol import channel
from protocol.channel import FromPod, Published, Refusal, Reply
from protocol.error_of import error_of
from protocol.errors import PodUnreachable, WireError
from protocol.pod_process import OWN, BeginPod, PodBegun, pod_begun
from protocol.wire import encode


class ProcessChannel(Channel):
    """Begins the pod, sends it commands, and passes on its events as they arrive."""

    def __init__(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        take_event: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        super().__init__(reader, writer)
        self._take_event, self._on_lost = take_event, lost
        #: Resolves once the pod takes commands. Raises what kept it from that.
        self.begun: AsyncFuture[PodBegun] = AsyncFuture()

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._lost is not None

    def begin(self, begin: BeginPod) -> None:
        """Have the process become that pod. Raises WireError for what is too large to be sent."""
        body = encode(begin)
        self._writer.write(channel.head(len(body)) + body)

    def leave(self) -> None:
        """Send nothing more: the process then pauses what runs, and ends."""
        self._has_left = True
        if self._lost is None and self._writer.can_write_eof():
            self._writer.write_eof()

    def _take(self, message: FromPod) -> None:
        if message.id != OWN:
            super()._take(message)
        elif isinstance(message, Published):
            self._take_event(bytes(message.event))
        elif isinstance(message, Reply):
            try:
                self.begun.set(pod_begun.decode(message.value))
            except msgspec.DecodeError as error:
                raise WireError(f"not a valid first message of a pod: {error}") from error
        elif isinstance(message, Refusal):
            self.begun.set_exception(error_of(message.failure))

    def _lose(self, why: str) -> None:
        super()._lose(why)
        if not self.begun.done():
            self.begun.set_exception(PodUnreachable(why))
        self._on_lost(why)
