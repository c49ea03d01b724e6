"""The line below a chat's prompt: model, tokens, cost and folder."""

from __future__ import annotations

from actors.cli.display.format import cut, dollars, folder_name


def footer_line(
    model: str, occupancy: int | None, cost: float | None, folder: str, home: str, columns: int
) -> str:
    """The footer within so many columns; at a narrow terminal it says less, the model first."""
    parts = [model]
    if occupancy is not None:
        parts.append(f"{short(occupancy)} tokens")
    if cost:
        parts.append(dollars(cost))
    line = " · ".join(parts)
    room = columns - len(line) - 4
    if room >= 8:
        line = f"{line} · {folder_name(folder, home, min(room, 40))}"
    return cut(line, max(columns - 1, 1))


def short(count: int) -> str:
    """A count of tokens in few characters: ``950``, ``12.3k``, ``1.2M``."""
    if count < 1000:
        return str(count)
    if count < 999_950:
        return f"{count / 1000:.1f}k"
    return f"{count / 1_000_000:.1f}M"
