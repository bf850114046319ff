"""How the screens write numbers, ages, rates and progress."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tui.cli.show import size, span
from tui.widgets.text import Piece

__all__ = [
    "age",
    "ago",
    "bar",
    "clock",
    "count",
    "day_time",
    "every",
    "goal",
    "moment",
    "rate",
    "size",
    "span",
    "spark",
    "took",
]

_BLOCKS = "▁▂▃▄▅▆▇█"


def age(at: datetime | None, now: datetime, stale: bool = False) -> str:
    """How long ago, short; `never` without a time, and with `~` when nobody could look again."""
    text = "never" if at is None else span((now - at).total_seconds())
    return f"{text} ~" if stale else text


def ago(at: datetime | None, now: datetime) -> str:
    """`3d 04h ago`, or `never`."""
    return "never" if at is None else f"{span((now - at).total_seconds())} ago"


def goal(seconds: float | None) -> str:
    """A goal as it is written in the configuration: `24h`, `7d`; `change` when content is compared."""
    if seconds is None:
        return "change"
    whole = int(seconds)
    if whole >= 172800 and whole % 86400 == 0:
        return f"{whole // 86400}d"
    if whole >= 3600 and whole % 3600 == 0:
        return f"{whole // 3600}h"
    return f"{whole // 60}m" if whole >= 60 and whole % 60 == 0 else span(whole)


def every(seconds: int) -> str:
    """How often, as it reads best: `60s`, `5m`."""
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m"


def moment(at: datetime | None) -> str:
    """An absolute time in UTC: `2026-11-22 14:02 UTC`."""
    return "–" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def day_time(at: datetime | None) -> str:
    """A time in a list: `11-22 14:02` (UTC)."""
    return "–" if at is None else at.astimezone(UTC).strftime("%m-%d %H:%M")


def clock(seconds: float | None) -> str:
    """A duration as a stopwatch shows it: `03:10`, `1:02:03`."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    text = f"{rest // 60:02d}:{rest % 60:02d}"
    return f"{hours}:{text}" if hours else text


def took(seconds: float | None) -> str:
    """How long something took: `0.7s`, `41s`, `12:10`."""
    if seconds is None:
        return "–"
    if seconds < 59.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    return clock(round(seconds))


def count(number: int) -> str:
    """A number with thin groups: `48 210`."""
    return f"{number:,}".replace(",", " ")


def rate(per_second: float | None, unit: str) -> str:
    """How fast: `18M/s`, or `210/s` for what is counted in pieces."""
    if not per_second:
        return "–"
    return f"{size(int(per_second))}/s" if unit == "bytes" else f"{count(int(per_second))}/s"


def bar(done: int, total: int, cells: int) -> tuple[Piece, Piece]:
    """A bar of so many cells, drawn as text."""
    full = min(cells, max(0, done) * cells // total) if total > 0 else 0
    return ("█" * full, "bar"), ("░" * (cells - full), "bar-rest")


def spark(values: Sequence[int | None], cells: int) -> list[Piece]:
    """The last values as blocks; None is a failed attempt."""
    shown = values[-cells:]
    top = max((value for value in shown if value is not None), default=0)
    pieces: list[Piece] = []
    for value in shown:
        if value is None:
            pieces.append(("✗", "bad"))
        else:
            pieces.append((_BLOCKS[min(7, value * 7 // top)] if top else "▁", "bar"))
    return pieces
