"""A model server that is not there: one cause in few lines, however the run was waited for."""

import asyncio
import traceback

import pytest
from ports import unused_port

from polypod import ModelError, PodManifest, PodSystem, RunFailed


def failed_by(how: str, port: int) -> RunFailed:
    manifest = PodManifest.of(model="openai/m", base_url=f"http://127.0.0.1:{port}/v1")

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


@pytest.mark.parametrize("how", ["run", "get", "stream"])
def test_it_is_told_as_one_cause_in_few_lines(how: str):
    port = unused_port()
    error = failed_by(how, port)
    told = "".join(traceback.format_exception(error))
    assert (told.count("direct cause"), told.count("During handling")) == (1, 0)
    assert "aiohttp" not in told
    assert len(told.splitlines()) < 50
    assert told.splitlines()[-1].startswith(f"protocol.errors.RunFailed: 127.0.0.1:{port}: nothing answers")
    assert isinstance(error.cause, ModelError)
    assert error.__cause__ is error.cause
    assert error.cause.__context__ is not None, "a debugger still finds where it came from"
