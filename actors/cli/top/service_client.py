"""Sends what a person wants of ``polypod top`` to the service of the swarm, while the screen goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from actors.cli.swarm.client import LOOK, Client, gone, said_in
from actors.cli.swarm.wire import LONGEST, Asked, Said


class Service:
    """The service of one folder, which is started where there is none."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ask(self, asked: Asked) -> Said:
        """Ask the service, and return what it answers. Raises PolypodError, OSError."""
        async with aclosing(self.stream(asked)) as answer:
            async for said in answer:
                if said.done:
                    return said
        raise gone()

    async def stream(self, asked: Asked) -> AsyncGenerator[Said, None]:
        """All that it answers, the last of it included. Raises PolypodError, OSError."""
        reader, writer = await self._connect()
        try:
            writer.write(self._client.line(asked))
            while line := await reader.readline():
                yield (said := said_in(line))
                if said.done:
                    return
        except (ConnectionError, ValueError) as error:  # cut off, or longer than any line
            raise gone() from error
        finally:
            writer.close()
        raise gone()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for connection in self._client.connections():
            if connection is not None:
                return await asyncio.open_unix_connection(sock=connection, limit=LONGEST)
            await asyncio.sleep(LOOK)
        raise gone()
