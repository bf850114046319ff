"""A risk score as lines that add up to it, and what lowers it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backends.model import AssetStatus, HostObservation
from tui.rows import FleetRow, host_state
from tui.theme import LEVELS
from tui.widgets import say
from tui.widgets.text import Line, Piece, wrapped


def score(status: AssetStatus, *, full: bool = True) -> Line:
    """`CRIT ▲▲  score 91 of 100`; when `full`, also what the reasons add up to when that is more than 100."""
    word, style = LEVELS[status.level]
    line: list[Piece] = [(word, style), ("  score ", "quiet"), (str(status.score), "strong"), (" of 100", "quiet")]
    total = sum(why.points for why in status.reasons)
    if full and total > status.score:
        line.append((f"  (sum {total})", "quiet"))
    return [*line, ("  last known", "quiet")] if status.stale else line


def reasons(status: AssetStatus, cells: int, *, actions: bool) -> list[Line]:
    """Every reason with its points; with `actions`, below each what lowers it, else what lowers it most at the end."""
    lines: list[Line] = []
    for why in status.reasons:
        points = f"{why.points:+d}".rjust(4)
        for number, text in enumerate(wrapped(why.text, cells - 6)):
            head = (f"{points}  ", "warn" if why.points > 0 else "ok") if number == 0 else ("      ", "")
            lines.append([head, (text, "")])
        if actions and why.action:
            lines += [[("      ", ""), (text, "quiet")] for text in wrapped(why.action, cells - 6)]
    if not lines:
        lines.append([("Nothing speaks against it.", "quiet")])
    worst = max(status.reasons, key=lambda why: why.points, default=None)
    if not actions and worst is not None and worst.action:
        parts = wrapped(f"lower it: {worst.action}", cells)
        lines += [[], *([(part, "accent")] for part in parts)]
    return lines


def away(seen: HostObservation, now: datetime, cells: int) -> list[Line]:
    """What is the matter with a host, and what to do."""
    lines: list[Line] = [[host_state(seen, now)]]
    lines += [[(text, "")] for text in wrapped(seen.message, cells) if text]
    lines += [[(text, "accent")] for text in wrapped(seen.next_step, cells) if text]
    lines.append([("asked ", "quiet"), (say.ago(seen.asked_at, now), "quiet")])
    return lines


def row_lines(row: FleetRow, now: datetime, cells: int, *, actions: bool) -> list[Line]:
    """All about one row of the fleet."""
    if row.folded:
        lines: list[Line] = [[(row.host, "strong")], *_away_lines(row, now, cells), []]
        for status in row.statuses:
            at = status.newest.at if status.newest else None
            lines.append([(f"{status.asset:<9} ", ""), (say.age(at, now, status.stale), "quiet")])
        return lines
    status = row.first
    lines = [[(f"{row.host} / {status.asset}", "strong")], score(status, full=actions), []]
    if row.observation is not None and status.stale:
        lines += [*away(row.observation, now, cells), []]
    return [*lines, *reasons(status, cells, actions=actions)]


def _away_lines(row: FleetRow, now: datetime, cells: int) -> Sequence[Line]:
    return away(row.observation, now, cells) if row.observation is not None else ()
