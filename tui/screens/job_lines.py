"""How far the job under the cursor is, or how it ended, in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backends.model import JobState
from tui import jobs
from tui.jobs import JobEntry
from tui.widgets import say
from tui.widgets.text import Line, Piece, width, wrapped


def step_lines(entry: JobEntry, now: datetime, cells: int, expected: float | None) -> Sequence[Line]:
    """The lines between the list and the log; `expected` is how many seconds the plan says it takes."""
    job, part = entry.job, jobs.percent(entry.job)
    line: list[Piece] = [(" ", ""), jobs.state(entry), ("  ", "")]
    if not entry.active or job.state is JobState.QUEUED or entry.question is not None:
        return _outcome_lines(entry, line, cells)
    tail = _amounts(entry, now, expected)
    if part is not None and job.total is not None:
        room = cells - width(line) - width(tail) - 6
        return [[*line, *say.bar(job.done, job.total, max(5, min(40, room))), (f" {part:3d}%", "strong"), *tail]]
    return [[*line, *tail]]


def _amounts(entry: JobEntry, now: datetime, expected: float | None) -> Line:
    job, remains = entry.job, jobs.left(entry.job)
    line: list[Piece] = [(f"  {jobs.amount(job)}" if job.done else "", "")]
    if job.rate:
        line.append((f"  {say.rate(job.rate, job.unit)}", "quiet"))
    if remains is not None:
        return [*line, (f"  left {say.clock(remains)}", "")]
    since = (now - entry.run.begun_at).total_seconds()
    about = f" of about {say.clock(expected)}" if expected is not None else ""
    return [*line, (f"  since {say.clock(since)}", "quiet"), (about, "quiet")]


def _outcome_lines(entry: JobEntry, head: Line, size: int) -> Sequence[Line]:
    cells = max(20, size - width(head) - 2)
    result = entry.result
    texts = [(part, "") for part in wrapped(jobs.outcome(entry), cells)]
    if result is not None:
        texts += [(part, "accent") for part in wrapped(result.next_step or "", cells) if part]
        texts += [(part, "warn") for warning in result.warnings[:2] for part in wrapped(f"▲ {warning}", cells)]
    blank: Line = [(" " * width(head), "")]
    return [[*(head if number == 0 else blank), piece] for number, piece in enumerate(texts[:5])]
