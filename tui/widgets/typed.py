"""A field in which a name must be typed exactly; it says what is missing."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from tui.widgets.lines import Lines
from tui.widgets.text import Line, fit, wrapped


def missing(name: str, typed: str) -> str:
    """How far a name is typed: `3 letters missing`, `does not match`, or empty when it is all there."""
    if typed == name:
        return ""
    if not name.startswith(typed):
        return "does not match"
    left = len(name) - len(typed)
    return f"{left} letter{'s' * (left != 1)} missing"


class TypedName(Vertical):
    """`Type social/database to restore:` above the field, and how far it is beside it."""

    DEFAULT_CSS = """
    TypedName { height: auto; padding: 0 1; }
    TypedName Input {
        height: 1; border: none; padding: 0 1; background: $panel; background-tint: $panel 0%;
        &:focus { background: $cursor-row; background-tint: $panel 0%; border: none; }
        &:ansi:focus { text-style: underline; }
    }
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__()
        self.wanted = name
        self._reason = reason
        self.input = Input(select_on_focus=False)
        """The field; it is empty while this is only being mounted."""

    def compose(self) -> ComposeResult:
        """The words and the field."""
        yield Lines()
        yield self.input

    def on_mount(self) -> None:
        """A cursor that blinks draws the line again and again over a slow line."""
        self.input.cursor_blink = False
        self._draw()

    def on_resize(self) -> None:
        """Break the words anew."""
        self._draw()

    @property
    def value(self) -> str:
        """What is typed."""
        return self.input.value.strip()

    @property
    def matches(self) -> bool:
        """Whether it is the name, exactly."""
        return self.value == self.wanted

    def take(self, text: str) -> bool:
        """Take what was typed while something else had the focus; False when it is no part of a name."""
        if not self.input.is_attached or not text or not all(letter.isalnum() or letter in "._-/" for letter in text):
            return False
        # At once, not as `focus` does it later: the next key must come after this one.
        self.screen.set_focus(self.input)
        self.input.insert_text_at_cursor(text)
        return True

    @on(Input.Changed)
    def _draw(self) -> None:
        left = missing(self.wanted, self.value)
        state = ("✓ matches", "ok") if not left else (left, "warn")
        room = max(20, self.size.width - len(state[0]) - 2)
        first, *rest = wrapped(f"Type {self.wanted} {self._reason}", room)
        lines: list[Line] = [[*fit([(first, "strong")], room), (" ", ""), state], *([(part, "")] for part in rest)]
        self.query_one(Lines).show(lines)
