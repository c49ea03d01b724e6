"""``CommandVerifier``: a command, such as a test suite, whose exit code says whether an answer is good."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from actors.runtime.arguments import command_of, is_number, path_of, several
from actors.runtime.children.environment import allowed_environment
from actors.runtime.children.launcher import Launcher
from actors.runtime.children.run_whole import run_whole
from actors.runtime.cleaning import cleaned
from actors.runtime.closing import Closing
from protocol.errors import ChainInvalid, RoutingError
from protocol.foreign import shown
from protocol.routing import Verdict

#: How much of what the command writes is feedback: its end, in bytes.
FEEDBACK_BYTES = 4096


class CommandVerifier(Closing):
    """Runs a command that gets the answer on its standard input: exit code 0 accepts the answer, any other
    rejects it, with the end of the command's output as feedback.

    A command that is killed, or takes longer than ``timeout`` seconds, is an error of the verifier. It runs
    in ``cwd`` (by default the working directory), with the few variables that children may have, and those
    that ``env`` names. It is ended with all its descendants when its time is up, when the chain is cancelled,
    and when this process ends.
    """

    def __init__(
        self,
        command: str | Sequence[str | os.PathLike[str]],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Iterable[str] = (),
        timeout: float = 120.0,
        launcher: Callable[[], Launcher] | None = None,
    ) -> None:
        """``launcher`` returns what starts the command; by default the verifier has its own, which ``aclose``
        closes.
        """
        words = command_of("command", command)
        if not words:
            raise ChainInvalid(
                "the verifier's command is empty", hint='as in CommandVerifier(["pytest", "-q"])'
            )
        if not (is_number(timeout) and timeout > 0):
            raise ChainInvalid(f"the verifier's timeout is {shown(timeout)}: expected more than 0 seconds")
        self._words = words
        self._cwd = None if cwd is None else path_of("cwd", cwd)
        self._env = several("env", env)
        self._timeout = timeout
        self._given = launcher
        self._own: Launcher | None = None

    def __repr__(self) -> str:
        return f"<CommandVerifier {shlex.join(self._words)}>"

    async def verify(self, skill_prompt: str, task_prompt: str, output: str) -> Verdict:  # noqa: ARG002
        """The command's verdict. Raises ChildError, and RoutingError if it says nothing about the answer."""
        try:
            ran = await run_whole(
                self._launcher(),
                self._words,
                cwd=self._cwd or Path.cwd(),
                env=allowed_environment(self._env),
                stdin=output.encode("utf-8", "replace"),
                seconds=self._timeout,
            )
        except TimeoutError:
            raise RoutingError(f"{self._words[0]} did not end within {self._timeout:g} s") from None
        if ran.code < 0:
            raise RoutingError(f"{self._words[0]} was ended by signal {-ran.code}")
        return Verdict(ran.code == 0, "" if ran.code == 0 else _end_of(ran.stdout_end + ran.stderr))

    async def aclose(self) -> None:
        """End a running command, and the process that starts commands if it is the verifier's own."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    def _launcher(self) -> Launcher:
        if self._given is not None:
            return self._given()
        if self._own is None:
            self._own = Launcher()
        return self._own


def _end_of(written: bytes) -> str:
    return cleaned(written[-FEEDBACK_BYTES:].decode("utf-8", "replace")).strip()
