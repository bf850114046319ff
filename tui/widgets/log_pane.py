"""The log of a run or of one of its jobs: only what can be seen is drawn, so a flood of lines costs nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC
from itertools import islice

from rich.segment import Segment
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from backends.runs.view import LogLine
from tui.widgets import say
from tui.widgets.line_view import LineView
from tui.widgets.text import Line, fit, parse, safe, wrapped

MAX_LINES = 5000
_TIME_CELLS = 9


class LogPane(LineView, can_focus=True):
    """The newest lines of a log, with `follow`, `wrap` and `times` to switch."""

    DEFAULT_CSS = """
    LogPane { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    """

    class Changed(Message):
        """There are new lines, or a switch was turned."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.subject: tuple[str, str | None] | None = None
        self.since = 0
        self.follow = True
        self.wrap = False
        self.times = True
        self.note = ""
        self._lines: deque[LogLine] = deque(maxlen=MAX_LINES)
        self._shown: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """How many lines are kept."""
        return len(self._lines)

    @property
    def text(self) -> str:
        """All kept lines, for the clipboard."""
        return "\n".join(f"{_time(line)} {safe(line.text)}" for line in self._lines)

    def watch_log(self, subject: tuple[str, str | None] | None, note: str = "") -> None:
        """Show another log, empty until its lines arrive; `note` stands there as long as there are none."""
        if subject == self.subject and note == self.note:
            return
        self.subject, self.note = subject, note
        self.since = 0
        self._lines.clear()
        self._lay_out()

    def add(self, subject: tuple[str, str | None], asked: int, lines: Sequence[LogLine], since: int) -> None:
        """Take the lines after `asked`; those of another log, or that came twice, are dropped."""
        if subject != self.subject or asked != self.since:
            return
        self.since = since
        if not lines:
            return
        full = len(self._lines) + len(lines) > MAX_LINES
        self._lines.extend(lines)
        if full:
            self._lay_out()
        else:
            self._shown.extend(self._rows(lines))
            self._place()

    def switch(self, name: str) -> None:
        """Turn `follow`, `wrap` or `times` on or off."""
        if name == "follow":
            self.follow = not self.follow
            self._place()
        elif name == "wrap":
            self.wrap = not self.wrap
            self._lay_out()
        else:
            self.times = not self.times
            self._lay_out()

    def switches(self) -> Line:
        """How the switches stand and how many lines there are."""
        number = f"{say.count(self.count)} line{'s' * (self.count != 1)}"
        parts = [("follow", self.follow), ("wrap", self.wrap), ("time", self.times)]
        line: list[tuple[str, str]] = []
        for name, on in parts:
            line += [(f"{name} ", "quiet"), ("ON" if on else "off", "strong" if on else "quiet"), ("  ", "")]
        return [*line, (number, "quiet")]

    def _rows(self, lines: Sequence[LogLine]) -> Iterator[tuple[str, str]]:
        cells = max(10, self.cells - (_TIME_CELLS if self.times else 0) - 2)
        for line in lines:
            time = _time(line)
            if not self.wrap:
                yield time, line.text
                continue
            for number, part in enumerate(wrapped(line.text, cells)):
                yield time if number == 0 else "", part

    def _lay_out(self) -> None:
        self._shown = list(self._rows(list(islice(self._lines, None))))
        self._place()

    def _place(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._shown))
        if self.follow:
            self.scroll_end(animate=False, immediate=True, force=True, x_axis=False)
        self.refresh()
        self.post_message(self.Changed())

    def on_resize(self) -> None:
        """Break lines anew."""
        self._lay_out()

    def width_changed(self) -> None:
        """Break lines anew beside the scroll bar, or without it."""
        if self.wrap:
            self._lay_out()
        else:
            self.refresh()

    def action_scroll_up(self) -> None:
        """Leave the end of the log to read."""
        self._stop_following()
        super().action_scroll_up()

    def action_page_up(self) -> None:
        """Leave the end of the log to read."""
        self._stop_following()
        super().action_page_up()

    def action_scroll_home(self) -> None:
        """Leave the end of the log to read."""
        self._stop_following()
        super().action_scroll_home()

    def _on_mouse_scroll_up(self, event: object) -> None:
        self._stop_following()
        super()._on_mouse_scroll_up(event)  # type: ignore[arg-type]

    def _stop_following(self) -> None:
        if self.follow and self.max_scroll_y > 0:
            self.follow = False
            self.post_message(self.Changed())

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        ansi = self.app.native_ansi_color
        base = self.visual_style
        index = self.scroll_offset.y + y
        if not self._shown and y == 0 and self.note:
            pieces = fit(((f" {self.note}", "quiet"),), self.cells)
        elif index >= len(self._shown):
            return Strip.blank(self.cells, base.rich_style)
        else:
            time, text = self._shown[index]
            head = [(f" {time:<8} ", "quiet")] if self.times else [(" ", "")]
            pieces = fit([*head, (text, _tone(text))], self.cells)
        segments = [Segment(text, (base + parse(style, ansi)).rich_style) for text, style in pieces]
        return Strip(segments).adjust_cell_length(self.cells, base.rich_style)


def _time(line: LogLine) -> str:
    return line.at.astimezone(UTC).strftime("%H:%M:%S")


def _tone(text: str) -> str:
    if text.startswith("$ "):
        return "run"
    lowered = text[:200].lower()
    return "warn" if "error" in lowered or "failed" in lowered or "warning" in lowered else ""
