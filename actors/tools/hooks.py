"""Hooks: a program's own objects that are asked before a request and a tool's call, about the call's result,
and are notified of the end of a run.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.arguments import is_time
from actors.tools.base import ToolContext
from actors.tools.thread_pool import ToolThreads
from actors.tools.user_functions import call_function
from protocol.errors import HookError, InvalidInput, PolypodError
from protocol.foreign import named_words, shown
from protocol.hooks import Deny, Inject, ModelView, Replace
from protocol.items import Item, SystemItem, TextPart, ToolCall, ToolResult
from protocol.recordable import recordable
from protocol.results import RunResult
from protocol.text import encodable, with_article
from protocol.tools import ToolSpec

S = TypeVar("S", bound=Struct)

#: How long a hook may take, in seconds, unless it has a ``timeout`` of its own.
TIMEOUT = 60.0

#: Characters of what a hook failed with, or denied a request with, that people and models read.
_MOST_WORDS = 2000

#: What a hook is asked, and about what.
_ASKED = {
    "before_request": ("view",),
    "before_tool": ("call",),
    "after_tool": ("call", "result"),
    "on_run_end": ("result",),
}


class Said(NamedTuple):
    """What all hooks together say: why not (None: nothing against it) and which of them says so, what takes
    its place (None: nothing), what goes behind the result, and which hooks failed.
    """

    denied: str | None = None
    denied_by: str = ""
    replaced: Any = None
    injected: tuple[str, ...] = ()
    failed: tuple[HookError, ...] = ()


class Hooks:
    """The hooks of a pod. Each is asked, in their order, about the same; a denial wins, then the first
    replacement.
    """

    __slots__ = (
        "_after",
        "_before",
        "_requests",
        "_run_ends",
        "_threads",
        "asks_after",
        "asks_at_run_end",
        "asks_before",
        "asks_before_request",
    )

    def __init__(self, objects: Iterable[Any], threads: ToolThreads) -> None:
        """Plain methods are called in ``threads``. Raises InvalidInput for what is not a hook."""
        self._threads = threads
        methods: dict[str, list[_Method]] = {name: [] for name in _ASKED}
        for each in objects:
            for name, method in _made(each).items():
                methods[name].append(method)
        self._requests, self._run_ends = methods["before_request"], methods["on_run_end"]
        self._before, self._after = methods["before_tool"], methods["after_tool"]
        self.asks_before, self.asks_after = bool(self._before), bool(self._after)
        self.asks_before_request, self.asks_at_run_end = bool(self._requests), bool(self._run_ends)

    def after_only(self) -> Hooks:
        """These hooks, asked about results alone."""
        made = copy.copy(self)
        made._before, made.asks_before = [], False  # noqa: SLF001 - a copy of this one
        return made

    async def before_request(self, view: ModelView, ctx: ToolContext) -> ModelView:
        """What the model is shown in the place of ``view``: the very same where nothing else is said.

        Raises HookError for a hook that fails, or denies the request.
        """
        fold = _Fold(functools.partial(view_for, view))
        said = fold.said(await self._ask(self._requests, fold.take, ctx, lambda: (view,)))
        if said.denied is not None:
            raise HookError(said.denied_by, f"denied the request: {_shortened(said.denied)}")
        if said.failed:
            raise said.failed[0]
        shown: ModelView = view if said.replaced is None else said.replaced
        if not said.injected:
            return shown
        return replace(shown, items=(*shown.items, *map(SystemItem.of, said.injected)))

    async def at_run_end(self, result: RunResult, ctx: ToolContext) -> tuple[HookError, ...]:
        """Notify all hooks of the ``result`` of a run; returns which of them failed."""
        return await self._ask(self._run_ends, _take_nothing, ctx, lambda: (result,))

    async def before(self, call: ToolCall, ctx: ToolContext) -> Said:
        """What is said of ``call``, which is about to be run; a hook that fails denies it."""
        fold = _Fold(functools.partial(arguments_for, call))
        said = fold.said(await self._ask(self._before, fold.take, ctx, lambda: copy.deepcopy((call,))))
        if said.denied is None and said.failed:
            return said._replace(denied=f"{call.name} was not run: {said.failed[0]}")
        return said

    async def after(self, call: ToolCall, result: ToolResult, ctx: ToolContext) -> Said:
        """What is said of the ``result`` of ``call``; a hook that fails changes nothing."""
        fold = _Fold(functools.partial(result_for, result))
        return fold.said(await self._ask(self._after, fold.take, ctx, lambda: copy.deepcopy((call, result))))

    async def _ask(
        self,
        methods: Sequence[_Method],
        take: Callable[[str, Any], None],
        ctx: ToolContext,
        about: Callable[[], tuple[Any, ...]],
    ) -> tuple[HookError, ...]:
        """Ask ``methods``, each of what ``about`` gives, and have ``take`` take each name and answer; which
        of them failed. Of exceptions only a cancel leaves.
        """
        failed: list[HookError] = []
        for method in methods:
            try:
                take(method.name, await method.ask(self._threads, ctx, about()))
            except Exception as error:  # noqa: BLE001 - whatever a hook raises
                failed.append(HookError(method.name, f"failed: {_words(error)}"))
        return tuple(failed)


class _Fold:
    """Makes one of the answers of all hooks; ``taken`` reads what a replacement holds."""

    __slots__ = ("_injected", "_said", "_taken")

    def __init__(self, taken: Callable[[Any], Any]) -> None:
        self._taken = taken
        self._said = Said()
        self._injected: list[str] = []

    def take(self, name: str, answer: Any) -> None:
        """Take what the hook ``name`` answers. Raises InvalidInput for what is not an answer."""
        match answer:
            case None:
                pass
            case Deny(str() as text):
                if self._said.denied is None:
                    self._said = self._said._replace(denied=encodable(text), denied_by=name)
            case Replace(value):
                value = self._taken(value)
                if self._said.replaced is None:
                    self._said = self._said._replace(replaced=value)
            case Inject(str() as text):
                self._injected.append(encodable(text))
            case _:
                raise _misfit(answer, "None, Deny, Replace or Inject")

    def said(self, failed: tuple[HookError, ...]) -> Said:
        """What they say together, of whom some ``failed``."""
        return self._said._replace(injected=tuple(self._injected), failed=failed)


def _take_nothing(_: str, answer: Any) -> None:
    if answer is not None:
        raise _misfit(answer, "on_run_end cannot change a run; return None")


class _Method:
    """A method of a hook, plain or async; one with a parameter ``ctx`` gets the call's context."""

    __slots__ = ("_call", "_timeout", "_wants_ctx", "name")

    def __init__(self, hook: Any, name: str) -> None:
        self._call: Callable[..., Any] = getattr(hook, name)
        self.name = f"{_name_of(hook)}.{name}"
        self._timeout: float | None = getattr(hook, "timeout", TIMEOUT)
        self._wants_ctx = _takes_ctx(self._call, self.name, _ASKED[name])

    async def ask(self, threads: ToolThreads, ctx: ToolContext, about: tuple[Any, ...]) -> Any:
        """What it answers. Raises an Exception for whatever it raises, and ToolTimeout."""
        ask = functools.partial(self._call, *about, **({"ctx": ctx} if self._wants_ctx else {}))
        return await call_function(ask, threads, self._timeout)


