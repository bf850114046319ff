"""The line in which a filter is typed."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding
from textual.widgets import Input

from tui.widgets.table import Table


class FilterInput(Input):
    """Where a filter is typed; escape clears it."""

    DEFAULT_CSS = """
    FilterInput { height: 1; width: 1fr; border: none; padding: 0; background: $panel; background-tint: $panel 0%; }
    """
    BINDINGS: ClassVar = [Binding("escape", "give_up", show=False), Binding("down", "submit", show=False)]

    def action_give_up(self) -> None:
        """Clear the filter and close."""
        self.value = ""
        self.close()

    def open(self) -> None:
        """Show it and take the keys."""
        self.can_focus = True
        self.screen.query_one("#fleet-filter").add_class("-open")
        self.focus()

    def close(self) -> None:
        """Hide it and give the keys back; a closed one never takes them, not even while the first screen is drawn."""
        self.screen.query_one(Table).focus()
        self.can_focus = False
        self.screen.query_one("#fleet-filter").remove_class("-open")
