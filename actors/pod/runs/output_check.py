"""``OutputCheck``: checks a run's answers where their type is known, which may be in another process."""

from __future__ import annotations

import abc
from typing import Any

from msgspec.structs import replace

from actors.llm.output import DOUBTFUL, Fit, Misfit, parse_output
from protocol.errors import OutputInvalid, RunFailed
from protocol.results import RunResult


class OutputCheck(abc.ABC):
    """Says whether the answers of a run are what was asked for."""

    @abc.abstractmethod
    async def why_not(self, text: str) -> str | None:
        """What is wrong with an answer, in words for the model; None where nothing is."""


class TypeCheck(OutputCheck):
    """Whether the answers of a run are of a type."""

    __slots__ = ("_asked_again", "_kind")

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._asked_again = False

    async def why_not(self, text: str) -> str | None:
        read = parse_output(text, self._kind)
        if isinstance(read, Fit) and (not read.doubtful or self._asked_again):  # asked about once
            return None
        self._asked_again = True
        return DOUBTFUL if isinstance(read, Fit) else read.why

    def output_of(self, result: RunResult[Any]) -> Any:
        """The instance that a finished run has answered with. Raises RunFailed where it has with none."""
        read = parse_output(result.text, self._kind)
        if isinstance(read, Misfit):
            raise RunFailed(
                OutputInvalid(f"the model's answer does not have the required form: {read.why}"),
                run_id=result.run_id,
            )
        return read.value


class OutputChecks:
    """The checks of the runs that were asked for over one connection, by the ids of their ``Ask``s."""

    def __init__(self) -> None:
        self._checks: dict[int, OutputCheck] = {}
        #: The run that was paused last, and the number of its check, which goes on with it.
        self._paused: tuple[str, int] | None = None

    def add(self, number: int, check: OutputCheck) -> None:
        """Have the answers of a run checked."""
        self._checks[number] = check

    async def why_not(self, number: int, text: str) -> str | None:
        """What is wrong with an answer of that run; None also if there is no check for it."""
        check = self._checks.get(number)
        return None if check is None else await check.why_not(text)

    def drop(self, number: int) -> None:
        """Forget a run that has failed."""
        self._checks.pop(number, None)

    def complete(self, number: int, result: RunResult[Any]) -> RunResult[Any]:
        """The result of a run, with the instance where one was asked for. Raises RunFailed where its answer
        is none.
        """
        if self._paused is not None and self._paused[0] == result.run_id:
            before, self._paused = self._paused[1], None
            if number in self._checks:  # it was resumed with another type
                self.drop(before)
            else:
                number = before
        check = self._checks.get(number)
        if check is None:
            return result
        if result.outcome == "paused":
            if self._paused is not None:  # by a run that this one has closed
                self.drop(self._paused[1])
            self._paused = (result.run_id, number)
            return result
        self.drop(number)
        if result.outcome != "finished" or not isinstance(check, TypeCheck):
            return result
        return replace(result, output=check.output_of(result))