def _words(error: Exception) -> str:
    return _shortened(str(error) if isinstance(error, PolypodError) else named_words(error))


def _shortened(words: str) -> str:
    return words if len(words) <= _MOST_WORDS else f"{words[:_MOST_WORDS]}…"


# -- what hooks answer ---------------------------------------------------------------------------


def view_for(before: ModelView, value: Any) -> ModelView:
    """What the model is before in the place of ``before``. Raises InvalidInput."""
    if not isinstance(value, ModelView):
        given = with_article(type(value).__name__)
        raise InvalidInput(f"{given} cannot replace a request", hint="pass a ModelView to Replace")
    if not isinstance(value.system, str | None):
        raise InvalidInput(f"system: expected a string or None, got {shown(value.system)}")
    return ModelView(
        items=_fit(value.items, before.items, Item, "items"),
        system=None if value.system is None else encodable(value.system),
        tools=_fit(value.tools, before.tools, ToolSpec, "tools"),
    )


def _fit(given: Iterable[Any], before: tuple[S, ...], kind: Any, name: str) -> tuple[S, ...]:
    """What a hook gave as ``name``, fit to be sent: those that were not ``before`` are made so. Raises
    InvalidInput.
    """
    if before is given:
        return before
    known = {id(each) for each in before}
    made: list[S] = []
    for each in given:
        if not isinstance(each, kind):
            raise InvalidInput(f"{name}: {shown(each)} has the wrong type")
        made.append(each if id(each) in known else recordable(each))
    return tuple(made)


