"""The help over a screen: its keys from the registry, then the keys of every screen, then the words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.screen import ModalScreen

from tui import actions
from tui.action import EVERYWHERE
from tui.faults import Guarded
from tui.theme import LEVELS
from tui.widgets.panel import Panel
from tui.widgets.text import Line, fit, wrapped

_MEANINGS = {
    "CRIT": "act now",
    "HIGH": "act today",
    "MED": "keep an eye on it",
    "LOW": "fine, can be better",
    "OK": "nothing to do",
    "UNKN": "cannot be asked",
}
_NAMES = {
    "fleet": "Fleet",
    "asset": "Asset",
    "jobs": "Jobs",
    "log": "Log",
    "hosts": "Hosts",
    "storage": "Storage",
    "vault": "Vault",
    "sync": "Sync",
    "prune": "Prune",
    "settings": "Settings",
    "wizard": "Restore",
    "vault_wizard": "Add vault",
}


class HelpScreen(Guarded, ModalScreen[None]):
    """Closed by the keys that open it, and by escape."""

    CSS = """
    HelpScreen { align: center middle; }
    #help { width: 96%; max-width: 116; height: auto; max-height: 96%; background: $panel; }
    #help Panel { width: 1fr; height: 100%; max-height: 100%; background: $panel; }
    #help { height: 22; margin: 0; }
    HelpScreen.-wide #help { height: 23; }
    #help-words { display: none; }
    HelpScreen.-wide #help-words { display: block; }
    """
    BINDINGS: ClassVar = [
        Binding("escape,question_mark,f1,h,q,enter,ctrl+c", "close", show=False),
        Binding("tab", "app.focus_next", show=False),
    ]

    def __init__(self, place: str, *, read_only: bool) -> None:
        super().__init__()
        self._place = place
        self._read_only = read_only

    def compose(self) -> ComposeResult:
        """Keys of this screen, keys of all screens, words."""
        with Horizontal(id="help"):
            yield Panel(f"{_NAMES[self._place]}  (esc closes)", id="help-here")
            yield Panel("Everywhere", id="help-all")
            yield Panel("Words", id="help-words")

    def on_mount(self) -> None:
        """Fill in the lines when their widths are known."""
        self.query_one("#help-here", Panel).focus()
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        everywhere = [one for one in actions.of(self._place) if one.places >= EVERYWHERE and one.keys]
        here = [one for one in actions.of(self._place) if one not in everywhere and one.keys]
        wide = self.app.size.width >= 100
        keys = list(self._keys(here))
        everything = list(self._keys(everywhere))
        moves = [line for key, text in actions.MOVES for line in self._line(key, text)]
        self.query_one("#help-here", Panel).show([*keys, [], *(() if wide else self._words(short=True))])
        self.query_one("#help-all", Panel).show([*moves, *everything])
        self.query_one("#help-words", Panel).show(list(self._words(short=False)))

    def action_close(self) -> None:
        """Close it."""
        self.dismiss(None)

    def _keys(self, entries: Iterable[actions.Action]) -> Iterable[Line]:
        for entry in entries:
            off = bool(actions.refused(entry, self._read_only))
            yield from self._line(entry.shown, entry.help + (" (read-only)" if off else ""))

    def _line(self, key: str, text: str) -> Iterable[Line]:
        cells = self.query_one("#help-here", Panel).inner_width - 9
        for number, part in enumerate(wrapped(text, cells)):
            yield [*fit([(key if number == 0 else "", "key")], 7), (" ", ""), (part, "")]

    @staticmethod
    def _words(*, short: bool) -> Iterable[Line]:
        for level, (word, style) in LEVELS.items():
            yield [*fit([(word, style)], 7), ("  ", ""), (_MEANINGS[level.value], "quiet")]
        yield [*fit([("~", "strong")], 7), ("  ", ""), ("last known value", "quiet")]
        if short:
            return
        yield []
        for word, meaning in (
            ("goal", "how old a copy may get"),
            ("snapshot", "one stored backup of one asset"),
            ("vault", "where backups are kept, encrypted"),
            ("verified", "read again, every byte as stored"),
            ("proven", "restored for proof, by a drill"),
            ("in part", "stored, but something was left out"),
        ):
            for number, line in enumerate(wrapped(meaning, 22)):
                yield [*fit([(word if number == 0 else "", "strong")], 10), (" ", ""), (line, "quiet")]
