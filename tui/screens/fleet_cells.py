"""The columns of the fleet, and what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backends.model import Level
from tui.rows import FleetRow
from tui.theme import LEVELS
from tui.widgets import say
from tui.widgets.table import Column
from tui.widgets.text import Line, words

WIDE = 132
"""From so many columns on, the time of the last good copy stands in the table too; before, only beside it."""

_LABELS = {
    "risk": "Risk",
    "host": "Host",
    "asset": "Asset",
    "good": "Last good",
    "age": "Age",
    "goal": "Goal",
    "size": "Size",
    "state": "State",
}


def columns(sort: str, *, wide: bool, reverse: bool, host_cells: int) -> Sequence[Column]:
    """The columns, with an arrow at the one that sorts."""
    plan: list[tuple[str, int, int]] = [("risk", 7, 1), ("mark", 1, 0), ("host", host_cells, 1), ("asset", 8, 1)]
    if wide:
        plan.append(("good", 11, 1))
    plan += [("age", 8, 1), ("goal", 6, 1), ("size", 5, 2), ("state", 0, 0)]
    return [
        Column(key, _label(key, sort, reverse=reverse), size, "right" if key == "size" else "left", gap)
        for key, size, gap in plan
    ]


def _label(key: str, sort: str, *, reverse: bool) -> str:
    text = _LABELS.get(key, "")
    return text + ("↑" if reverse else "↓") if key == sort else text


def cells(row: FleetRow, now: datetime, *, wide: bool, marked: bool) -> Sequence[Line]:
    """What stands in one row."""
    word, style = LEVELS[row.level]
    at = row.at
    late = bool(at and row.first.goal_seconds and (now - at).total_seconds() > row.first.goal_seconds)
    elsewhere, loud = bool(row.provider), row.level in {Level.CRIT, Level.HIGH}
    tone = "quiet" if row.stale or elsewhere else "" if at else "bad" if loud else "warn"
    made: list[Line] = [
        words(word, style),
        words("◆" if marked else " ", "accent"),
        words(row.host, "strong"),
        words(row.name, "accent" if marked else ""),
    ]
    if wide:
        made.append(words(say.day_time(at), "quiet"))
    return [
        *made,
        words("–" if elsewhere else say.age(at, now, row.stale), tone or ("warn" if late else "")),
        words("–" if row.folded or elsewhere else say.goal(row.first.goal_seconds), "quiet"),
        words(say.size(row.bytes), "quiet" if row.stale else ""),
        [row.state(now)],
    ]
