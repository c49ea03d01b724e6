"""What the clients of model servers share: requests in the dialect that a server understands, and answers."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Generic, TypeVar

import msgspec

from actors.llm.base import Block, CallStart, Request
from actors.llm.http.answers import AnswerReader
from actors.llm.http.endpoint import Entry
from actors.llm.http.headers import header_of
from actors.llm.http.http_pool import HttpPool, Peer
from actors.llm.http.incoming import Incoming, post
from actors.llm.http.presets import start_command_for
from actors.llm.http.reply import Reply
from actors.llm.http.sending import sending_of
from actors.llm.legal import original_names, without_result_pictures
from actors.net.proxies import authorization_of, basic_credentials, where_of, without_credentials
from actors.runtime.closing import Closing
from protocol.errors import ModelError
from protocol.model_settings import ModelSettings
from protocol.tools import ToolSpec

#: In a pod's scratch.
_KEPT_NAMES, _KEPT_REFUSED = "names", "refused pictures"
#: Kinds of refusals that may be about what is in the history.
_OF_CONTENT = frozenset({"invalid_request", "not_found"})
#: Items of a history that are encoded at a time, so that a long one that is new does not hold the loop.
_SLICE = 2000

#: What a server of a format understands.
D = TypeVar("D")


class ServerClient(Closing, Generic[D]):
    """Talks to one model at one base URL.

    ``http`` holds the connections and is shared by the clients of a system; a client without one makes its
    own and closes it in ``aclose``. A user and a password in the base URL are sent as a header and appear
    nowhere else. ``settings`` say how requests are sent, and stand in those that have none of their own; each
    format says what it has not (ManifestError). Raises ModelError where ``headers`` hold a key in the place
    of that header.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        headers: Mapping[str, str],
        http: HttpPool | None,
        start_command: str | None,
        *,
        streaming: bool,
        settings: ModelSettings | None = None,
    ) -> None:
        basic = authorization_of(basic_credentials(base_url))
        if basic and "authorization" in headers:
            raise ModelError(
                f"{where_of(base_url)}: base_url contains a user or password, but there is also "
                "a key: a request can send only one of them",
                kind="invalid_request",
                hint="remove the key (api_key_env), or what comes before the @ in base_url",
                where=where_of(base_url),
            )
        self.base_url = without_credentials(base_url)
        self.model = model
        self.where = where_of(base_url)
        self._sending = sending_of(settings)
        headers = {**headers, **self._sending.headers}
        self._headers = {**dict(header_of(name, value) for name, value in headers.items()), **basic}
        self._http = http or HttpPool()
        self._owns_http = http is None
        self._start_command = start_command or start_command_for(base_url)
        self._streaming = streaming

    #: That it fails by itself where the first byte does not come in time.
    bounds_first_byte = True
    #: Statuses by which servers say that they do not know an option.
    misunderstood: ClassVar[frozenset[int]]
    #: Where requests go, behind the base URL.
    _path: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model or 'any model'} at {self.where}>"

    async def aclose(self) -> None:
        """Close the connections, unless they are shared."""
        if self._owns_http:
            await self._http.aclose()

    def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer ``request``, as LLMClient says. Raises ModelError."""
        return AnswerStream(self._begun(request), _renamed(request))

    @asynccontextmanager
    async def _begun(self, request: Request) -> AsyncIterator[Incoming]:
        """The answer to a request on its way."""
        sending = self._sending
        peer = self._http.peer(
            self.base_url,
            self._headers,
            start_command=self._start_command,
            timeouts=sending.timeouts,
            limits=sending.limits,
        )
        entry = await peer.endpoint.enter(request.deadline)
        try:
            reply = await self._send(peer, entry, request)
            answer = self._answer(peer.where, request)
            incoming = Incoming(peer.where, reply, answer)
            try:
                yield incoming
            finally:
                entry.settle(answer.usage)
                await incoming.aclose()
        finally:
            entry.leave()

    async def _send(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        """Send a request; gives the server's answer. Where it refuses that, words stand for the pictures that
        tools have given, from then on: nobody chose them for this model, and no run is to fail for one.
        Raises ModelError.
        """
        kept = f"{_KEPT_REFUSED} {self.base_url} {request.model or self.model}"
        request = _without_result_pictures(request, request.scratch.get(kept, 0)) or request
        try:
            return await self._post(peer, entry, request)
        except ModelError as refusal:
            length = len(request.items) if refusal.kind in _OF_CONTENT else 0
            plain = _without_result_pictures(request, length)
            if plain is None:
                raise
            try:
                reply = await self._post(peer, entry, plain)
            except ModelError as error:  # where it is as before, they were not what it is about
                raise (refusal if error.kind == refusal.kind else error) from None
            request.scratch[kept] = length
            return reply

    def _settings(self, request: Request) -> ModelSettings | None:
        """The settings of a request: its own, or else those that all have."""
        return self._sending.settings if request.settings is None else request.settings

    async def _post(self, peer: Peer, entry: Entry, request: Request) -> Reply:
        """Send a request, and once more as often as its refusal says what the server does not understand of
        it. Raises ModelError.
        """
        model = await self._make_ready(request)
        known = dialect = self._known_dialect(peer, request, model)
        while True:
            while len(request.items) > _SLICE and self._encode_some(request, dialect, _SLICE):  # noqa: ASYNC110 - others get their turn
                await asyncio.sleep(0)
            body = self._body(request, model, dialect)
            await entry.admit(len(body), request.deadline)
            try:
                reply = await post(peer, self._path, body, request.deadline)
            except ModelError as error:
                entry.failed(error)
                if error.status not in self.misunderstood:
                    raise
                simpler = self._adapt(peer, request, model, dialect, error.message)
                if simpler is None:
                    raise
                dialect = simpler
            else:
                entry.answered()
                if dialect != known:
                    self._learn(peer, request, model, dialect)
                return reply

    async def _make_ready(self, request: Request) -> str:
        """Make the requested model ready; returns the name to ask for it by. Raises ModelError."""
        return request.model or self.model

    @abc.abstractmethod
    def _known_dialect(self, peer: Peer, request: Request, model: str) -> D:
        """What the server is known to understand of this model's requests."""

    @abc.abstractmethod
    def _adapt(self, peer: Peer, request: Request, model: str, dialect: D, words: str) -> D | None:
        """The dialect for a server that refused a request in ``dialect`` with ``words``; None if they say
        nothing about that.
        """

    @abc.abstractmethod
    def _learn(self, peer: Peer, request: Request, model: str, dialect: D) -> None:
        """Remember a dialect in which the server has answered after refusing another."""

    @abc.abstractmethod
    def _encode_some(self, request: Request, dialect: D, most: int) -> bool:
        """Encode ``most`` items that are new in the history; whether there are more."""

    @abc.abstractmethod
    def _body(self, request: Request, model: str, dialect: D) -> bytes:
        """The body of a request."""

    @abc.abstractmethod
    def _answer(self, where: str, request: Request) -> AnswerReader:
        """The reader of the request's answer."""


