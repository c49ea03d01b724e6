"""``Connection``: an MCP server as pods share it: started when it is needed, ended when it is idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from msgspec import Struct

from actors.runtime.children.launcher import Launcher
from actors.runtime.restarts import Limits, count_restart
from actors.tools.base import ToolContext
from actors.tools.mcp.life import Life
from actors.tools.mcp.listing import Listing
from actors.tools.mcp.log import ServerLog
from protocol.errors import ManifestError, ToolError, ToolTimeout
from protocol.items import Part
from protocol.mcp import McpServer, expand, header_value
from protocol.text import amount, encodable
from protocol.urls import HIDDEN

#: A server that ended by itself, or could not be started, is started again so often.
LIMITS = Limits(max_restarts=3, window_seconds=60.0)
#: How many times its time-out a call may take that goes on reporting progress.
MOST_EXTENSION = 10
#: Seconds that one is waited for which is at its end, to say how that came.
_LAST_MOMENT = 2.0


class Seconds(Struct, frozen=True):
    """How long a server has to start, how long the first turn waits for its list of tools, and after how
    long one that nobody calls is ended.
    """

    start: float = 30.0
    first_wait: float = 10.0
    idle: float = 300.0


class Connection:
    """One server, and the lives that it has. Used on the loop of its system alone."""

    def __init__(
        self,
        server: McpServer,
        folder: str,
        launcher: Callable[[], Launcher],
        log: ServerLog,
        variables: Mapping[str, str],
        seconds: Seconds,
    ) -> None:
        """``server`` runs in ``folder``, unless it names another, and may refer to ``variables``."""
        self._server = server
        self._folder = folder
        self._launcher = launcher
        self._log = log
        self._variables = variables
        self._seconds = seconds
        self._life: Life | None = None
        self._older = False
        self._restarts: tuple[float, ...] = ()
        self._users = 0
        self._at_work: list[Call] = []
        self._idle: asyncio.TimerHandle | None = None
        #: Whether it has asked people, without saying for which call.
        self._asks_people = False
        #: The connections of single pods, where it does.
        self._own: dict[str, Connection] = {}
        #: Its tools, as it listed them last; None where it never has.
        self.listing: Listing | None = None
        #: Why it has no list, while it is started again.
        self._failure = ""
        #: Called where what is known of the server may have changed.
        self.watchers: list[Callable[[], object]] = []

    @property
    def name(self) -> str:
        """What people and models call it."""
        return self._server.name

    @property
    def failure(self) -> str | None:
        """Why it has never listed its tools, in words; None where it has."""
        if self.listing is not None:
            return None
        life = self._life
        if life is not None and life.why and not life.wanted:
            return self._failed(life)
        if self._failure:  # it is being started again
            return self._failure
        return f"MCP server {self.name!r} has not listed its tools yet: they appear once it has"

    @property
    def has_process(self) -> bool:
        """Whether a server that was started on this machine is at work."""
        life = self._life
        return self._server.url is None and life is not None and not life.over and not life.task.done()

    # -- lives -----------------------------------------------------------------------------------

    def hold(self) -> None:
        """Count one more source that needs the server."""
        self._users += 1

    async def release(self) -> None:
        """Count one source less; with the last one the server is ended."""
        self._users -= 1
        if self._users:
            return
        if self._idle is not None:
            self._idle.cancel()
        own, self._own = self._own, {}
        for each in own.values():
            await each.release()
        if self._life is not None:
            self._life.end()
            await asyncio.wait({self._life.task})

    def begin(self) -> None:
        """Have it started, unless it is, or has ended too often."""
        life = self._life
        if life is not None and not life.over:
            return
        if life is not None and not life.wanted:
            counted = count_restart(self._restarts, time.monotonic(), LIMITS)
            if counted is None:
                return
            self._restarts, self._failure = counted, self._failed(life)
        self._log.forget()
        self._life = Life(
            self.name,
            self._transport,
            self._take_listing,
            self._elicit,
            seconds=self._seconds.start,
            older=self._older,
        )
        self._life.ready.add_done_callback(lambda _: self._end_later())
        self._life.task.add_done_callback(lambda _: self._notify_watchers())
        self._notify_watchers()

    async def wait_listed(self) -> None:
        """Wait a moment for its list of tools, where it is not known."""
        if self.listing is None and self._life is not None:
            await asyncio.wait({self._life.loaded})
            await asyncio.wait({self._life.ready}, timeout=self._seconds.first_wait)

    def _take_listing(self, listing: Listing) -> None:
        self._failure = ""
        if listing != self.listing:
            self.listing = listing
        self._notify_watchers()

    def _notify_watchers(self) -> None:
        for each in self.watchers:
            each()

    def _transport(self, transports: ModuleType, over: Callable[[], object]) -> Any:
        """The way to the server. Raises ManifestError for a variable that is not set."""
        server, variables = self._server, self._variables
        if server.url is not None:
            url = expand(server.url, variables)
            if HIDDEN in url:
                raise ManifestError("its url was saved without its query", hint="give its full url again")
            headers = {name: header_value(text, variables) for name, text in server.headers_env.items()}
            self._log.hide(frozenset(headers.values()))
            return transports.HttpTransport(url, headers)
        env = {name: expand(value, variables) for name, value in server.env.items()}
        self._log.hide(frozenset(value for name, value in env.items() if value != server.env[name]))
        return transports.ChildTransport(
            self._launcher(),
            tuple(expand(word, variables) for word in server.words),
            server.cwd or self._folder,
            env,
            self._log,
            over,
            wait=self._seconds.start,
        )

    async def _make_ready(self) -> tuple[Life, Any]:
        """Have a life go on; gives it with its session. Raises ToolError, which says why there is none."""
        self.begin()
        life = self._life
        assert life is not None
        session = await asyncio.shield(life.ready)
        if life.over or session is None:
            raise ToolError(await self._lost(life))
        self._older = session.is_older
        return life, session

    async def _lost(self, life: Life) -> str:
        """Why a life has ended, in words."""
        if life.over:
            await asyncio.wait({life.task}, timeout=_LAST_MOMENT)
        return self._failed(life)

    def _failed(self, life: Life) -> str:
        text = f"MCP server {self.name!r} {self._log.clean(life.why) or 'has ended'}"
        if len(self._restarts) >= LIMITS.max_restarts and not life.wanted:
            text += f"; it was restarted {LIMITS.max_restarts} times, and is not restarted again for a while"
        return f"{text}{self._log.last_words()}"

    # -- calls -----------------------------------------------------------------------------------

    async def call(
        self, tool: str, arguments: dict[str, Any], ctx: ToolContext, seconds: float
    ) -> list[Part]:
        """What a tool gives, within ``seconds`` of its last sign of life. Raises ToolError."""
        connection = self._for_pod(ctx.pod)
        return await connection._call(tool, arguments, Call(ctx, seconds))  # noqa: SLF001 - one of these too

    async def _call(self, tool: str, arguments: dict[str, Any], call: Call) -> list[Part]:
        self._at_work.append(call)
        if self._idle is not None:
            self._idle.cancel()
        token = _call.set(call)
        try:
            return await self._call_session(tool, arguments, call, may_repeat=True)
        finally:
            _call.reset(token)
            self._at_work.remove(call)
            self._end_later()

    async def _call_session(
        self, tool: str, arguments: dict[str, Any], call: Call, *, may_repeat: bool
    ) -> list[Part]:
        life, session = await self._make_ready()
        try:
            async with asyncio.timeout(call.seconds) as limit:
                call.begin(limit)
                return list(await session.call(tool, arguments, call.on_progress))
        except TimeoutError:
            raise ToolTimeout(
                f"no answer after {call.waited():g} s; MCP server {self.name!r} was asked to "
                f"stop, and how far it got is unknown{self._log.last_words()}"
            ) from None
        except ToolError:
            raise
        except Exception as error:
            if may_repeat and type(error).__name__ == "UnknownSession":
                life.lose()
                await asyncio.wait({life.task}, timeout=_LAST_MOMENT)
                return await self._call_session(tool, arguments, call, may_repeat=False)
            if life.over or life.task.done():
                why = await self._lost(life)
            else:
                why = f"MCP server {self.name!r} did not answer: {self._log.clean(str(error))}"
            raise ToolError(
                f"{why}\nThe call may or may not have taken effect; check before calling it again"
            ) from error

    def _end_later(self) -> None:
        """Have it ended if nobody calls it for a while."""
        if self._idle is not None:
            self._idle.cancel()
        if not self._at_work and self._users:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._seconds.idle, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._at_work and self._life is not None:
            self._life.end()

    # -- questions -------------------------------------------------------------------------------

    def _for_pod(self, pod: str) -> Connection:
        """The connection by which the calls of a pod go: its own, where a server asks people and does not say
        whose call it asks for.
        """
        if not self._asks_people:
            return self
        own = self._own.get(pod)
        if own is None:
            own = self._own[pod] = Connection(
                self._server, self._folder, self._launcher, self._log, self._variables, self._seconds
            )
            own.hold()
        return own

    async def _elicit(self, message: str, schema: dict[str, Any]) -> dict[str, Any] | None:
        """What a person answers to a server; None where nobody does."""
        call = _call.get()
        if call is None:  # the older generation does not say which call it is about
            self._asks_people = True
            if len({each.ctx.pod for each in self._at_work}) != 1:
                self._log.add(
                    f"[polypod: declined a question, since several pods use this server: {message}]"
                )
                return None
            call = self._at_work[-1]
        return await call.ask(f"MCP server {self.name!r} asks: {encodable(message)}", schema)


#: The call that is asked for in this context; none in that of a server's life.
_call: ContextVar[Call | None] = ContextVar("call", default=None)


class Call:
    """A call at work, and until when it may take."""

    def __init__(self, ctx: ToolContext, seconds: float) -> None:
        self.ctx = ctx
        self.seconds = seconds
        self._limit: asyncio.Timeout | None = None
        self._began = 0.0

    def begin(self, limit: asyncio.Timeout) -> None:
        """Note that the call is sent now."""
        self._limit = limit
        self._began = asyncio.get_running_loop().time()

    def waited(self) -> float:
        """Seconds since it was sent."""
        return round(asyncio.get_running_loop().time() - self._began, 1)

    async def ask(self, words: str, schema: dict[str, Any]) -> dict[str, Any] | None:
        """What a person answers in the middle of the call; that time is none of the server's."""
        if self.ctx.ask_person is None:
            return None
        self._move(None)
        try:
            return await self.ctx.ask_person(words, schema)
        finally:
            self._move(asyncio.get_running_loop().time() + self.seconds)

    def _move(self, end: float | None) -> None:
        try:
            if self._limit is not None:
                self._limit.reschedule(end)
        except RuntimeError:  # it is at its end
            self._limit = None

    async def on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Report how far it is, and give it more time, up to a bound."""
        self.ctx.progress(_progress_words(progress, total, message))
        limit = self._limit
        if limit is None or limit.when() is None:
            return
        now = asyncio.get_running_loop().time()
        self._move(min(now + self.seconds, self._began + MOST_EXTENSION * self.seconds))


def _progress_words(done: float, total: float | None, words: str | None) -> str:
    far = amount(done) if total is None else f"{amount(done)} of {amount(total)}"
    return far if not words else f"{words} ({far})"
