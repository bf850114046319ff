"""One asset: why it is at risk, where its copies are, its history, and the log of the run under the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.containers import Container, Vertical
from textual.widget import Widget

from backends.model import Asset, AssetStatus, HostObservation, HostState, SnapshotInfo
from tui import actions, jobs
from tui import history as histories
from tui.history import HistoryRow
from tui.screens.base import AreaScreen
from tui.screens.why import WhyDialog
from tui.source import History
from tui.widgets import reasons, say
from tui.widgets.lines import Bar, Rule
from tui.widgets.log_pane import LogPane
from tui.widgets.panel import Panel
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, Piece, words, wrapped


class AssetScreen(AreaScreen):
    """Opened from a row of the fleet."""

    place = "asset"
    BINDINGS: ClassVar = actions.bindings("asset")
    CSS = """
    #asset-body { layout: grid; grid-size: 2; grid-columns: 1fr 33; grid-rows: 11 1fr; height: 1fr; }
    AssetScreen.-wide #asset-body { grid-columns: 1fr 46; grid-rows: 10 1fr 11; }
    #asset-history { column-span: 2; }
    #asset-log { column-span: 2; display: none; }
    AssetScreen.-wide #asset-log { display: block; }
    """

    def __init__(self, host: str, asset: Asset) -> None:
        super().__init__()
        self.host = host
        self.asset = asset
        self.history: History | None = None

    def body(self) -> Iterable[Widget]:
        """Reasons and copies above, history below, the log at the bottom where there is room."""
        yield Bar(id="asset-line")
        yield Container(
            Panel("Why this risk", id="asset-why"),
            Panel("Copies", id="asset-copies"),
            Vertical(
                Bar(id="asset-sizes"),
                Table(self._columns(), self._cells, id="asset-table"),
                id="asset-history",
            ),
            Vertical(Rule(id="asset-log-rule"), LogPane(id="asset-log-pane"), id="asset-log"),
            id="asset-body",
        )

    def on_mount(self) -> None:
        """Begin in the history."""
        super().on_mount()
        self.table.focus()
        self.mastovault.ask_history(self.host, self.asset)

    @property
    def table(self) -> Table[HistoryRow]:
        """The history."""
        return self.query_one("#asset-table", Table)

    @property
    def status(self) -> AssetStatus | None:
        """How the asset is now; None when it is not configured any more."""
        seen = self.mastovault.seen
        found = seen.fleet.assets if seen is not None else ()
        return next((one for one in found if one.host == self.host and one.asset is self.asset), None)

    @property
    def waiting(self) -> bool:
        """Whether the past is still being read."""
        return self.history is None

    def history_arrived(self, history: History) -> None:
        """Show what was read of the past."""
        if (history.host, history.asset) == (self.host, self.asset):
            self.history = history
            self.refresh_picture()

    def draw(self) -> None:
        """Draw all panes."""
        status, now = self.status, self.mastovault.now()
        why = self.query_one("#asset-why", Panel)
        if status is None:
            why.show([[("This asset is not configured any more.", "warn")]])
            return
        self.query_one("#asset-line", Bar).show(self._summary(status))
        lines = list(reasons.reasons(status, why.inner_width - 2, actions=False))
        observation = self._observation()
        if observation is not None and observation.state is not HostState.ONLINE:
            lines = [*reasons.away(observation, now, why.inner_width - 2), [], *lines]
        why.show(lines)
        config = self.mastovault.seen.config if self.mastovault.seen is not None else None
        if self.history is None or config is None:
            return
        panel = self.query_one("#asset-copies", Panel)
        proof: list[Line] = [[(part, "")] for part in wrapped(status.proof, panel.inner_width - 1) if part]
        panel.show([*histories.copies(self.history, config, now, self._offsite()), *proof])
        merged = histories.merge(self.history, self.mastovault.distrust)
        self.table.set_columns(self._columns())
        self.table.show(merged)
        self.query_one("#asset-sizes", Bar).show(self._sizes(merged))

    def _observation(self) -> HostObservation | None:
        seen = self.mastovault.seen
        hosts = seen.fleet.hosts if seen is not None else ()
        return next((one for one in hosts if one.host == self.host), None)

    def _offsite(self) -> Mapping[str, bool]:
        seen = self.mastovault.seen
        return {row.name: row.offsite for row in (seen.storage if seen is not None else ())}

    def crumbs(self) -> tuple[Line, Line]:
        """Where we are, and the score."""
        left = [
            (" 1 ", "key"),
            ("Fleet › ", "quiet"),
            (self.host, "strong"),
            (" › ", "quiet"),
            (self.asset.value, "strong"),
        ]
        status = self.status
        return left, [*reasons.score(status, full=False), (" ", "")] if status is not None else ()

    def _summary(self, status: AssetStatus) -> Line:
        now = self.mastovault.now()
        at = status.newest.at if status.newest else None
        line: list[Piece] = [(" last good ", "quiet"), (say.moment(at) if at else "never", "")]
        if at:
            line += [("   age ", "quiet"), (say.age(at, now, status.stale), "")]
        line += [("   goal ", "quiet"), (say.goal(status.goal_seconds), "")]
        entry = jobs.at_work(self.mastovault.entries).get((self.host, self.asset))
        if entry is not None:
            part = jobs.percent(entry.job)
            word, _style = jobs.state(entry)
            line += [("   now ", "quiet"), (word, "run"), (f" {part}%" if part is not None else "", "run")]
        elif status.state:
            line += [("   ", ""), (status.state, "quiet")]
        return line

    def _sizes(self, merged: Sequence[HistoryRow]) -> Line:
        values = histories.sizes(merged)
        if len(values) < 2:
            return [(" History", "title")]
        usual = histories.usual_seconds(merged)
        line: list[Piece] = [(" History", "title"), ("   sizes ", "quiet"), *say.spark(values, 30)]
        return [*line, ("   usual time ", "quiet"), (say.took(usual), "")] if usual else line

    def _columns(self) -> Sequence[Column]:
        columns = [
            Column("when", "When (UTC)", 11),
            Column("result", "Result", 11, gap=1),
            Column("time", "Time", 7, "right"),
            Column("size", "Size", 5, "right"),
            Column("verified", "Verified", 10, gap=1),
            Column("drilled", "Proven", 7, gap=1),
        ]
        return [*columns, Column("detail", "Detail", 0)]

    def _cells(self, row: HistoryRow) -> Sequence[Line]:
        cells: list[Line] = [
            words(say.day_time(row.at)),
            [row.result],
            words(say.took(row.seconds)),
            words(say.size(row.bytes)),
            [row.verified],
            [row.drilled],
        ]
        return [*cells, [row.detail]]

    def _log_subject(self) -> tuple[str, str | None] | None:
        row = self.table.current
        live = jobs.at_work(self.mastovault.entries).get((self.host, self.asset))
        run = live.run.id if live is not None else row.run if row is not None else ""
        for entry in self.mastovault.entries:
            if entry.run.id == run and entry.job.asset is self.asset:
                return run, entry.job.id
        return None

    @on(Table.Moved)
    def show_log(self) -> None:
        """Show the log of the row under the cursor, or of the job that is at work now."""
        subject = self._log_subject()
        note = "The log of this run is not on this machine." if self.table.current is not None else "No run yet."
        self.query_one(LogPane).watch_log(subject, "reading…" if subject else note)
        title: list[Piece] = [("run log", "title")]
        if subject is not None:
            title.append((f" {jobs.short(subject[0])}", "strong"))
        row = self.table.current
        if row is not None and row.attempt is not None and row.attempt.error:
            title.append((f"  {row.attempt.error}", "warn"))
        self.query_one("#asset-log-rule", Rule).show(title)
        self.mastovault.pull_logs()

    @on(Table.Chosen)
    def open_clicked(self) -> None:
        """Open a row clicked twice."""
        self.do_open()

    def do_open(self) -> None:
        """Show the log of the row full screen."""
        subject = self._log_subject()
        if subject is None:
            self.app.notify("The log of this run is not on this machine.", severity="warning")
        else:
            self.mastovault.open_log(*subject)

    do_log = do_open

    def do_backup(self) -> None:
        """Back it up now."""
        self.mastovault.start_backup({self.host: [self.asset]}, ask=False)

    def _snapshot(self) -> SnapshotInfo | None:
        """The copy of the row under the cursor, else the newest."""
        row = self.table.current
        if row is not None and row.snapshot is not None:
            return row.snapshot
        return self.status.newest if self.status is not None else None

    def _check(self, kind: str) -> None:
        snapshot = self._snapshot()
        self.mastovault.start_checks(kind, {self.host: {self.asset: snapshot} if snapshot is not None else {}})

    def do_verify(self) -> None:
        """Verify the copy under the cursor."""
        self._check("verify")

    def do_drill(self) -> None:
        """Drill the copy under the cursor."""
        self._check("drill")

    def do_restore(self) -> None:
        """Open the restore wizard on the copy under the cursor."""
        snapshot = self._snapshot()
        self.mastovault.open_wizard(self.host, [self.asset], snapshot.id if snapshot is not None else "")

    def do_undo(self) -> None:
        """Offer what can be done about the last restore of this asset."""
        self.mastovault.settle_restore(self.host, self.asset)

    def do_why(self) -> None:
        """Show every reason with what lowers it."""
        if self.status is not None:
            lines = [reasons.score(self.status), (), *reasons.reasons(self.status, 60, actions=True)]
            self.app.push_screen(WhyDialog(lines))

    def do_copy(self) -> None:
        """Copy the snapshot's name, or the asset's."""
        row = self.table.current
        snapshot = row.snapshot if row is not None else None
        self.mastovault.copy(snapshot.id if snapshot is not None else f"{self.host}/{self.asset}")
