"""The pane beside the fleet: why the row under the cursor is where it is, and how its copies grew."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.widget import Widget

from backends.model import SnapshotInfo
from tui import history as histories
from tui.rows import FleetRow
from tui.source import History
from tui.widgets import say
from tui.widgets.reasons import row_lines
from tui.widgets.text import Line, content, fit, wrapped

if TYPE_CHECKING:
    from tui.app import MastovaultApp


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
            lines += self._kept(newest, cells)
        for number, part in enumerate(wrapped(row.first.proof, cells - 10) if row.first.proof else ()):
            lines.append([("proof     " if number == 0 else " " * 10, "quiet"), (part, "")])
        if self._history is not None:
            merged = histories.merge(self._history)
            values = histories.sizes(merged)
            if len(values) > 1:
                lines.append([("sizes     ", "quiet"), *say.spark(values, cells - 10)])
        return lines

    def _kept(self, newest: SnapshotInfo, cells: int) -> list[Line]:
        """Where the copies are, and what is the matter with any of them."""
        app = cast("MastovaultApp", self.app)
        offsite = {row.name for row in (app.seen.storage if app.seen is not None else ()) if row.offsite}
        names = [f"{name} (off-site)" if name in offsite else name for name in newest.vaults]
        lines: list[Line] = []
        for number, part in enumerate(wrapped(", ".join(names) or "no vault", cells - 10)):
            lines.append([("kept in   " if number == 0 else " " * 10, "quiet"), (part, "")])
        bad = [text for text in (app.distrust(newest), *_damage(newest)) if text]
        lines += [[(" " * 10, ""), (part, "bad")] for text in bad for part in wrapped(f"▲ {text}", cells - 10)]
        return lines

    def on_resize(self) -> None:
        """Break lines anew."""
        self.show(self._row, self._history)

    def render(self) -> Content:
        """Draw the lines that fit."""
        size = self.size
        return content([fit(line, size.width) for line in self._lines[: size.height]], ansi=self.app.native_ansi_color)


def _damage(newest: SnapshotInfo) -> list[str]:
    why = f": {newest.torn}" if newest.torn else ""
    return [f"DAMAGED in {name}{why}" for name in newest.damaged]
