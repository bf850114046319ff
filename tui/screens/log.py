"""One log, full screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.widget import Widget

from tui import actions, jobs
from tui.jobs import JobEntry
from tui.screens.base import AreaScreen
from tui.widgets.lines import Rule
from tui.widgets.log_pane import LogPane
from tui.widgets.text import Line, Piece


class LogScreen(AreaScreen):
    """The log of one job; live while it runs."""

    place = "log"
    BINDINGS: ClassVar = actions.bindings("log")

    def __init__(self, run: str, job: str | None) -> None:
        super().__init__()
        self.run_id = run
        self.job = job

    def body(self) -> Iterable[Widget]:
        """The switches and the lines."""
        yield Rule(id="log-rule")
        yield LogPane(id="log-pane")

    def on_mount(self) -> None:
        """Begin in the log."""
        super().on_mount()
        pane = self.query_one(LogPane)
        pane.watch_log((self.run_id, self.job), "No line yet.")
        pane.focus()
        self.mastovault.pull_logs()

    @property
    def entry(self) -> JobEntry | None:
        """The job whose log it is; of a whole run, its first."""
        mine = (one for one in self.mastovault.entries if one.run.id == self.run_id)
        return next((one for one in mine if self.job in {None, one.job.id}), None)

    def draw(self) -> None:
        """Draw the switches."""
        self.query_one("#log-rule", Rule).show([("log", "title")], self.query_one(LogPane).switches())

    def crumbs(self) -> tuple[Line, Line]:
        """Whose log it is and how the job is."""
        left: list[Piece] = [(" Log › ", "quiet"), (jobs.short(self.run_id), "strong")]
        entry = self.entry
        if entry is None:
            return left, ()
        left.append((f" {entry.what} {entry.target}", ""))
        part = jobs.percent(entry.job)
        right: list[Piece] = [jobs.state(entry), (f" {part}% " if entry.active and part is not None else " ", "")]
        return left, right

    @on(LogPane.Changed)
    def log_changed(self) -> None:
        """Show the number of lines."""
        self.draw()

    def do_cancel(self) -> None:
        """Stop the job after asking."""
        if self.entry is not None:
            self.mastovault.cancel_job(self.entry)

    def do_follow(self) -> None:
        """Follow the end of the log, or stay."""
        self.query_one(LogPane).switch("follow")

    def do_wrap(self) -> None:
        """Wrap long lines, or cut them."""
        self.query_one(LogPane).switch("wrap")

    def do_times(self) -> None:
        """Show or hide the times."""
        self.query_one(LogPane).switch("times")

    def do_copy(self) -> None:
        """Copy all lines."""
        self.mastovault.copy(self.query_one(LogPane).text)
