"""What a helper process does before it forks pods: imports all that they share, uses it and freezes it."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from actors.pod_process.holes import fill_holes
from actors.pod_process.main import ENDING, main, receive_begin, serve
from actors.runtime.children.program import FUNCTIONS
from actors.runtime.in_thread import end_threads
from actors.runtime.loop import forget_closed_loops
from actors.system import PodSystem
from protocol import channel
from protocol.manifest import PodManifest
from protocol.pod_process import BeginPod
from protocol.wire import encode

#: By what name a helper is asked for a pod.
POD = "polypod-pod"
#: What most pods come to import.
_MODULES = (
    "actors.compaction.compose",
    "actors.compaction.cut",
    "actors.llm.anthropic.client",
    "actors.llm.http.http_pool",
    "actors.llm.http.presets",
    "actors.llm.openai.client",
    "actors.pod.history.task_tools",
    "actors.pod.session.past_events",
    "actors.sessions.jsonl.store",
    "actors.tools.builtin",
    "polypod.early_interrupt",
)
#: How often what a pod does is done beforehand: CPython writes into a function at each call up to the eighth.
_ROUNDS = 8


def prepare() -> None:
    """Have this process fork pods: they share with it what it has imported and built, and write little into
    what it has done itself.
    """
    for name in _MODULES:
        import_module(name)
    handlers = {each: signal.getsignal(each) for each in ENDING}
    manifest = PodManifest.of(name="warm")
    with tempfile.TemporaryDirectory(prefix="polypod-") as folder:
        store = f"sqlite:{folder}/pods.db"
        asyncio.run(_run(manifest, store))
        for _ in range(_ROUNDS):
            _start(BeginPod(manifest=manifest, name="warm", store=store, folder=os.fsencode(folder)))
    tempfile.tempdir = None  # each pod has variables of its own that say where it is
    for each, handler in handlers.items():
        signal.signal(each, handler)
    FUNCTIONS[POD.encode()] = _be_pod
    forget_closed_loops()
    end_threads()  # a forked process has none of them
    gc.collect()
    fill_holes()
    gc.freeze()


async def _run(manifest: PodManifest, store: str) -> None:
    """Have a pod do what pods do."""
    async with PodSystem(store) as system:
        pod = await system.spawn(manifest)
        for _ in range(_ROUNDS):
            await pod.run("warm up")


def _start(begin: BeginPod) -> None:
    """Be a pod here whose parent asks nothing of it, up to its end."""
    near, far = socket.socketpair()
    accounts, accounts_far = socket.socketpair()
    body = encode(begin)
    with near, accounts, accounts_far:
        near.sendall(channel.head(len(body)) + body)
        near.shutdown(socket.SHUT_WR)
        asyncio.run(serve(receive_begin(far), far, accounts_far))


def _be_pod(paths: Sequence[bytes]) -> None:
    keep: Any = os.register_at_fork
    if hasattr(keep, "kept"):  # what the launcher has put in its place
        os.register_at_fork = keep.register
        for hooks in keep.kept:
            os.register_at_fork(**hooks)
    random.seed()
    sys.path[:] = map(os.fsdecode, paths)
    gc.enable()
    main()
