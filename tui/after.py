"""What can be done after a restore, in words: undo, forget, continue, roll back; and what verify and drill do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Button

from backends.model import Asset
from tui.screens.dialog import Dialog
from tui.widgets import say
from tui.widgets.text import Line, wrapped

if TYPE_CHECKING:
    from backends.operations.restores import RestoreRecord

_CELLS = 60
CHECKS: Mapping[str, Sequence[str]] = {
    "verify": (
        "Read again from the vault, decrypted and decoded to the last byte.",
        "Hosts are not touched; the date is recorded in the vault.",
    ),
    "drill": (
        "Restored into a throwaway place on this machine, checked, thrown away.",
        "Hosts are not touched; the proof is recorded in the vault.",
    ),
}
_LOADED = "What is in a copy is loaded and run: do it only when you know who wrote it."
_BUTTONS: Mapping[str, str] = {"undo": "Undo…", "forget": "Forget…", "resume": "Continue", "rollback": "Roll back"}
_MEANS: Mapping[str, str] = {
    "undo": "brings back what was there before the restore; asks for the name first",
    "forget": "removes what was kept for the undo, and with it the way back",
    "resume": "goes on with the step where it stopped",
    "rollback": "takes back what was done: the server is as it was before",
}
TYPED: Mapping[str, tuple[str, str]] = {
    "undo": ("Undo the restore?", "Undo the restore"),
    "forget": ("Give up the way back?", "Remove what was kept"),
}
_PRESSING = ("interrupted", "attention")


def doubtful(words: Mapping[str, Sequence[str]]) -> Sequence[Line]:
    """What speaks against the copies that are to be loaded, below the question; by the word that must be typed."""
    said = [text for its in words.values() for text in its]
    return [[], *([(line, "warn")] for text in (*said, _LOADED) for line in wrapped(text, _CELLS))]


def record_of(
    records: Sequence[RestoreRecord], host: str, asset: Asset | None, restore: str = ""
) -> RestoreRecord | None:
    """The restore that is meant: by its id, else the newest of an asset about which something can be done."""
    if restore:
        return next((one for one in records if one.id == restore), None)
    mine = [one for one in records if one.host == host and (asset is None or asset in one.assets) and one.can]
    pressing = next((one for one in mine if one.state in _PRESSING), None)
    return pressing or next(iter(mine), None) or pressing_of(records)


def pressing_of(records: Iterable[RestoreRecord]) -> RestoreRecord | None:
    """A restore that waits for a decision."""
    return next((one for one in records if one.state in _PRESSING), None)


def banner(records: Iterable[RestoreRecord]) -> str:
    """What the banner says of a restore that waits for a decision; empty when none does."""
    record = pressing_of(records)
    if record is None:
        return ""
    if record.state == "attention":
        return f"restore of {record.confirm}: Mastodon did not come up; u decides"
    return f"restore of {record.confirm} was interrupted: u continues it or rolls it back"


def warning(record: RestoreRecord, what: str, lost: Sequence[str] | None = None) -> list[Line]:
    """What an undo or a forget does, and what it loses; `lost` is None while that is still asked."""
    head = f"The restore of {', '.join(record.assets)} on {record.host} from {say.day_time(record.at)} UTC"
    lines: list[Line] = [[(part, "strong")] for part in wrapped(head, _CELLS)]
    if what == "forget":
        text = "What was there before it is removed from the host for good. Nobody can undo the restore afterwards."
        return [*lines, [], *([(part, "warn")] for part in wrapped(text, _CELLS))]
    lines += [[], [("What was there before comes back; what it brought stays aside.", "")]]
    if Asset.DATABASE not in record.assets:
        return [*lines, [("What was written into it since goes aside with it.", "warn")]]
    if lost is None:
        return [*lines, [("Asking what was written since…", "run")]]
    if not lost:
        return [*lines, [("Nothing was written since the restore: nothing is lost.", "ok")]]
    return [*lines, *([(part, "warn")] for text in lost for part in wrapped(text, _CELLS))]


class AfterDialog(Dialog[str]):
    """How a restore stands, and a button for each thing that can be done about it; the safe one has the focus."""

    def __init__(self, record: RestoreRecord, now: datetime) -> None:
        lines: list[Line] = [[(part, "")] for part in wrapped(record.sentence, _CELLS)]
        lines.append([])
        for what in record.can:
            for number, part in enumerate(wrapped(_MEANS[what], _CELLS - 11)):
                head = _BUTTONS[what].rstrip("…") if number == 0 else ""
                lines.append([(f"{head:<10} ", "strong"), (part, "quiet")])
        super().__init__(f"Restore of {record.confirm}, {say.ago(record.at, now)}", lines)
        self._can = record.can

    def foot(self) -> Iterable[Widget]:
        """The safe button first."""
        yield Horizontal(
            Button("Leave it", id="no"), *(Button(_BUTTONS[what], id=what, classes="deed") for what in self._can)
        )

    def on_mount(self) -> None:
        """Put the focus on the safe button."""
        super().on_mount()
        self.query_one("#no", Button).focus()

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Close with what was decided."""
        self.dismiss(None if event.button.id == "no" else event.button.id)
