"""The catalogue of all claims, in the order in which they are shown."""

from __future__ import annotations

from importlib import import_module

from bench.claim import Claim

#: Names of claims and their modules, imported when needed.
_MODULES = {
    "import": "bench.claims.importing",
    "start": "bench.claims.start",
    "mailbox": "bench.claims.mailbox",
    "turn": "bench.claims.turn",
    "tool": "bench.claims.tool",
    "approval": "bench.claims.approval",
    "chain": "bench.claims.chain",
    "search": "bench.claims.search",
    "children": "bench.claims.children",
    "processes": "bench.claims.processes",
    "pool": "bench.claims.pool",
    "mcp": "bench.claims.mcp",
    "http": "bench.claims.http",
    "fanout": "bench.claims.fanout",
    "far": "bench.claims.far",
    "slow": "bench.claims.slow",
    "durable": "bench.claims.durable",
    "history": "bench.claims.history",
    "restore": "bench.claims.restore",
    "sessions": "bench.claims.sessions",
    "memory": "bench.claims.memory",
    "sse": "bench.claims.sse",
    "compaction": "bench.claims.compaction",
    "extraction": "bench.claims.extraction",
    "scaling": "bench.claims.scaling",
}


def names() -> list[str]:
    """The names of all claims."""
    return list(_MODULES)


def claim(name: str) -> Claim:
    """The claim with that name. Raises KeyError."""
    if name not in _MODULES:
        raise KeyError(f"no claim named {name!r}; there are {', '.join(_MODULES)}")
    found: Claim = import_module(_MODULES[name]).CLAIM
    return found
