"""What a snapshot of Redis says about itself, and which server can read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.archive.manifest import Manifest
from backends.untrusted import clean

_VALKEY_OWN = 80
"""From Valkey 9 on the format has a name and a number of its own (valkey, src/rdb.h)."""
# RDB_VERSION in src/rdb.h of each release; one that is newer than all reads at least what the last one did.
_REDIS_READS = (((7, 4), 12), ((7, 2), 11), ((7, 0), 10), ((5, 0), 9), ((4, 0), 8), ((3, 2), 7), ((2, 6), 6))
_VALKEY_READS = 11
_OLDEST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedServer:
    """One server of a snapshot: which object holds it, whose data it is, how much."""

    object: str
    roles: tuple[str, ...]
    flavour: str = "redis"
    version: str = ""
    rdb_version: int = 0
    saved_at: int | None = None
    """Seconds since 1970."""
    keys: Mapping[int, int] = field(default_factory=dict)
    """By database."""
    waiting: int = 0
    """Sidekiq's jobs: queued, scheduled, to be retried."""
    plain_bytes: int = 0


def saved_servers(manifest: Manifest) -> tuple[SavedServer, ...]:
    """The servers of a snapshot whose objects are there; whatever the facts hold, nothing is raised."""
    listed = manifest.facts.get("servers")
    entries = {entry.name: entry for entry in manifest.objects}
    found: list[SavedServer] = []
    for facts in listed if isinstance(listed, list) else []:
        name = facts.get("object") if isinstance(facts, dict) else None
        if not isinstance(name, str) or name not in entries or any(name == one.object for one in found):
            continue
        jobs = facts.get("jobs")
        found.append(
            SavedServer(
                object=name,
                roles=tuple(role for role in ("base", "sidekiq") if role in _list(facts.get("roles"))) or ("base",),
                flavour=clean(str(facts.get("flavour", "redis")), 20),
                version=clean(str(facts.get("version", "")), 40),
                rdb_version=_number(facts.get("rdb_version")),
                saved_at=_number(facts.get("saved_at")) or None,
                keys=_databases(facts.get("keys")),
                waiting=_number(jobs.get("waiting")) if isinstance(jobs, dict) else 0,
                plain_bytes=entries[name].plain_bytes,
            )
        )
    return tuple(found)


def readable(flavour: str, version: str) -> tuple[int, int]:
    """The newest snapshot format that a server of this version reads: of Redis, and of Valkey's own (0: none)."""
    if flavour == "valkey":
        return _VALKEY_READS, _VALKEY_OWN if _parts(version) >= (9, 0) else 0
    parts = _parts(version)
    return next((number for since, number in _REDIS_READS if parts >= since), _OLDEST), 0


def can_read(flavour: str, version: str, saved: SavedServer) -> bool:
    """Whether a server can load a snapshot; what came from the same kind in the same or an older version it can."""
    if not_newer(saved, flavour, version):
        return True
    plain, own = readable(flavour, version)
    return saved.rdb_version <= plain or _VALKEY_OWN <= saved.rdb_version <= own


def not_newer(saved: SavedServer, flavour: str, version: str) -> bool:
    """Whether a snapshot was made by the same kind of server, in the same or an older version."""
    return saved.flavour == flavour and bool(saved.version) and _parts(saved.version) <= _parts(version)


def _parts(version: str) -> tuple[int, ...]:
    words = version.split(".")[:3]
    return tuple(int(word) if word.isascii() and word.isdigit() and len(word) < 9 else 0 for word in words)


def _databases(value: Any) -> dict[int, int]:
    if not isinstance(value, dict):
        return {}
    return {
        int(name[2:]): _number(count)
        for name, count in value.items()
        if isinstance(name, str)
        and name.startswith("db")
        and name[2:].isascii()
        and name[2:].isdigit()
        and len(name) < 10
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
