"""kill -9 in the middle of writing: all that was reported is there, nothing is torn, and on it goes."""

from __future__ import annotations

import random
import threading

import pytest
from store_kit import KINDS, add, python

from actors.sessions.chain import head_of, verified
from protocol.entries import Head

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from store_kit import KINDS, add, make
from actors.sessions.chain import head_of
from protocol.entries import Head

store = KINDS[sys.argv[1]](Path(sys.argv[2]))
name, count = sys.argv[3], int(sys.argv[4])
if any(info.session_id == name for info in store.sessions()):
    claim = store.claim(name, name)
    print("generation", claim.generation, flush=True)
    head = store.info(name).head
else:
    head = head_of(make(store, name, "first", pod=name))
    print("generation", 1, flush=True)
while count:
    count -= 1
    head = add(store, name, head, *["x" * 300] * (head.seq % 5 + 1))
    print(head.seq, head.hash.hex(), flush=True)
"""


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_kill_9_while_writing_loses_nothing_that_was_reported(tmp_path, kind):
    chance = random.Random(4)
    for round_ in range(1, 4):
        process = python(WRITER, kind, tmp_path, "s", -1)
        assert process.stdout.readline().split() == ["generation", str(round_)]
        reported = [process.stdout.readline() for _ in range(chance.randrange(1, 40))]
        threading.Event().wait(chance.random() / 200)  # a kill at any moment of its writing
        process.kill()
        reported += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        process.stdin.close()
        whole = [line for line in reported if line.endswith("\n")]
        seq, digest = whole[-1].split()
        store = KINDS[kind](tmp_path)
        entries = verified("s", store.read("s"))
        assert entries[int(seq) - 1].hash.hex() == digest
        assert store.info("s").head == head_of(entries)
        assert store.holder("s") is None
        store.close()


def test_many_processes_write_side_by_side_and_none_is_refused(tmp_path, kind):
    names = ["s", "t", "u"]
    processes = [python(WRITER, kind, tmp_path, name, 60) for name in names]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    store = KINDS[kind](tmp_path)
    lengths = {name: len(verified(name, store.read(name))) for name in names}
    assert len(set(lengths.values())) == 1
    assert lengths["s"] > 60
    store.close()


def test_what_a_killed_process_left_half_done_does_not_stop_the_next(tmp_path, kind):
    process = python(WRITER, kind, tmp_path, "s", -1)
    for _ in range(5):
        process.stdout.readline()
    process.kill()
    process.communicate()
    store = KINDS[kind](tmp_path)
    assert store.claim("s", "next").generation == 2
    head = store.info("s").head
    assert isinstance(head, Head)
    add(store, "s", head, "on")
    assert head_of(verified("s", store.read("s"))).seq == head.seq + 1
    assert store.problems() == []
    store.close()
