"""Text as the widgets pass it around: pieces with the name of a style, never markup, always cleaned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.style import Style

from backends.untrusted import clean
from tui.theme import styles

Piece = tuple[str, str]
"""A text and the name of its style in `tui.theme.styles`."""
Line = Sequence[Piece]


def safe(text: str) -> str:
    """Text fit for the terminal: what is not plain ASCII goes through `clean` once more, wherever it came from."""
    return text if text.isascii() and text.isprintable() else clean(text)


def words(text: str, style: str = "") -> Line:
    """A line of one piece."""
    return ((text, style),)


def width(line: Line) -> int:
    """How many terminal cells a line takes."""
    return sum(cell_len(text) for text, _style in line)


def fit(line: Line, cells: int, *, right: bool = False) -> list[Piece]:
    """A line of exactly so many cells: cut with `…`, or filled with spaces (before it when `right`)."""
    made = [(safe(text), style) for text, style in line]
    used = width(made)
    if used <= cells:
        space = (" " * (cells - used), "")
        return [space, *made] if right else [*made, space]
    kept: list[Piece] = []
    room = cells - 1
    for text, style in made:
        size = cell_len(text)
        if size > room:
            kept.append((set_cell_size(text, max(0, room)) + "…", style))
            break
        kept.append((text, style))
        room -= size
    return kept


def spread(left: Line, right: Line, cells: int) -> list[Piece]:
    """Two lines at both ends of one; the left one is cut when they do not fit."""
    room = cells - width(right)
    return [*fit(left, max(0, room - 1)), (" ", ""), *right] if room > 1 else fit(left, cells)


def parse(name: str, ansi: bool) -> Style:
    """The style behind a name, in the theme in force."""
    text = styles(ansi)[name]
    return Style.parse(text) if text else Style.null()


def content(lines: Iterable[Line], *, ansi: bool = False) -> Content:
    """Lines as what Textual's widgets show; nothing in them is read as markup."""
    names = styles(ansi)
    return Content("\n").join(
        Content.assemble(*((safe(text), names[style]) if style else safe(text) for text, style in line))
        for line in lines
    )


def wrapped(text: str, cells: int) -> list[str]:
    """A text in lines of at most so many cells, broken between words where possible."""
    lines: list[str] = []
    current = ""
    for word in safe(text).split(" "):
        joined = f"{current} {word}" if current else word
        if cell_len(joined) <= cells:
            current = joined
            continue
        if current:
            lines.append(current)
        while cell_len(word) > cells > 0:
            head = set_cell_size(word, cells)
            head = head.rstrip(" ") or word[:1]
            lines.append(head)
            word = word[len(head) :]
        current = word
    return [*lines, current] if current or not lines else lines
