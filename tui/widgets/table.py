"""A table that draws only what can be seen: keyed items, fixed columns, a cursor that stays on its item.

Textual's own table renders every visible row again for one changed cell (30 ms at 120x40), keeps its cursor on an index
when it is sorted, and reads text as markup. Here a line is drawn again only when its own text changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.style import Style

from tui.widgets.line_view import LineView
from tui.widgets.text import Line, Piece, fit, parse


class Keyed(Protocol):
    """What a table lists: anything with a key that stays the same while its values change."""

    @property
    def key(self) -> str:
        """Unique within the table."""
        ...


Item = TypeVar("Item", bound=Keyed)
Cells = Sequence[Line]
"""One line for each column; with fewer, the last one takes the room of the missing ones."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. A width of 0 takes what the others leave. `gap` is the room after it."""

    key: str
    label: str
    width: int = 0
    align: Literal["left", "right"] = "left"
    gap: int = 2


class Table(LineView, Generic[Item], can_focus=True):
    """A list of items under a header."""

    DEFAULT_CSS = """
    Table {
        height: 1fr;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        & > .table--cursor { background: $cursor-row; }
        & > .table--cursor-blurred { background: $cursor-row-blurred; }
        & > .table--header { color: $quiet; text-style: bold; background: $panel; }
        &:ansi > .table--cursor-blurred { text-style: bold; }
        &:ansi > .table--header { text-style: bold underline; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--cursor", "table--cursor-blurred", "table--header"}
    BINDINGS: ClassVar[list[Any]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "edge(0)", show=False),
        Binding("end,G", "edge(-1)", show=False),
    ]

    class Moved(Message):
        """The cursor stands on another item, or its item has new values."""

        def __init__(self, table: Table[Any], key: str | None) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> Table[Any]:
            """The table."""
            return self.table

    class Chosen(Message):
        """A row was double-clicked."""

        def __init__(self, table: Table[Any], key: str) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> Table[Any]:
            """The table."""
            return self.table

    class HeaderClicked(Message):
        """A column's header was clicked."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def __init__(
        self,
        columns: Sequence[Column],
        cells: Callable[[Item], Cells],
        *,
        id: str | None = None,  # noqa: A002
        classes: str = "",
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._columns = tuple(columns)
        self._cells = cells
        self._items: tuple[Item, ...] = ()
        self._places: dict[str, int] = {}
        self._cursor = 0
        self._drawn: dict[int, tuple[tuple[Line, ...], bool]] = {}
        self._strips: dict[int, Strip] = {}
        self._looks: dict[tuple[str, str], RichStyle] = {}

    @property
    def items(self) -> tuple[Item, ...]:
        """All items in their order."""
        return self._items

    @property
    def current(self) -> Item | None:
        """The item under the cursor."""
        return self._items[self._cursor] if self._items else None

    @property
    def position(self) -> int:
        """The index of the cursor."""
        return self._cursor

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Change the columns (their widths, or the arrow of the sorted one)."""
        if tuple(columns) != self._columns:
            self._columns = tuple(columns)
            self._forget()
            self.refresh()

    def show(self, items: Sequence[Item]) -> None:
        """Show these items; the cursor stays on its item, or at its height when that is gone."""
        before = self.current
        self._items = tuple(items)
        self._places = {item.key: index for index, item in enumerate(self._items)}
        index = self._places.get(before.key, self._cursor) if before is not None else 0
        self._cursor = max(0, min(index, len(self._items) - 1))
        self._resize()
        if before is not None and self.current is not None and self.current.key != before.key:
            self._scroll_to_cursor()
        self.redraw()
        self.post_message(self.Moved(self, self.current.key if self.current is not None else None))

    def redraw(self) -> None:
        """Draw again the visible lines whose text changed (after items or the time changed)."""
        top = self.scroll_offset.y
        for y in range(1, self.size.height):
            index = top + y - 1
            known = self._drawn.get(index)
            now = self._content(index)
            if known != now:
                self._strips.pop(index, None)
                self.refresh(Region(0, y, self.size.width, 1))
        visible = range(top, top + self.size.height)
        for index in [index for index in self._drawn if index not in visible]:
            self._drawn.pop(index)
            self._strips.pop(index, None)

    def move_to(self, key: str) -> bool:
        """Put the cursor on an item; False when there is none with that key."""
        if key not in self._places:
            return False
        self._set_cursor(self._places[key])
        return True

    def action_move(self, step: int) -> None:
        """Move the cursor by lines."""
        self._set_cursor(self._cursor + step)

    def action_page(self, direction: int) -> None:
        """Move the cursor by screens."""
        self._set_cursor(self._cursor + direction * max(1, self.size.height - 2))

    def action_edge(self, index: int) -> None:
        """Move the cursor to the first or the last item."""
        self._set_cursor(0 if index == 0 else len(self._items) - 1)

    def _set_cursor(self, index: int) -> None:
        index = max(0, min(index, len(self._items) - 1))
        if not self._items or index == self._cursor:
            return
        self._cursor = index
        self._scroll_to_cursor()
        self.redraw()
        self.post_message(self.Moved(self, self._items[index].key))

    def _scroll_to_cursor(self) -> None:
        page = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, immediate=True, force=True)
        elif self._cursor >= top + page:
            self.scroll_to(y=self._cursor - page + 1, animate=False, immediate=True, force=True)

    def _resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._items) + 1)

    def on_resize(self) -> None:
        """Lay the columns out again."""
        self._forget()
        self._resize()
        self._scroll_to_cursor()

    def width_changed(self) -> None:
        """Lay the columns out again beside the scroll bar, or without it."""
        self._forget()
        self.refresh()

    def on_focus(self) -> None:
        """Show the cursor as the one that the keys move."""
        self._forget()
        self.refresh()

    on_blur = on_focus

    def notify_style_update(self) -> None:
        """Forget the styles of the last theme."""
        super().notify_style_update()
        self._looks.clear()
        self._forget()

    def _forget(self) -> None:
        self._drawn.clear()
        self._strips.clear()

    async def on_click(self, event: events.Click) -> None:
        """Move the cursor to a clicked row, open it when clicked twice, sort by a clicked header."""
        if event.y == 0:
            column = self._column_at(event.x)
            if column:
                self.post_message(self.HeaderClicked(column))
            return
        index = self.scroll_offset.y + event.y - 1
        if index < len(self._items):
            self._set_cursor(index)
            if event.chain == 2:
                self.post_message(self.Chosen(self, self._items[index].key))

    def _column_at(self, x: int) -> str:
        at = 1
        for column, cells in zip(self._columns, self._widths(), strict=True):
            at += cells + column.gap
            if x < at:
                return column.key
        return ""

    def _widths(self) -> list[int]:
        fixed = sum(column.width + column.gap for column in self._columns) + 1
        rest = max(4, self.cells - fixed)
        return [column.width or rest for column in self._columns]

    def _content(self, index: int) -> tuple[tuple[Line, ...], bool]:
        if index >= len(self._items):
            return (), False
        return tuple(tuple(cell) for cell in self._cells(self._items[index])), index == self._cursor

    def render_line(self, y: int) -> Strip:
        """Draw one line: the header, or the item at this height."""
        if y == 0:
            return self._header()
        index = self.scroll_offset.y + y - 1
        if index not in self._strips:
            self._drawn[index] = self._content(index)
            self._strips[index] = self._strip(*self._drawn[index])
        return self._strips[index]

    def _header(self) -> Strip:
        pieces: list[Piece] = [(" ", "")]
        for column, cells in zip(self._columns, self._widths(), strict=True):
            pieces += fit(((column.label, ""),), cells, right=column.align == "right")
            pieces.append((" " * column.gap, ""))
        return self._segments(pieces, "table--header")

    def _strip(self, cells: tuple[Line, ...], cursor: bool) -> Strip:
        base = ("table--cursor" if self.has_focus else "table--cursor-blurred") if cursor else ""
        pieces: list[Piece] = [("▌", "cursor") if cursor else (" ", "")]
        widths = self._widths()
        for number, cell in enumerate(cells):
            column = self._columns[number]
            if number == len(cells) - 1 and len(cells) < len(self._columns):
                pieces += fit(cell, sum(widths[number:]) + sum(one.gap for one in self._columns[number:-1]))
            else:
                pieces += fit(cell, widths[number], right=column.align == "right")
                pieces.append((" " * column.gap, ""))
        return self._segments(pieces if cells else [], base)

    def _segments(self, pieces: Sequence[Piece], base: str) -> Strip:
        segments = [Segment(text, self._look(style, base)) for text, style in pieces if text]
        return Strip(segments).adjust_cell_length(self.size.width, self._look("", base))

    def _look(self, name: str, base: str) -> RichStyle:
        look = self._looks.get((name, base))
        if look is None:
            ansi = self.app.native_ansi_color
            under = self.get_visual_style(base) if base else self.visual_style
            if ansi and base == "table--cursor":
                # A component's `reverse` does not reach its visual style, and 16 colours have no quiet background.
                under += Style(reverse=True)
            over = parse(name, ansi)
            if ansi and base == "table--cursor":
                # Reversed colours of single words would make a patchwork of the row.
                over = Style(bold=over.bold)
            look = (under + over).rich_style
            self._looks[name, base] = look
        return look