class AnswerStream:
    """The blocks of one answer, one by one as an iterator gives them, or poured as they come."""

    __slots__ = ("_begun", "_blocks", "_renamed")

    def __init__(self, begun: AbstractAsyncContextManager[Incoming], renamed: dict[str, str]) -> None:
        self._begun = begun
        self._renamed = renamed
        self._blocks: AsyncGenerator[Block, None] | None = None

    def __aiter__(self) -> AnswerStream:
        return self

    def __anext__(self) -> Awaitable[Block]:
        if self._blocks is None:
            self._blocks = self._one_by_one()
        return self._blocks.__anext__()

    async def aclose(self) -> None:
        """Give up what is still to come."""
        if self._blocks is not None:
            await self._blocks.aclose()

    async def pour(self, give: Callable[[Iterable[Block]], None]) -> None:
        """Give all blocks, those that come together in one call, without a wait for each; instead of the
        iterator. ``give`` is called on the event loop, but in no task. Raises what it raises, too.
        """
        async with self._begun as incoming:
            renamed = bool(self._renamed)
            incoming.give = (lambda blocks: give(map(self._named, blocks))) if renamed else give
            await incoming.pour()

    async def _one_by_one(self) -> AsyncGenerator[Block, None]:
        async with self._begun as incoming:
            come: list[Block] = []
            incoming.give = come.extend
            while not incoming.over:
                incoming.take(await incoming.read())
                for block in come:
                    yield self._named(block)
                come.clear()
            incoming.end()
            for block in come:
                yield self._named(block)

    def _named(self, block: Block) -> Block:
        return _with_original_name(block, self._renamed) if self._renamed else block


def _without_result_pictures(request: Request, length: int) -> Request | None:
    """The request with words for the pictures of results among its first ``length`` items; None where there
    are none.
    """
    items = without_result_pictures(request.items, length) if length else None
    return None if items is None else msgspec.structs.replace(request, items=items)


def _renamed(request: Request) -> dict[str, str]:
    """The names of tools that are sent changed, found once as long as the tools stay the same."""
    if not request.tools:
        return {}
    kept: tuple[tuple[ToolSpec, ...], dict[str, str]] | None = request.scratch.get(_KEPT_NAMES)
    if kept is None or kept[0] is not request.tools:
        kept = request.scratch[_KEPT_NAMES] = (request.tools, original_names(request.tools))
    return kept[1]


def _with_original_name(block: Block, renamed: dict[str, str]) -> Block:
    """A block of an answer; a call of a tool that was sent under another name is one of that tool."""
    if isinstance(block, CallStart) and block.name in renamed:
        return msgspec.structs.replace(block, name=renamed[block.name])
    return block
