"""What a tool is, how a function becomes one, and what its calls may know of where they run."""

from __future__ import annotations

import functools
import typing
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, get_args, overload

from actors.tools.cancel import Cancel
from actors.tools.docstring import described
from actors.tools.invoke import is_async
from actors.tools.options import check_options, checked_name, docstring_of
from actors.tools.schema import Arguments, GivenArguments
from actors.tools.scope import Located, locate
from protocol.errors import InvalidInput
from protocol.foreign import shown
from protocol.items import ToolResult
from protocol.scope import Permission, Scope
from protocol.text import encodable
from protocol.tools import Concurrency, ToolSpec

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with a default, so that ``ToolContext`` alone is complete

    D = TypeVar("D", default=Any)
else:
    D = typing.TypeVar("D")

OUTPUT_CAP = 16_384

AskPerson = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]


class ToolContext(Generic[D]):
    """What a call may know of where it runs; a tool gets it by a parameter of this type (or ``ctx``).

    ``deps`` is what ``spawn(deps=…)`` or ``run(deps=…)`` hands to tools: a database, a client, the user who
    asks. ``pwd`` is the pod's working directory, ``scope`` what the pod may touch (``resolved``), ``cancel``
    the flag to watch (each call has its own: a time-out raises it), ``progress(text)`` shows subscribers how
    far the call is (from any thread, while it goes on), ``extras`` holds what the pod's assembly hands to
    tools of its own, ``output_cap`` is how many bytes of text reach the model uncut, and ``keep_in`` the
    folder where longer output is kept whole (the toolbox sets both). ``began`` is when a thread began with a
    plain function (``time.perf_counter``), ``seconds`` how long that took, and ``late`` is called, on the
    event loop, with what came of a call that had been given up.
    """

    __slots__ = (
        "ask_person",
        "began",
        "call_id",
        "cancel",
        "deps",
        "extras",
        "keep_in",
        "late",
        "output_cap",
        "pod",
        "progress",
        "pwd",
        "scope",
        "seconds",
    )

    def __init__(
        self,
        pwd: Path,
        scope: Scope,
        cancel: Cancel | None = None,
        pod: str = "",
        call_id: str = "",
        progress: Callable[[str], None] | None = None,
        extras: dict[str, Any] | None = None,
        late: Callable[[ToolResult], object] | None = None,
        deps: Any = None,
    ) -> None:
        self.deps: D = deps
        self.pwd = pwd
        self.scope = scope
        self.cancel = Cancel() if cancel is None else cancel
        self.pod = pod
        self.call_id = call_id
        self.progress = _ignore if progress is None else progress
        self.extras = {} if extras is None else extras
        self.output_cap = OUTPUT_CAP
        self.keep_in: Path | None = None
        self.began: float | None = None
        self.seconds: float | None = None
        self.late = _ignore_result if late is None else late
        #: Asks a person in the middle of a call: words and the JSON Schema of the answer in, the answer out,
        #: or None where nobody gives one. None where the pod asks nobody.
        self.ask_person: AskPerson | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether a thread has begun with the call, and is not done with it."""
        return self.began is not None and self.seconds is None

    def path(self, text: str, permission: Permission = "read") -> Path:
        """The place that ``text`` names, absolute and free of symlinks. Raises ScopeRefused, and
        InvalidInput for what is not text.
        """
        return self.locate(text, permission).path

    def locate(self, text: str, permission: Permission = "read") -> Located:
        """As ``path``, with a note for the model where the place has another name than ``text``."""
        if not isinstance(text, str):
            raise InvalidInput(f"text: expected a path as a string, got {shown(text)}")
        if permission not in get_args(Permission):
            raise InvalidInput(f"permission: expected 'read' or 'write', got {shown(permission)}")
        return locate(self.scope, self.pwd, text, permission)


class Tool:
    """A function that a model can call. Made by ``tool``; calling it calls the plain function.

    ``timeout`` is in seconds from when the function is called, None for no bound. Plain functions run in
    a thread, ``async def`` ones on the event loop, each in a task of its own. A plain function that is not
    ``blocking`` is called on the event loop, which waits for it: nothing can interrupt it there.

    ``input_schema`` is the JSON Schema of the arguments where that comes from elsewhere, a server or a
    database: the function then takes one parameter, a dict of all arguments, and checks them itself (a
    ``ToolArgumentsInvalid`` that it raises goes to the model). A tool with ``asks`` may do what no scope
    limits: a call that no approval rule covers needs a person's approval.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        concurrency: Concurrency = "exclusive",
        timeout: float | None = None,
        name: str | None = None,
        description: str | None = None,
        blocking: bool = True,
        input_schema: dict[str, Any] | None = None,
        asks: bool = False,
    ) -> None:
        name = checked_name(function, name)
        check_options(name, concurrency, timeout, description, blocking)
        function = getattr(function, "function", function) if isinstance(function, Tool) else function
        functools.update_wrapper(self, function)
        text, words = described(docstring_of(function))
        self.name = name
        self.description = text if description is None else description
        self.concurrency = concurrency
        self.timeout = timeout
        self.function = function
        self.arguments: Arguments | GivenArguments = (
            Arguments(name, function, words, ToolContext)
            if input_schema is None
            else GivenArguments(name, function, input_schema, ToolContext)
        )
        self.spec = ToolSpec(self.name, encodable(self.description), self.input_schema, concurrency)
        self.is_async = is_async(function)
        self.blocking = blocking and not self.is_async
        self.asks = asks

    def __repr__(self) -> str:
        return f"<Tool {self.name}, {self.concurrency}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""
        return self.arguments.schema


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    concurrency: Concurrency = ...,
    timeout: float | None = ...,
    name: str | None = ...,
    description: str | None = ...,
    blocking: bool = ...,
    input_schema: dict[str, Any] | None = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    concurrency: Concurrency = "exclusive",
    timeout: float | None = None,
    name: str | None = None,
    description: str | None = None,
    blocking: bool = True,
    input_schema: dict[str, Any] | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool: ``@tool`` or ``@tool(concurrency="read_only", timeout=30)``.

    Plain functions run in threads. ``blocking=False`` is for quick ones that wait for nothing, a calculation
    or a look into a dict: the event loop calls them itself, which saves waking a thread.

    The schema comes from the annotations, the description from the docstring, words about single
    arguments from ``Annotated[str, "words"]`` (or a ``msgspec.Meta(description=…)`` there), or from the
    docstring, as Google, NumPy and Sphinx write it. With an
    ``input_schema`` of its own the function takes one parameter, a dict with all arguments. Raises
    ToolDefinitionError for a function that no schema can express.
    """

    def made(function: Callable[..., Any]) -> Tool:
        return Tool(
            function,
            concurrency=concurrency,
            timeout=timeout,
            name=name,
            description=description,
            blocking=blocking,
            input_schema=input_schema,
        )

    return made if function is None else made(function)


def _ignore(_: str) -> None:
    """Progress that nobody listens to."""


def _ignore_result(_: ToolResult) -> None:
    """The end of a call that nobody waits for."""
