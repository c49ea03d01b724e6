"""Signals that come as what they would end is ending by itself."""

import asyncio
import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from child_kit import in_child
from warm import ROOT

from actors.cli.chat.interruptible import interruptible
from actors.cli.display.terminal import Terminal
from actors.cli.interrupts import Interrupted, catching
from protocol.errors import StoreError


async def test_a_signal_that_comes_as_work_ends_is_given_to_who_goes_on_and_nothing_is_called_later() -> None:
    called: list[int] = []
    with catching(called.append, leaves=lambda _: False) as caught:
        signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    assert (caught, called) == ([signal.SIGTERM], [])


async def test_a_signal_to_a_process_that_a_tool_has_forked_ends_that_and_nothing_else() -> None:
    with catching(lambda _: None) as caught:
        assert in_child(lambda: signal.raise_signal(signal.SIGTERM)) == -signal.SIGTERM
    assert not caught


async def end_with(number: int, error: Exception | None = None) -> str:
    signal.raise_signal(number)
    if error is not None:
        raise error
    return "done"


@pytest.mark.parametrize("error", [None, StoreError("it is full")])
async def test_a_command_of_a_chat_that_is_asked_to_end_as_the_command_ends_leaves(error: Exception) -> None:
    before = (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGHUP),
    )
    terminal = Terminal(io.StringIO(), io.StringIO())
    try:
        with pytest.raises(Interrupted) as left:
            await interruptible(end_with(signal.SIGTERM, error), terminal)
        assert left.value.number == signal.SIGTERM
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), before, strict=True):
            signal.signal(number, handler)


async def test_ctrl_c_as_a_command_of_a_chat_ends_leaves_what_it_has_done() -> None:
    assert await interruptible(end_with(signal.SIGINT), Terminal(io.StringIO(), io.StringIO())) == "done"


HELD = """
import asyncio, atexit, threading
import actors.cli.interrupts
from actors.cli.interrupts import leave, run_interruptible

def hold():
    threading.main_thread().join()  # which is over where the interpreter waits for other threads
    print("held", flush=True)
    threading.Event().wait()

def wait_for_who_ends_the_process():
    for each in threading.enumerate():
        if each.daemon:
            each.join()
    print("flushed", flush=True)

async def work():
    {hold}
    print("done", flush=True)

run_interruptible(work())
leave(3)
"""


@contextmanager
def leaving(hold: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HELD.format(hold=hold)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_command_ends_though_a_tool_holds_a_thread_of_its_loop_for_ever():
    with leaving("asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)") as process:
        assert process.communicate(timeout=60) == ("done\n", "")
        assert process.returncode == 3


def test_a_signal_ends_a_command_whose_tool_has_left_a_thread_behind_without_a_traceback():
    with leaving("threading.Thread(target=hold).start()") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["done\n", "held\n"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == -signal.SIGINT


def test_what_a_tool_has_python_do_at_the_end_is_done_whole_where_all_threads_end():
    with leaving(
        "actors.cli.interrupts._MOMENT = 0;"
        "threading.Thread(target=threading.main_thread().join).start();"
        "atexit.register(wait_for_who_ends_the_process)"
    ) as process:
        assert process.communicate(timeout=60) == ("done\nflushed\n", "")
        assert process.returncode == 3
