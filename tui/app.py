"""The app: modes, themes, and what it knows; the screens draw it, `tui.feed` brings it, `tui.deeds` acts on it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import ClassVar

from textual import events
from textual.app import App
from textual.binding import Binding
from textual.filter import LineFilter
from textual.message import Message
from textual.notifications import SeverityLevel

from backends.config.paths import Paths
from backends.errors import MastovaultError
from backends.model import utc_now
from backends.runs.view import RunView
from tui import after, jobs, vault_words
from tui.backing_up import BackingUp
from tui.deeds import Deeds
from tui.faults import FaultLog, Guarded
from tui.feed import Asking, Feed, FleetNews, News, RunsNews
from tui.jobs import JobEntry
from tui.restoring import Restoring
from tui.screens.base import AreaScreen
from tui.screens.dialog import Ask
from tui.screens.fleet import FleetScreen
from tui.screens.hosts import HostsScreen
from tui.screens.jobs import JobsScreen
from tui.screens.palette import Commands
from tui.screens.settings import SettingsScreen
from tui.screens.storage import StorageScreen
from tui.screens.why import FaultDialog
from tui.source import EngineSource, Seen, Source
from tui.storing import Storing
from tui.theme import ANSI, THEMES, PlainSigns, few_colours
from tui.widgets.text import safe

_FONT_FACES = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


class Arrived(Message):
    """Something new from the feed's threads."""

    def __init__(self, news: News) -> None:
        super().__init__()
        self.news = news


