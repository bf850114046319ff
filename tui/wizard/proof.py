"""How much a copy can be relied on, in a word: who wrote it, and what was proven of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from backends.model import SnapshotInfo, Trust
from tui.widgets import say
from tui.widgets.text import Piece

DISTRUSTED: Mapping[Trust, Piece] = {
    Trust.CHANGED: ("CHANGED ▲▲", "crit"),
    Trust.FOREIGN: ("FOREIGN SIGNER ▲▲", "crit"),
    Trust.UNSIGNED: ("NOT SIGNED ▲", "high"),
}
"""How a copy is marked whose writer is not trusted, the worst first."""


def doubt_of(found: Sequence[SnapshotInfo], trust: Callable[[SnapshotInfo], Trust]) -> Piece | None:
    """What speaks against whoever wrote some copies, the worst of them; None when nothing does."""
    for kind, word in DISTRUSTED.items():
        if any(trust(info) is kind for info in found):
            return word
    if any(info.altered for info in found):
        return "OTHER COPY ALTERED ▲", "high"
    return None


def proof_of(found: Sequence[SnapshotInfo], now: datetime) -> Piece:
    """The weakest proof of some copies, in words with their style."""
    if any(info.verify_failed for info in found):
        return "DAMAGED ▲▲", "crit"
    if any(info.drill_failed for info in found):
        return "the last drill FAILED ✗", "bad"
    part = ", in part" if any(info.in_part for info in found) else ""
    drilled = [info.drilled_at for info in found]
    if found and None not in drilled:
        took = sum(info.drill_seconds or 0.0 for info in found)
        takes = f", takes {say.took(took)}" if took else ""
        return f"proven {say.ago(min(one for one in drilled if one), now)}{takes}{part}", "ok"
    verified = [info.verified_at for info in found]
    if found and None not in verified:
        return f"verified {say.ago(min(one for one in verified if one), now)}{part}", ""
    return f"not verified{part}", "warn" if part else "quiet"
