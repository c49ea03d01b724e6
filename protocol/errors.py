"""The one tree of errors, and ``Failure``, an error as data.

PolypodError
├── ManifestError            a manifest is wrong: file, key, what was expected
│   └── ConfigError          the same of a polypod.toml, or it has not what was asked for
│       └── NotTrusted       nobody has looked at what a project's polypod.toml may start
├── SystemNotRunning         a PodSystem was used before it was entered or after it was left
│   └── SystemOfParent       a forked process used what is its parent's
├── WouldDeadlock            a wait that would never end: of a loop for itself, of a pod's run for that pod
├── PodError
│   ├── NameTaken            an explicit pod name is in use
│   ├── PodNotFound
│   ├── PodBusy              a run is going on (or 32 wait behind it)
│   ├── NotRunning           steer with no run to steer
│   ├── NotPaused            resume with no paused run
│   ├── WaitingForApproval   the history is not to be changed while calls wait for a person's word
│   ├── UnknownApproval      no call waits, or did, under that id
│   ├── AlreadyResolved      that call waits no more
│   ├── PodStopped           the pod is gone, or went while the command waited
│   ├── RunFailed            a run ended by an error: ``cause`` and ``failure``
│   ├── CompactionFailed
│   ├── TooManyRestarts      a group of pods has given up
│   ├── WatchdogExpired      a model went silent in the middle of an answer
│   ├── PodUnreachable       the connection to a pod that lives elsewhere has ended
│   │   └── PodLost          the process of a pod has ended, or was killed
│   ├── InvalidInput         content or an item that no session could keep
│   ├── HookError            a hook failed before a request, or denied it
│   ├── OutputInvalid        the model never gave an answer of the type asked for
│   └── ToolLoop             a model repeated a call, or a tool failed, too often in a row
├── AgentError               an agent, and the program that it runs
│   ├── AgentBusy            its program takes no words while it works on a task
│   ├── AgentNotRunning      its program has ended, or is not up yet
│   ├── AgentFailed          its program reports that a task failed, or ended without a word
│   ├── UnknownAgent         no agent has that id, or several have ids that begin so
│   └── UnknownRunner        there is no runner of that name
├── RoutingError             a task that cannot be given to a model or an agent
│   ├── ClassificationRefused  the classifier named no agent that can take the task
│   ├── ChainInvalid         an escalation chain that lacks what its tiers need
│   ├── ChainExhausted       no tier of a chain gave an answer that was accepted (a ModelError too)
│   ├── RateLimited          a runner's provider takes no more tasks before a time
│   └── PoolError            a pool cannot be set up, or a job not be queued, as was asked
│       ├── UnknownJob       no job has that id, or several have ids that begin so
│       └── WorkspaceError   a job cannot have a working copy of its own
├── NotImportable            something given to a pod in another process cannot be imported there
├── BudgetError              a budget that cannot be enforced: a cost limit on a model without a price
├── SessionError
│   ├── SessionNotFound
│   ├── SessionInUse         another process or pod holds the session: pid, host, since
│   ├── SessionCorrupt       the chain breaks: which session, which entry
│   ├── UnknownEntry         a fork at a hash that the session does not have
│   ├── HeadConflict         compare-and-swap lost: somebody else appended
│   └── StoreError           the store cannot write or read: disk full, locked, no database
│       └── NewerVersion     a newer polypod wrote it (a WireError too)
├── ModelRetry               an output validator sends the model words to answer anew
├── ModelError               a model server's refusal or failure, classified by ``kind``
│   ├── MissingKey           the environment variable that holds the key is not set
│   ├── InvalidKey           a key holds what no header can: a line break, a typographic quote
│   └── ScriptExhausted      a ScriptedClient was asked for more replies than it has
├── ScriptLeftover           a ScriptedClient was not asked for all its replies
├── ToolDefinitionError      a function that cannot be made a tool, or two tools of one name
├── ToolSourceError          a source of tools cannot be opened, or does not say which tools it has
├── ToolError
│   ├── ToolArgumentsInvalid
│   ├── ToolTimeout
│   ├── ToolCancelled        the call is no longer wanted
│   └── ScopeRefused         a path that the scope does not allow
├── ChildError               a child process
│   ├── ChildNotStarted      there is no such program or folder, or no process can be made
│   │   └── ChildNotConfined this machine cannot confine it as was asked for
│   ├── TooManyChildren      as many are at work as may be, and none ended in time
│   ├── ChildLost            what owned the child was killed: nobody knows how the child ended
│   ├── ChildNotListening    it has closed its standard input, or has ended
│   └── LineTooLong          it wrote more than a line may have
├── WireError                bytes that are no such type, or of a later version
└── ForeignError             an error of another library, as another process reported it
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

from msgspec import Struct, ValidationError, convert, to_builtins

from protocol.foreign import words_of
from protocol.recordable import plain
from protocol.routing import AttemptRecord
from protocol.text import encodable

ModelErrorKind = Literal[
    "rate_limit",
    "overloaded",
    "auth",
    "billing",
    "context_overflow",
    "invalid_request",
    "not_found",
    "content_filter",
    "connection",
    "timeout",
    "protocol",
    "server",
]
MODEL_ERROR_KINDS: tuple[ModelErrorKind, ...] = get_args(ModelErrorKind)
#: Those of which the same request may work later.
_RETRYABLE = frozenset({"rate_limit", "overloaded", "connection", "timeout", "server"})


class Failure(Struct, frozen=True, omit_defaults=True):
    """An error as data, to cross a log, a bus or a pipe.

    ``kind`` is the name of the error's class; a ModelError adds its classification in
    ``details["kind"]``. ``hint`` says what to do about it.
    """

    kind: str
    message: str
    hint: str | None = None
    details: dict[str, Any] = {}

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure that describes ``error``; foreign errors keep their class name."""
        kind = type(error).__name__
        if isinstance(error, PolypodError):
            hint = None if error.hint is None else encodable(str(error.hint))
            if isinstance(error, ForeignError):
                kind = error.kind
            return cls(kind, encodable(str(error.message)), hint, plain(error.details()))
        return cls(kind, words_of(error))

    def __str__(self) -> str:
        """The message, with the hint where there is one."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __contains__(self, text: str) -> bool:
        """Whether the message says ``text``, so that a failure reads like its message."""
        return text in str(self)


class PolypodError(Exception):
    """Anything that polypod raises on purpose. ``hint`` says what to do, where that is known."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def details(self) -> dict[str, Any]:
        """What a program may want to know besides the message; never a secret."""
        return {}


