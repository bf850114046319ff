"""What the vaults hold by host and asset, how that grew in the last days, and when a vault will be full."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from backends.model import Asset

DAYS = 30
_FAR = timedelta(days=36_500)
"""What is full later than that is never full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetUsage:
    """What one asset of one host takes; objects that several snapshots share count once."""

    host: str
    asset: Asset
    bytes: int
    snapshots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultUsage:
    """What one vault holds, or all together."""

    vault: str
    """Its name; empty for all together."""
    bytes: int = 0
    assets: tuple[AssetUsage, ...] = ()
    """The largest first."""
    other: int = 0
    """Bytes that belong to no asset: records of runs, leases, what the vault says of itself."""
    days: tuple[int, ...] = (0,) * DAYS
    """Bytes at the end of each of the last 30 days (UTC); the last one is today's."""
    growth: float = 0.0
    """Bytes a day, over these days as far as there was something; negative when it shrinks."""
    full_at: datetime | None = None
    """When it will be full if it goes on like that; the first one's, for all together."""
    verified_at: datetime | None = None
    """The last good verification of anything in it."""
    drilled_at: datetime | None = None
    oldest: datetime | None = None
    newest: datetime | None = None


def usage_of(cache: sqlite3.Connection, vault: str, now: datetime) -> VaultUsage:
    """What the cache knows of one vault."""
    counts = {
        (host, asset): count
        for host, asset, count in cache.execute(
            "SELECT host, asset, count(*) FROM snapshots WHERE vault = ? GROUP BY host, asset", (vault,)
        )
    }
    rows = cache.execute("SELECT host, asset, bytes FROM used WHERE vault = ?", (vault,)).fetchall()
    assets = [
        AssetUsage(host=host, asset=Asset(asset), bytes=size, snapshots=counts.get((host, asset), 0))
        for host, asset, size in rows
        if asset
    ]
    days = filled(dict(cache.execute("SELECT day, bytes FROM daily WHERE vault = ?", (vault,))), day_of(now))
    row = cache.execute("SELECT stored, free FROM vaults WHERE name = ?", (vault,)).fetchone() or (0, None)
    oldest, newest = cache.execute("SELECT min(at), max(at) FROM snapshots WHERE vault = ?", (vault,)).fetchone()
    rate = growth(days)
    return VaultUsage(
        vault=vault,
        bytes=row[0],
        assets=_largest_first(assets),
        other=sum(size for _, asset, size in rows if not asset),
        days=days,
        growth=rate,
        full_at=full_at(row[1], rate, now),
        verified_at=_last(cache, vault, "verified"),
        drilled_at=_last(cache, vault, "drilled"),
        oldest=_moment(oldest),
        newest=_moment(newest),
    )


def together(each: Sequence[VaultUsage]) -> VaultUsage:
    """Several vaults as one: what is in two of them takes room twice."""
    assets: dict[tuple[str, Asset], AssetUsage] = {}
    for one in (asset for usage in each for asset in usage.assets):
        before = assets.get((one.host, one.asset))
        assets[one.host, one.asset] = (
            replace(one, bytes=one.bytes + before.bytes, snapshots=one.snapshots + before.snapshots) if before else one
        )
    return VaultUsage(
        vault="",
        bytes=sum(usage.bytes for usage in each),
        assets=_largest_first(list(assets.values())),
        other=sum(usage.other for usage in each),
        days=tuple(sum(day) for day in zip(*(usage.days for usage in each), strict=True)) or (0,) * DAYS,
        growth=sum(usage.growth for usage in each),
        full_at=min((usage.full_at for usage in each if usage.full_at), default=None),
        verified_at=max((usage.verified_at for usage in each if usage.verified_at), default=None),
        drilled_at=max((usage.drilled_at for usage in each if usage.drilled_at), default=None),
        oldest=min((usage.oldest for usage in each if usage.oldest), default=None),
        newest=max((usage.newest for usage in each if usage.newest), default=None),
    )


def filled(known: Mapping[int, int], today: int) -> tuple[int, ...]:
    """The totals of the last days; a day on which nobody looked is as the one before.

    Args:
        known: totals by day, counted from 1970.
        today: that of the last one.
    """
    before = [day for day in known if day <= today - DAYS]
    total = known[max(before)] if before else 0
    days = []
    for day in range(today - DAYS + 1, today + 1):
        total = known.get(day, total)
        days.append(total)
    return tuple(days)


def growth(days: Sequence[int]) -> float:
    """Bytes a day: the slope of the line that fits best through the days since there was something; 0 for one day."""
    first = next((number for number, total in enumerate(days) if total), len(days))
    points = days[first:]
    if len(points) < 2:
        return 0.0
    middle = (len(points) - 1) / 2
    spread = sum((number - middle) ** 2 for number in range(len(points)))
    return sum((number - middle) * total for number, total in enumerate(points)) / spread


def full_at(free: int | None, rate: float, now: datetime) -> datetime | None:
    """When that many free bytes are used up, or None when never, or nobody knows."""
    if free is None or rate <= 0 or free / rate > _FAR.total_seconds() / 86400:
        return None
    return now + timedelta(days=free / rate)


def keep_usage(
    cache: sqlite3.Connection,
    vault: str,
    used: Mapping[tuple[str, str], int],
    history: Mapping[int, int],
    now: datetime,
) -> None:
    """Remember what was just listed.

    Args:
        cache: within a transaction.
        vault: its name.
        used: bytes by host and asset; both empty for what belongs to none.
        history: bytes by the day on which they came, counted from 1970; only used for days before the first look.
        now: when it was listed.
    """
    today = day_of(now)
    cache.execute("DELETE FROM used WHERE vault = ?", (vault,))
    cache.executemany("INSERT INTO used VALUES (?, ?, ?, ?)", ((vault, *pair, size) for pair, size in used.items()))
    cache.execute("DELETE FROM daily WHERE vault = ? AND day > ?", (vault, today))  # a clock was wrong
    cache.execute("INSERT OR REPLACE INTO daily VALUES (?, ?, ?, 1)", (vault, today, sum(used.values())))
    first = cache.execute("SELECT min(day) FROM daily WHERE vault = ? AND seen", (vault,)).fetchone()[0]
    cache.executemany(
        "INSERT INTO daily VALUES (?, ?, ?, 0)"
        " ON CONFLICT (vault, day) DO UPDATE SET bytes = max(bytes, excluded.bytes) WHERE NOT seen",
        ((vault, day, total) for day, total in _totals(history, today).items() if day < first),
    )
    cache.execute("DELETE FROM daily WHERE vault = ? AND day < ?", (vault, today - 2 * DAYS))


def _totals(came: Mapping[int, int], today: int) -> dict[int, int]:
    """What there was at the end of each of the last days, from what came when."""
    first = today - DAYS + 1
    total = sum(size for day, size in came.items() if day < first)
    totals = {}
    for day in range(first, today):
        total += came.get(day, 0)
        totals[day] = total
    return totals


def _last(cache: sqlite3.Connection, vault: str, kind: str) -> datetime | None:
    row = cache.execute("SELECT max(at) FROM checks WHERE vault = ? AND kind = ? AND ok", (vault, kind)).fetchone()
    return _moment(row[0])


def _largest_first(assets: Sequence[AssetUsage]) -> tuple[AssetUsage, ...]:
    return tuple(sorted(assets, key=lambda each: (-each.bytes, each.host, each.asset)))


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def day_of(moment: datetime) -> int:
    """The day (UTC) of a moment, counted from 1970."""
    return (moment.astimezone(UTC).date() - date(1970, 1, 1)).days
