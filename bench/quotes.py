"""Writes the tables of figures in other pages from ``bench/RESULTS.md``: ``python -m bench quotes``."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from bench.markdown import rows_of
from bench.root import ROOT

RESULTS = ROOT / "bench" / "RESULTS.md"
#: The pages that have such a table, between two comments.
PAGES = (ROOT / "README.md", ROOT / "docs" / "comparison.md")
BEGIN, END = "<!-- figures of bench/RESULTS.md: python -m bench quotes -->", "<!-- end of the figures -->"

#: For each row its topic, its place in the results (claim, case, metric), and a note after our figure.
_ROWS = (
    ("`import`", ("import", "import actors", "time"), ""),
    ("10,000 idle agents, started", ("start", "10k pods", "starts"), ""),
    ("the same, memory of each", ("start", "10k pods", "memory each"), ""),
    ("a turn, model in memory", ("turn", "one pod", "time of a turn"), ""),
    ("a turn with one call of an `async` tool", ("tool turn", "async tool", "time of a run"), ""),
    (
        "a turn over HTTP, 50 chunks, 512 at once",
        ("HTTP turn", "512 at once, chunk by chunk", "time of a turn"),
        "",
    ),
    ("durable turns, 64 sessions at once", ("durable turn", "process, 64 sessions at once", "turns"), ""),
    (
        "written for one of them, 1 KB said and answered",
        ("durable turn", "process, 64 sessions at once", "written for a turn"),
        "",
    ),
    ("a durable turn on a disk that syncs", ("durable turn", "power, one session", "time of a turn"), ""),
    ("a turn on top of 10,000 items", ("a turn on top", "model in memory", "time of a turn"), ""),
    ("restoring 10,000 items", ("restore", "10,000 items", "time to restore"), ", every hash checked"),
)
#: What results say after a comma about peers that do less, and how the tables put it.
_LESS = defaultdict(str, {"no session": "without a session", "no chain": "unchecked"})


class Peer(NamedTuple):
    """A figure of another library: how many times ours it is, the figure, whose it is, and what that library
    leaves out.
    """

    times: float
    figure: str
    name: str
    less: str


def quote(page: str, results: str) -> str:
    """``page`` with its table as in ``results``, the text of ``bench/RESULTS.md``. Raises ValueError if a
    figure is missing there.
    """
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    headings = ("", "polypod", "the best of pykka, autogen, langgraph, openai-agents, pydantic-ai")
    table = "\n".join(rows_of(headings, _rows(results)))
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _rows(results: str) -> Iterator[tuple[str, str, str]]:
    sections = re.split(r"^## ", results, flags=re.MULTILINE)
    for about, (claim, case, metric), more in _ROWS:
        section = next((each for each in sections if re.match(rf"{claim}[: ]", each)), "")
        found = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in section.splitlines()
            if line.startswith(f"| {case} | {metric} |")
        ]
        ours = [row[3] for row in found if row[2] == "polypod"]
        if not ours:
            raise ValueError(f"{RESULTS} has no {claim}, {case}, {metric}: measure all, beside the peers")
        yield about, ours[0] + more, _best([_peer(row) for row in found if row[2][0].isalnum() and row[6]])


def _peer(row: list[str]) -> Peer:
    name, _, less = row[2].partition(", ")
    bare = name.startswith("pykka")  # actors that know nothing of models
    return Peer(float(row[6].rstrip("x")), row[3], name, _LESS["no session" if bare else less])


def _best(peers: list[Peer]) -> str:
    """The best figure of all and, if that library does less than we do, the best of those that do not."""
    best = min(peers)
    whole = min((each for each in peers if not each.less), default=best)
    said = [f"{each.figure} {each.less} ({each.name})".replace("  ", " ") for each in (best, whole)]
    if not best.less or whole is best:
        return said[0]
    return f"{said[0]}, {said[1].replace(' (', ' with one (' if 'session' in best.less else ' (', 1)}"


def main() -> int:
    """The command ``python -m bench quotes``; returns 2 if the last run was not of all claims."""
    try:
        write()
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


def write() -> None:
    """Write the tables anew. Raises ValueError like ``quote``."""
    results = RESULTS.read_text(encoding="utf-8")
    for page in PAGES:
        page.write_text(quote(page.read_text(encoding="utf-8"), results), encoding="utf-8")
