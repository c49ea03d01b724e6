"""``Runner``: what starts an agent, and ``Life``: an agent at work, as whoever supervises it sees it.

A runner yields events and decides no status; who supervises the agent records them and folds the status:

- ``Runner.start`` returns at once and never raises: whatever keeps a program from starting is the
  ``AgentStopped`` of the life that it gives.
- A life is an async iterator with one reader. It yields events that are not recorded yet: ``pod`` is the
  agent's id, ``session_id`` is empty and ``seq`` is 0, for who records them to fill in. Exactly one
  ``AgentStopped`` comes, last, and only once no process of the agent is left.
- ``AgentStarted`` comes once the program is up and has said by what session it can be resumed.
- A task is a run: ``RunStart``, ``UserMessage``, what the program prints, and exactly one ``RunEnd`` with the
  outcome, usage and cost of this run alone. Its answer is the last ``AssistantMessage`` in it. ``AgentIdle``
  follows where the program waits for more. A run that is open when the program ends is closed as failed.
- ``AgentStopped.error`` is None only where the last run ended well by the program's own words and the
  program ended with code 0, or where it was asked to end.
- An event is asked for once the one before it is recorded: the words of a user reach the program only after
  their ``UserMessage`` was taken from the iterator and the next event is waited for. So ``send`` must not be
  awaited by the task that reads the events.

A runner that is ``one_shot`` has a program that does one task and ends (``codex exec``). To send it more,
start it again with ``resuming`` and the words as ``task``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from actors.runtime.arguments import check_seconds
from actors.runtime.children.child import Ladder
from actors.runtime.children.launcher import Launcher
from protocol.events import Event
from protocol.usage import Usage


class StopWaits(Struct, frozen=True):
    """How many seconds an agent's program has at each step of its end: after it was asked to, and
    after TERM.
    """

    request: float = 1.0
    term: float = 2.0

    def ladder(self, signal: int | None = None) -> Ladder:
        """The ladder of its child; ``signal`` is what asks it to end, None where words do."""
        return Ladder(signal, self.request, self.term)


def stop_waits(request: float, term: float) -> StopWaits:
    """The waits that a program gave. Raises InvalidInput, ValueError."""
    check_seconds("request_wait", request)
    check_seconds("term_wait", term)
    return StopWaits(request, term)


class Launch(Struct, frozen=True, kw_only=True):
    """What a runner is to start.

    ``session`` is what it continues: a session of the store if the agent is a pod, else the id that its
    program gave (``AgentStarted.session``). ``inbox`` is the socket on which a program of ours listens,
    ``log`` the file that it may write if its output is gone, ``env`` the names of variables that its program
    may have besides those that every child has. If it is ``resuming``, ``task`` is words for a conversation
    that continues; without a task it waits, or with ``go_on`` takes up the task that was interrupted, if it
    can do so without words. ``used`` is what its earlier runs used up together, according to their
    ``RunEnd``, for programs that report a conversation as a whole; None if unknown.
    """

    agent_id: str
    cwd: Path
    inbox: Path
    log: Path
    task: str | None = None
    model: str | None = None
    provider: str | None = None
    session: str | None = None
    env: tuple[str, ...] = ()
    resuming: bool = False
    go_on: bool = False
    used: Usage | None = None
    waits: StopWaits = StopWaits()


class Permission(Struct, frozen=True, kw_only=True):
    """What a program asks a person to approve, with the fields of an ``ApprovalRequested``.

    With a ``form`` the answer has arguments of that schema. ``key`` is the program's own name for the
    question: the approval's id ends with it, after a dash.
    """

    tool: str
    key: str = ""
    call_id: str = ""
    arguments: dict[str, Any] = {}
    why: str | None = None
    form: dict[str, Any] | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """A person's answer, with the fields of an ``ApprovalResolved``; ``always`` applies to the same question
    from now on.
    """

    approved: bool
    always: bool = False
    arguments: dict[str, Any] | None = None
    note: str | None = None


#: With what a question is cancelled that a person has answered elsewhere.
APPROVED, DENIED = "approved", "denied"


class Host(Protocol):
    """What the surroundings of an agent offer to a runner."""

    def launcher(self) -> Launcher:
        """What starts its processes."""

    async def ask(self, permission: Permission, /) -> Answer:
        """Ask a person, for as long as it takes. It is cancelled when the answer is no longer wanted, with
        ``APPROVED`` or ``DENIED`` if a person has answered the program directly.
        """


class Life(Protocol):
    """An agent from its start to its end, on the loop that started it."""

    @property
    def pid(self) -> int | None:
        """The number of its process, None while there is none, or where it has none of its own."""

    @property
    def session(self) -> str | None:
        """The session by which it can be resumed, once that is known."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __anext__(self) -> Event:
        """The next event. Raises StopAsyncIteration after ``AgentStopped``."""

    async def send(self, text: str, /) -> None:
        """Send words: the next task of an idle agent; while a task is under way they join it. Returns once
        they were handed over.

        Raises AgentBusy if the program accepts none during a task (send them once it is idle), and
        AgentNotRunning, also if the program ended before it had them.
        """

    async def cancel(self) -> None:
        """End the current task, if any.

        The run ends as cancelled, and with it the life if the program has no other way
        (``AgentStopped.reason`` is ``cancelled``). Returns once the program was asked to.
        """

    async def stop(self) -> None:
        """End the program: by a request, TERM and KILL, each with its wait. Returns once nothing of it is
        left, even if nobody reads the iterator. A second call waits for the same end.
        """


class Runner(Protocol):
    """Starts agents of one kind. It is shared by all of them and keeps no state."""

    @property
    def name(self) -> str:
        """The value of ``AgentStarted.runner``."""

    @property
    def one_shot(self) -> bool:
        """Whether its program ends with its task."""

    def start(self, launch: Launch, host: Host, /) -> Life:
        """Start an agent, on the running loop. Never raises."""


#: What a function that is a runner is called with, and the text that it may give back.
RunnerFunction = Callable[..., Awaitable[str | None]]
#: How a runner is named: by a name of ours, the command of a program that prints our lines, or itself.
RunnerSpec = str | Sequence[str] | Runner
