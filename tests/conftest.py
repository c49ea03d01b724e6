"""What all tests share: properties are never judged by the clock, and SIGINT is heard by children."""

import os
import signal
import threading

from effort import times
from hypothesis import settings

settings.register_profile("polypod", deadline=None, max_examples=times(25), print_blob=True)
settings.load_profile("polypod")

# A child that may not keep what it compiles would compile the whole package again, for a second each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell that starts a job in the background has it ignore SIGINT, and its children would inherit that.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