class ManifestError(PolypodError, ValueError):
    """A manifest is wrong; the message names the file, the key and what was expected."""


class ConfigError(ManifestError):
    """A ``polypod.toml`` is wrong, or lacks what was asked for; the message names the file and the key."""


class NotTrusted(ConfigError):  # noqa: N818 - a public name
    """A person has not looked at what a project's ``polypod.toml`` may start, or it has changed since."""


class SystemNotRunning(PolypodError, RuntimeError):  # noqa: N818
    """A PodSystem was used before it was entered or after it was left."""


class SystemOfParent(SystemNotRunning):
    """A forked process used a system, pod, future or subscription of its parent, whose event loop does not
    run in it.
    """

    def __init__(self) -> None:
        super().__init__(
            "this belongs to the process that this one was forked from, and works only in that process",
            hint="create a new PodSystem in the child",
        )


class WouldDeadlock(PolypodError, RuntimeError):  # noqa: N818
    """A wait that would never end: on the thread whose event loop has to deliver the answer, or, within a
    run, for something that its pod does only after that run.
    """


class PodError(PolypodError):
    """A command that a pod cannot carry out."""


class NameTaken(PodError):  # noqa: N818
    """An explicit pod name is in use in this system."""


class PodNotFound(PodError, KeyError):  # noqa: N818
    """No pod of that name in this system."""

    __str__ = PolypodError.__str__


class PodBusy(PodError):  # noqa: N818
    """A run is under way and the caller did not want to wait, or too many wait already."""


class NotRunning(PodError):  # noqa: N818
    """There is no run to steer."""


class NotPaused(PodError):  # noqa: N818
    """There is no paused run to resume."""


class WaitingForApproval(PodError):  # noqa: N818
    """The history cannot be changed while calls in it wait for a person's approval."""


class UnknownApproval(PodError):  # noqa: N818
    """No call waits under that id, and as far as is known none ever did."""


class AlreadyResolved(PodError):  # noqa: N818
    """That call no longer waits: somebody has answered, or its run has ended."""

    @classmethod
    def of(cls, approval_id: str) -> AlreadyResolved:
        """The error about a call by the id of its approval."""
        return cls(f"approval {approval_id} was answered, or is no longer needed")


