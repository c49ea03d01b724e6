"""Regular expressions in a process of their own, so that one which never ends can be ended.

A bad pattern on one long line keeps Python's ``re`` busy for years, without letting go of the
interpreter lock: in a thread it would stop every pod of the process. This file is also the program
of that process, started by its path with nothing but the standard library (17 ms).
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, Self

LINE_CAP = 10_000  # characters of a line that are looked at


class Hit(NamedTuple):
    """A line that matches: its number from 1, and the column of the match from 0."""

    line: int
    column: int


class TooSlow(Exception):  # noqa: N818 - what it says is what happened
    """The pattern took longer than it was given, or its process was ended from outside."""


class Invalid(ValueError):  # noqa: N818 - as above
    """The pattern is not a regular expression; the words say why."""


class Matcher:
    """A pattern at work; a context manager, used by one thread.

    ``seconds`` is for each text; the process ends itself after that, so it cannot outlive us either.
    """

    def __init__(
        self,
        pattern: str,
        *,
        ignore_case: bool,
        seconds: float,
        loose: str | None = None,
        looks: dict[int, str] | None = None,
    ) -> None:
        """A line that ``pattern`` does not fit is tried once more in composed characters and with
        ``looks`` (by code point) in the place of others, against the pattern ``loose``. Raises Invalid,
        and TooSlow: some patterns take long before they are looked for; and ChildNotStarted.
        """
        from actors.runtime.frozen import own_program  # noqa: PLC0415 - not there in that process

        command = own_program("actors.tools.filesystem.matching", __file__)
        job = {
            "pattern": pattern,
            "loose": loose,
            "looks": looks or {},
            "flags": re.IGNORECASE.value if ignore_case else 0,
            "seconds": seconds,
        }
        self._seconds = seconds
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at a terminal is for us to handle
        )
        try:
            why = json.loads(self._answer(json.dumps(job).encode(), "itself"))
        except BaseException:
            self.__exit__()
            raise
        if why is not None:
            self.__exit__()
            raise Invalid(why)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        with self._process:
            pass  # closes the pipes and reaps

    def kill(self) -> None:
        """End the process at once, from any thread; a ``hits`` at work raises TooSlow."""
        self._process.kill()

    def hits(self, texts: Mapping[str, bytes], *, most: int) -> Iterator[list[Hit]]:
        """The matching lines of each of these texts (UTF-8, by their names), the first ``most`` of all.
        Raises TooSlow, with the name of the text.
        """
        # Together, since to wake the other process for a file takes ten times what most of them do.
        order = json.dumps({"most": most, "sizes": [len(text) for text in texts.values()]}).encode()
        data = b"\n".join([order, b"".join(texts.values())])
        for number, name in enumerate(texts):
            answer = self._answer(data, name) if number == 0 else self._next_answer(name)
            yield [Hit(*each) for each in json.loads(answer)]

    def _answer(self, data: bytes, name: str) -> bytes:
        with contextlib.suppress(BrokenPipeError):
            self._send(data)
        return self._next_answer(name)

    def _next_answer(self, name: str) -> bytes:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer.endswith(b"\n"):
            raise TooSlow(f"the pattern takes more than {self._seconds:g} s on {name}")
        return answer

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % len(data) + data)
        self._process.stdin.flush()


def _receive(stream: BinaryIO) -> bytes | None:
    header = stream.readline()
    return stream.read(int(header)) if header else None


def _search(find: Callable[[str], Any], text: bytes, most: int) -> list[Hit]:
    found: list[Hit] = []
    if not most:
        return found
    for number, raw in enumerate(text.split(b"\n"), 1):
        match = find(raw[: LINE_CAP * 4].decode("utf-8", "replace").rstrip("\r")[:LINE_CAP])
        if match is not None:
            found.append(Hit(number, match.start()))
            if len(found) == most:
                break
    return found


def _finder(job: dict[str, Any]) -> Callable[[str], Any]:
    find = re.compile(job["pattern"], job["flags"]).search
    if job["loose"] is None:
        return find
    find_loosely = re.compile(job["loose"], job["flags"]).search
    looks = {int(code): text for code, text in job["looks"].items()}

    def find_either(line: str) -> Any:
        found = find(line)
        if found is not None or line.isascii():
            return found
        return find_loosely(unicodedata.normalize("NFC", line).translate(looks))

    return find_either


def _serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    job = json.loads(_receive(stdin) or b"{}")

    def answer(answered: Callable[[], Any]) -> Any:
        # Nobody handles this signal, so the kernel ends the process, whatever ``re`` is at.
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])
        found = answered()
        signal.setitimer(signal.ITIMER_REAL, 0)
        stdout.write(json.dumps(found).encode() + b"\n")
        stdout.flush()  # at once, so that who is too slow is the first without an answer
        return found

    answer(lambda: _why_invalid(job["pattern"]))
    if job["loose"] is not None and _why_invalid(job["loose"]) is not None:
        job["loose"] = None
    find = _finder(job)
    while (request := _receive(stdin)) is not None:
        order, _, texts = request.partition(b"\n")
        wanted = json.loads(order)
        start, left = 0, wanted["most"]
        for size in wanted["sizes"]:
            found = answer(functools.partial(_search, find, texts[start : start + size], left))
            start, left = start + size, left - len(found)


def _why_invalid(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return None


def main() -> None:
    """Be that process."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
