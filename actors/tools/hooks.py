"""Hooks: a program's own objects that are asked before a tool's call is run, and about its result."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from actors.tools.alone import Outcome, run_alone
from actors.tools.base import ToolContext
from actors.tools.pool import ToolThreads
from actors.tools.work import is_async
from protocol.errors import InvalidInput, PolypodError, named_words
from protocol.hooks import Deny, Inject, Replace
from protocol.items import TextPart, ToolCall, ToolResult
from protocol.recordable import recordable
from protocol.text import encodable

#: How long a hook may take, in seconds, unless it has a ``timeout`` of its own.
TIMEOUT = 60.0

#: What a hook is asked, and how many things it is handed; and what nobody asks yet.
_ASKED = {"before_tool": 1, "after_tool": 2}
_NOT_YET = ("before_request", "on_run_end")


class Said(NamedTuple):
    """What all hooks together say: why not (None: nothing against it), what takes its place (None: nothing),
    what the model is told besides, and in words which hooks failed.
    """

    denied: str | None = None
    replaced: Any = None
    injected: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Hooks:
    """The hooks of a pod. Each is asked, in their order, about the same; a denial wins, then the first
    replacement.
    """

    __slots__ = ("_after", "_before", "_threads", "asks_after", "asks_before")

    def __init__(self, objects: Iterable[Any], threads: ToolThreads) -> None:
        """Plain methods are called in ``threads``. Raises InvalidInput for what is no hook."""
        self._threads = threads
        hooks = [(each, _methods(each)) for each in objects]
        self._before = [_Method(each, "before_tool") for each, names in hooks if "before_tool" in names]
        self._after = [_Method(each, "after_tool") for each, names in hooks if "after_tool" in names]
        self.asks_before, self.asks_after = bool(self._before), bool(self._after)

    def after_only(self) -> Hooks:
        """The same, asked about results alone."""
        made = copy.copy(self)
        made._before, made.asks_before = [], False  # noqa: SLF001 - a copy of this one
        return made

    async def before(self, call: ToolCall, ctx: ToolContext) -> Said:
        """What is said of ``call``, which is about to be run; a hook that fails denies it."""
        said = await self._ask(self._before, functools.partial(arguments_for, call), ctx, call)
        if said.denied is None and said.failed:
            return said._replace(denied=f"{call.name} was not run: {said.failed[0]}")
        return said

    async def after(self, call: ToolCall, result: ToolResult, ctx: ToolContext) -> Said:
        """What is said of the ``result`` of ``call``; a hook that fails changes nothing."""
        return await self._ask(self._after, functools.partial(result_for, result), ctx, call, result)

    async def _ask(
        self, methods: Sequence[_Method], taken: Callable[[Any], Any], ctx: ToolContext, *about: Any
    ) -> Said:
        """Ask ``methods``; ``taken`` reads what a replacement holds. Of exceptions only a cancel leaves."""
        denied, replaced = None, None
        injected: list[str] = []
        failed: list[str] = []
        for method in methods:
            try:
                match await method.ask(self._threads, ctx, copy.deepcopy(about)):
                    case None:
                        pass
                    case Deny(str() as text):
                        denied = encodable(text) if denied is None else denied
                    case Replace(value):
                        value = taken(value)
                        replaced = value if replaced is None else replaced
                    case Inject(str() as text):
                        injected.append(encodable(text))
                    case answer:
                        raise _misfit(answer)  # noqa: TRY301
            except Exception as error:  # noqa: BLE001 - whatever a hook raises
                failed.append(f"the hook {method.name} failed: {_words(error)}")
        return Said(denied, replaced, tuple(injected), tuple(failed))


class _Method:
    """A method of a hook, plain or async; one with a parameter ``ctx`` gets the call's context."""

    __slots__ = ("_call", "_is_async", "_timeout", "_wants_ctx", "name")

    def __init__(self, hook: Any, name: str) -> None:
        self._call: Callable[..., Any] = getattr(hook, name)
        self.name = f"{_name_of(hook)}.{name}"
        self._is_async = is_async(self._call)
        self._timeout: float | None = getattr(hook, "timeout", TIMEOUT)
        self._wants_ctx = _takes_ctx(self._call, self.name, _ASKED[name])

    async def ask(self, threads: ToolThreads, ctx: ToolContext, about: tuple[Any, ...]) -> Any:
        """What it answers. Raises an Exception for whatever it raises, and ToolTimeout."""
        ask = functools.partial(self._call, *about, **({"ctx": ctx} if self._wants_ctx else {}))
        if not self._is_async:
            outcome = await threads.call(
                functools.partial(_in_thread, ask), seconds=self._timeout, late=_unheard
            )
            if not inspect.isawaitable(outcome.value):
                return _value(outcome)
            ask = functools.partial(_the_same, outcome.value)
        return _value(await run_alone(ask, self._timeout, _unheard))


