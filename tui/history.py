"""What was tried and what was kept of one asset, merged into one list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from backends.config.schema import Config
from backends.model import Attempt, JobState, SnapshotInfo
from backends.operations.custody import custody_of
from tui.keeping import policy_words
from tui.source import History
from tui.widgets import say
from tui.widgets.text import Line, Piece

LIMIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One line of the history: an attempt, a snapshot, or both."""

    key: str
    at: datetime
    run: str
    attempt: Attempt | None
    snapshot: SnapshotInfo | None
    distrust: str = ""
    """What speaks against whoever wrote it."""

    @property
    def result(self) -> Piece:
        """How it ended, in words with their style."""
        if self.attempt is None or self.attempt.state is JobState.DONE:
            part = (self.attempt is not None and self.attempt.in_part) or (self.snapshot and self.snapshot.in_part)
            if part:
                return "IN PART •", "warn"
            if self.snapshot is None and self.attempt is not None and self.attempt.snapshot:
                return "OK, pruned", "quiet"
            return ("OK ✓", "ok") if self.snapshot is not None else ("NO CHANGE ✓", "ok")
        if self.attempt.state is JobState.FAILED:
            return "FAILED ✗", "bad"
        return f"{self.attempt.state.value.upper()} –", "quiet"

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        if self.attempt is not None:
            return self.attempt.seconds
        return self.snapshot.seconds if self.snapshot is not None else None

    @property
    def bytes(self) -> int | None:
        """How much was stored."""
        return self.snapshot.bytes if self.snapshot is not None else None

    @property
    def verified(self) -> Piece:
        """Whether what is stored was read again and found good."""
        if self.snapshot is None:
            return "–", "quiet"
        if self.snapshot.verify_failed:
            return "DAMAGED ▲▲", "crit"
        if self.snapshot.verified_at is None:
            return "not yet", "quiet"
        return f"✓ {self.snapshot.verified_at:%m-%d}", "ok"

    @property
    def drilled(self) -> Piece:
        """Whether it was restored for proof."""
        if self.snapshot is None:
            return "–", "quiet"
        if self.snapshot.drill_failed:
            return "FAILED", "bad"
        if self.snapshot.drilled_at is None:
            return "never", "quiet"
        return f"✓ {self.snapshot.drilled_at:%m-%d}", "ok"

    @property
    def detail(self) -> Piece:
        """The error, or where the copies are."""
        if self.attempt is not None and self.attempt.error:
            return self.attempt.error, "warn"
        if self.snapshot is None:
            return "", ""
        if self.distrust:
            return f"{self.distrust} ▲", "high"
        kept = ", ".join(self.snapshot.vaults)
        if self.snapshot.damaged:
            why = f": {self.snapshot.torn}" if self.snapshot.torn else ""
            return f"{kept}; DAMAGED ▲▲ in {', '.join(self.snapshot.damaged)}{why}", "bad"
        return kept, ""


def merge(history: History, distrust: Callable[[SnapshotInfo], str] = lambda _info: "") -> tuple[HistoryRow, ...]:
    """Attempts with the snapshots they made, and snapshots whose attempt is not known; newest first."""
    snapshots = {one.id: one for one in history.snapshots}
    made: list[HistoryRow] = []
    told: set[str] = set()
    for number, attempt in enumerate(history.attempts):
        snapshot = snapshots.get(attempt.snapshot) if attempt.snapshot else None
        if snapshot is not None:
            told.add(snapshot.id)
        made.append(
            HistoryRow(
                key=f"a{attempt.run}/{attempt.at.isoformat()}/{number}",
                at=snapshot.at if snapshot is not None else attempt.at,
                run=attempt.run,
                attempt=attempt,
                snapshot=snapshot,
                distrust=distrust(snapshot) if snapshot is not None else "",
            )
        )
    made += [
        HistoryRow(key=f"s{one.id}", at=one.at, run=one.run, attempt=None, snapshot=one, distrust=distrust(one))
        for one in history.snapshots
        if one.id not in told
    ]
    made.sort(key=lambda row: row.at, reverse=True)
    return tuple(made[:LIMIT])


def sizes(rows: Sequence[HistoryRow]) -> list[int | None]:
    """The sizes over time, oldest first; None where an attempt failed."""
    values: list[int | None] = []
    for row in reversed(rows):
        if row.snapshot is not None:
            values.append(row.snapshot.bytes)
        elif row.attempt is not None and row.attempt.state is JobState.FAILED:
            values.append(None)
    return values


def usual_seconds(rows: Sequence[HistoryRow]) -> float | None:
    """The middle of how long good backups took."""
    times = sorted(row.seconds for row in rows if row.snapshot is not None and row.seconds)
    return times[len(times) // 2] if times else None


def copies(history: History, config: Config, now: datetime, offsite: Mapping[str, bool]) -> list[Line]:
    """One line a vault: how many copies, how old the newest, whether off-site; then what is kept, and for whom."""
    lines: list[Line] = []
    names = list(config.vaults_of(history.host)) if history.host in config.hosts else []
    names += sorted({vault for one in history.snapshots for vault in one.vaults} - set(names))
    for name in names:
        held = [one for one in history.snapshots if name in one.vaults]
        newest = max((one.at for one in held), default=None)
        lines.append(
            [
                (f"{name:<9.9} ", "strong"),
                (f"{len(held):>3} ", "" if held else "bad"),
                (f"{say.age(newest, now):<6.6} " if held else "no copy ", "" if held else "bad"),
                ("off-site" if offsite.get(name) else "", "ok"),
            ]
        )
        bad = sum(name in one.damaged or (name in one.vaults and one.verify_failed) for one in history.snapshots)
        altered = sum(name in one.altered for one in history.snapshots)
        lines += [[(f"  {bad} DAMAGED ▲▲", "bad")]] if bad else []
        lines += [[(f"  {altered} ANOTHER MANIFEST ▲▲", "bad")]] if altered else []
    if not names:
        lines.append([("no vault is configured", "bad")])
    lines.append([("keeps ", "quiet"), (policy_words(config.policy(history.host, history.asset)[0], " "), "quiet")])
    keys = config.encryption
    confirmed = not custody_of(keys, now).due
    lines.append(
        [
            (f"for {len(keys.recipients)} key{'s' * (len(keys.recipients) != 1)}, ", "quiet"),
            ("recovery copy confirmed", "quiet") if confirmed else ("recovery copy NOT CONFIRMED ▲", "warn"),
        ]
    )
    return lines
