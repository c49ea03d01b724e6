"""A chat in a browser, a session for each user: ``python web_chat.py``, then http://127.0.0.1:8000/ada."""

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from polypod import (
    AssistantMessage,
    Pod,
    PodManifest,
    PodNotFound,
    PodSystem,
    PolypodError,
    RunEnd,
    StreamRestart,
    TextDelta,
    UserMessage,
)

AGENT = PodManifest.of(name="chat", model="offline")
SHOWN = (UserMessage, TextDelta, StreamRestart, AssistantMessage, RunEnd)
PAGE = Path(__file__).with_name("web_chat.html")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with PodSystem("sqlite:chat.db", passivate_after=300) as system:  # leaving it pauses what runs
        app.state.system = system
        for session in await system.interrupted():  # what the last process left, however it ended
            await go_on(system, session.pod)
        yield


async def go_on(system: PodSystem, user: str) -> Pod:
    """Start a user's pod, which is called as the user is, and so is its session."""
    pod = await system.spawn(AGENT, name=user, session=user)
    if (await pod.describe()).state == "paused":
        pod.resume()
    return pod


async def pod_of(request: Request) -> Pod:
    system: PodSystem = request.app.state.system
    user = request.path_params["user"]
    try:
        return system.get(user)  # also one that another request is starting
    except PodNotFound:
        return await go_on(system, user)


async def say(request: Request) -> Response:
    """The words begin a run, or join the one that goes on; they are kept before this answers."""
    pod = await pod_of(request)
    await pod.notify((await request.body()).decode(errors="replace"))
    return Response(status_code=202)


async def feed(request: Request) -> Response:
    """All that was said, then what is being said; a browser that comes back names the last it has."""
    last = request.headers.get("last-event-id", "0")
    events = (await pod_of(request)).subscribe(SHOWN, since=int(last) if last.isdecimal() else 0)

    async def lines() -> AsyncIterator[str]:
        async with events:
            async for event in events:
                data = msgspec.json.encode(event).decode()
                yield f"id: {event.seq}\nevent: {type(event).__name__}\ndata: {data}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def page(_: Request) -> Response:
    return FileResponse(PAGE)


async def refused(_: Request, error: Exception) -> Response:
    return Response(str(error), status_code=409)


app = Starlette(
    routes=[Route("/{user}", page), Route("/{user}", say, methods=["POST"]), Route("/{user}/feed", feed)],
    exception_handlers={PolypodError: refused},
    lifespan=lifespan,
)


class Server(uvicorn.Server):
    """Has the pods end first: with them the feeds end, for which uvicorn would wait."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await app.state.system.stop()
        await super().shutdown(sockets)


if __name__ == "__main__":
    Server(uvicorn.Config(app, port=8000)).run()