def _in_thread(ask: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(ask())
    except BaseException as error:  # noqa: BLE001 - a CancelledError of the hook's own included
        return Outcome(error=error)


def _value(outcome: Outcome) -> Any:
    error = outcome.error
    if outcome.interrupted or (error is not None and not isinstance(error, Exception)):
        raise RuntimeError("it ended itself" if error is None else named_words(error)) from error
    if error is not None:
        raise error
    return outcome.value


def _the_same(value: Any) -> Any:
    return value


def _unheard(outcome: Outcome) -> None:
    """The end of a hook that nobody waits for."""
    if inspect.iscoroutine(outcome.value):
        outcome.value.close()


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, PolypodError) else named_words(error)


# -- what hooks answer ---------------------------------------------------------------------------


def arguments_for(call: ToolCall, value: Any) -> ToolCall:
    """``call`` with what stands in the place of its arguments. Raises InvalidInput."""
    if isinstance(value, ToolCall) and (value.id, value.name) == (call.id, call.name):
        value = value.arguments
    if not isinstance(value, dict):
        raise InvalidInput(
            f"before a tool {value!r:.80} replaces nothing",
            hint="give Replace a dict of arguments, or the call with other arguments; its id and name stay",
        )
    return recordable(replace(call, arguments=value, invalid=None))


def result_for(result: ToolResult, value: Any) -> ToolResult:
    """What stands in the place of ``result``. Raises InvalidInput."""
    if isinstance(value, str):
        # What its tool gave may be kept whole in a file, which is not what the model is to read.
        value = replace(result, content=(TextPart(encodable(value)),), kept=None)
    if not isinstance(value, ToolResult) or (value.call_id, value.name) != (result.call_id, result.name):
        raise InvalidInput(
            f"after a tool {value!r:.80} replaces nothing",
            hint="give Replace a text, or the result with other content; its call and name stay",
        )
    return recordable(value)


def _misfit(answer: Any) -> InvalidInput:
    return InvalidInput(f"it answered with {answer!r:.80}", hint="None, Deny, Replace or Inject")


# -- what hooks are ------------------------------------------------------------------------------


def _name_of(hook: Any) -> str:
    return getattr(hook, "__name__", None) or type(hook).__name__


def _methods(hook: Any) -> list[str]:
    """Which questions a hook answers. Raises InvalidInput for what is no hook."""
    name = _name_of(hook)
    if isinstance(hook, type):
        raise InvalidInput(f"hooks: {name} is a class", hint="give an instance of it")
    unasked = [each for each in _NOT_YET if hasattr(hook, each)]
    if unasked:
        raise InvalidInput(f"hooks: {name}.{unasked[0]}: polypod does not ask that yet", hint="leave it out")
    methods = [each for each in _ASKED if hasattr(hook, each)]
    if not methods:
        raise InvalidInput(f"hooks: {name} answers nothing", hint=f"a hook has {' or '.join(_ASKED)}")
    timeout = getattr(hook, "timeout", TIMEOUT)
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (number and 0 < timeout < math.inf):
        raise InvalidInput(f"hooks: {name}.timeout: expected more than 0 seconds, got {timeout!r}")
    return methods


def _takes_ctx(method: Any, name: str, count: int) -> bool:
    """Whether a method of a hook wants the context. Raises InvalidInput where it cannot be asked."""
    try:
        signature = inspect.signature(method)
        wants_ctx = "ctx" in signature.parameters
        signature.bind(*range(count), **({"ctx": None} if wants_ctx else {}))
    except (TypeError, ValueError) as error:
        what = "(call)" if count == 1 else "(call, result)"
        raise InvalidInput(f"hooks: {name} cannot be asked with {what}: {error}") from error
    return wants_ctx
