"""Page 1: what kind of vault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult

from tui.vault_wizard.draft import KINDS, Kind
from tui.vault_wizard.page import VaultPage
from tui.widgets.lines import Lines
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, words, wrapped

_NOTES = (
    "Everything is encrypted before it leaves the host: whoever runs the vault cannot read it.",
    "A good set: one vault nearby, to restore from fast, and one at another site, for the day the building burns.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRow:
    """One kind."""

    key: str
    kind: Kind
    on: bool


class KindPage(VaultPage):
    """A list of three."""

    DEFAULT_CSS = """
    KindPage Table { height: 1fr; }
    KindPage #kind-note { margin: 0 0 1 0; }
    """

    def compose(self) -> ComposeResult:
        """The list and a note."""
        yield Table([Column("kind", "Keep backups in", 18), Column("what", "", 0)], self._cells, id="kinds")
        yield Lines(id="kind-note")

    @property
    def kinds(self) -> Table[KindRow]:
        """The list."""
        return self.query_one("#kinds", Table)

    def enter(self) -> None:
        """Begin on what is chosen."""
        self.kinds.focus()
        self.kinds.move_to(self.draft.kind)

    def draw(self) -> None:
        """Draw the list."""
        self.kinds.show([KindRow(key=kind, kind=kind, on=kind == self.draft.kind) for kind in KINDS])
        cells = self.app.size.width - 2
        self.query_one("#kind-note", Lines).show(
            [[(f" {part}", "quiet")] for note in _NOTES for part in wrapped(note, cells)]
        )

    def _cells(self, row: KindRow) -> Sequence[Line]:
        name, what = KINDS[row.kind]
        sign = "(•)" if row.on else "( )"
        return [
            [(f"{sign} ", "accent" if row.on else "quiet"), (name, "strong" if row.on else "")],
            words(what, "" if row.on else "quiet"),
        ]

    def choose(self) -> None:
        """Choose the kind under the cursor."""
        row = self.kinds.current
        if row is not None:
            self.draft.kind = row.kind

    def go_on(self) -> bool:
        """Enter chooses it and goes on."""
        self.choose()
        return True

    @on(Table.Chosen)
    def clicked(self) -> None:
        """A row was clicked twice."""
        self.wizard.do_go_on()
