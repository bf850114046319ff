"""The pane beside the fleet: why the row under the cursor is where it is, and how its copies grew."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from tui import history as histories
from tui.rows import FleetRow
from tui.source import History
from tui.widgets import say
from tui.widgets.reasons import row_lines
from tui.widgets.text import Line, content, fit, wrapped


class ReasonsPane(Widget):
    """Reasons, the last good copy, sizes over time."""

    DEFAULT_CSS = """
    ReasonsPane { height: 1fr; border-left: solid $rule; padding: 0 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._row: FleetRow | None = None
        self._history: History | None = None
        self._lines: tuple[Line, ...] = ()

    def show(self, row: FleetRow | None, history: History | None) -> None:
        """Show another row, or what is newly known of it."""
        self._row, self._history = row, history
        lines = tuple(tuple(line) for line in self._make())
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def _make(self) -> list[Line]:
        row = self._row
        if row is None:
            return []
        now = self.app.now()  # type: ignore[attr-defined]
        cells = max(10, self.size.width)
        lines = row_lines(row, now, cells, actions=False)
        if row.folded:
            return lines
        lines += [[], [("last good ", "quiet"), (say.moment(row.at) if row.at else "never", "")]]
        newest = row.first.newest
        if newest is not None:
            lines.append([("kept in   ", "quiet"), (", ".join(newest.vaults) or "no vault", "")])
        for number, part in enumerate(wrapped(row.first.proof, cells - 10) if row.first.proof else ()):
            lines.append([("proof     " if number == 0 else " " * 10, "quiet"), (part, "")])
        if self._history is not None:
            merged = histories.merge(self._history)
            values = histories.sizes(merged)
            if len(values) > 1:
                lines.append([("sizes     ", "quiet"), *say.spark(values, cells - 10)])
        return lines

    def on_resize(self) -> None:
        """Break lines anew."""
        self.show(self._row, self._history)

    def render(self) -> Content:
        """Draw the lines that fit."""
        size = self.size
        return content([fit(line, size.width) for line in self._lines[: size.height]], ansi=self.app.native_ansi_color)
