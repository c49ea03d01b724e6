"""Results: what the futures of a pod's commands resolve with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from msgspec import Struct

from protocol.errors import Failure
from protocol.events import RunOutcome
from protocol.lifecycle import PodState
from protocol.manifest import BudgetSection
from protocol.usage import Usage

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")


class RunResult(Struct, Generic[T], frozen=True):
    """How a run ended.

    ``text`` is the model's last answer (what was shown of it, where the run was cancelled or paused in the
    middle of it), ``usage`` the sum over the run's calls, those of compactions within the run included,
    ``output`` the instance of the type that was asked for (None where none was, or where the run did not
    finish). ``cost`` is that of the same calls in US dollars (None where nobody knows), ``steps`` how many
    requests the run sent, ``seconds`` how long it went on, pauses and the time of people left out. ``limit``
    says which limit, budget or refusal it ended at, None where it ended at none.
    """

    text: str
    outcome: RunOutcome
    usage: Usage
    run_id: str
    session_id: str
    output: T = None  # type: ignore[assignment] # of a run that no type was asked of, T is None
    cost: float | None = None
    steps: int = 0
    seconds: float = 0.0
    limit: Failure | None = None


class BudgetUse(Struct, frozen=True):
    """What pods have used of a budget: ``tokens`` and ``cost_usd`` with what is held back for calls under
    way (``reserved_tokens`` and ``reserved_cost_usd``), ``seconds`` of runs that have ended. ``incomplete``
    marks a sum in which some call stands at its estimate, since no server reported what it took.
    """

    limits: BudgetSection
    tokens: int
    cost_usd: float
    seconds: float
    incomplete: bool
    reserved_tokens: int = 0
    reserved_cost_usd: float = 0.0


class PodDescription(Struct, frozen=True, gc=False):
    """What a pod is and how it does.

    ``head`` is the hex hash of its session's last entry, ``extract_pointer`` the number of history
    items that memory has read (None: none yet), ``occupancy`` the tokens its history takes, ``usage``
    and ``cost`` (US dollars) the sums over the pod's life, ``seconds`` the time that its runs took in it,
    ``passive`` whether the store alone has its history, ``sub_agents`` the names of the pods that are its
    sub-agents and have not ended.
    """

    name: str
    state: PodState
    session_id: str
    head: str
    extract_pointer: int | None
    occupancy: int
    usage: Usage
    cost: float | None
    passive: bool = False
    seconds: float = 0.0
    sub_agents: tuple[str, ...] = ()
