"""The ids of runs: by chance alone, though the system is asked for many at once."""

from __future__ import annotations

import os
import random
import threading

from child_kit import in_child

from actors.pod.runs.run_state import new_run_id


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    new_run_id()  # others are kept ready by now
    reading, writing = os.pipe()

    def send() -> bool:
        return os.write(writing, "".join(new_run_id() for _ in range(100)).encode()) == 1600

    assert in_child(send) == 0
    of_child = os.read(reading, 2000).decode()
    for descriptor in (reading, writing):
        os.close(descriptor)
    assert not {of_child[n : n + 16] for n in range(0, 1600, 16)} & {new_run_id() for _ in range(100)}


def test_programs_that_seed_random_and_threads_get_ids_that_are_all_different() -> None:
    random.seed(1)
    found: list[str] = []

    def take() -> None:
        found.extend([new_run_id() for _ in range(500)])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2000
    assert {len(each) for each in found} == {16}