def arguments_for(call: ToolCall, value: Any) -> ToolCall:
    """``call`` with what stands in the place of its arguments. Raises InvalidInput."""
    if isinstance(value, ToolCall) and (value.id, value.name) == (call.id, call.name):
        value = value.arguments
    if not isinstance(value, dict):
        raise InvalidInput(
            f"{shown(value)} cannot replace the arguments of a tool call",
            hint="pass Replace a dict of arguments, or the call with other arguments and the "
            "same id and name",
        )
    return recordable(replace(call, arguments=value, invalid=None))


def result_for(result: ToolResult, value: Any) -> ToolResult:
    """What stands in the place of ``result``. Raises InvalidInput."""
    if isinstance(value, str):
        # What its tool gave may be kept whole in a file, which is not what the model is to read.
        value = replace(result, content=(TextPart(encodable(value)),), kept=None)
    if not isinstance(value, ToolResult) or (value.call_id, value.name) != (result.call_id, result.name):
        raise InvalidInput(
            f"{shown(value)} cannot replace the result of a tool",
            hint="pass Replace a string, or the result with other content and the same call_id and name",
        )
    return recordable(value)


def _misfit(answer: Any, hint: str) -> InvalidInput:
    return InvalidInput(f"it returned {shown(answer)}", hint=hint)


# -- what hooks are ------------------------------------------------------------------------------


def _name_of(hook: Any) -> str:
    return getattr(hook, "__name__", None) or type(hook).__name__


def _made(hook: Any) -> dict[str, _Method]:
    """The methods of a hook by the questions that they answer. Raises InvalidInput for what is not a hook."""
    try:
        return {name: _Method(hook, name) for name in _methods(hook)}
    except InvalidInput:
        raise
    except Exception as error:  # its properties are any code
        raise InvalidInput(f"hooks: {type(hook).__name__} is not a hook: {named_words(error)}") from error


def _methods(hook: Any) -> list[str]:
    """Which questions a hook answers. Raises InvalidInput for what is not a hook."""
    name = _name_of(hook)
    if isinstance(hook, type):
        raise InvalidInput(f"hooks: {name} is a class", hint="pass an instance of it")
    methods = [each for each in _ASKED if hasattr(hook, each)]
    if not methods:
        raise InvalidInput(
            f"hooks: {name} has none of a hook's methods", hint=f"a hook has {' or '.join(_ASKED)}"
        )
    timeout = getattr(hook, "timeout", TIMEOUT)
    if timeout is not None and not (is_time(timeout) and timeout > 0):
        raise InvalidInput(f"hooks: {name}.timeout: expected more than 0 seconds, got {shown(timeout)}")
    return methods


def _takes_ctx(method: Any, name: str, about: tuple[str, ...]) -> bool:
    """Whether a method of a hook wants the context. Raises InvalidInput where it cannot be asked."""
    try:
        signature = inspect.signature(method)
        wants_ctx = "ctx" in signature.parameters
        signature.bind(*about, **({"ctx": None} if wants_ctx else {}))
    except (TypeError, ValueError) as error:
        what = ", ".join(about)
        raise InvalidInput(f"hooks: {name} cannot be called with ({what}): {error}") from error
    return wants_ctx
