"""What every full screen shares: title, crumbs, banner, footer, the cover for small terminals, and its keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from backends.model import Level
from tui import actions, jobs
from tui.faults import Guarded
from tui.theme import LEVELS
from tui.widgets import say
from tui.widgets.lines import Banner, Bar, KeyBar
from tui.widgets.standing import stands
from tui.widgets.text import Line, Piece, width
from tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from tui.app import MastovaultApp

_COUNTED = (Level.CRIT, Level.HIGH, Level.UNKN, Level.MED, Level.OK, Level.LOW)
_SHOWN = (Level.CRIT, Level.HIGH, Level.MED, Level.LOW, Level.OK, Level.UNKN)


class AreaScreen(Guarded, Screen[None]):
    """A full screen. Subclasses set `place`, and draw what the app knows in `draw`."""

    place: ClassVar[str] = ""
    DEFAULT_CSS = """
    AreaScreen { layers: base cover; background: $background; }
    AreaScreen #title { background: $panel; }
    AreaScreen.-slim > *, AreaScreen.-flat > * { display: none !important; }
    AreaScreen.-slim > TooSmall, AreaScreen.-flat > TooSmall { display: block !important; }
    """

    @property
    def mastovault(self) -> MastovaultApp:
        """The app, with what it knows."""
        return cast("MastovaultApp", self.app)

    @property
    def waiting(self) -> bool:
        """Whether something that was asked for has not arrived yet."""
        return False

    def body(self) -> Iterable[Widget]:
        """The widgets between the crumbs and the footer."""
        return ()

    def compose(self) -> ComposeResult:
        """The frame around the body."""
        yield Bar(id="title")
        yield Bar(id="crumbs")
        yield Banner(id="banner")
        yield from self.body()
        yield KeyBar(plain=self.mastovault.ascii_glyphs)
        yield TooSmall()

    def on_mount(self) -> None:
        """Draw what is already known."""
        self.refresh_picture()

    def on_screen_resume(self) -> None:
        """Draw what has changed while another screen was shown."""
        self.refresh_picture()

    def on_panel_widened(self) -> None:
        """Break the lines in a panel anew."""
        self.refresh_picture()

    def refresh_picture(self) -> None:
        """Draw everything that changed, in one frame."""
        if not stands(self):
            return
        with self.app.batch_update():
            self._draw_frame()
            self.draw()

    def draw(self) -> None:
        """Draw the body."""

    def tick(self) -> None:
        """A second has passed: ages and the clock move on."""
        self.refresh_picture()

    def crumbs(self) -> tuple[Line, Line]:
        """The second line: where we are, and what goes on."""
        return (), ()

    def draw_crumbs(self) -> None:
        """Draw the second line."""
        self.query_one("#crumbs", Bar).show(*self.crumbs())

    def footer(self) -> Sequence[actions.Action]:
        """What the last line offers."""
        return actions.footer(self.place)

    def action_do(self, name: str) -> None:
        """Do what a key stands for, or say why not."""
        entry = actions.action(name)
        reason = actions.refused(entry, self.mastovault.read_only)
        if reason:
            self.app.notify(reason, severity="warning")
            return
        method = getattr(self, f"do_{name}", None) or getattr(self.app, f"do_{name}")
        method()

    def do_back(self) -> None:
        """Go back to the screen before, or from an area to the fleet."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        elif self.place != "fleet":
            self.mastovault.go("fleet")

    def _draw_frame(self) -> None:
        app = self.mastovault
        self.query_one("#title", Bar).show(self._title_left(), self._title_right())
        self.draw_crumbs()
        banner = app.banner()
        self.query_one("#banner", Banner).show([(f" {banner}", "warn")] if banner else ())
        off = frozenset(entry.id for entry in actions.of(self.place) if actions.refused(entry, app.read_only))
        self.query_one(KeyBar).show(self.footer(), off)

    def _title_left(self) -> Line:
        app = self.mastovault
        line: list[Piece] = [(" Mastovault", "title")]
        if app.seen is None:
            return line
        statuses = app.seen.fleet.assets
        hosts = len(app.seen.config.hosts)
        line.append(
            (f"  {hosts} host{'s' * (hosts != 1)}  {len(statuses)} asset{'s' * (len(statuses) != 1)}  ", "quiet")
        )
        numbers = Counter(status.level for status in statuses)
        room = self.app.size.width - width(line) - width(self._title_right()) - 2
        fits: set[Level] = set()
        for level in _COUNTED:
            if numbers[level]:
                room -= len(LEVELS[level][0]) + len(str(numbers[level])) + 3
                if room < 0:
                    break
                fits.add(level)
        for level in _SHOWN:
            if level in fits:
                word, style = LEVELS[level]
                line += [(" ", ""), (word, style), (f" {numbers[level]} ", "")]
        return line

    def _title_right(self) -> Line:
        app = self.mastovault
        line: list[Piece] = []
        if app.read_only:
            line += [(" READ-ONLY ", "flag"), (" ", "")]
        if app.paused:
            line += [(" PAUSED ", "flag"), (" ", "")]
        now = app.now().astimezone(UTC)
        form = "%Y-%m-%d %H:%M:%S UTC" if self.app.size.width >= 100 else "%H:%M:%S"
        return [*line, (f"{now:{form}} ", "quiet")]

    def running(self) -> Line:
        """How many jobs go on, for the right end of the crumbs."""
        app = self.mastovault
        asks = sum(entry.question is not None for entry in app.entries)
        line: list[Piece] = [(f"{asks} ASKS ", "flag"), ("  ", "")] if asks else []
        return [*line, (f"{jobs.tally(app.entries)} ", "run")]

    def asking(self) -> str:
        """`asking 2 of 4 hosts…` while it goes on, else how often that is done."""
        app = self.mastovault
        if app.asking is not None:
            return f"asking {app.asking.answered} of {app.asking.hosts} hosts…"
        return f"every {say.every(app.feed.interval)}"
