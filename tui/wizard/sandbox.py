"""What a drill does, for the plan page: it needs no look, for it touches no server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from backends.model import Asset
from tui.widgets import say
from tui.widgets.text import Line, fit, wrapped
from tui.wizard.draft import Draft
from tui.wizard.proof import proof_of

_WORK: Mapping[Asset, str] = {
    Asset.DATABASE: "restored into a throwaway PostgreSQL on this machine: row counts and indexes against the snapshot",
    Asset.SECRETS: "read in memory; with the database, one encrypted row is opened with them",
    Asset.MEDIA: "a sample is read and compared with its digests and with what the database lists",
    Asset.REDIS: "loaded by a throwaway Redis on this machine, its queues are counted",
}


def sandbox_lines(draft: Draft, now: datetime, cells: int) -> list[Line]:
    """Each chosen copy, and what is done with it."""
    lines: list[Line] = []
    for asset, info in draft.copies.items():
        head = fit([(asset.value, "strong")], 9)
        lines.append(
            [
                *head,
                (f" {say.day_time(info.at)} UTC  {say.size(info.bytes)}  ", ""),
                (", ".join(info.vaults), "quiet"),
                ("  ", ""),
                proof_of([info], now),
            ]
        )
        lines += [[("          ", ""), (part, "quiet")] for part in wrapped(_WORK[asset], max(20, cells - 10))]
    texts = (
        ("untouched", f"every server: nothing but the vault is read, {draft.host} is not even asked"),
        ("needs", "the extra `drill` (an embedded PostgreSQL and Redis), and room here for the restored data"),
        ("leaves", "nothing but a dated record in the vault: that it works, and how long it took"),
    )
    lines.append([])
    for label, text in texts:
        for number, part in enumerate(wrapped(text, max(20, cells - 11))):
            lines.append([*fit([(label if number == 0 else "", "quiet")], 11), (part, "")])
    return lines
