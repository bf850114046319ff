"""What is configured, to read; it is changed in the file or by the commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.widget import Widget

from backends.model import Asset
from tui import actions
from tui.screens.base import AreaScreen
from tui.widgets import say
from tui.widgets.panel import Panel
from tui.widgets.text import Line, fit


class SettingsScreen(AreaScreen):
    """The fifth area."""

    place = "settings"
    BINDINGS: ClassVar = actions.bindings("settings")
    CSS = """
    #settings { height: 1fr; }
    """

    def body(self) -> Iterable[Widget]:
        """The lines."""
        yield Panel("Settings", id="settings")

    def on_mount(self) -> None:
        """Let the arrows scroll."""
        super().on_mount()
        self.query_one(Panel).focus()

    def crumbs(self) -> tuple[Line, Line]:
        """Where we are."""
        return [(" 5 ", "key"), ("Settings", "strong"), ("     read only here", "quiet")], self.running()

    def draw(self) -> None:
        """Draw the lines."""
        app = self.mastovault
        if app.seen is None:
            return
        config = app.seen.config
        goals = "   ".join(f"{asset} {_goal(config.goals.of(asset))}" for asset in Asset)
        kept = config.retention
        keys = config.encryption
        confirmed = keys.recovery is not None and keys.custody_confirmed == keys.recovery
        lines: list[Line] = [
            _line("file", str(app.paths.config_file)),
            _line("state", str(app.paths.state_dir)),
            _line("cache", str(app.paths.cache_dir)),
            [],
            _line("goals", goals),
            _line(
                "keeps", f"{kept.daily} daily   {kept.weekly} weekly   {kept.monthly} monthly   {kept.yearly} yearly"
            ),
            _line("limits", f"{config.limits.runs} runs at once, {config.limits.jobs_per_host} jobs on a host"),
            _line("asks hosts", f"every {say.every(app.feed.interval)} (+ and - change it)"),
            [],
            _line("keys", f"{len(keys.recipients)} can read the backups"),
            *(_line("", one) for one in keys.recipients),
            _line("recovery", "kept elsewhere, confirmed ✓", "ok")
            if confirmed
            else _line("recovery", "NOT CONFIRMED ▲  `mastovault key check` says what to do", "warn"),
            [],
            _line("vaults", ", ".join(config.vaults) or "none"),
            _line("hosts", ", ".join(config.hosts) or "none"),
            _line("read-only", "on" if app.read_only else "off"),
            _line("signs", "ASCII (--ascii)" if app.ascii_glyphs else "Unicode"),
        ]
        self.query_one(Panel).show(lines)

    def do_copy(self) -> None:
        """Copy the path of the configuration."""
        self.mastovault.copy(str(self.mastovault.paths.config_file))


def _goal(goal: object) -> str:
    seconds = getattr(goal, "total_seconds", None)
    return say.goal(seconds() if seconds is not None else None)


def _line(name: str, text: str, style: str = "") -> Line:
    return [*fit([(name, "quiet")], 12), (text, style)]
