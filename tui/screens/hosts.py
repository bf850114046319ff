"""The hosts: how each answered when it was last asked, and what was found on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.widget import Widget

from backends.config.schema import HostConfig
from backends.model import Asset, HostObservation
from tui import actions, rows
from tui.screens.base import AreaScreen
from tui.widgets import say
from tui.widgets.panel import Panel
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, words, wrapped


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """One host."""

    key: str
    config: HostConfig
    seen: HostObservation | None


class HostsScreen(AreaScreen):
    """The third area."""

    place = "hosts"
    BINDINGS: ClassVar = actions.bindings("hosts")
    CSS = """
    #hosts-detail { height: 11; }
    """

    def body(self) -> Iterable[Widget]:
        """The list, and what is known of the host under the cursor."""
        yield Table(self._columns(), self._cells, id="hosts-table")
        yield Panel("Host", id="hosts-detail")

    def on_mount(self) -> None:
        """Begin in the list."""
        super().on_mount()
        self.table.focus()

    @property
    def table(self) -> Table[HostRow]:
        """The list of hosts."""
        return self.query_one("#hosts-table", Table)

    def draw(self) -> None:
        """Draw the list."""
        seen = self.mastovault.seen
        if seen is None:
            return
        found = {one.host: one for one in seen.fleet.hosts}
        self.table.show(
            [HostRow(key=name, config=host, seen=found.get(name)) for name, host in seen.config.hosts.items()]
        )

    def crumbs(self) -> tuple[Line, Line]:
        """How often they are asked."""
        return [(" 3 ", "key"), ("Hosts", "strong"), ("     ", ""), (self.asking(), "quiet")], self.running()

    def _columns(self) -> Sequence[Column]:
        return [
            Column("host", "Host", 12),
            Column("address", "Address", 22 if self.app.size.width < 100 else 36),
            Column("version", "Version", 7),
            Column("asked", "Asked", 6),
            Column("state", "State", 0),
        ]

    def _cells(self, row: HostRow) -> Sequence[Line]:
        now = self.mastovault.now()
        if row.seen is None:
            return [
                words(row.key, "strong"),
                words(row.config.address),
                words("–"),
                words("never"),
                words("not asked yet"),
            ]
        return [
            words(row.key, "strong"),
            words(row.config.address, "quiet"),
            words(row.seen.version or "–"),
            words(say.age(row.seen.asked_at, now)),
            [rows.host_state(row.seen, now)],
        ]

    @on(Table.Moved)
    def show_host(self) -> None:
        """Show what is known of the host under the cursor."""
        row = self.table.current
        panel = self.query_one("#hosts-detail", Panel)
        if row is None:
            panel.show([])
            return
        panel.name_it(row.key)
        if row.seen is None:
            panel.show([[("It was not asked yet. R asks now.", "quiet")]])
            return
        cells = panel.inner_width - 2
        lines: list[Line] = [[(text, "")] for text in wrapped(row.seen.message, cells) if text]
        lines += [[(text, "accent")] for text in wrapped(row.seen.next_step, cells) if text]
        for one in row.seen.assets:
            text = one.detail or ("there" if one.present else "not there")
            lines.append([(f"{one.asset:<9} ", "strong"), (f"{say.size(one.bytes):>6}  ", "quiet"), (text, "")])
            lines += [[("          ", ""), (f"▲ {warning}", "warn")] for warning in one.warnings]
        panel.show(lines or [[("Nothing is known of it yet.", "quiet")]])

    def do_open(self) -> None:
        """Show the host's assets in the fleet."""
        row = self.table.current
        if row is not None:
            self.mastovault.show_fleet_of(row.key)

    def do_backup(self) -> None:
        """Back up all assets of the host."""
        row = self.table.current
        if row is not None:
            self.mastovault.start_backup({row.key: list(row.config.assets)}, ask=len(row.config.assets) > 1)

    def do_restore(self) -> None:
        """Open the restore wizard on the whole host."""
        row = self.table.current
        if row is not None:
            self.mastovault.open_wizard(row.key, list(Asset))

    def do_undo(self) -> None:
        """Offer what can be done about the last restore onto the host."""
        row = self.table.current
        if row is not None:
            self.mastovault.settle_restore(row.key)

    def do_prune(self) -> None:
        """Plan to remove what no policy keeps of the host."""
        row = self.table.current
        if row is not None:
            self.mastovault.open_prune([row.key])

    def do_verify(self) -> None:
        """Verify the newest copies of the host."""
        self._check("verify")

    def do_drill(self) -> None:
        """Drill the newest copies of the host."""
        self._check("drill")

    def _check(self, kind: str) -> None:
        row, seen = self.table.current, self.mastovault.seen
        if row is not None and seen is not None:
            mine = [one for one in seen.fleet.assets if one.host == row.key]
            self.mastovault.start_checks(kind, {row.key: {one.asset: one.newest for one in mine if one.newest}})

    def do_copy(self) -> None:
        """Copy the address."""
        row = self.table.current
        if row is not None:
            self.mastovault.copy(row.config.address)
