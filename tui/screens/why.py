"""Windows that only tell: why this risk, and what went wrong in the app itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from textual.binding import Binding
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Button

from tui.screens.dialog import Dialog
from tui.widgets.panel import Panel
from tui.widgets.text import Line, wrapped


class Telling(Dialog[None]):
    """Lines to read, closed by any of the keys that open or close things."""

    BINDINGS: ClassVar = [Binding("enter,q,i,question_mark,f1,h", "close", show=False)]

    def on_mount(self) -> None:
        """Let the arrows scroll."""
        super().on_mount()
        self.query_one(Panel).focus()


class WhyDialog(Telling):
    """Every reason of one row with what lowers it."""

    def __init__(self, lines: Sequence[Line]) -> None:
        super().__init__("Why this risk  (esc closes)", lines)


class FaultDialog(Dialog[None]):
    """One sentence about a fault of the app, and where the rest was written."""

    BINDINGS: ClassVar = [Binding("y", "copy", show=False), Binding("enter,q", "close", show=False)]

    def __init__(self, sentence: str, path: Path) -> None:
        lines: list[Line] = [[(text, "strong")] for text in wrapped(sentence, 60)]
        lines += [[], [("Runs are not touched by it, and the app goes on.", "")], [("Details for a report:", "quiet")]]
        lines += [[(text, "accent")] for text in wrapped(str(path), 60)]
        super().__init__("Something in the app itself went wrong", lines)
        self._path = path

    def foot(self) -> Iterable[Widget]:
        """What the keys do."""
        yield Horizontal(Button("y Copy the path", id="copy"), Button("Close", id="close"))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Copy or close."""
        if event.button.id == "copy":
            self.action_copy()
        else:
            self.dismiss(None)

    def action_copy(self) -> None:
        """Put the path on the clipboard."""
        self.app.copy_to_clipboard(str(self._path))
        self.app.notify("The path is on the clipboard.")
