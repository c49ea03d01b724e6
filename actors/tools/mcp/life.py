"""``Life``: one life of an MCP server, from its start to its end, in one task, as the SDK wants it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import Context
from types import ModuleType
from typing import TYPE_CHECKING, Any

from actors.runtime.in_thread import in_thread
from protocol.errors import PolypodError
from protocol.foreign import named_words, words_of

if TYPE_CHECKING:
    from actors.tools.mcp.listing import Listing
    from actors.tools.mcp.session import Elicit, Session

#: Makes the way to a server, of the module that knows both, and is given what to call at its end.
MakeTransport = Callable[[ModuleType, Callable[[], object]], Any]


#: Characters of an error that are shown.
_SHOWN = 500


class Life:
    """A server that is being started, is at work, or has ended; it never begins again."""

    def __init__(
        self,
        name: str,
        transport: MakeTransport,
        changed: Callable[[Listing], object],
        elicit: Elicit,
        *,
        seconds: float,
        older: bool,
    ) -> None:
        """The server has ``seconds`` to start; the rest is as of ``Session``."""
        self._name = name
        self._make_transport = transport
        self._changed = changed
        self._elicit = elicit
        self._seconds = seconds
        self._older = older
        self._lost = asyncio.Event()
        self._transport: Any = None
        loop = asyncio.get_running_loop()
        #: Resolved once the SDK is there, which is not a matter of the server's.
        self.loaded: asyncio.Future[None] = loop.create_future()
        #: Resolved once it can be asked, or never will be; then ``why`` says so.
        self.ready: asyncio.Future[Session | None] = loop.create_future()
        #: Whether it is at its end, or about to be.
        self.over = False
        #: Whether somebody wanted that.
        self.wanted = False
        #: What ended it, in words, where nobody wanted that.
        self.why = ""
        self.task = asyncio.Task(self._live(), loop=loop, name=f"MCP server {name}", context=Context())

    def end(self) -> None:
        """End the life, since nobody needs it any more."""
        self.wanted = self.over = True
        self._lost.set()
        if not self.ready.done():
            self.task.cancel()

    def lose(self) -> None:
        """End the life, since the server says no more, or does not know us any more."""
        self.over = True
        self._lost.set()

    async def _live(self) -> None:
        refused = False
        try:
            modules = await in_thread(_load)
            self.loaded.set_result(None)
            async with contextlib.AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(self._seconds):
                        session = await self._start(stack, *modules)
                except TimeoutError:
                    raise _Slow(f"did not answer within {self._seconds:g} s") from None
                except Exception:
                    refused = not self.over
                    raise
                following = asyncio.get_running_loop().create_task(session.follow())
                stack.callback(following.cancel)
                self.ready.set_result(session)
                await self._lost.wait()
            self.why = f"ended{self._how()}"
        except _Slow as error:
            self.why = str(error)
        except BaseException as error:  # noqa: BLE001 - whatever ends it, who asks gets it
            how, words = self._how(), _words(error)[:_SHOWN]
            if how and refused:  # it has ended since nobody had anything more to ask
                self.why = f"cannot be used: {words}"
            else:
                self.why = f"ended{how}" if how else f"could not be reached: {words}"
        finally:
            self.over = True
            for future in (self.loaded, self.ready):
                if not future.done():
                    future.set_result(None)

    async def _start(
        self, stack: contextlib.AsyncExitStack, transports: ModuleType, sessions: ModuleType
    ) -> Session:
        self._transport = self._make_transport(transports, self.lose)
        session: Session = sessions.Session(
            self._name, self._transport, self._changed, self._elicit, older=self._older
        )
        await session.start(stack)
        return session

    def _how(self) -> str:
        """How its process ended, where it had one."""
        end = getattr(self._transport, "end", None)
        if end is None:
            return ""
        return f" with exit code {end.code}" if end.code >= 0 else f" by signal {-end.code}"


class _Slow(Exception):  # noqa: N818 - reported in words
    """A server took too long to start."""


def _load() -> tuple[ModuleType, ModuleType]:
    """The modules that need the SDK, which takes half a second to import, once."""
    from actors.tools.mcp import session, transports  # noqa: PLC0415 - off the loop

    return transports, session


def _words(error: BaseException) -> str:
    """The words of an error; of a group, those of its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return words_of(error) if isinstance(error, PolypodError) else named_words(error)
