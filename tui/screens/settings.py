"""What is configured, to read; it is changed in the file or by the commands."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar

from textual.widget import Widget

from backends.config.schema import Config
from backends.model import Asset
from backends.operations.custody import custody_of
from tui import actions
from tui.keeping import retention_lines
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
        lines: list[Line] = [
            _line("file", str(app.paths.config_file)),
            _line("state", str(app.paths.state_dir)),
            _line("cache", str(app.paths.cache_dir)),
            [],
            _line("goals", goals),
            *(
                _line("keeps" if n == 0 else "", f"{who}: {text}")
                for n, (who, text) in enumerate(retention_lines(config))
            ),
            _line("limits", f"{config.limits.runs} runs at once, {config.limits.jobs_per_host} jobs on a host"),
            _line("asks hosts", f"every {say.every(app.feed.interval)} (+ and - change it)"),
            [],
            *_keys(config, app.now()),
            [],
            _line("vaults", ", ".join(config.vaults) or "none yet: 4, then a adds one"),
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


def _keys(config: Config, now: datetime) -> Iterable[Line]:
    keys = config.encryption
    if not keys.recipients:
        yield _line("keys", "no key yet ▲  `mastovault key new` makes one", "warn")
    else:
        yield _line("keys", f"{len(keys.recipients)} can read the backups")
    for one in keys.recipients:
        yield _line("", f"{one}{'   on paper' if one == keys.recovery else ''}")
    custody = custody_of(keys, now)
    if not keys.recipients:
        return
    if not custody.confirmed:
        yield _line("recovery", "NOT CONFIRMED ▲  `mastovault key check` says what to do", "warn")
    elif custody.due:
        since = f" {say.ago(custody.at, now)}" if custody.at else ""
        text = f"last confirmed{since}: CONFIRM AGAIN ▲  `mastovault key check`"
        yield _line(
            "recovery", text if custody.at else "confirmed, nobody knows when ▲  `mastovault key check`", "warn"
        )
    else:
        yield _line("recovery", f"kept elsewhere, confirmed {say.ago(custody.at, now)} ✓", "ok")
    yield _line("signs as", str(keys.signing_key) if keys.signing_key else "nobody: snapshots from here are not signed")
    if not config.signers:
        yield _line("trusts", "signatures are not judged: no [signers] are configured")
    for number, (name, public) in enumerate(config.signers.items()):
        yield _line("trusts" if number == 0 else "", f"{name}  {public}")
