"""One snapshot from the copies of it that the vaults hold: which of them count, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from backends.archive.signing import Signature, trust_of
from backends.catalog.checks import Drill
from backends.model import Asset, SnapshotInfo, Trust

_ORDER = (Trust.TRUSTED, Trust.UNCHECKED, Trust.UNSIGNED, Trust.FOREIGN, Trust.CHANGED)


class Row(NamedTuple):
    """One vault's copy, with the times (seconds since 1970) of what was found out about it."""

    id: str
    host: str
    asset: str
    at: float
    bytes: int
    run: str
    in_part: int
    fingerprint: str | None
    seconds: float | None
    vault: str
    unchanged: float | None
    verified: float | None
    refuted: float | None
    cleared: float | None
    signature: Signature
    signer: str
    torn: str | None
    """What is wrong with its objects, by their lengths."""

    @property
    def sound(self) -> bool:
        """Whether no damage is known; a look at a sample does not clear a copy in which damage was found."""
        proven = self.refuted is None or (self.cleared is not None and self.cleared > self.refuted)
        return proven and self.torn is None


def worth(signature: Signature, signer: str, signers: Mapping[str, str]) -> tuple[int, bool]:
    """Sorts copies, the most trusted first; a signed one before one without, even where nobody can judge the key."""
    return _ORDER.index(trust_of(signature, signer, signers)), signature != "good"


def merged(copies: Sequence[Row], drills: Sequence[Drill], signers: Mapping[str, str]) -> SnapshotInfo:
    """One value for a snapshot. Copies that are trusted less than the best one count for nothing but a mark.

    Args:
        copies: one for each vault that holds it.
        drills: those of it, newest first.
        signers: whom the configuration trusts.
    """
    best = min(worth(copy.signature, copy.signer, signers) for copy in copies)
    standing = [copy for copy in copies if worth(copy.signature, copy.signer, signers) == best]
    good = [copy for copy in standing if copy.sound]
    first = standing[0]
    proven = next((drill for drill in drills if drill.ok), None)
    return SnapshotInfo(
        id=first.id,
        host=first.host,
        asset=Asset(first.asset),
        at=datetime.fromtimestamp(first.at, UTC),
        bytes=first.bytes,
        run=first.run,
        in_part=bool(first.in_part),
        fingerprint=first.fingerprint,
        seconds=first.seconds,
        vaults=tuple(copy.vault for copy in good or standing),
        checked_at=_latest([copy.unchanged for copy in standing]),
        verified_at=_latest([copy.verified for copy in good or standing]),
        verify_failed=not good,
        damaged=tuple(copy.vault for copy in standing if not copy.sound),
        torn=next((copy.torn for copy in standing if copy.torn), ""),
        altered=tuple(copy.vault for copy in copies if copy not in standing),
        drilled_at=proven.at if proven else None,
        drill_failed=bool(drills) and not drills[0].ok,
        drill_seconds=proven.seconds if proven else None,
        opens_dump=next((drill.opens for drill in drills if drill.opens is not None), None),
        signature=first.signature,
        signer=first.signer,
    )


def _latest(times: Sequence[float | None]) -> datetime | None:
    known = [time for time in times if time is not None]
    return datetime.fromtimestamp(max(known), UTC) if known else None
