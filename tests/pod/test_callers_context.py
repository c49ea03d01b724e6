"""Each run sees the context variables of who asked for it, and of nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar, copy_context
from pathlib import Path

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.events import RunEnd
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Watching(ScriptedClient):
    """A script that notes for whom it is asked."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.seen: list[str] = []
        #: Where there is one: set with the next request, which is never answered.
        self.hangs: asyncio.Event | None = None

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        self.seen.append(tenant.get())
        if self.hangs is not None:
            hangs, self.hangs = self.hangs, None
            hangs.set()
            await asyncio.get_running_loop().create_future()
        async for block in super().stream(request):
            yield block


async def as_(who: str, pod: Pod, how: str = "run") -> str:
    tenant.set(who)
    if how == "stream":
        async with pod.stream("go") as events:
            async for _ in events:
                pass
            return (await events.result).text
    if how == "notify":
        await pod.notify("go")
        return ""
    return (await pod.run("go")).text


async def test_a_run_that_waits_in_line_sees_its_own_callers_values() -> None:
    seen: list[tuple[str, str]] = []

    @tool
    async def on_loop() -> str:
        seen.append(("async", tenant.get()))
        return "a"

    @tool
    def in_thread() -> str:
        seen.append(("plain", tenant.get()))
        return "b"

    turn = call("on_loop") + call("in_thread")
    client = Watching([reply for n in range(3) for reply in (turn, say(str(n)))])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, tools=[on_loop, in_thread])
        tasks = [
            asyncio.create_task(as_("one", pod)),
            asyncio.create_task(as_("two", pod, "stream")),
            asyncio.create_task(as_("three", pod)),
        ]
        assert await asyncio.gather(*tasks) == ["0", "1", "2"]
    assert client.seen == ["one", "one", "two", "two", "three", "three"]
    order = ["one", "two", "three"]
    assert seen == [(kind, who) for who in order for kind in ("async", "plain")]


async def test_words_that_start_a_run_and_a_resume_bring_their_own() -> None:
    client = Watching([say("noted"), say("went on")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client)
        with pod.subscribe(RunEnd) as events:
            await asyncio.create_task(as_("one", pod, "notify"))
            await anext(events)
        client.hangs = asked = asyncio.Event()
        paused = asyncio.create_task(as_("two", pod))
        await asked.wait()
        await pod.pause()
        await asyncio.wait({paused})
        tenant.set("three")
        assert (await pod.resume()).text == "went on"
    assert client.seen[0] == "one"
    assert client.seen[-1] == "three"


def test_callers_in_threads_keep_theirs_too() -> None:
    client = Watching([say("1"), say("2")])
    with PodSystem() as system:
        pod = system.spawn(PLAIN, client=client).get()
        for who in ("one", "two"):
            context = copy_context()
            context.run(tenant.set, who)
            context.run(lambda: pod.run("go").get(timeout=60))
    assert client.seen == ["one", "two"]


def test_memory_jobs_see_the_values_of_who_wanted_them_last(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    class Client:
        model = "m"

        async def stream(self, request: Request) -> AsyncIterator[Block]:
            names = {each.name for each in request.tools}
            helper = next((name for name in ("write_extracted", "write_memory") if name in names), "run")
            seen.append((helper, tenant.get()))
            reply = say("Use tabs." if helper == "write_extracted" else "nothing")
            async for block in reply.stream():
                yield block

    async def main() -> None:
        async with PodSystem(memory=tmp_path) as system:
            manifest = PodManifest.of(name="p", extract_threshold=1, consolidate_files=1)
            pod = await system.spawn(manifest, client=Client())
            await asyncio.create_task(as_("one", pod))
            assert await pod.wait_for_memory_jobs(timeout=60)
            await asyncio.create_task(as_("two", pod))
            assert await pod.wait_for_memory_jobs(timeout=60)
            tenant.set("three")
            await pod.spawn_memory_jobs()
            assert await pod.wait_for_memory_jobs(timeout=60)
            assert tenant.get() == "three"

    asyncio.run(main())
    assert {who for _, who in seen} == {"one", "two", "three"}
    order = [who for _, who in seen]
    assert order == sorted(order, key=["one", "two", "three"].index)
    assert ("write_extracted", "one") in seen
    assert ("write_extracted", "two") in seen
    assert seen[-1] == ("write_memory", "three")
