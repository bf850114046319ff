"""A few words in the middle of an empty place; an empty frame is never shown."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widget import Widget

from tui.widgets.text import Line, content


class Notice(Widget):
    """Lines in the middle."""

    DEFAULT_CSS = """
    Notice { height: 1fr; width: 1fr; content-align: center middle; text-align: center; }
    """

    def __init__(self, lines: Sequence[Line] = (), *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._shown = tuple(tuple(line) for line in lines)

    def show(self, lines: Sequence[Line]) -> None:
        """Change the words."""
        made = tuple(tuple(line) for line in lines)
        if made != self._shown:
            self._shown = made
            self.refresh()

    def render(self) -> Content:
        """Draw the words."""
        return content(self._shown, ansi=self.app.native_ansi_color)
