"""The jobs: what runs and what ran, with the log of the one under the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.containers import Container, Vertical
from textual.widget import Widget

from backends.model import JobState
from backends.runs.view import RunView
from tui import actions, jobs
from tui.jobs import JobEntry
from tui.screens.base import AreaScreen
from tui.screens.job_lines import step_lines
from tui.widgets import say
from tui.widgets.lines import Lines, Rule
from tui.widgets.log_pane import LogPane
from tui.widgets.notice import Notice
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, Piece, words

if TYPE_CHECKING:
    from backends.restore.plan import RestorePlan

WIDE = 110


class JobsScreen(AreaScreen):
    """The second area."""

    place = "jobs"
    BINDINGS: ClassVar = actions.bindings("jobs")
    CSS = """
    #jobs-body { height: 1fr; layout: vertical; }
    #jobs-table { height: 1fr; }
    #jobs-right { height: 1fr; }
    #jobs-none { display: none; }
    JobsScreen.-empty #jobs-body { display: none; }
    JobsScreen.-empty #jobs-none { display: block; }
    JobsScreen.-broad #jobs-body { layout: horizontal; }
    JobsScreen.-broad #jobs-table { width: 57; }
    JobsScreen.-broad #jobs-right { width: 1fr; border-left: solid $rule; }
    """

    def body(self) -> Iterable[Widget]:
        """The list, and the log below or beside it."""
        yield Container(
            Table(self._columns(), self._cells, id="jobs-table"),
            Vertical(
                Rule(id="jobs-rule"),
                Lines(id="jobs-step"),
                Lines(id="jobs-steps"),
                LogPane(id="jobs-log"),
                id="jobs-right",
            ),
            id="jobs-body",
        )
        yield Notice(
            [[("No job has run on this machine yet.", "strong")], [], [("1 goes to the fleet, b backs up.", "quiet")]],
            id="jobs-none",
        )

    def __init__(self) -> None:
        super().__init__()
        self._wanted = ""
        self._plans: dict[str, RestorePlan | None] = {}
        self._tried: dict[str, RunView] = {}
        self._reading = ""

    def on_mount(self) -> None:
        """Begin in the list."""
        super().on_mount()
        self.table.focus()

    def look_at(self, run: str) -> None:
        """Put the cursor on a run as soon as it is listed."""
        self._wanted = run
        self.refresh_picture()

    @property
    def waiting(self) -> bool:
        """Whether a plan is being read."""
        return bool(self._reading)

    @property
    def broad(self) -> bool:
        """Whether the log stands beside the list."""
        return self.app.size.width >= WIDE

    @property
    def table(self) -> Table[JobEntry]:
        """The list of jobs."""
        return self.query_one("#jobs-table", Table)

    @property
    def log_pane(self) -> LogPane:
        """The log."""
        return self.query_one(LogPane)

    def draw(self) -> None:
        """Draw the list and the head of the log."""
        app = self.mastovault
        self.set_class(self.broad, "-broad")
        self.set_class(not app.entries, "-empty")
        self.table.set_columns(self._columns())
        self.table.show(app.entries)
        wanted = next((entry for entry in app.entries if entry.run.id == self._wanted), None)
        if wanted is not None and self.table.move_to(wanted.key):
            self._wanted = ""
        self._draw_head()

    def crumbs(self) -> tuple[Line, Line]:
        """How many run and how many have ended today."""
        app = self.mastovault
        today = app.now().date()
        ended = [entry for entry in app.entries if entry.run.ended_at and entry.run.ended_at.date() == today]
        done = sum(entry.job.state is JobState.DONE for entry in ended)
        failed = sum(entry.job.state is JobState.FAILED or entry.lost for entry in ended)
        left: list[Piece] = [(" 2 ", "key"), ("Jobs", "strong"), ("     ", "")]
        left += [(jobs.tally(app.entries) or "nothing runs", "run"), (f"   {done} done today", "quiet")]
        if failed:
            left.append((f"   {failed} failed today", "bad"))
        return left, ()

    def _columns(self) -> Sequence[Column]:
        number, target = Column("number", "#", 4, gap=1), Column("target", "Target", 19, gap=1)
        if self.broad:
            return [
                number,
                Column("what", "What", 8, gap=1),
                target,
                Column("state", "State", 15, gap=1),
                Column("rest", "", 0, gap=0),
            ]
        return [
            number,
            Column("what", "What", 8, gap=1),
            target,
            Column("state", "Step", 13, gap=1),
            Column("progress", "Progress", 0),
            Column("rate", "Rate", 7, "right"),
            Column("left", "Left", 5, "right"),
        ]

    def _cells(self, entry: JobEntry) -> Sequence[Line]:
        head: list[Line] = [
            words(entry.number, "quiet"),
            words(entry.what),
            words(entry.target, "strong"),
            [jobs.state(entry)],
        ]
        job, part = entry.job, jobs.percent(entry.job)
        if not entry.active or job.state is JobState.QUEUED or entry.question is not None:
            if self.broad:
                return [*head, words(self._ended(entry), "quiet")]
            return [*head, words(jobs.outcome(entry), "quiet" if job.state is not JobState.FAILED else "warn")]
        if self.broad:
            return [*head, words(f"{part}%" if part is not None else "", "strong")]
        progress: Line = words(jobs.amount(job) if job.done else "")
        if part is not None and job.total is not None:
            progress = [*say.bar(job.done, job.total, 7), (f" {part:3d}%", "strong")]
        return [*head, progress, words(say.rate(job.rate, job.unit)), words(say.clock(jobs.left(job)))]

    def _ended(self, entry: JobEntry) -> str:
        return f"{entry.run.ended_at:%H:%M}" if entry.run.ended_at else ""

    def _draw_head(self) -> None:
        entry = self.table.current
        number = entry.number if entry is not None else ""
        title: list[Piece] = [("log", "title"), (f" {number}", "strong")]
        steps: Sequence[Line] = ()
        if entry is not None:
            self.query_one("#jobs-step", Lines).show(self._step_lines(entry))
            if entry.run.restore:
                steps, place = self._plan_lines(entry.run)
                title = [(number, "title"), (f" {place}", "run")] if place else title
        self.query_one("#jobs-rule", Rule).show(title, self.log_pane.switches())
        # Of a list that is shorter than its part of the screen, the room goes to the log.
        room = min(7, len(self.mastovault.entries) + 1) if steps and not self.broad else None
        self.table.styles.height = room if room is not None else "1fr"
        self.query_one("#jobs-steps", Lines).show(steps)

    def _plan_lines(self, run: RunView) -> tuple[Sequence[Line], str]:
        """The steps of a restore or of an undo with what has become of each, and which one is at work."""
        from tui.widgets.live_steps import headline, live_steps  # most starts of the app never need plans

        # An undo walks the steps of the restore's plan, which is in the folder of that run.
        made = [view for view in self.mastovault.runs if view.restore == run.restore and view.kind == "restore"]
        holder = run if run.kind == "restore" else next(iter(made), run)
        plan = self._plans.get(holder.id)
        # A run writes its plan some time after it began: look again whenever there is news of it.
        if plan is None and not self._reading and self._tried.get(holder.id) is not holder:
            self._tried[holder.id] = holder
            self._reading = holder.id
            self.mastovault.spawn(self._read, holder.id)
        cells = max(30, self.log_pane.size.width - 1)
        # Of the lines between the list and the footer, the log keeps six.
        most = 22 if self.broad else max(7, self.app.size.height - len(self.mastovault.entries[:6]) - 13)
        before = dict(holder.steps) if holder is not run else {}
        place = headline(plan, run, before) if plan is not None and run.active else ""
        return live_steps(plan, run, cells, most, before), place

    async def _read(self, run: str) -> None:
        app = self.mastovault
        try:
            self._plans[run] = await app.feed.call(app.source.plan, run)
        finally:
            self._reading = ""
        self.refresh_picture()

    def _step_lines(self, entry: JobEntry) -> Sequence[Line]:
        plan = self._plans.get(entry.run.id)
        expected = plan.seconds if plan is not None else None
        return step_lines(entry, self.mastovault.now(), self.log_pane.size.width, expected)

    @on(Table.Moved)
    def show_log(self) -> None:
        """Show the log of the job under the cursor."""
        entry = self.table.current
        subject = (entry.run.id, entry.log) if entry is not None else None
        self.log_pane.watch_log(subject, "No line yet.")
        self._draw_head()
        self.mastovault.pull_logs()

    @on(LogPane.Changed)
    def log_changed(self) -> None:
        """Show the number of lines and the switches."""
        self._draw_head()

    @on(Table.Chosen)
    def open_clicked(self) -> None:
        """Open a row clicked twice."""
        self.do_open()

    def do_open(self) -> None:
        """Answer a run that asks; else show the log full screen."""
        entry = self.table.current
        if entry is not None and entry.question is not None:
            self.do_answer()
        elif entry is not None:
            self.mastovault.open_log(entry.run.id, entry.log)

    do_log = do_open

    def do_answer(self) -> None:
        """Answer what the run asks for."""
        entry = self.table.current
        if entry is not None and entry.question is not None:
            self.mastovault.ask_operator(entry.run.id, entry.question)

    def do_undo(self) -> None:
        """Offer what can be done about the restore under the cursor."""
        entry = self.table.current
        if entry is not None:
            restore = entry.run.restore
            self.mastovault.settle_restore(entry.job.host, entry.job.asset, restore)

    def do_cancel(self) -> None:
        """Stop the job under the cursor after asking."""
        entry = self.table.current
        if entry is not None:
            self.mastovault.cancel_job(entry)

    def do_follow(self) -> None:
        """Follow the end of the log, or stay."""
        self.log_pane.switch("follow")

    def do_wrap(self) -> None:
        """Wrap long lines, or cut them."""
        self.log_pane.switch("wrap")

    def do_times(self) -> None:
        """Show or hide the times."""
        self.log_pane.switch("times")

    def do_copy(self) -> None:
        """Copy how the job ended, or its run's name."""
        entry = self.table.current
        if entry is not None:
            error = entry.result.error if entry.result is not None else None
            self.mastovault.copy(error or entry.run.id)
