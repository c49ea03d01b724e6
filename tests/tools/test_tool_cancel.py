"""The cancel flag works from threads and on loops, whoever comes first."""

from __future__ import annotations

import asyncio
import threading

from actors.tools.cancel import Cancel


def test_a_thread_that_waits_is_woken():
    cancel, seen = Cancel(), []
    thread = threading.Thread(target=lambda: seen.append(cancel.wait(10)))
    thread.start()
    cancel.set()
    thread.join(60)
    assert seen == [True]


def test_a_wait_that_runs_out_says_so():
    assert Cancel().wait(0.001) is False


def test_a_coroutine_that_waits_is_woken_from_a_thread():
    async def main() -> None:
        cancel = Cancel()
        threading.Timer(0, cancel.set).start()
        await asyncio.wait_for(_until(cancel), 60)
        await cancel
        assert cancel.cancelled

    async def _until(cancel: Cancel) -> None:
        await cancel

    asyncio.run(main())


def test_callbacks_are_called_once_and_late_ones_at_once():
    cancel, calls = Cancel(), []
    cancel.on_cancel(lambda: calls.append("early"))
    forget = cancel.on_cancel(lambda: calls.append("forgotten"))
    forget()
    cancel.set()
    cancel.set()
    cancel.on_cancel(lambda: calls.append("late"))
    forget()
    assert calls == ["early", "late"]
    assert repr(cancel) == "<Cancel cancelled>"
