"""What covers a screen that is too small to be of use, live until it is made larger."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

NEEDED = (80, 24)


class TooSmall(Widget):
    """`Needs 80x24, have 72x20`."""

    DEFAULT_CSS = """
    TooSmall {
        layer: cover;
        display: none;
        width: 100%;
        height: 100%;
        background: $background;
        content-align: center middle;
        text-align: center;
    }
    """

    def render(self) -> Content:
        """Say what is needed and what there is."""
        have = self.app.size
        return Content(f"Needs {NEEDED[0]}x{NEEDED[1]}, have {have.width}x{have.height}\n\nq quits; runs go on")
