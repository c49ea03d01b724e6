"""The catalogue of peers: their packages, and the cases that each of them does."""

from __future__ import annotations

from collections.abc import Collection
from importlib import metadata
from pathlib import Path

from msgspec import Struct

from bench.results import Effort, Failed
from bench.root import ROOT

#: Where their environments are created.
VENVS = ROOT / ".venv-peers"
_SCRIPTS = Path(__file__).parent / "scripts"
#: The most fresh processes for each case: most take long, and no ratio depends on their last digit.
REPEATS = 3


class PeerCase(Struct, frozen=True):
    """A case of a claim as a peer does it; ``by`` is its name in the table."""

    claim: str
    case: str
    by: str
    full: int
    quick: int
    rounds: int = 2

    def count(self, effort: Effort) -> int:
        """How many operations a round has."""
        return {"full": self.full, "quick": self.quick, "tiny": 2}[effort]


class Peer(Struct, frozen=True):
    """Another library; ``packages`` are those in its environment, ``needs`` is the oldest Python that it runs
    on.
    """

    name: str
    packages: tuple[str, ...]
    cases: tuple[PeerCase, ...]
    needs: tuple[int, int] = (3, 11)

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return VENVS / self.name / "bin" / "python"

    @property
    def script(self) -> Path:
        """The program that does its cases; it runs in the peer's environment."""
        return _SCRIPTS / f"{self.name.replace('-', '_')}_peer.py"

    @property
    def installed(self) -> bool:
        """Whether its environment exists."""
        return self.python.exists()


_TURN, _THOUSAND = "one pod", "1000 pods at once"
_GROWTH = "a long session"
_STREAMS = (*(f"{number} at once, chunk by chunk" for number in (1, 64, 512)), "64 at once, all in one burst")


def _streams(by: str) -> tuple[PeerCase, ...]:
    sizes = ((40, 10), (128, 64), (512, 512), (128, 64))
    return tuple(
        PeerCase("http", case, by, full, quick, 1)
        for case, (full, quick) in zip(_STREAMS, sizes, strict=True)
    )


