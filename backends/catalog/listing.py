"""What a vault lists: its records, and what takes how much room."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from backends.archive.layout import CHECK_KEY, HOSTS, MANIFEST_KEY, RECORD_KEY
from backends.catalog.torn import Sizes
from backends.catalog.usage import day_of
from backends.model import Asset
from backends.vault.base import StoredObject, Vault

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ASSETS = frozenset(asset.value for asset in Asset)
_MOMENT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_BEAT = 500


class Seen(NamedTuple):
    """How a listing shows a record: one that is the same was read already."""

    size: int
    modified: float


@dataclass(slots=True)
class Listed:
    """One listing of a vault, everything below `hosts/`."""

    records: dict[str, Seen] = field(default_factory=dict)
    """Manifests, checks and records of attempts."""
    used: dict[tuple[str, str], int] = field(default_factory=dict)
    """Bytes by host and asset; both empty for what belongs to none."""
    _came: dict[int, int] = field(default_factory=dict)
    _shared: dict[str, tuple[int, datetime]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.used.values())

    @property
    def shared(self) -> frozenset[str]:
        """Keys of objects that several snapshots share."""
        return frozenset(self._shared)

    def came(self, since: Mapping[str, float]) -> dict[int, int]:
        """Bytes by the day on which they came, counted from 1970.

        Args:
            since: when the first snapshot began that refers to a shared object, by its key.
        """
        days = dict(self._came)
        for key, (size, modified) in self._shared.items():
            day = day_of(datetime.fromtimestamp(since[key], UTC) if key in since else modified)
            days[day] = days.get(day, 0) + size
        return days

    def add(self, found: StoredObject) -> None:
        """Take one object in."""
        key = found.key
        if key.endswith(".json") and (
            MANIFEST_KEY.fullmatch(key) or CHECK_KEY.fullmatch(key) or RECORD_KEY.fullmatch(key)
        ):
            self.records[key] = Seen(found.bytes, found.modified_at.timestamp())
        _, host, asset, moment, *rest = *key.split("/", 4), "", "", ""
        known = asset in _ASSETS and _HOST.fullmatch(host) is not None
        place = (host, asset) if known else ("", "")
        self.used[place] = self.used.get(place, 0) + found.bytes
        if known and not (rest[0] and _MOMENT.fullmatch(moment)):
            self._shared[key] = (found.bytes, found.modified_at)
            return
        day = (_day_in(moment[:8]) if known else None) or day_of(found.modified_at)
        self._came[day] = self._came.get(day, 0) + found.bytes


@lru_cache(4096)
def _day_in(digits: str) -> int | None:
    """The day of the digits `20261122`; None when they are no date."""
    try:
        return day_of(datetime.strptime(digits, "%Y%m%d").replace(tzinfo=UTC))
    except ValueError:
        return None


def list_vault(vault: Vault, sizes: Sizes, beat: Callable[[], None]) -> Listed:
    """List a vault; `beat` is told now and then that it goes on. Raises `VaultError`."""
    listed = Listed()
    for number, found in enumerate(vault.list(HOSTS)):
        listed.add(found)
        sizes.add(found)
        if number % _BEAT == 0:
            beat()
    return listed