class MastovaultApp(Deeds, BackingUp, Restoring, Storing, Guarded, App[str]):
    """The terminal app on the engine of this machine, or on a `source` that a test gives."""

    TITLE = "Mastovault"
    MODES: ClassVar = {
        "fleet": FleetScreen,
        "jobs": JobsScreen,
        "hosts": HostsScreen,
        "storage": StorageScreen,
        "settings": SettingsScreen,
    }
    DEFAULT_MODE = "fleet"
    COMMANDS: ClassVar = {Commands}
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (80, "-narrow"), (100, "-wide")]  # noqa: RUF012 - typed by Textual
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (24, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar = [Binding("ctrl+q", "do_leave", show=False, priority=True)]
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Toast { width: 56; max-width: 70%; padding: 0 1; margin: 0; background: $panel; }
    ToastRack { margin-bottom: 1; }
    CommandPalette SearchIcon { display: none; }
    CommandPalette #--input { padding: 0 1; }
    .-plain-signs Panel, .-plain-signs Dialog > Vertical { border: ascii $border-blurred; }
    """

    def __init__(
        self,
        paths: Paths,
        *,
        read_only: bool = False,
        ascii_glyphs: bool = False,
        source: Source | None = None,
        clock: Callable[[], datetime] = utc_now,
        refreshes: bool | None = None,
    ) -> None:
        few = few_colours()
        # The filter for NO_COLOR is chosen in Textual's constructor; a later ansi theme would paint black on black.
        super().__init__(ansi_color=True if few else None)
        self.paths = paths
        self.read_only = read_only
        self.ascii_glyphs = ascii_glyphs
        self.source = source if source is not None else EngineSource(paths)
        self.now = clock
        self.feed = Feed(self.source, self._deliver, refreshes=source is None if refreshes is None else refreshes)
        self.seen: Seen | None = None
        self.runs: tuple[RunView, ...] = ()
        self.entries: tuple[JobEntry, ...] = ()
        self.runs_known = False
        self.asking: Asking | None = None
        self.paused = False
        self.trouble = ""
        self.vault_details = {}
        self.checked = {}
        self.reading_vaults = set()
        self.faults = FaultLog(paths.state_dir / "app-error.log")
        self.stays_up = True
        self._asked: set[tuple[str, str]] = set()
        self._plain_signs = PlainSigns()
        for theme in THEMES:
            self.register_theme(theme)
        light = os.environ.get("COLORFGBG", "").rpartition(";")[2] in {"7", "15"}
        self.theme = os.environ.get("TEXTUAL_THEME") or (
            ANSI.name if few else "mastovault-light" if light else "mastovault"
        )

    def on_mount(self) -> None:
        """Begin to read."""
        self.set_class(self.ascii_glyphs, "-plain-signs")
        self.feed.start()
        self.set_interval(1.0, self._tick)
        self.set_interval(0.25, self._quick_tick)

    def on_unmount(self) -> None:
        """Let the threads end."""
        self.feed.stop()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """With `--ascii`, every sign of ours is replaced in what is drawn."""
        filters = super().get_line_filters()
        return [*filters, self._plain_signs] if self.ascii_glyphs else filters

    def export_screenshot(self, *, title: str | None = None, simplify: bool = False) -> str:
        """The screen as an SVG that fetches no font from anywhere."""
        svg = super().export_screenshot(title=title, simplify=simplify)
        return _FONT_FACES.sub("", svg).replace("Fira Code, monospace", "Fira Code, DejaVu Sans Mono, monospace")

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a toast; its text may come from anywhere and is never read as markup."""
        super().notify(safe(message), title=safe(title), severity=severity, timeout=timeout, markup=False)

    def banner(self) -> str:
        """What stands in the way right now, until it is gone."""
        if self.trouble:
            return f"▲ {self.trouble}"
        if self.seen is None:
            return ""
        text = after.banner(self.seen.restores)
        if not text and self.seen.problem:
            text = f"configuration not read again: {self.seen.problem}"
        text = text or vault_words.banner(self.seen.storage, self.seen.config)
        return f"▲ {text}" if text else ""

    @property
    def area(self) -> AreaScreen | None:
        """The full screen that is shown, be it under a window; None before the first one is."""
        return next((one for one in reversed(self._screen_stack) if isinstance(one, AreaScreen)), None)

    def redraw(self) -> None:
        """Draw again what the shown screen shows."""
        if self.area is not None:
            self.area.refresh_picture()

    def _deliver(self, news: News) -> None:
        self.post_message(Arrived(news))

    def on_arrived(self, message: Arrived) -> None:
        """Take what the feed's threads have read."""
        news = message.news
        if isinstance(news, FleetNews):
            self._take_fleet(news)
        elif isinstance(news, RunsNews):
            self._take_runs(news.runs)
        else:
            self._take_trouble(news.error)
        self.redraw()

    def _take_fleet(self, news: FleetNews) -> None:
        grown = self.seen is None or self.seen.fleet.assets != news.seen.fleet.assets
        if self.seen is None or self.seen.storage != news.seen.storage:
            self.vault_details.clear()
        self.seen, self.asking, self.trouble = news.seen, news.asking, ""
        if not grown:
            return
        for screen in self._screen_stacks.get("fleet", []):
            if isinstance(screen, FleetScreen):
                screen.forget_histories()
        history_of = getattr(self.area, "history", None)
        if history_of is not None:
            self.ask_history(history_of.host, history_of.asset)

    def _take_runs(self, runs: tuple[RunView, ...]) -> None:
        before, self.runs = self.entries, runs
        self.entries = jobs.entries(runs)
        if self.runs_known:
            self.tell_outcomes(jobs.outcomes(before, self.entries))
        self.runs_known = True
        self._ask_questions()

    def _take_trouble(self, error: Exception) -> None:
        if isinstance(error, MastovaultError | OSError):
            self.trouble = error.sentence if isinstance(error, MastovaultError) else f"cannot be read: {error.strerror}"
        else:
            self.tell_fault(error)

    def _ask_questions(self) -> None:
        open_ones = {(run.id, one.id): (run, one) for run in self.runs for one in run.questions if run.active}
        screen = self._screen_stack[-1] if self._screen_stack else None
        if isinstance(screen, Ask):
            if (screen.run, screen.question) not in open_ones:
                screen.dismiss(None)
            return
        if self.read_only or screen is None or screen is not self.area:
            return
        for key, (run, question) in open_ones.items():
            if key not in self._asked:
                self._asked.add(key)
                self.ask_operator(run.id, question)
                return

    def _tick(self) -> None:
        if self.area is not None:
            self.area.tick()
        if not self.paused:
            self._ask_questions()

    def _quick_tick(self) -> None:
        if self.area is not None and any(run.active for run in self.runs) and not self.paused:
            self.pull_logs()

    async def on_event(self, event: events.Event) -> None:
        """Before anything else, a screen on which a name must be typed may take what is typed.

        Here, because a key that first goes to what has the focus comes back after the next ones.
        """
        take: Callable[[str], bool] | None = getattr(self.screen, "take_text", None) if self._screen_stack else None
        text = (
            event.character if isinstance(event, events.Key) else event.text if isinstance(event, events.Paste) else ""
        )
        if take is None or not text or event.is_forwarded or not take(text):
            await super().on_event(event)

    def on_resize(self, event: events.Resize) -> None:
        """Lay out anew for another size."""
        self.call_after_refresh(self.redraw)

    def action_do_leave(self) -> None:
        """Leave, whatever is shown."""
        self.leave()

    def _handle_exception(self, error: Exception) -> None:
        if not self.stays_up or not self._running or self._exception is not None:
            super()._handle_exception(error)
            return
        self.tell_fault(error)
        if self.faults.flooded:
            self.exit(return_code=1, message=f"The app could not go on; {self.faults.path} holds the details.")

    def tell_fault(self, error: Exception) -> None:
        """Write down what nobody foresaw, and tell the operator once."""
        if not self.stays_up:
            super()._handle_exception(error)
        elif self.faults.record(error) and not isinstance(self.screen, FaultDialog):
            sentence = f"{type(error).__name__} in the app. The engine and all runs are not affected."
            self.call_later(self.push_screen, FaultDialog(sentence, self.faults.path))
