"""Single lines that fill the width of the screen: the title, the crumbs, banners, rules with a name, the footer."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.app import RenderResult
from textual.content import Content
from textual.widget import Widget

from tui.actions import Action
from tui.widgets.text import Line, Piece, content, fit, spread, width


class Bar(Widget):
    """One line with something at its left and something at its right end."""

    DEFAULT_CSS = """
    Bar { height: 1; width: 1fr; }
    """

    def __init__(self, *, id: str | None = None, classes: str = "") -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._left: tuple[Piece, ...] = ()
        self._right: tuple[Piece, ...] = ()

    def show(self, left: Line, right: Line = ()) -> None:
        """Change the line."""
        if (tuple(left), tuple(right)) != (self._left, self._right):
            self._left, self._right = tuple(left), tuple(right)
            self.refresh()

    def pieces(self, cells: int) -> Sequence[Piece]:
        """The line at a width."""
        return spread(self._left, self._right, cells)

    def render(self) -> RenderResult:
        """Draw the line at the width it has."""
        return content([self.pieces(self.size.width)], ansi=self.app.native_ansi_color)


class Rule(Bar):
    """A rule with a name in it: `─ jobs ─────`."""

    def pieces(self, cells: int) -> Sequence[Piece]:
        """The line at a width."""
        right = [(" ", ""), *self._right, (" ", ""), ("─", "rule")] if self._right else []
        room = max(3, cells - width(right))
        left = (
            fit([("─ ", "rule"), *self._left, (" ", "")], room) if width(self._left) + 3 > room else self._ruled(room)
        )
        return fit([*left, *right], cells)

    def _ruled(self, cells: int) -> list[Piece]:
        return [("─ ", "rule"), *self._left, (" ", ""), ("─" * (cells - width(self._left) - 3), "rule")]


class Banner(Bar):
    """A line that is only there while it has something to say."""

    DEFAULT_CSS = """
    Banner { display: none; background: $panel; }
    """

    def show(self, left: Line, right: Line = ()) -> None:
        """Change the line; an empty one goes away."""
        super().show(left, right)
        self.display = bool(left)


class Lines(Widget):
    """A few lines, as high as there are lines."""

    DEFAULT_CSS = """
    Lines { height: 0; width: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._lines: tuple[tuple[Piece, ...], ...] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Change the lines."""
        made = tuple(tuple(line) for line in lines)
        if made != self._lines:
            self._lines = made
            # A style, not an automatic height: Textual 8.2.8 may keep one that it took before the lines changed.
            self.styles.height = len(made)
            self.refresh()

    def render(self) -> Content:
        """Draw the lines."""
        return content([fit(line, self.size.width) for line in self._lines], ansi=self.app.native_ansi_color)


class KeyBar(Widget):
    """The footer: the keys of this screen, drawn as one line; what does not fit at the right is left to the help."""

    DEFAULT_CSS = """
    KeyBar { height: 1; dock: bottom; width: 1fr; background: $panel; }
    """

    def __init__(self, *, plain: bool = False) -> None:
        super().__init__()
        self._entries: tuple[Action, ...] = ()
        self._plain = plain
        self._off: frozenset[str] = frozenset()
        self._spots: list[tuple[int, int, str]] = []

    def show(self, entries: Sequence[Action], off: frozenset[str]) -> None:
        """Change the keys; those in `off` are refused now and greyed out."""
        if (tuple(entries), off) != (self._entries, self._off):
            self._entries, self._off = tuple(entries), off
            self.refresh()

    def render(self) -> Content:
        """Draw the keys, the last two always."""
        chosen = self._chosen(self.size.width)
        pieces: list[Piece] = []
        self._spots = []
        at = 0
        for entry in chosen:
            off = entry.id in self._off
            key, label = self._shown(entry), entry.label
            pieces += [(" ", ""), (key, "off" if off else "key"), (" ", ""), (label, "off" if off else ""), (" ", "")]
            size = len(key) + len(label) + 3
            self._spots.append((at, at + size, entry.id))
            at += size
        return content([fit(pieces, self.size.width)], ansi=self.app.native_ansi_color)

    def on_click(self, event: events.Click) -> None:
        """Do what was clicked."""
        for begin, end, name in self._spots:
            if begin <= event.x < end and name != "areas":
                self.screen.call_later(self.screen.run_action, f"screen.do('{name}')")

    def _shown(self, entry: Action) -> str:
        return entry.shown.split(" ")[0].replace("⏎", "Enter" if self._plain else "⏎")

    def _chosen(self, cells: int) -> Sequence[Action]:
        kept, last = list(self._entries[:-2]), list(self._entries[-2:])

        def size(entries: Sequence[Action]) -> int:
            return sum(len(self._shown(entry)) + len(entry.label) + 3 for entry in entries)

        while kept and size([*kept, *last]) > cells:
            kept.pop()
        return [*kept, *last]
