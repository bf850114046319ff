"""The vaults: where backups are kept, how much, and how the last look at each went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.widget import Widget

from backends.operations.fleet import VaultStatus
from tui import actions
from tui.screens.base import AreaScreen
from tui.widgets import say
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, words


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultRow:
    """One vault."""

    key: str
    status: VaultStatus


class StorageScreen(AreaScreen):
    """The fourth area."""

    place = "storage"
    BINDINGS: ClassVar = actions.bindings("storage")

    def body(self) -> Iterable[Widget]:
        """The list."""
        yield Table(self._columns(), self._cells, id="storage-table")

    def on_mount(self) -> None:
        """Begin in the list."""
        super().on_mount()
        self.query_one(Table).focus()

    def draw(self) -> None:
        """Draw the list."""
        seen = self.mastovault.seen
        if seen is not None:
            self.query_one("#storage-table", Table).show(
                [VaultRow(key=one.name, status=one) for one in seen.fleet.vaults]
            )

    def crumbs(self) -> tuple[Line, Line]:
        """Where we are."""
        return [(" 4 ", "key"), ("Storage", "strong"), ("     every vault is encrypted", "quiet")], self.running()

    def _columns(self) -> Sequence[Column]:
        return [
            Column("name", "Vault", 10),
            Column("where", "Where", 22 if self.app.size.width < 100 else 44),
            Column("kept", "Kept", 5, "right"),
            Column("free", "Free", 5, "right"),
            Column("read", "Read", 5),
            Column("state", "State", 0),
        ]

    def _cells(self, row: VaultRow) -> Sequence[Line]:
        one = row.status
        state = (one.error, "bad") if one.error else (f"OK ✓ {say.count(one.snapshots)} snapshots", "ok")
        if one.warning and not one.error:
            state = (one.warning, "warn")
        elif one.read_at is None and not one.error:
            state = ("not read yet", "quiet")
        return [
            words(one.name, "strong"),
            words(one.where + ("  off-site" if one.offsite else ""), "quiet"),
            words(say.size(one.bytes)),
            words(say.size(one.free_bytes)),
            words(say.age(one.read_at, self.mastovault.now())),
            [state],
        ]

    def do_copy(self) -> None:
        """Copy where the vault is."""
        row = self.query_one("#storage-table", Table).current
        if row is not None:
            self.mastovault.copy(row.status.where)
