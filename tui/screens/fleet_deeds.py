"""What the keys of the fleet do with the marked rows, or with the one under the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from backends.model import Asset, SnapshotInfo
from tui.rows import FleetRow
from tui.screens.why import WhyDialog
from tui.widgets.reasons import row_lines

if TYPE_CHECKING:
    from tui.screens.fleet import FleetScreen


class FleetDeeds:
    """Mixed into the fleet's screen."""

    @property
    def _fleet(self) -> FleetScreen:
        return cast("FleetScreen", self)

    def do_backup(self) -> None:
        """Back up the marked rows after asking, or the one under the cursor at once."""
        chosen = self._chosen()
        targets: dict[str, list[Asset]] = {}
        for row in chosen:
            targets.setdefault(row.host, []).extend(row.targets)
        if targets:
            self._fleet.mastovault.start_backup(targets, ask=len(chosen) > 1, then=self._fleet.marks.clear)

    def _chosen(self) -> Sequence[FleetRow]:
        """The marked rows, or the one under the cursor."""
        marked = [row for row in self._fleet.table.items if row.key in self._fleet.marks]
        return marked or ([self._fleet.table.current] if self._fleet.table.current is not None else [])

    def _check(self, kind: str) -> None:
        chosen: dict[str, dict[Asset, SnapshotInfo]] = {}
        for row in self._chosen():
            for status in row.statuses:
                held = chosen.setdefault(row.host, {})
                if status.newest is not None:
                    held[status.asset] = status.newest
        if chosen:
            self._fleet.mastovault.start_checks(kind, chosen, then=self._fleet.marks.clear)

    def do_verify(self) -> None:
        """Verify the newest copy of the marked rows, or of the one under the cursor."""
        self._check("verify")

    def do_drill(self) -> None:
        """Drill the newest copy of the marked rows, or of the one under the cursor."""
        self._check("drill")

    def do_restore(self) -> None:
        """Open the restore wizard on the row under the cursor."""
        row = self._fleet.table.current
        if row is not None:
            self._fleet.mastovault.open_wizard(row.host, row.targets)

    def do_undo(self) -> None:
        """Offer what can be done about the last restore of the row under the cursor."""
        row = self._fleet.table.current
        if row is not None:
            self._fleet.mastovault.settle_restore(row.host, None if row.folded else row.first.asset)

    def do_why(self) -> None:
        """Show every reason with what lowers it."""
        row = self._fleet.table.current
        if row is not None:
            self._fleet.app.push_screen(WhyDialog(row_lines(row, self._fleet.mastovault.now(), 60, actions=True)))

    def do_log(self) -> None:
        """Show the log of the newest job on this asset."""
        row = self._fleet.table.current
        if row is not None:
            self._fleet.mastovault.open_log_of(row.host, row.first.asset)

    def do_copy(self) -> None:
        """Copy `host/asset`."""
        row = self._fleet.table.current
        if row is not None:
            self._fleet.mastovault.copy(row.host if row.folded else row.key)