def _durable(by: str, one: int, each: int) -> tuple[PeerCase, ...]:
    """Cases for both durabilities: with an fsync for each commit, which is their default, and without."""
    return tuple(
        PeerCase("durable", f"{mode}, {sessions}", by, full, max(1, full // 3))
        for mode in ("process", "power")
        for sessions, full in (("one session", one), ("64 sessions at once", each))
    )


def _restore(by: str) -> tuple[PeerCase, ...]:
    """Cases beside both of our restores."""
    cases = "10,000 items", "10,000 items, committed by a pod"
    return tuple(PeerCase("restore", case, by, 10_000, 10_000) for case in cases)


def _pool(by: str) -> tuple[PeerCase, ...]:
    """Cases for both durabilities, wherever its queue is kept."""
    return tuple(PeerCase("pool", f"in a SQLite file{mode}", by, 1_000, 300) for mode in ("", ", power"))


PEERS = (
    Peer(
        "autogen",
        ("autogen-core", "autogen-agentchat", "autogen-ext[openai]", "openai[aiohttp]"),
        (
            PeerCase("import", "import polypod", "autogen-agentchat", 1, 1, 1),
            PeerCase("start", "10k pods", "autogen-core, no session", 10_000, 10_000, 1),
            PeerCase("mailbox", "in one loop", "autogen-core", 5_000, 1_000),
            PeerCase("mailbox", "in one loop, awaited", "autogen-core", 5_000, 1_000),
            PeerCase("turn", _TURN, "autogen-core, no session", 2_000, 500),
            PeerCase("turn", _TURN, "autogen-agentchat, no session", 500, 100),
            PeerCase("turn", _THOUSAND, "autogen-agentchat, no session", 1_000, 1_000, 1),
            PeerCase("tool", "async tool", "autogen-agentchat, no session", 300, 100),
            *_streams("autogen-agentchat, no session"),
            PeerCase("fanout", "of one pod", "autogen-core", 200, 50),
            PeerCase("history", "model in memory", "autogen-agentchat, no session", 20, 5),
        ),
    ),
    Peer(
        "openai-agents",
        ("openai-agents", "openai[aiohttp]"),
        (
            PeerCase("import", "import polypod", "openai-agents", 1, 1, 1),
            PeerCase("start", "10k pods", "openai-agents, a session each", 2_000, 1_000, 1),
            PeerCase("turn", _TURN, "openai-agents", 300, 100),
            PeerCase("turn", _THOUSAND, "openai-agents", 1_000, 1_000, 1),
            PeerCase("tool", "async tool", "openai-agents", 200, 50),
            *_streams("openai-agents"),
            *_durable("openai-agents", 200, 5),
            PeerCase("durable", _GROWTH, "openai-agents", 1_000, 200, 1),
            PeerCase("history", "model in memory", "openai-agents", 10, 3),
            *_restore("openai-agents, no chain"),
        ),
    ),
    Peer(
        "langgraph",
        ("langgraph", "langgraph-checkpoint-sqlite", "langchain", "langchain-openai", "openai[aiohttp]"),
        (
            PeerCase("import", "import polypod", "langgraph", 1, 1, 1),
            PeerCase("turn", _TURN, "langgraph", 300, 100),
            PeerCase("turn", _THOUSAND, "langgraph", 1_000, 1_000, 1),
            PeerCase("tool", "async tool", "langgraph", 200, 50),
            *_streams("langgraph"),
            *_durable("langgraph, sync", 100, 3),
            *_durable("langgraph, at exit", 100, 3),
            PeerCase("durable", _GROWTH, "langgraph, at exit", 1_000, 200, 1),
            PeerCase("history", "model in memory", "langgraph", 10, 3),
            *_restore("langgraph, no chain"),
        ),
    ),
    Peer(
        "pydantic-ai",
        ("pydantic-ai-slim[openai]", "openai[aiohttp]"),
        (
            PeerCase("import", "import polypod", "pydantic-ai", 1, 1, 1),
            PeerCase("turn", _TURN, "pydantic-ai, no session", 300, 100),
            PeerCase("turn", _THOUSAND, "pydantic-ai, no session", 1_000, 1_000, 1),
            PeerCase("tool", "async tool", "pydantic-ai, no session", 200, 50),
            *_streams("pydantic-ai, no session"),
            PeerCase("history", "model in memory", "pydantic-ai, no session", 10, 3),
        ),
    ),
    Peer(
        "tantra-harness",
        ("tantra-harness",),
        (
            *_durable("tantra-harness", 60, 1),
            PeerCase("durable", _GROWTH, "tantra-harness", 200, 20, 1),
        ),
        needs=(3, 13),
    ),
    Peer(
        "casty",
        ("casty",),
        (
            PeerCase("durable", "power, one session", "casty, no model", 1_000, 200),
            PeerCase("durable", "power, 64 sessions at once", "casty, no model", 20, 5),
        ),
        needs=(3, 12),
    ),
    Peer("dbos", ("dbos",), (*_pool("DBOS, in SQLite"), *_pool("DBOS, in Postgres"))),
    Peer("procrastinate", ("procrastinate", "psycopg[binary]"), _pool("procrastinate, in Postgres")),
)


def versions() -> dict[str, str]:
    """The versions of the packages in the existing environments."""
    return {
        found.name: found.version
        for peer in PEERS
        for site in (VENVS / peer.name / "lib").glob("python*/site-packages")
        for package in peer.packages
        for found in metadata.distributions(name=package.partition("[")[0], path=[str(site)])
        if peer.installed
    }


def left_out(claims: Collection[str]) -> list[Failed]:
    """The peers that would do cases of these claims and have no environment here."""
    missing = [(peer, {case.claim for case in peer.cases}) for peer in PEERS if not peer.installed]
    return [
        Failed(
            ", ".join(name for name in claims if name in does),
            "all cases",
            peer.name,
            f"it has no environment here: python -m bench.peers {peer.name}",
        )
        for peer, does in missing
        if does.intersection(claims)
    ]


def cases(claim: str) -> list[tuple[Peer, PeerCase]]:
    """The cases that installed peers do of a claim."""
    return [(peer, case) for peer in PEERS if peer.installed for case in peer.cases if case.claim == claim]
