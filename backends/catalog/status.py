"""How a vault is, as the last look at it found."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultStatus:
    """How the last look at a vault went; `error` is empty when it answered.

    `bytes` is all that is stored in it. `unreadable` counts manifests and records that could not be understood:
    they are not listed, and `warning` says so.
    """

    name: str
    where: str
    offsite: bool
    read_at: datetime | None
    error: str = ""
    free_bytes: int | None = None
    snapshots: int = 0
    bytes: int = 0
    unreadable: int = 0
    warning: str = ""
    machine_id: str | None = None
    recipients: tuple[str, ...] = ()
    """Who could read the last backup to it: `age1...`, as the vault itself says."""
    checked_at: datetime | None = None
    """When its settings were last asked for, which is done once a day; None: never, and the next four are unknown."""
    versioning: str = ""
    """`on`, `off`, `suspended`; empty where there is no such notion, or nobody may ask."""
    object_lock: str = ""
    """In words: `governance, 30 days`; empty without one."""
    exclusive: bool | None = None
    """Whether it refuses to write the same object twice; None when that could not be asked."""
    note: str = ""
    """What else its settings say to somebody who keeps backups there."""
    kind: str = ""
    """`directory`, `s3`, `sftp`; of the configuration, as the next two, and empty where that is not at hand."""
    price: float | None = None
    """What it costs in a month, where the configuration says what a gigabyte costs."""
    currency: str = ""


def statuses(cache: sqlite3.Connection) -> list[VaultStatus]:
    """Every vault that was looked at, by name."""
    bad = {name: (count, why) for name, count, why in cache.execute(_BAD)}
    held = dict(cache.execute("SELECT vault, count(*) FROM snapshots GROUP BY vault"))
    return [
        VaultStatus(
            name=row["name"],
            where=row["place"],
            offsite=bool(row["offsite"]),
            read_at=_moment(row["read_at"]),
            error=row["error"],
            free_bytes=row["free"],
            snapshots=held.get(row["name"], 0),
            bytes=row["stored"],
            unreadable=bad.get(row["name"], (0, ""))[0],
            warning=_warning(*bad.get(row["name"], (0, ""))),
            machine_id=row["machine"],
            recipients=tuple(json.loads(row["recipients"])),
            checked_at=_moment(row["looked_at"]),
            versioning=row["versioning"],
            object_lock=row["object_lock"],
            exclusive=None if row["exclusive"] is None else bool(row["exclusive"]),
            note=row["note"],
        )
        for row in _named(cache, "SELECT * FROM vaults ORDER BY name")
    ]


_BAD = "SELECT vault, count(*), min(why) FROM unreadable GROUP BY vault"


def _named(cache: sqlite3.Connection, query: str) -> list[sqlite3.Row]:
    cursor = cache.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(query).fetchall()


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _warning(count: int, why: str) -> str:
    if not count:
        return ""
    return f"{count} of its records cannot be used and {'is' if count == 1 else 'are'} not listed ({why})"
