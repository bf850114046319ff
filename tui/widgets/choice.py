"""A few words of which one is chosen, on one line: `(•) yes  ( ) no`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from tui.widgets.text import Piece, content, fit


class Choice(Widget, can_focus=True):
    """Changed by the arrows and by space, or a click."""

    DEFAULT_CSS = """
    Choice {
        height: 1; width: 1fr; padding: 0 1; background: $panel;
        &:focus { background: $cursor-row; }
        &:ansi:focus { text-style: underline; }
    }
    """
    BINDINGS: ClassVar = [
        Binding("right,space,l", "turn(1)", show=False),
        Binding("left,h", "turn(-1)", show=False),
        Binding("up,k", "app.focus_previous", show=False),
        Binding("down,j", "app.focus_next", show=False),
    ]

    class Changed(Message):
        """Another word was chosen."""

        def __init__(self, choice: Choice) -> None:
            super().__init__()
            self.choice = choice

    def __init__(self, options: Sequence[tuple[str, str]], value: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._options = tuple(options)
        self.value = value

    def action_turn(self, step: int) -> None:
        """Choose the next word, or the one before."""
        names = [name for name, _text in self._options]
        self.choose(names[(names.index(self.value) + step) % len(names)])

    def choose(self, value: str) -> None:
        """Choose a word."""
        if value != self.value:
            self.value = value
            self.refresh()
            self.post_message(self.Changed(self))

    def on_click(self, event: events.Click) -> None:
        """Choose what was clicked."""
        at = 1
        for name, text in self._options:
            at += len(text) + 6
            if event.x < at:
                self.choose(name)
                return

    def render(self) -> Content:
        """Draw the words."""
        pieces: list[Piece] = []
        for name, text in self._options:
            on = name == self.value
            pieces += [
                ("(•) " if on else "( ) ", "accent" if on else "quiet"),
                (text, "strong" if on else ""),
                ("  ", ""),
            ]
        return content([fit(pieces, self.size.width - 2)], ansi=self.app.native_ansi_color)