class _AlsoAnEvent(type):
    """The metaclass of an error whose name an event once had: ``isinstance`` accepts both."""

    event: type | None

    def __instancecheck__(cls, value: object) -> bool:
        return super().__instancecheck__(value) or (cls.event is not None and isinstance(value, cls.event))


class PodStopped(PodError, metaclass=_AlsoAnEvent):  # noqa: N818
    """The pod has stopped, or stopped while the command waited.

    The event for that is ``PodEnded``. It once had the name of this error, so for old programs this class
    also matches it in ``isinstance``, ``match`` and ``kinds=``.
    """

    event: type | None = None


class TooManyRestarts(PodError):  # noqa: N818
    """A pod failed after its group had used up its restarts: all pods of the group have ended."""


class WatchdogExpired(PodError):  # noqa: N818
    """A model sent nothing for longer than its pod's ``idle_seconds``, without ending its answer."""


class PodUnreachable(PodError):  # noqa: N818
    """The connection to a pod that lives elsewhere has ended; what it was asked to do may have been done."""


class PodLost(PodUnreachable):
    """The process of a pod has ended, or was killed; what it was asked to do may have been done."""


class RunFailed(PodError):  # noqa: N818
    """A run ended with an error. ``cause`` is that error, ``failure`` the same as data."""

    def __init__(self, cause: BaseException, *, run_id: str | None = None) -> None:
        self.cause = cause
        self.failure = Failure.of(cause)
        self.run_id = run_id
        super().__init__(self.failure.message, hint=self.failure.hint)
        self.__cause__ = cause
        if isinstance(cause, ModelError | StoreError):
            _hide_chain(cause)

    def details(self) -> dict[str, Any]:
        return {**self.failure.details, "cause": self.failure.kind, "run_id": self.run_id}


def _hide_chain(error: PolypodError) -> None:
    """Have a traceback show ``error`` in one line. It says in words what happened; the hundred lines of how
    polypod and its libraries arrived there add nothing. Debuggers find the chain as ``__context__``.
    """
    came_from = error.__cause__ or error.__context__
    error.__cause__ = None  # which also suppresses the context
    error.__context__ = came_from
    error.__traceback__ = None


class CompactionFailed(PodError):  # noqa: N818
    """A history could not be compacted; the session is as it was."""


class InvalidInput(PodError, TypeError):  # noqa: N818
    """Input that no session can store, such as content that is neither a text nor parts."""


class HookError(PodError):
    """A hook failed before a request (it raised, took too long or returned something invalid), or denied it;
    ``hook`` is its name.
    """

    hook: str = ""

    def __init__(self, hook: str, why: str) -> None:
        super().__init__(f"the hook {hook} {why}")
        self.hook = hook

    def details(self) -> dict[str, Any]:
        return {"hook": self.hook}


class ModelRetry(PolypodError):  # noqa: N818
    """Raised by an output validator to reject an answer: these words go to the model, which answers again."""


class OutputInvalid(PodError):  # noqa: N818
    """The model gave no answer of the type that was asked for."""


class ToolLoop(PodError):  # noqa: N818
    """A run was ended because its model kept repeating itself without effect: ``tool`` failed, or the same
    call of it had the same result, ``times`` times. ``kind`` is ``tool_loop``.
    """

    kind = "tool_loop"
    tool: str = ""
    times: int = 0

    def __init__(self, words: str, *, tool: str, times: int) -> None:
        super().__init__(
            f"{words}: the model repeats itself",
            hint="if such repetitions make sense, raise max_repeats in [worker]; 0 means no limit",
        )
        self.tool = tool
        self.times = times

    def details(self) -> dict[str, Any]:
        return {"kind": self.kind, "tool": self.tool, "times": self.times}


class AgentError(PolypodError):
    """An error of an agent, or of the program that it runs."""


class AgentBusy(AgentError):  # noqa: N818
    """An agent works on a task, and its program takes no input meanwhile; send it once the agent is idle."""


class AgentNotRunning(AgentError):  # noqa: N818
    """The program of an agent has ended, or has not started yet; what was sent did not reach it."""


