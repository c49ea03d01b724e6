"""``Settings``: the arguments of a ``PodSystem``, checked, with defaults for what was left out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from actors.llm.prices import Prices, load_prices, standard_prices
from actors.runtime.arguments import check_count, check_seconds, path_of, table_of
from actors.sessions.store import SessionStore
from protocol.foreign import shown
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
    """The settings asked for. Raises ValueError, InvalidInput for what is of no type that it could be,
    ManifestError for a budget, and for a file of prices what ``load_prices`` does.
    """
    if on_conflict not in ("fork", "refuse"):
        raise ValueError(f"on_conflict must be 'fork' or 'refuse', not {shown(on_conflict)}")
    if passivate_after is not None:
        check_seconds("passivate_after", passivate_after, zero=False, words=", or None")
    for name, seconds in graces.items():
        check_seconds(name, seconds)
    if processes is not None:
        check_count("processes", processes, 1, "child processes")
    return Settings(
        on_conflict=on_conflict,
        outputs=_folder("outputs") if outputs is None else path_of("outputs", outputs),
        memory=None if memory is None else path_of("memory", memory),
        prices=prices if isinstance(prices, Prices) else _prices(prices),
        passivate_after=passivate_after,
        limits=None if budget is None else _limits(budget),
        graces=graces,
        processes=processes,
    )


def _prices(path: str | Path | None) -> Prices:
    return standard_prices() if path is None else load_prices(path_of("prices", path))


def _limits(budget: BudgetSection | Mapping[str, float]) -> BudgetSection:
    """The limits, as a manifest's ``[budget]`` would have them. Raises ManifestError."""
    asked = (
        msgspec.structs.asdict(budget) if isinstance(budget, BudgetSection) else table_of("budget", budget)
    )
    return PodManifest.of(budget=asked).budget


def _folder(name: str) -> Path:
    import tempfile  # noqa: PLC0415 - loads what unpacks archives too

    return Path(tempfile.gettempdir(), f"polypod-{os.getuid()}", name)
