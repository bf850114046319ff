"""What a new user sees: nothing is backed up yet, and the four commands that change it."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from tui.widgets.text import Line, content, fit

_STEPS = (
    ("mastovault key new", "make the key, and a recovery copy"),
    ("mastovault vault add NAME DIRECTORY", "say where backups are kept"),
    ("mastovault host add NAME ADDRESS", "connect to a Mastodon server"),
    ("mastovault backup --all", "back up everything, or b in here"),
    ("mastovault demo", "look around on an embedded fleet"),
)


class FirstRun(Widget):
    """`No hosts yet`, with the way to begin."""

    DEFAULT_CSS = """
    FirstRun { display: none; height: 1fr; content-align: center middle; }
    """

    def render(self) -> Content:
        """Draw the words and the commands."""
        lines: list[Line] = [
            [("No hosts yet. Nothing is being backed up.", "strong")],
            [],
            [("Begin in a shell; this screen follows by itself:", "quiet")],
            [],
        ]
        for number, (command, meaning) in enumerate(_STEPS, 1):
            if command.endswith("demo"):
                lines += [
                    [],
                    fit([("   ", ""), (command, "run"), (" " * (38 - len(command)), ""), (meaning, "quiet")], 74),
                ]
                continue
            head = [(f"{number}  ", "quiet"), (command, "accent"), (" " * (38 - len(command)), "")]
            lines.append(fit([*head, (meaning, "quiet")], 74))
        lines[0] = fit(lines[0], 74)
        return content(lines, ansi=self.app.native_ansi_color)
