"""``ProcessPods``: makes pods that are processes, for one system."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Raw

from actors.llm.prices import standard_prices
from actors.pod.address import Mailboxes
from actors.runtime.children.child import Child, Ladder
from actors.runtime.children.environment import allowed_environment
from actors.runtime.children.inherited import search_path
from actors.runtime.children.launcher import Output
from actors.runtime.events.bus import Bus
from actors.runtime.frozen import is_frozen
from actors.runtime.importable import import_path
from actors.runtime.loop import Mailroom
from actors.sessions.store import SessionStore
from actors.swarm.processes.process_pod import ProcessPod, Surroundings
from actors.swarm.roster import Roster
from actors.swarm.settings import Settings
from protocol.errors import ChildNotStarted, NotImportable, StoreError
from protocol.pod_process import BeginPod
from protocol.wire import encode

if TYPE_CHECKING:
    from actors.pod.assembly import Assembly
    from actors.swarm.processes.shared_servers import SharedServers
    from actors.swarm.spawner import Wanted

#: Whether such a process is forked from one that has imported what it needs; elsewhere it is started anew.
_FORKS = sys.platform == "linux" or is_frozen()
_PREPARE, _FORKED = "actors.pod_process.zygote:prepare", ("polypod-pod",)
#: What the interpreter of such a process runs; its arguments are where modules are looked for.
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[1:]; from actors.pod_process.main import main; main()"
_STARTED = (sys.executable, "-I", "-c", _BOOTSTRAP)


class ProcessPods:
    """Starts pods that are processes. Used on the loop of their system alone."""

    def __init__(
        self,
        room: Mailroom,
        bus: Bus,
        store: SessionStore,
        roster: Roster,
        mailboxes: Mailboxes,
        assembly: Assembly,
        settings: Settings,
        tool_threads: int | None,
    ) -> None:
        self._store, self._settings, self._tool_threads = store, settings, tool_threads
        self._roster, self._assembly = roster, assembly
        self._around = Surroundings(
            room,
            bus,
            store,
            mailboxes,
            self._start_process,
            assembly.budget,
            assembly.totals,
            settings.grace,
            roster.forget,
            self._share_servers,
        )

    def spawn(self, wanted: Wanted) -> None:
        """Start a pod; the future gives its handle once it takes commands."""
        try:
            begin = self._begin(wanted)
        except Exception as error:  # noqa: BLE001 - who spawned gets it
            wanted.future.set_exception(error)
            return
        made = ProcessPod(begin, self._around)
        self._roster.pods[begin.name] = made.pod
        made.live(wanted.future)

    def _begin(self, wanted: Wanted) -> BeginPod:
        given, settings, manifest = wanted.given, self._settings, wanted.manifest
        if given.deps is not None:
            raise NotImportable(
                "deps is an object, which cannot be sent to another process",
                hint="create it in the module of its tools",
            )
        client = None if given.client is None else import_path(given.client, "client")
        hooks = tuple(import_path(each, "hooks") for each in given.hooks)
        tools = tuple(import_path(each, "tools") for each in given.tools)
        prices = settings.prices
        return BeginPod(
            manifest=manifest,
            store=_address_of(self._store),
            name=self._roster.choose_name(manifest.pod.name, wanted.name),
            folder=_working_directory(),
            resume=wanted.resume,
            exact=wanted.exact,
            session=wanted.session,
            client=client,
            tools=tools,
            hooks=hooks,
            environment=tuple(os.environb.items()),
            budget=settings.limits,
            on_conflict=settings.on_conflict,
            outputs=str(settings.outputs),
            memory=str(settings.memory_beside(self._store)),
            prices=None if prices is standard_prices() else Raw(encode(prices)),
            passivate_after=settings.passivate_after,
            graces=settings.graces,
            processes=settings.processes,
            tool_threads=self._tool_threads,
        )

    def _share_servers(self, end: socket.socket) -> SharedServers:
        from actors.swarm.processes.shared_servers import SharedServers  # noqa: PLC0415 - paid for by pods that have any

        return SharedServers(end, self._assembly.tools.own_connections())

    async def _start_process(
        self, commands: socket.socket, accounts: socket.socket, folder: str, ladder: Ladder
    ) -> Child:
        launcher = self._assembly.launchers.of_pods(_PREPARE if _FORKS else None)
        return await launcher.start(
            [*(_FORKED if _FORKS else _STARTED), *search_path()],
            cwd=folder,
            env={} if _FORKS else allowed_environment(),  # it is sent ours with its start
            stdin=accounts.fileno(),
            stdout=commands.fileno(),
            stderr=_stderr(),
            ladder=ladder,
        )


def _working_directory() -> bytes:
    """Raises ChildNotStarted."""
    try:
        return os.fsencode(Path.cwd())
    except FileNotFoundError as error:
        raise ChildNotStarted.of(
            "the process of a pod", "the working directory no longer exists", hint="change to another one"
        ) from error


def _stderr() -> Output:
    """Where the process writes what goes wrong: with us, where we have any."""
    try:
        os.fstat(2)
    except OSError:
        return "null"
    return 2


def _address_of(store: SessionStore) -> str:
    """The URL by which another process opens the same store. Raises StoreError."""
    scheme, _, rest = store.url.partition(":")
    if store.folder is None or not store.files:
        raise StoreError(
            f"a pod in its own process opens the store itself, but {store.url} exists only in this process",
            hint="use a store that processes can share: sqlite:FILE or jsonl:DIR",
        )
    _, query, options = rest.partition("?")
    return f"{scheme}:{store.files[0]}{query}{options}"
