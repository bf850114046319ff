"""What a new user sees: nothing is backed up yet, and the steps that change it, those that are done among them."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from tui.widgets.text import Line, Piece, content, fit

_CELLS = 74
_COMMAND = 35
_STEPS = (
    ("mastovault key new", "make the key, and a recovery copy"),
    ("a", "add a vault: a directory, S3 or SFTP"),
    ("mastovault host add NAME ADDRESS", "connect to a Mastodon server"),
    ("mastovault backup --all", "back up everything, or b in here"),
)
_DONE = ("the key is there", "a vault is there: 4 shows it")


class FirstRun(Widget):
    """`No hosts yet`, with the way to begin."""

    DEFAULT_CSS = """
    FirstRun { display: none; height: 1fr; content-align: center middle; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._done = (False, False)

    def show(self, *, key: bool, vault: bool) -> None:
        """Say what is done already."""
        if (key, vault) != self._done:
            self._done = (key, vault)
            self.refresh()

    def render(self) -> Content:
        """Draw the words and the steps."""
        lines: list[Line] = [
            fit([("No hosts yet. Nothing is being backed up.", "strong")], _CELLS),
            [],
            fit([("Commands are for a shell; this screen follows by itself:", "quiet")], _CELLS),
            [],
        ]
        for number, (command, meaning) in enumerate(_STEPS, 1):
            done = number <= len(self._done) and self._done[number - 1]
            head: Piece = ("✓  ", "ok") if done else (f"{number}  ", "quiet")
            style = "key" if len(command) == 1 else "accent"
            words: list[Piece] = [*fit([(command, "quiet" if done else style)], _COMMAND), (" ", "")]
            lines.append(
                fit([head, *words, (_DONE[number - 1] if done else meaning, "ok" if done else "quiet")], _CELLS)
            )
        demo: list[Piece] = [*fit([("mastovault demo", "run")], _COMMAND), (" ", "")]
        lines += [[], fit([("   ", ""), *demo, ("look around on an embedded fleet", "quiet")], _CELLS)]
        return content(lines, ansi=self.app.native_ansi_color)
