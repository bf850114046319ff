"""The strip of jobs under the fleet: what runs now and what has just ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from textual.app import ComposeResult
from textual.containers import Vertical

from backends.model import JobState
from tui import jobs
from tui.widgets import say
from tui.widgets.lines import Lines, Rule
from tui.widgets.text import Line, Piece, fit, width


class JobStrip(Vertical):
    """A rule, then one line a job."""

    DEFAULT_CSS = """
    JobStrip { height: auto; dock: bottom; margin-bottom: 1; }
    """

    def compose(self) -> ComposeResult:
        """The rule and the lines."""
        yield Rule()
        yield Lines()

    def show(self, found: Sequence[jobs.JobEntry], now: datetime, *, most: int, idle: str) -> None:
        """Show the jobs of the last minutes, at most so many lines; `idle` when there are none."""
        shown = jobs.strip_of(found, now)
        rule = self.query_one(Rule)
        rule.show([("jobs", "title")], [(jobs.tally(found), "strong")] if jobs.tally(found) else ())
        cells = self.app.size.width
        lines: list[Line] = [job_line(entry, cells) for entry in shown[:most]]
        if len(shown) > most:
            lines[-1] = [(f" and {len(shown) - most + 1} more; 2 shows them all", "quiet")]
        self.query_one(Lines).show(lines or [[(f" {idle}", "quiet")]])


def job_line(entry: jobs.JobEntry, cells: int) -> Line:
    """One job as one line of so many cells."""
    wide = cells >= 100
    head_cells, step_cells = (38, 22) if wide else (30, 15)
    head = fit([(f" {entry.number} ", "quiet"), (f"{entry.what} ", ""), (entry.target, "strong")], head_cells)
    word = fit([(" ", ""), jobs.state(entry)], step_cells)
    job, part = entry.job, jobs.percent(entry.job)
    if not entry.active or job.state is not JobState.RUNNING or entry.question is not None:
        return [*head, *word, (" ", ""), (jobs.outcome(entry), "")]
    if part is None or job.total is None:
        return [*head, *word, (" ", ""), (jobs.amount(job) if job.done else "", "")]
    tail: list[Piece] = [(f" {part:3d}%", "strong"), (f"  {say.rate(job.rate, job.unit):>7}", "")]
    remains = jobs.left(job)
    if remains is not None:
        tail.append((f"  {'left ' if wide else ''}{say.clock(remains):>5}", ""))
    room = cells - head_cells - step_cells - width(tail) - 3
    return [*head, *word, (" ", ""), *say.bar(job.done, job.total, max(6, min(40, room))), *tail]
