"""The fleet: every asset of every host, worst first, with the jobs below and the reasons beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import on
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Label

from backends.model import Asset
from tui import actions, rows
from tui.rows import FleetRow
from tui.screens.asset import AssetScreen
from tui.screens.base import AreaScreen
from tui.screens.fleet_cells import WIDE, cells, columns
from tui.screens.fleet_deeds import FleetDeeds
from tui.source import History
from tui.widgets.filter_input import FilterInput
from tui.widgets.first_run import FirstRun
from tui.widgets.job_strip import JobStrip
from tui.widgets.notice import Notice
from tui.widgets.reasons_pane import ReasonsPane
from tui.widgets.standing import stands
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, Piece


class FleetScreen(FleetDeeds, AreaScreen):
    """The first screen."""

    place = "fleet"
    AUTO_FOCUS = ""
    BINDINGS: ClassVar = actions.bindings("fleet")
    CSS = """
    #fleet-filter { display: none; height: 1; background: $panel; }
    #fleet-filter.-open { display: block; }
    #fleet-filter Label { color: $accent; text-style: bold; }
    #fleet-main { height: 1fr; }
    #fleet-left { width: 1fr; }
    #fleet-none { height: 1fr; content-align: center middle; text-align: center; display: none; }
    #fleet-side { display: none; width: 36; }
    FleetScreen.-wide #fleet-side { display: block; }
    FleetScreen.-first-run #fleet-main, FleetScreen.-first-run JobStrip { display: none; }
    FleetScreen.-first-run FirstRun { display: block; }
    FleetScreen.-nothing #fleet { display: none; }
    FleetScreen.-nothing #fleet-none { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.sort = "risk"
        self.reversed = False
        self.marks: set[str] = set()
        self._anchor = ""
        self._unfolded: set[str] = set()
        self._host_cells = 12
        self._histories: dict[tuple[str, Asset], History] = {}
        self._asks: Timer | None = None
        self._wanted: tuple[str, Asset] | None = None

    def body(self) -> Iterable[Widget]:
        """The filter, the table beside the reasons, the jobs."""
        field = FilterInput(placeholder="text, !text, host:x, asset:media, risk:crit", compact=True)
        field.can_focus = False
        yield Horizontal(Label(" / ", markup=False), field, id="fleet-filter")
        yield FirstRun()
        yield Horizontal(
            Vertical(
                Table(self._columns(), self._cells, id="fleet"),
                Notice(id="fleet-none"),
                id="fleet-left",
            ),
            ReasonsPane(id="fleet-side"),
            id="fleet-main",
        )
        yield JobStrip()

    def on_mount(self) -> None:
        """Begin in the table."""
        super().on_mount()
        self.query_one(FilterInput).cursor_blink = False
        self.table.focus()

    @property
    def table(self) -> Table[FleetRow]:
        """The table of assets."""
        return self.query_one("#fleet", Table)

    @property
    def filter_text(self) -> str:
        """The filter in force."""
        return self.query_one(FilterInput).value if stands(self) else ""

    def draw(self) -> None:
        """Draw the rows, the reasons and the jobs."""
        app = self.mastovault
        first = app.seen is not None and not app.seen.config.hosts
        self.set_class(first, "-first-run")
        if app.seen is not None:
            config = app.seen.config
            self.query_one(FirstRun).show(key=bool(config.encryption.recipients), vault=bool(config.vaults))
        if app.seen is None or first:
            self.query_one(JobStrip).show(app.entries, app.now(), most=3, idle="reading the vaults…")
            return
        found = rows.build(app.seen.fleet, app.entries, self._unfolded)
        self._host_cells = max(10, min(22, max((len(row.host) for row in found), default=10)))
        shown = rows.arrange(found, text=self.filter_text, column=self.sort, reverse=self.reversed, now=app.now())
        self.marks &= {row.key for row in found}
        self.set_class(bool(self.filter_text) and not shown, "-nothing")
        self.query_one("#fleet-none", Notice).show(self._nothing())
        self.table.set_columns(self._columns())
        self.table.show(shown)
        idle = "Nothing is running." if app.read_only else "Nothing is running. b backs up the row under the cursor."
        self.query_one(JobStrip).show(app.entries, app.now(), most=3 if self.app.size.height < 32 else 6, idle=idle)

    def footer(self) -> Sequence[actions.Action]:
        """Without hosts there is nothing to open or back up yet."""
        offered = actions.footer(self.place)
        seen = self.mastovault.seen
        if seen is None or seen.config.hosts:
            return offered
        adds = [] if seen.config.vaults else [actions.action("add_vault")]
        return [*adds, *(entry for entry in offered if entry.id in {"areas", "help", "leave"})]

    def crumbs(self) -> tuple[Line, Line]:
        """Sort, filter, how often the hosts are asked, marks."""
        arrow = "↑" if self.reversed else "↓"
        left: list[Piece] = [
            (" 1 ", "key"),
            ("Fleet › all", "strong"),
            ("     sort ", "quiet"),
            (f"{self.sort}{arrow}", ""),
        ]
        asking = self.mastovault.asking is not None
        if self.filter_text or not asking:
            left += [("   filter ", "quiet"), (self.filter_text or "–", "accent" if self.filter_text else "")]
        if self.marks:
            left += [("   ", ""), (f" {len(self.marks)} marked ", "flag")]
        else:
            left += [("   ", ""), (self.asking(), "run" if asking else "quiet")]
        return left, self.running()

    def _columns(self) -> Sequence[Column]:
        wide = self.app.size.width >= WIDE
        return columns(self.sort, wide=wide, reverse=self.reversed, host_cells=self._host_cells)

    def _cells(self, row: FleetRow) -> Sequence[Line]:
        wide = self.app.size.width >= WIDE
        return cells(row, self.mastovault.now(), wide=wide, marked=row.key in self.marks)

    @on(Table.Moved)
    def show_reasons(self) -> None:
        """Show the reasons of the row under the cursor."""
        row = self.table.current
        history = None
        if row is not None and not row.folded:
            key = (row.host, row.first.asset)
            history = self._histories.get(key)
            if history is None and self.app.size.width >= 100 and key != self._wanted:
                self._want(key)
        self.query_one(ReasonsPane).show(row, history)

    @on(Table.Chosen)
    def open_clicked(self) -> None:
        """Open a row clicked twice."""
        self.do_open()

    @on(Table.HeaderClicked)
    def sort_clicked(self, event: Table.HeaderClicked) -> None:
        """Sort by a clicked column."""
        if event.column in rows.COLUMNS:
            self.reversed = not self.reversed if event.column == self.sort else False
            self.sort = event.column
            self.refresh_picture()

    @on(Input.Changed)
    def filter_changed(self) -> None:
        """Filter while it is typed."""
        self.refresh_picture()

    @on(Input.Submitted)
    def filter_done(self) -> None:
        """Go on in the table."""
        self.query_one(FilterInput).close()

    def do_open(self) -> None:
        """Open the asset; unfold a host that is away."""
        row = self.table.current
        if row is None:
            return
        if row.folded:
            self._unfolded.add(row.host)
            self.refresh_picture()
            self.table.move_to(f"{row.host}/{row.first.asset}")
            return
        self.app.push_screen(AssetScreen(row.host, row.first.asset))

    def do_back(self) -> None:
        """Take back the filter, then the marks, then what was unfolded."""
        field = self.query_one(FilterInput)
        if field.value:
            field.value = ""
        elif self.marks:
            self.marks.clear()
        else:
            self._unfolded.clear()
        self.refresh_picture()

    def do_filter(self) -> None:
        """Open the filter."""
        self.query_one(FilterInput).open()

    def do_sort_left(self) -> None:
        """Sort by the column to the left."""
        self._sort_by(-1)

    def do_sort_right(self) -> None:
        """Sort by the column to the right."""
        self._sort_by(1)

    def _sort_by(self, step: int) -> None:
        order = rows.COLUMNS
        self.sort = order[(order.index(self.sort) + step) % len(order)]
        self.reversed = False
        self.refresh_picture()

    def do_reverse(self) -> None:
        """Turn the order around."""
        self.reversed = not self.reversed
        self.refresh_picture()

    def do_mark(self) -> None:
        """Mark or unmark the row and go one down."""
        row = self.table.current
        if row is not None:
            self.marks ^= {row.key}
            self._anchor = row.key
            self.table.action_move(1)
            self.refresh_picture()

    def do_mark_range(self) -> None:
        """Mark everything from the last mark to here."""
        keys = [row.key for row in self.table.items]
        if not keys:
            return
        begin = keys.index(self._anchor) if self._anchor in keys else self.table.position
        low, high = sorted((begin, self.table.position))
        self.marks |= set(keys[low : high + 1])
        self.refresh_picture()

    @property
    def waiting(self) -> bool:
        """Whether the past of the row under the cursor is still being read."""
        return self._wanted is not None

    def _want(self, key: tuple[str, Asset]) -> None:
        # Holding an arrow key down must not read the past of every row on the way.
        self._wanted = key
        if self._asks is not None:
            self._asks.stop()
        self._asks = self.set_timer(0.15, lambda: self.mastovault.ask_history(*key))

    def history_arrived(self, history: History) -> None:
        """Take what was read of an asset's past for the pane beside the table."""
        if self._wanted == (history.host, history.asset):
            self._wanted = None
        self._histories[history.host, history.asset] = history
        self.show_reasons()

    def forget_histories(self) -> None:
        """The past may have grown: read it again when it is shown."""
        self._histories.clear()

    def _nothing(self) -> Sequence[Line]:
        return [[("No asset matches ", ""), (f"/{self.filter_text}", "accent"), (". esc clears.", "")]]
