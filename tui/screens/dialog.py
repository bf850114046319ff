"""Small windows over a screen: their frame, and the two buttons that ask before much happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Input

from backends.model import Secret
from tui.faults import Guarded
from tui.widgets.panel import Panel
from tui.widgets.standing import stands
from tui.widgets.text import Line, wrapped
from tui.widgets.typed import TypedName

T = TypeVar("T")


class Dialog(Guarded, ModalScreen[T]):
    """A window with a title and lines; escape closes it with nothing decided."""

    SCOPED_CSS = False
    CSS = """
    Dialog { align: center middle; }
    Dialog > Vertical {
        width: 68; max-width: 96%; height: auto; max-height: 92%;
        background: $panel; border: round $border; border-title-color: $primary; border-title-style: bold;
        padding: 1 2 0 2;
    }
    Dialog > Vertical > Panel { border: none; padding: 0; height: auto; max-height: 16; }
    Dialog > Vertical > Panel:focus { border: none; }
    Dialog Horizontal { height: auto; align-horizontal: right; margin: 1 0 1 0; }
    Dialog Button {
        margin-left: 2; height: 1; border: none; min-width: 10; padding: 0 2; tint: transparent;
        background: $bar-rest; color: $foreground; text-style: none;
        &:hover { background: $rule; border: none; }
        &:focus { background: $primary; color: $background; text-style: bold; background-tint: transparent; }
        &#yes:focus, &.deed:focus { background: $accent; }
        &:disabled { color: $quiet; background: $background; opacity: 100%; text-opacity: 100%; }
        &:ansi { background: ansi_default; color: ansi_default; }
        &:ansi:focus { text-style: bold reverse; }
        &:ansi:disabled { text-style: dim; }
    }
    Dialog TypedName { margin-top: 1; padding: 0; }
    Dialog TypedName Input { height: 1; margin: 0; border: none; background: $cursor-row-blurred; }
    Dialog Input { margin-top: 1; height: 3; border: round $border; background: $panel; background-tint: transparent; }
    """
    BINDINGS: ClassVar = [
        Binding("escape", "close", show=False),
        Binding("ctrl+c", "close", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(self, title: str, lines: Sequence[Line]) -> None:
        super().__init__()
        self._title = title
        self._lines = lines

    def foot(self) -> Iterable[Widget]:
        """What stands below the lines."""
        return ()

    def compose(self) -> ComposeResult:
        """The frame with the lines."""
        with Vertical() as frame:
            frame.border_title = self._title
            yield Panel()
            yield from self.foot()

    def on_mount(self) -> None:
        """Fill in the lines."""
        self.show_lines()

    def show_lines(self) -> None:
        """Show the lines as they are now."""
        self.query_one(Panel).show(self._lines)

    def action_close(self) -> None:
        """Close with nothing decided."""
        self.dismiss(None)


class Confirm(Dialog[bool]):
    """Names what would happen and to what; the safe button has the focus."""

    def __init__(self, title: str, lines: Sequence[Line], *, yes: str, no: str, light: bool = False) -> None:
        super().__init__(title, lines)
        self._yes, self._no, self._light = yes, no, light

    def foot(self) -> Iterable[Widget]:
        """The safe button first."""
        yield Horizontal(Button(self._no, id="no"), Button(self._yes, id="yes", variant="warning"))

    def on_mount(self) -> None:
        """Put the focus on the safe button; on the other one of a light question."""
        super().on_mount()
        self.query_one("#yes" if self._light else "#no", Button).focus()

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Close with the answer."""
        self.dismiss(event.button.id == "yes")


class Typed(Dialog[bool]):
    """Names what would happen; the button works when the name is typed exactly, the safe one has the focus."""

    def __init__(self, title: str, lines: Sequence[Line], name: str, *, yes: str, no: str) -> None:
        super().__init__(title, lines)
        self._word, self._yes, self._no = name, yes, no

    def foot(self) -> Iterable[Widget]:
        """The field, and the safe button first."""
        yield TypedName(self._word, "to go on")
        yield Horizontal(Button(self._no, id="no"), Button(self._yes, id="yes", disabled=True))

    def on_mount(self) -> None:
        """Put the focus on the safe button."""
        super().on_mount()
        self.query_one("#no", Button).focus()

    def tell(self, lines: Sequence[Line]) -> None:
        """Show other lines: something more is known."""
        self._lines = lines
        if stands(self):
            self.query_one(Panel).show(lines)

    @on(Input.Changed)
    def typed(self) -> None:
        """Let the button go when the name is there."""
        self.query_one("#yes", Button).disabled = not self.query_one(TypedName).matches

    @on(Input.Submitted)
    def done(self) -> None:
        """Enter in the field never does it: when the name is right it goes on to the button."""
        if self.query_one(TypedName).matches:
            self.query_one("#yes", Button).focus()

    def take_text(self, text: str) -> bool:
        """What is typed goes into the field, whatever has the focus."""
        return not isinstance(self.focused, Input) and self.query_one(TypedName).take(text)

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Close with the answer."""
        self.dismiss(event.button.id == "yes" and self.query_one(TypedName).matches)


class AskNow(Dialog[Secret]):
    """Asks for something secret; what is typed is never shown."""

    def __init__(self, title: str, prompt: str) -> None:
        super().__init__(title, [[(line, "")] for line in wrapped(prompt, 60)])

    def foot(self) -> Iterable[Widget]:
        """The field and the buttons."""
        yield Input(password=True, id="secret")
        yield Horizontal(Button("Not now", id="no"), Button("Answer", id="yes", variant="primary"))

    def on_mount(self) -> None:
        """Begin in the field."""
        super().on_mount()
        field = self.query_one("#secret", Input)
        field.cursor_blink = False
        field.focus()

    @on(Input.Submitted)
    def typed(self) -> None:
        """Answer with what was typed."""
        self.dismiss(Secret(self.query_one("#secret", Input).value))

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Answer, or leave it for later."""
        self.dismiss(Secret(self.query_one("#secret", Input).value) if event.button.id == "yes" else None)


class Ask(AskNow):
    """Asks for what a run needs."""

    def __init__(self, title: str, prompt: str, run: str, question: str) -> None:
        super().__init__(title, prompt)
        self.run, self.question = run, question
