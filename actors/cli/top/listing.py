"""The list of agents and pods in their groups; a cursor stays on its row while rows come, change and go."""

from __future__ import annotations

import time

from textual.widgets import OptionList
from textual.widgets.option_list import Option

from actors.cli.display.event_format import Line
from actors.cli.swarm.rows import Columns, Row, groups_of
from actors.cli.top.transcript import text_of


class Listing(OptionList):
    """Agents, those that need a person first, then the pods of the store."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = dict[str, Line]()

    @property
    def key(self) -> str | None:
        """What the row under the cursor is called by; None where there is no row."""
        return None if self.highlighted is None else self.get_option_at_index(self.highlighted).id

    def show(self, agents: list[Row], pods: list[Row]) -> None:
        """Show these, where anything about them is new."""
        lines = _lines(agents, pods, self.scrollable_content_region.width, time.time())
        if lines == self._shown:
            return
        if list(lines) == list(self._shown):
            for index, (key, line) in enumerate(lines.items()):
                if line != self._shown[key]:
                    self.replace_option_prompt_at_index(index, text_of(line))
        else:
            self._fill(lines)
        self._shown = lines

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Have pages be turned only where there is room for a row: textual looks for its line."""
        if action in {"page_up", "page_down"} and not self.scrollable_content_region:
            return False
        return super().check_action(action, parameters)

    def _fill(self, lines: dict[str, Line]) -> None:
        """Show other rows than before; the cursor stays on its own, or goes to the nearest."""
        before, place = self.key, self.highlighted or 0
        self.clear_options()
        self.add_options(Option(text_of(line), key, disabled=not is_row(key)) for key, line in lines.items())
        rows = [index for index, key in enumerate(lines) if is_row(key)]
        if rows:
            same = [index for index, key in enumerate(lines) if key == before]
            self.highlighted = (same or [min(rows, key=lambda index: abs(index - place))])[0]


def is_row(key: str) -> bool:
    """Whether that is a row of an agent or a pod, and no heading."""
    return key.startswith(("agent ", "pod "))


def _lines(agents: list[Row], pods: list[Row], width: int, now: float) -> dict[str, Line]:
    columns = Columns.of([*agents, *pods], width)
    lines = {"heading": columns.heading()}
    for title, group in groups_of(agents):
        lines[title.partition(" (")[0]] = Line("user", title)
        lines |= {f"agent {row.id}": columns.line(row, now) for row in group}
    if pods:
        lines["pods"] = Line("user", f"pods of the store ({len(pods)})")
        lines |= {f"pod {row.session_id}": columns.line(row, now) for row in pods}
    return lines