class AgentFailed(AgentError):  # noqa: N818
    """The program of an agent reports that its task failed, or ended without reporting anything.

    ``kind`` is one of MODEL_ERROR_KINDS if the program says that its model server failed, ``status`` the HTTP
    status of that, 0 if unknown. ``died`` is whether it ended in the middle of a task without saying how that
    went.
    """

    kind: str = ""
    status: int = 0
    died: bool = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        kind: str = "",
        status: int = 0,
        died: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind, self.status, self.died = kind, status, died

    def details(self) -> dict[str, Any]:
        known: dict[str, Any] = {"kind": self.kind, "status": self.status, "died": self.died}
        return {key: value for key, value in known.items() if value}


class UnknownAgent(AgentError):  # noqa: N818
    """No agent has that id, or several have ids that begin with it."""


class UnknownRunner(AgentError):  # noqa: N818
    """No runner has that name, and it is not a command either."""


class RoutingError(PolypodError):
    """A task cannot be given to a model or an agent."""


class ClassificationRefused(RoutingError):  # noqa: N818
    """The classifier named an agent that is unknown, or one that is rate-limited now."""


class ChainInvalid(RoutingError, ValueError):  # noqa: N818
    """An escalation chain that cannot work: it has no tiers, or one of them lacks a model or a verifier."""


