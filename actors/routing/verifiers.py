"""What verifies a tier's answer: the contract, a function as one, and several together."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from actors.llm.base import Meter, models_of
from actors.pod.accounts.spent import Spent, sum_of
from actors.tools.invoke import is_async
from actors.tools.thread_pool import shared_threads
from actors.tools.user_functions import call_function
from protocol.errors import ChainInvalid, RoutingError
from protocol.foreign import shown
from protocol.routing import Verdict


@runtime_checkable
class Verifier(Protocol):
    """Says whether an output is good enough.

    Contract of ``verify``: called on the chain's event loop, any number of times at once. ``task_prompt`` is
    the user's own, without what was said of earlier answers. What it raises counts as a rejection. A verifier
    may have ``async aclose()``.
    """

    def verify(self, skill_prompt: str, task_prompt: str, output: str) -> Awaitable[Verdict]:
        """What is to be said of ``output``."""
        ...


#: What is taken for a verifier: one, a function as ``FunctionVerifier`` takes it, or several, asked in order.
Verifying = Verifier | Callable[[str, str, str], Any] | list[Any] | tuple[Any, ...]


class Case(Struct, frozen=True, eq=False):
    """What is to be verified. ``meter`` counts what is asked of models for that, ``deadline``
    (``time.monotonic()`` seconds) is when it has to be done.
    """

    skill_prompt: str
    task_prompt: str
    output: str
    meter: Meter | None = None
    deadline: float | None = None


async def judge(verifier: Verifier, case: Case) -> Verdict:
    """What a verifier says. Raises what it raises, RoutingError for what is not a verdict."""
    counted: Callable[[Case], Awaitable[Verdict]] | None = getattr(verifier, "judge", None)
    said: Any
    if counted is not None:
        said = await counted(case)
    else:
        said = verifier.verify(case.skill_prompt, case.task_prompt, case.output)
        if inspect.isawaitable(said):
            said = await said
    return _verdict(said)


def _verdict(said: Any) -> Verdict:
    """A verdict, a bool, or a bool with feedback. Raises RoutingError."""
    if isinstance(said, bool):
        return Verdict(said)
    if isinstance(said, tuple) and len(said) == 2:
        said = Verdict(*said)
    if isinstance(said, Verdict) and isinstance(said.accept, bool):
        if isinstance(said.feedback, str):
            return said
        return replace(said, feedback="" if said.feedback is None else str(said.feedback))
    raise RoutingError(
        f"a verifier returned {shown(said, 100)}, which is not a verdict",
        hint="return a Verdict, True or False, or (False, 'why')",
    )


class FunctionVerifier:
    """A function as a verifier: of ``(skill_prompt, task_prompt, output)`` it gives a Verdict, True or
    False, or ``(False, "why")``. A plain one runs in a thread, unless it is not ``blocking``; one that hangs
    there keeps no process from ending.
    """

    def __init__(self, function: Callable[[str, str, str], Any], *, blocking: bool = True) -> None:
        if not callable(function):
            raise ChainInvalid(f"{shown(function, 100)} is not a function")
        self._function = function
        self._in_thread = blocking and not is_async(function)

    def __repr__(self) -> str:
        return f"<FunctionVerifier {getattr(self._function, '__name__', self._function)}>"

    async def verify(self, skill_prompt: str, task_prompt: str, output: str) -> Verdict:
        """What the function says. Raises what it raises, RoutingError for what is not a verdict."""
        ask = partial(self._function, skill_prompt, task_prompt, output)
        if self._in_thread:
            return _verdict(await call_function(ask, shared_threads(), None))
        said = ask()
        return _verdict(await said if inspect.isawaitable(said) else said)


class AllOf:
    """Several verifiers, asked in order: the first that rejects has the last word."""

    def __init__(self, *verifiers: Verifying) -> None:
        if not verifiers:
            raise ChainInvalid(
                "AllOf needs at least one verifier", hint="an empty AllOf would accept anything"
            )
        self._verifiers = tuple(as_verifier(each) for each in verifiers)

    def __repr__(self) -> str:
        return f"<AllOf {', '.join(map(repr, self._verifiers))}>"

    @property
    def prices_of(self) -> tuple[str, ...]:
        """The models that they may ask."""
        return tuple(name for each in self._verifiers for name in models_of(each) or ())

    async def verify(self, skill_prompt: str, task_prompt: str, output: str) -> Verdict:
        """What they say together."""
        return await self.judge(Case(skill_prompt, task_prompt, output))

    async def judge(self, case: Case) -> Verdict:
        """What they say together, with what counts their calls."""
        spent = Spent()
        for each in self._verifiers:
            said = await judge(each, case)
            spent = sum_of((spent, Spent(said.usage, said.cost)))
            if not said.accept:
                break
        return Verdict(said.accept, said.feedback, spent.usage, spent.cost)

    async def aclose(self) -> None:
        """Close those of them that hold anything."""
        await close_all(self._verifiers)


def as_verifier(given: Verifying) -> Verifier:
    """A verifier, a function as one, or a list of them as all together. Raises ChainInvalid."""
    if isinstance(given, Verifier):
        return given
    if isinstance(given, list | tuple):
        return AllOf(*given)
    if callable(given):
        return FunctionVerifier(given)
    raise ChainInvalid(
        f"{shown(given, 100)} is not a verifier",
        hint="a verifier needs verify(skill_prompt, task_prompt, output)",
    )


async def close_all(things: Iterable[Any]) -> None:
    """Close those that can be closed."""
    for each in things:
        if (close := getattr(each, "aclose", None)) is not None:
            await close()
