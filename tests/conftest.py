"""What all tests share: how much they try, when they are past their time, bytecode that is kept, and SIGINT
that reaches children.
"""

import gc
import os
import signal
import sys
import threading

import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st
from overdue import pytest_timeout_set_timer  # noqa: F401 - a hook
from pod_processes import system_on  # noqa: F401 - a fixture

# How fast something is, no property judges by the clock.
settings.register_profile("polypod", deadline=None, max_examples=times(25), print_blob=True)
settings.load_profile("polypod")

# Where Python is asked to keep no bytecode, each worker would compile all tests, and each child all of polypod.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts a job in the background has it ignore SIGINT, and its children would inherit that.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test touches what the user who runs it has in a state folder, or reads what is in a configuration
    folder.
    """
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("configuration"))


gc.disable()  # while the tests are collected


@settings(max_examples=1, database=None)
@given(st.none())
def begin_examples(_: None) -> None:
    """Have hypothesis make its source of chance: old versions ask the collector who holds it."""


def pytest_collection_finish() -> None:
    """Take the tests themselves out of what the collector looks at: whoever calls it waits for that."""
    begin_examples()
    gc.collect()
    gc.freeze()
    gc.enable()
