"""The restores that this machine knows of, and what can still be done about each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from backends.config.paths import Paths
from backends.errors import ConfigurationError, MastovaultError
from backends.model import Asset
from backends.restore.journal import JOURNAL, RESTORE_ID, Known, read_journal, restores_dir
from backends.untrusted import clean

What = Literal["undo", "resume", "rollback", "forget"]
RestoreState = Literal["running", "interrupted", "attention", "done", "rolled_back", "undone", "forgotten"]

_CAN: dict[RestoreState, tuple[What, ...]] = {
    "running": (),
    "interrupted": ("resume", "rollback"),
    "attention": ("resume", "undo"),
    "done": ("undo", "forget"),
    "rolled_back": (),
    "undone": ("forget",),
    "forgotten": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRecord:
    """One restore. `host` is its target; `can` says what is possible now, `sentence` how it stands."""

    id: str
    host: str
    assets: tuple[Asset, ...]
    snapshots: dict[Asset, str]
    at: datetime
    state: RestoreState
    can: tuple[What, ...]
    sentence: str
    confirm: str
    """What must be typed for an undo: the same as for the restore."""
    swapped_at: datetime | None = None


def restores(paths: Paths) -> list[RestoreRecord]:
    """All of them, newest first; journals that cannot be understood are left out."""
    found = []
    for journal in sorted(restores_dir(paths.state_dir).glob(f"*/{JOURNAL}"), reverse=True):
        if RESTORE_ID.fullmatch(journal.parent.name):
            try:
                found.append(_record(*read_journal(journal.parent)))
            except (MastovaultError, OSError):
                continue
    return found


def named(paths: Paths, text: str) -> RestoreRecord:
    """The restore whose id is, or ends in, `text`. Raises `ConfigurationError`."""
    found = [record for record in restores(paths) if text and record.id.endswith(text)]
    if len(found) != 1:
        many = "more than one restore ends in" if found else "there is no restore"
        raise ConfigurationError(f"{many} {clean(text, 40)!r}", "`mastovault undo` lists them.")
    return found[0]


def folder_of(paths: Paths, restore: str) -> Path:
    """Where a restore's journal is. Raises `ConfigurationError` for what is no restore's id."""
    if not RESTORE_ID.fullmatch(restore):
        raise ConfigurationError(f"{clean(restore, 40)!r} is no restore", "`mastovault undo` lists them.")
    return restores_dir(paths.state_dir) / restore


def _record(known: Known, at_work: bool) -> RestoreRecord:
    from backends.operations.restore import confirmation

    state = _state(known, at_work)
    request = known.request
    return RestoreRecord(
        id=request.id,
        host=request.host,
        assets=request.assets,
        snapshots=dict(request.snapshots),
        at=request.at,
        state=state,
        can=_CAN[state],
        sentence=_sentence(known, state),
        confirm=confirmation(request),
        swapped_at=known.swapped_at,
    )


def _state(known: Known, at_work: bool) -> RestoreState:
    if at_work:
        return "running"
    if known.state != "open":
        return known.state
    # Nothing was begun, so nothing is left: it ended before its first step.
    return "interrupted" if known.begun else "rolled_back"


def _sentence(known: Known, state: RestoreState) -> str:
    last = known.begun[-1] if known.begun else "nothing"
    words: dict[RestoreState, str] = {
        "running": f"at work ({last})",
        "interrupted": f"interrupted{' on its way back' if known.walk else ''} at {last}: continue it or roll it back",
        "attention": "the new data is in place, but Mastodon did not come up",
        "done": "done; what was there before is kept",
        "rolled_back": "rolled back; nothing was changed",
        "undone": "undone; what it had brought is kept",
        "forgotten": "done; what was there before is removed",
    }
    return f"{words[state]}: {known.sentence}" if known.sentence else words[state]
