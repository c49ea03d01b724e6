"""Any run of commands does to a store on disk what it does to the memory store, crashes included."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from effort import times
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_kit import KINDS, bodies, child_of, wait_until_done

from actors.sessions.chain import chained, head_of, verified
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from protocol.entries import Head
from protocol.errors import SessionError

PODS = st.sampled_from(["one", "two"])
TEXTS = st.lists(st.sampled_from(["", "a", "b" * 700]), min_size=1, max_size=4)


class StoreMachine(RuleBasedStateMachine):
    """Gives each command to both stores and compares what comes of it."""

    kind = "sqlite-process"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = MemoryStore()
        self.store = KINDS[self.kind](self.folder)
        self.made = 0
        self.crashed: list[SessionStore] = []

    def teardown(self) -> None:
        self.store.close()
        for store in self.crashed:
            store.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def both(self, use) -> None:
        outcomes = []
        for store in (self.model, self.store):
            try:
                outcomes.append(use(store))
            except SessionError as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1]

    def a_session(self, data) -> str:
        return data.draw(st.sampled_from([info.session_id for info in self.model.sessions()]))

    @rule(pod=PODS, texts=TEXTS, claim=st.booleans())
    def create(self, pod, texts, claim):
        name = f"s{self.made}"
        self.made += 1
        batch = chained(bodies(*texts))
        self.both(lambda store: wait_until_done(store.create(name, pod, None, batch, claim=claim)))

    @precondition(lambda self: self.model.sessions())
    @rule(data=st.data(), pod=PODS, kind=st.sampled_from(["forked_from", "compacted_from"]))
    def fork(self, data, pod, kind):
        entries = self.model.read(self.a_session(data))
        at = data.draw(st.integers(1, len(entries)))
        parent = child_of(self.a_session(data), entries[:at], kind)
        name = f"s{self.made}"
        self.made += 1
        batch = chained(bodies("kept"), first_seq=parent.at_seq + 1)
        self.both(lambda store: wait_until_done(store.create(name, pod, parent, batch)))

    @precondition(lambda self: self.model.sessions())
    @rule(data=st.data())
    def create_again(self, data):
        name = self.a_session(data)
        self.both(lambda store: wait_until_done(store.create(name, "pod", None, chained(bodies("x")))))

    @precondition(lambda self: self.model.sessions())
    @rule(data=st.data(), texts=TEXTS)
    def append(self, data, texts):
        name = self.a_session(data)
        head = self.model.info(name).head
        self.both(
            lambda store: wait_until_done(store.append(name, head, chained(bodies(*texts), after=head)))
        )

    @precondition(lambda self: self.model.sessions())
    @rule(data=st.data(), wrong=st.sampled_from([-1, 0, 1]))
    def append_elsewhere(self, data, wrong):
        name = self.a_session(data)
        after = Head(self.model.info(name).head.seq + wrong, bytes(32))
        self.both(lambda store: wait_until_done(store.append(name, after, chained(bodies("x"), after=after))))

    @precondition(lambda self: self.model.sessions())
    @rule(data=st.data(), pod=PODS)
    def claim(self, data, pod):
        name = self.a_session(data)
        self.both(lambda store: (store.claim(name, pod).pod, store.holder(name).pod))

    @precondition(lambda self: self.model.sessions())
    @rule(data=st.data())
    def release(self, data):
        name = self.a_session(data)
        self.both(lambda store: (store.release(name), store.flush()))

    @precondition(lambda self: self.model.sessions())
    @rule(data=st.data())
    def delete(self, data):
        name = self.a_session(data)
        self.both(lambda store: store.delete(name) if store.holder(name) is None else None)

    @rule()
    def close_and_open(self):
        self.store.close()
        self.reopen()

    @rule(torn=st.sampled_from([b"", b'{"seq":9,"ha', b"\0\0\0"]), data=st.data())
    def crash_and_open(self, torn, data):
        """The process ends: the kernel frees its lock, and what it was just writing may be torn."""
        self.store.flush()
        self.store._lock.abandon()
        self.crashed.append(self.store)
        files = sorted(self.folder.glob("pods/*.jsonl"))
        if files:
            with data.draw(st.sampled_from(files)).open("ab") as file:
                file.write(torn)
        self.reopen()

    def reopen(self) -> None:
        self.store = KINDS[self.kind](self.folder)
        for info in self.model.sessions():
            self.model.release(info.session_id)

    @invariant()
    def the_same_sessions(self):
        stores: list[SessionStore] = [self.model, self.store]
        seen = [
            [
                (info.session_id, info.pod, info.head, info.parent, self.successors(store, info.session_id))
                for info in store.sessions()
            ]
            for store in stores
        ]
        assert sorted(seen[0]) == sorted(seen[1])
        for name, *_ in seen[0]:
            entries = self.store.read(name)
            assert entries == self.model.read(name)
            assert head_of(verified(name, entries)) == self.store.info(name).head

    def successors(self, store, name):
        return [info.session_id for info in store.successors(name)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_on_disk_does_what_the_memory_store_does(kind):
    machine = type(kind, (StoreMachine,), {"kind": kind})
    case = machine.TestCase
    case.settings = settings(
        max_examples=times(6), stateful_step_count=25, deadline=None, database=None, derandomize=True
    )
    case("runTest").runTest()
