"""A model server that is not there: one cause in few lines, however the run was waited for."""

import asyncio
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from ports import unused_port

from polypod import ModelError, PodManifest, PodSystem, RunFailed


def failed_by(how: str, port: int) -> RunFailed:
    manifest = PodManifest.of(model="ollama/x", base_url=f"http://127.0.0.1:{port}/v1")

    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(manifest)
            if how == "stream":
                async for _ in pod.stream("hi").text():
                    pass
            await pod.run("hi")

    def blocking() -> None:
        with PodSystem() as system:
            system.spawn(manifest).get().run("hi").get(timeout=60)

    with pytest.raises(RunFailed) as caught:
        blocking() if how == "get" else asyncio.run(main())
    return caught.value


@pytest.mark.slow
def test_it_is_reported_as_one_cause_in_few_lines_with_its_url_and_how_to_start_it():
    port = unused_port()
    ways = ("run", "get", "stream")
    with ThreadPoolExecutor() as threads:  # each sends its request again, and waits before
        for error in threads.map(failed_by, ways, [port] * len(ways)):
            assert_well_worded(error, port)


def assert_well_worded(error: RunFailed, port: int) -> None:
    published = "".join(traceback.format_exception(error))
    assert (published.count("direct cause"), published.count("During handling")) == (1, 0)
    assert "aiohttp" not in published
    assert len(published.splitlines()) < 50
    assert published.splitlines()[-1].startswith(
        f"protocol.errors.RunFailed: 127.0.0.1:{port}: the connection was refused"
    )
    assert f"http://127.0.0.1:{port}/v1" in str(error)
    assert "ollama serve" in str(error)
    assert isinstance(error.cause, ModelError)
    assert error.__cause__ is error.cause
    assert error.cause.__context__ is not None, "a debugger still finds where it came from"
