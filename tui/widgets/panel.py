"""A framed pane of text that scrolls when it must."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from tui.widgets.text import Line, Piece, content, safe


class Panel(VerticalScroll):
    """Lines in a frame with a title."""

    DEFAULT_CSS = """
    Panel {
        border: round $border-blurred;
        border-title-color: $primary;
        border-title-style: bold;
        padding: 0 1;
        scrollbar-size-vertical: 1;
        &:focus { border: round $border; }
        Static { width: 1fr; height: auto; }
    }
    """

    BINDINGS: ClassVar = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    class Widened(Message):
        """The panel has another width than before: what was broken into lines for it must be broken anew."""

    def __init__(self, title: str = "", *, id: str | None = None, classes: str = "") -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._shown: tuple[tuple[Piece, ...], ...] = ()
        self._width = 0
        self.border_title = title

    def compose(self) -> ComposeResult:
        """The text."""
        yield Static(markup=False)

    def show(self, lines: Sequence[Line]) -> None:
        """Change the text."""
        made = tuple(tuple(line) for line in lines)
        if made != self._shown:
            self._shown = made
            self.query_one(Static).update(content(made, ansi=self.app.native_ansi_color))

    def name_it(self, title: str) -> None:
        """Change the title; nothing in it is read as markup."""
        made = Content(safe(title))
        if getattr(self, "_title_text", "") != title:
            self._title_text = title
            self.border_title = made

    def on_resize(self) -> None:
        """Tell whoever breaks lines for this panel."""
        if self.size.width != self._width:
            self._width = self.size.width
            self.post_message(self.Widened())

    @property
    def inner_width(self) -> int:
        """The cells of one line of text."""
        return max(10, self.size.width)
