"""Prints a recording and ends with a code: ``replay.py FILE CODE [linger|deaf|hang]``; its input comes first."""

import signal
import sys
import threading
from pathlib import Path

file, code, *how = sys.argv[1:4]
if "deaf" in how:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "hang" not in how and "deaf" not in how:
    sys.stdin.read()
sys.stdout.buffer.write(Path(file).read_bytes())
sys.stdout.flush()
if how:
    threading.Event().wait()
sys.exit(int(code))
