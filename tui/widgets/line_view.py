"""What scrolls and draws itself line by line: the ground of the table and of the log."""

from __future__ import annotations

from textual.scroll_view import ScrollView


class LineView(ScrollView, can_focus=True):
    """A scroll view that knows its true width and keeps its scroll bar where it belongs."""

    @property
    def cells(self) -> int:
        """The cells of a line that can be seen: `size` also counts those under the scroll bar."""
        return max(1, self.size.width - self.scrollbar_size_vertical)

    def watch_show_vertical_scrollbar(self, shown: bool) -> None:
        """Place the bar: Textual does not when the view was scrolled before the bar was shown."""
        if shown:
            self.vertical_scrollbar.position = self.scroll_y
        self.width_changed()

    def width_changed(self) -> None:
        """Lines have more or less room than before."""
