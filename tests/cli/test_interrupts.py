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
import asyncio, atexit, contextlib, os, signal, threading, warnings
from concurrent.futures import ThreadPoolExecutor
from actors.cli import interrupts
from actors.cli.interrupts import ignore_signals_at_the_end, leave, run_interruptible

interrupts._MOMENT, interrupts._PATIENCE = 0.1, {patience}

def hold():
    threading.main_thread().join()  # which is over where the interpreter waits for other threads
    print("held", flush=True)
    threading.Event().wait()

def hold_at_exit():
    print("held", flush=True)
    threading.Event().wait()

def start_another():
    threading.Event().wait(0.1)
    threading.Thread(target=print_later).start()

def print_later():
    threading.Event().wait(0.3)  # longer than the threads of loops have
    print("printed")

def outlast_the_wait_for_loops():
    for each in threading.enumerate():
        if each.daemon and each.name.endswith('(_leave_threads_of_loops)'):
            each.join()
    print("outlasted")

freed, again = threading.Event(), threading.Event()

def free_and_wait():
    print("tidied", flush=True)
    if freed.is_set():
        again.set()
    freed.set()
    again.wait(1)  # in which the main thread could do the same

def end_a_forked_process():
    threading.main_thread().join()
    warnings.simplefilter("ignore")  # from 3.12 on Python warns of a fork beside threads
    if (child := os.fork()) == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

async def in_loop(work):
    asyncio.get_running_loop().run_in_executor(None, work)

async def hold_at_cancellation():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.to_thread(hold_at_exit)

async def go_on():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

async def work():
    {hold}
    print("done", flush=True)

ignore_signals_at_the_end()
with contextlib.suppress(KeyboardInterrupt):
    run_interruptible(work())
leave(3)
"""


@contextmanager
def leaving(hold: str, patience: float = 3600) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HELD.format(hold=hold, patience=patience)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def code_after_ctrl_c(hold: str) -> int:
    """The exit code of a command that is held at its end, and that Ctrl-C then ends without a word."""
    with leaving(hold) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["done\n", "held\n"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
        return process.returncode


def test_a_command_ends_though_a_tool_holds_a_thread_of_its_loop_for_ever():
    with leaving("asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)") as process:
        assert process.communicate(timeout=60) == ("done\n", "")
        assert process.returncode == 3


def test_a_signal_ends_a_command_whose_tool_has_left_a_thread_behind_without_a_traceback():
    assert code_after_ctrl_c("threading.Thread(target=hold).start()") == 130


def test_a_command_that_leaves_a_thread_of_its_loop_does_what_atexit_has_been_given():
    with leaving("atexit.register(print, 'tidied'); await in_loop(threading.Event().wait)") as process:
        assert process.communicate(timeout=60) == ("done\ntidied\n", "")
        assert process.returncode == 3


def test_what_a_tool_has_python_do_at_the_end_is_done_whole_where_all_threads_end():
    ends = "threading.Thread(target=threading.main_thread().join, name='asyncio_0').start()"
    with leaving(f"atexit.register(outlast_the_wait_for_loops); {ends}") as process:
        assert process.communicate(timeout=60) == ("done\noutlasted\n", "")
        assert process.returncode == 3


def test_a_thread_that_a_thread_of_a_tool_starts_is_waited_for():
    work = "threading.Thread(target=start_another).start(); await in_loop(threading.Event().wait)"
    with leaving(work) as process:
        assert process.communicate(timeout=60) == ("done\nprinted\n", "")
        assert process.returncode == 3


def test_a_signal_ends_a_command_whose_tool_has_given_atexit_what_does_not_end():
    assert code_after_ctrl_c("atexit.register(hold_at_exit)") == 130


def test_what_a_tool_has_given_atexit_is_done_once_though_that_ends_the_thread_that_is_held():
    with leaving("atexit.register(free_and_wait); await in_loop(freed.wait)") as process:
        assert process.communicate(timeout=60) == ("done\ntidied\n", "")
        assert process.returncode == 3


def test_a_signal_to_a_process_that_a_tools_thread_forks_at_a_commands_end_ends_that_alone():
    with leaving("threading.Thread(target=end_a_forked_process).start()") as process:
        assert process.communicate(timeout=60) == ("done\n-15\n", "")
        assert process.returncode == 3


@pytest.mark.parametrize("daemon", [False, True])
def test_threads_of_a_tools_own_executor_that_hold_a_command_are_named(daemon: bool):
    begin = "ThreadPoolExecutor(1, 'own\\t').submit(hold)"  # a daemon where a plain tool does that
    work = f"begin = threading.Thread(target=lambda: {begin}, daemon={daemon}); begin.start(); begin.join()"
    with leaving(work, patience=0.1) as process:
        assert process.stderr is not None
        words = "waiting for threads that tools left running: 'own\\t_0'; Ctrl-C ends them\n"
        assert process.stderr.readline() == words
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_a_command_ends_though_a_tool_has_left_tasks_that_go_on_when_they_are_cancelled():
    work = "tasks = [asyncio.create_task(each()) for each in (go_on, hold_at_cancellation)]; await asyncio.sleep(0)"
    with leaving(work) as process:
        assert process.communicate(timeout=60) == ("done\nheld\n", "")
        assert process.returncode == 3
