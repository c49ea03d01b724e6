"""``Settings``: the arguments of a ``PodSystem``, checked, with defaults for what was left out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from actors.llm.prices import Prices, load_prices, standard_prices
from actors.sessions.store import SessionStore
from protocol.manifest import BudgetSection, PodManifest


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of a ``PodSystem``, whose docstring says what they mean."""

    on_conflict: Literal["fork", "refuse"]
    outputs: Path
    memory: Path | None
    prices: Prices
    passivate_after: float | None
    limits: BudgetSection | None
    graces: dict[str, float]
    processes: int | None

    @property
    def grace(self) -> float:
        """Seconds that all that has to end at a stop may take together."""
        return sum(self.graces.values())

    def memory_beside(self, store: SessionStore) -> Path:
        """The folder of memory: it lasts as long as the sessions that it was taken from."""
        if self.memory is not None:
            return self.memory
        return _folder("memory") if store.folder is None else store.folder / "memory"


def settings_of(
    on_conflict: Literal["fork", "refuse"],
    outputs: str | Path | None,
    memory: str | Path | None,
    prices: str | Path | Prices | None,
    passivate_after: float | None,
    budget: BudgetSection | Mapping[str, float] | None,
    processes: int | None,
    **graces: float,
) -> Settings:
    """The settings asked for. Raises ValueError, ManifestError for a budget, and for a file of prices what
    ``load_prices`` does.
    """
    if on_conflict not in {"fork", "refuse"}:
        raise ValueError(f"on_conflict is 'fork' or 'refuse', not {on_conflict!r}")
    if passivate_after is not None and not 0 < passivate_after < math.inf:
        raise ValueError(f"passivate_after is a number of seconds above 0, or None, not {passivate_after}")
    for name, seconds in graces.items():
        if not 0 <= seconds < math.inf:
            raise ValueError(f"{name} is a number of seconds, 0 or more, not {seconds}")
    if processes is not None and processes < 1:
        raise ValueError(f"processes is a number of child processes, 1 or more, not {processes}")
    return Settings(
        on_conflict=on_conflict,
        outputs=_folder("outputs") if outputs is None else Path(outputs),
        memory=None if memory is None else Path(memory),
        prices=prices if isinstance(prices, Prices) else _prices(prices),
        passivate_after=passivate_after,
        limits=None if budget is None else _limits(budget),
        graces=graces,
        processes=processes,
    )


def _prices(path: str | Path | None) -> Prices:
    return standard_prices() if path is None else load_prices(path)


def _limits(budget: BudgetSection | Mapping[str, float]) -> BudgetSection:
    """The limits, as a manifest's ``[budget]`` would have them. Raises ManifestError."""
    asked = msgspec.structs.asdict(budget) if isinstance(budget, BudgetSection) else dict(budget)
    return PodManifest.of(budget=asked).budget


def _folder(name: str) -> Path:
    import tempfile  # noqa: PLC0415 - loads what unpacks archives too

    return Path(tempfile.gettempdir(), f"polypod-{os.getuid()}", name)
