"""``Tally``: sums over all rounds of a store, under kills or under one fault."""

from __future__ import annotations

from collections import Counter

import msgspec
from msgspec import Struct

from bench.crash.rounds import Round


class Tally(Struct):
    """The sums over some rounds. ``killed_in`` counts the kills that caught a pod in each phase."""

    store: str
    fault: str | None
    rounds: int = 0
    kills: int = 0
    killed_in: dict[str, int] = msgspec.field(default_factory=dict)
    reported: int = 0
    looked_for: int = 0
    verified: int = 0
    restored: int = 0
    resumed: int = 0
    torn: int = 0
    spells: int = 0
    hits: int = 0
    refused: int = 0
    alive: int = 0
    proven: int = 0
    findings: list[str] = msgspec.field(default_factory=list)
    lives: dict[int, tuple[int, int]] = msgspec.field(default_factory=dict)

    def add(self, each: Round) -> None:
        """Add a round."""
        found = each.examined
        self.rounds += 1
        self.kills += each.killed
        self.killed_in = dict(Counter(self.killed_in) + Counter(each.phases))
        self.reported += each.reported
        self.looked_for += found.reported
        self.verified += found.entries
        self.restored += found.restored
        self.resumed += found.resumed
        self.torn += found.torn
        self.spells += each.spells
        self.hits += each.hits
        self.refused += each.refused
        self.alive += each.alive
        self.proven += each.proven
        self.findings += found.findings
        self.lives[each.life] = (found.tools, found.compacted)

    @property
    def tools(self) -> int:
        """Calls for which a tool ran."""
        return sum(tools for tools, _ in self.lives.values())

    @property
    def compacted(self) -> int:
        """Compactions whose chain was followed."""
        return sum(compacted for _, compacted in self.lives.values())

    def line(self) -> bytes:
        """The tally as one line of JSON."""
        reported = msgspec.to_builtins(self)
        del reported["lives"]
        return msgspec.json.encode({**reported, "tools": self.tools, "compacted": self.compacted})
