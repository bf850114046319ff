"""What was found out about snapshots after they were made, as the cache keeps it: verifications and drills."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from backends.model import Asset


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInfo:
    """One check in one vault; `details` as docs/format.md lists them, cleaned."""

    vault: str
    kind: str
    at: datetime
    ok: bool
    whole: bool
    details: Mapping[str, Any] = field(default_factory=dict)


class Drill(NamedTuple):
    """One drill of one snapshot."""

    at: datetime
    ok: bool
    seconds: float | None
    opens: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How the drills of one asset went. `failed_at` is None when the very last one was good."""

    proven_at: datetime | None = None
    seconds: float | None = None
    """How long the restore of the last good one took."""
    failed_at: datetime | None = None


def drills_of(cache: sqlite3.Connection) -> dict[str, list[Drill]]:
    """Every drill by the snapshot's id, newest first."""
    rows = cache.execute(
        "SELECT DISTINCT id, at, ok, seconds, opens FROM checks WHERE kind = 'drilled' ORDER BY at DESC, ok"
    )
    found: dict[str, list[Drill]] = {}
    for snapshot, at, ok, seconds, opens in rows:
        drill = Drill(datetime.fromtimestamp(at, UTC), bool(ok), seconds, None if opens is None else bool(opens))
        found.setdefault(snapshot, []).append(drill)
    return found


def proofs_of(drills: Mapping[str, list[Drill]]) -> dict[tuple[str, Asset], Proof]:
    """The drills by asset of each host, put together."""
    grouped: dict[tuple[str, Asset], list[Drill]] = {}
    for snapshot, its in drills.items():
        host, asset, _ = snapshot.split("/")
        grouped.setdefault((host, Asset(asset)), []).extend(its)
    return {pair: _proof(sorted(its, key=lambda drill: drill.at, reverse=True)) for pair, its in grouped.items()}


def _proof(newest_first: list[Drill]) -> Proof:
    good = next((drill for drill in newest_first if drill.ok), None)
    last = newest_first[0]
    return Proof(
        proven_at=good.at if good else None,
        seconds=good.seconds if good else None,
        failed_at=None if last.ok else last.at,
    )


def checks_of(cache: sqlite3.Connection, snapshot_id: str) -> list[CheckInfo]:
    """Every check of one snapshot, newest first."""
    rows = cache.execute(
        "SELECT vault, kind, at, ok, whole, details FROM checks WHERE id = ? ORDER BY at DESC, vault", (snapshot_id,)
    )
    return [
        CheckInfo(
            vault=vault,
            kind=kind,
            at=datetime.fromtimestamp(at, UTC),
            ok=bool(ok),
            whole=bool(whole),
            details=json.loads(details),
        )
        for vault, kind, at, ok, whole, details in rows
    ]
