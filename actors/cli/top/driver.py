"""``TopDriver``: the terminal of ``polypod top``, whatever it sends, and also once it is gone."""

from __future__ import annotations

import contextlib
from typing import IO, Any

from textual.drivers.linux_driver import LinuxDriver


class TopDriver(LinuxDriver):
    """textual's own with three faults mended: a byte that is not UTF-8 ended the app with a traceback; a
    write to a closed terminal never returned; and after a SIGCONT without a stop before it (a terminal that
    is closed sends one) the terminal was left in the app's own mode.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._file: Any = _Output(self._file)

    def run_input_thread(self) -> None:
        """Dispatch what is typed; keys that came together with what is not UTF-8 are passed over."""
        while not self.exit_event.is_set():
            try:
                super().run_input_thread()
            except UnicodeDecodeError:
                continue
            return

    def write(self, data: str) -> None:
        """Write to the terminal, while that is the app's."""
        if self._is_started():
            super().write(data)

    def start_application_mode(self) -> None:
        """Take the terminal, given back before where it was taken."""
        if self._is_started():
            self.suspend_application_mode()
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def _sigcont_application(self, *_: object) -> None:
        # By the loop: what the signal interrupts may hold the lock of what is to be written.
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        if self._auto_restart and self._app.is_running:
            self.resume_application_mode()

    def _is_started(self) -> bool:
        return self._writer_thread is not None and self._writer_thread.is_alive()


class _Output:
    """A terminal to write to. What cannot be written since it was closed is dropped: the error would end the
    thread that writes, and the app would wait for it.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write, if that can be."""
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Have what was written be seen, if that can be."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        """The descriptor."""
        return self._file.fileno()