class RateLimited(RoutingError):  # noqa: N818
    """A runner's provider accepts no more tasks before ``until``, seconds since the epoch."""

    until: float = 0.0

    def __init__(self, message: str, *, until: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.until = until

    def details(self) -> dict[str, Any]:
        return {"kind": "rate_limit", "until": self.until}


class PoolError(RoutingError):
    """A pool cannot be set up, or a job cannot be queued, as was asked."""


class UnknownJob(PoolError):  # noqa: N818
    """No job has that id, or several have ids that begin with it."""


class WorkspaceError(PoolError):
    """A job cannot have a working copy of its own, or what it did there cannot be kept."""


class NotImportable(PolypodError, TypeError):  # noqa: N818
    """Something that a pod in another process should use cannot be imported there."""


class BudgetError(PolypodError):
    """A budget that cannot be enforced, refused before anything is spent."""


class SessionError(PolypodError):
    """An error of a session or its store."""


class SessionNotFound(SessionError, KeyError):  # noqa: N818
    """No session of that id in the store."""

    __str__ = PolypodError.__str__


class SessionInUse(SessionError):  # noqa: N818
    """Another process or pod holds the session."""

    session_id: str = ""
    pid: int = 0
    host: str = ""
    since: float = 0.0
    pod: str = ""

    def __init__(self, session_id: str, *, pid: int, host: str, since: float, pod: str = "") -> None:
        self.session_id, self.pid, self.host, self.since, self.pod = (
            session_id,
            pid,
            host,
            since,
            pod,
        )
        who = f"pod {pod!r} of process {pid}" if pod else f"process {pid}"
        super().__init__(
            f"session {session_id} is in use by {who} on {host}",
            hint="stop it there first, or fork the session",
        )

    def details(self) -> dict[str, Any]:
        return {
            "session_id": self.session_id,
            "pid": self.pid,
            "host": self.host,
            "since": self.since,
            "pod": self.pod,
        }


class SessionCorrupt(SessionError):  # noqa: N818
    """The hash chain of a session breaks at one entry; what stands before it is sound."""

    session_id: str = ""
    seq: int = 0
    why: str = ""

    def __init__(self, session_id: str, seq: int, why: str) -> None:
        self.session_id, self.seq, self.why = session_id, seq, why
        super().__init__(
            f"session {session_id} is damaged at entry {seq}: {why}",
            hint=f"polypod fork {session_id} continues from the undamaged entries before it"
            if seq > 1
            else f"polypod rm {session_id} deletes it",
        )

    def details(self) -> dict[str, Any]:
        return {"session_id": self.session_id, "seq": self.seq, "why": self.why}


class UnknownEntry(SessionError):  # noqa: N818
    """A session has no entry with that hash."""


class HeadConflict(SessionError):  # noqa: N818
    """Somebody else appended to the session first; nothing was written."""


class StoreError(SessionError):
    """The store could not read or write; nothing half-written is left."""


class ModelError(PolypodError):
    """A model server's refusal or failure.

    ``kind`` is one of MODEL_ERROR_KINDS, ``status`` the HTTP status if there was one, ``retry_after`` the
    seconds the server asked to wait, ``where`` its host and port, ``retryable`` whether the same request may
    work later, ``counts`` whether it uses up one of a request's attempts. It does not if our own circuit
    breaker sent nothing, or if a server that has answered before cannot be reached: that server is waited for
    as long as the run may wait. For an overflow, ``prompt_tokens`` and ``context_window`` are the prompt's
    size and the context window that the server reported, in tokens.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: ModelErrorKind,
        hint: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        where: str | None = None,
        retryable: bool | None = None,
        prompt_tokens: int | None = None,
        context_window: int | None = None,
        counts: bool = True,
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.counts = counts
        self.status = status
        self.retry_after = retry_after
        self.where = where
        self.prompt_tokens = prompt_tokens
        self.context_window = context_window
        self.retryable = kind in _RETRYABLE if retryable is None else retryable

    def details(self) -> dict[str, Any]:
        known = {
            "kind": self.kind,
            "status": self.status,
            "retry_after": self.retry_after,
            "where": self.where,
            "prompt_tokens": self.prompt_tokens,
            "context_window": self.context_window,
            "retryable": None if self.retryable == (self.kind in _RETRYABLE) else self.retryable,
        }
        return {key: value for key, value in known.items() if value is not None}

    def take_details(self, details: dict[str, Any]) -> None:
        """Restore what the ``details`` of an error say that another process reported."""


class MissingKey(ModelError):  # noqa: N818
    """A key is required and its environment variable is not set."""

    variable: str = ""

    def __init__(self, variable: str, *, what: str) -> None:
        super().__init__(
            f"{what} needs a key, and the environment variable {variable} is not set",
            kind="auth",
            hint=f"export {variable}=… and try again",
        )
        self.variable = variable

    def details(self) -> dict[str, Any]:
        return {**super().details(), "variable": self.variable}


class InvalidKey(ModelError):  # noqa: N818
    """A key has characters that no HTTP header can carry; ``what`` names the key, which is never shown."""

    what: str = ""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what} is not a key: it has {why}", kind="auth", hint="copy the key again, in plain characters"
        )
        self.what = what

    def details(self) -> dict[str, Any]:
        return {**super().details(), "what": self.what}


class ScriptExhausted(ModelError):  # noqa: N818
    """A ScriptedClient was asked for more replies than its script has; never retried."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="protocol", retryable=False)


class ChainExhausted(ModelError, RoutingError):  # noqa: N818
    """No tier of a chain gave an answer that was accepted; never retried.

    ``attempts`` has the result of each tier, ``best`` is the output of the last one that was rejected (None
    if there was none), ``errors`` has for each tier, by its name, why it gave no answer or was rejected.
    ``kind``, ``status``, ``where`` and ``retry_after`` are of the last tier's error.
    """

    attempts: tuple[AttemptRecord, ...] = ()
    best: str | None = None
    errors: tuple[tuple[str, str], ...] = ()

    def __init__(
        self,
        attempts: Sequence[AttemptRecord],
        *,
        best: str | None = None,
        errors: Sequence[tuple[str, str]] = (),
        last: BaseException | None = None,
    ) -> None:
        self.attempts = tuple(attempts)
        self.best = best
        self.errors = tuple(errors)
        why = "".join(f"; {model}: {words}" for model, words in self.errors).removeprefix(";")
        known = last if isinstance(last, ModelError) else None
        super().__init__(
            f"all tiers exhausted after {len(self.attempts)} attempt(s){':' if why else ''}{why}",
            kind="server" if known is None else known.kind,
            hint=None if known is None else known.hint,
            status=None if known is None else known.status,
            where=None if known is None else known.where,
            retry_after=None if known is None else known.retry_after,
            retryable=False,
            prompt_tokens=None if known is None else known.prompt_tokens,
            context_window=None if known is None else known.context_window,
        )

    def details(self) -> dict[str, Any]:
        made: dict[str, Any] = {"attempts": self.attempts, "best": self.best, "errors": self.errors}
        return {**super().details(), **{key: to_builtins(value) for key, value in made.items() if value}}

    def take_details(self, details: dict[str, Any]) -> None:
        self.retryable = False
        with contextlib.suppress(ValidationError):
            known = convert(details, _OfChain)
            self.attempts, self.best, self.errors = known.attempts, known.best, known.errors


class _OfChain(Struct, frozen=True):
    attempts: tuple[AttemptRecord, ...] = ()
    best: str | None = None
    errors: tuple[tuple[str, str], ...] = ()


class ScriptLeftover(PolypodError, AssertionError):  # noqa: N818
    """A ScriptedClient has replies that nobody asked for."""


class ToolDefinitionError(PolypodError, TypeError):
    """A function cannot be made a tool, or two tools have one name."""


class ToolSourceError(PolypodError):
    """A source of tools could not be opened, or could not list its tools; ``source`` is its name."""

    source: str = ""

    def __init__(self, source: str, why: str, *, hint: str | None = None) -> None:
        super().__init__(f"tool source {source!r} {why}", hint=hint)
        self.source = source

    def details(self) -> dict[str, Any]:
        return {"source": self.source}


class ToolError(PolypodError):
    """What a tool reports to the model when it cannot do what was asked; tools raise it freely."""


class ToolArgumentsInvalid(ToolError):  # noqa: N818
    """The arguments of a call do not fit the tool's schema."""


class ToolTimeout(ToolError):  # noqa: N818
    """A tool took longer than its time-out, in seconds."""


class ToolCancelled(ToolError):  # noqa: N818
    """The call is no longer wanted; a tool in a thread raises it to end early."""


class ScopeRefused(ToolError):  # noqa: N818
    """A path that the pod's scope does not allow."""


class ChildError(PolypodError):
    """An error of a child process."""


class ChildNotStarted(ChildError):  # noqa: N818
    """A program could not be started; ``program`` is what was asked for, ``why`` the reason."""

    program: str = ""
    why: str = ""

    def __init__(self, message: str, *, program: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.program = program

    @classmethod
    def of(cls, program: str, why: str, *, hint: str | None = None) -> ChildNotStarted:
        """The error that says why ``program`` could not be started."""
        error = cls(f"cannot start {program}: {why}", program=program, hint=hint)
        error.why = why
        return error

    def details(self) -> dict[str, Any]:
        return {"program": self.program, "why": self.why}


class TooManyChildren(ChildError):  # noqa: N818
    """As many child processes are at work as may be at once, and none ended in time; ``program`` is what was
    to be started, ``most`` the limit.
    """

    program: str = ""
    most: int = 0

    def __init__(self, message: str, *, program: str = "", most: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.program, self.most = program, most

    @classmethod
    def of(cls, program: str, most: int, at_work: Sequence[str]) -> TooManyChildren:
        """The error that says which programs take all the places."""
        shown = ", ".join(at_work[:10])
        return cls(
            f"cannot start {program}: the limit of {most} child processes is reached ({shown})",
            program=program,
            most=most,
            hint="stop one of them, or allow more with PodSystem(processes=…)",
        )

    def details(self) -> dict[str, Any]:
        return {"program": self.program, "most": self.most}


class ChildNotConfined(ChildNotStarted):
    """A program was to be confined to its scope, but this machine cannot do that: it was not started."""


class ChildLost(ChildError):  # noqa: N818
    """The process that owned a child was killed. What it left was killed too, and how the child ended is not
    known.
    """


class ChildNotListening(ChildError):  # noqa: N818
    """A child has closed its standard input, or has ended: nothing can be written to it."""


class LineTooLong(ChildError):  # noqa: N818
    """A child wrote a line that is longer than allowed, and that was skipped; ``begin`` and ``end`` are some
    of its first and last bytes.
    """

    begin: bytes = b""
    end: bytes = b""


class WireError(PolypodError, ValueError):
    """Bytes that are not what they should be, or are of a later version of the protocol."""


class NewerVersion(StoreError, WireError):  # noqa: N818
    """A store, a file or an entry was written by a newer polypod, in a form that this one cannot read."""

    why: str = ""

    def __init__(self, what: str, why: str) -> None:
        self.why = why
        super().__init__(
            f"{what} was written by a newer polypod: {why}",
            hint="update polypod, or use the version that wrote it; nothing is damaged",
        )

    def of(self, session_id: str, seq: int) -> NewerVersion:
        """The error about one entry of a session."""
        return NewerVersion(f"entry {seq} of session {session_id}", self.why)

    def details(self) -> dict[str, Any]:
        return {"why": self.why}


class ForeignError(PolypodError):
    """An error of another library, as another process reported it: ``kind`` is the name of its class."""

    def __init__(
        self, message: str, *, kind: str, hint: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self._details = details or {}

    def details(self) -> dict[str, Any]:
        return dict(self._details)
