"""Where things stand in a vault, and how snapshots are named (docs/format.md). Pure, and light to import."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from backends.model import Asset

FORMAT_KEY = "mastovault.json"
README_KEY = "README.txt"
HOSTS = "hosts/"
MANIFEST = "manifest.json"
MAX_MANIFEST = 16 * 1024 * 1024
"""Bytes; a terabyte of media in packs of 64 MiB makes about 5 MB."""
MAX_RECORD = 256 * 1024
"""Bytes of a check or of a run record."""

_STAMP = "%Y%m%dT%H%M%SZ"
_STAMPED = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z")
_HOST = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_MOMENT = r"\d{8}T\d{6}Z-[0-9a-f]{8}"
_ASSETS = "|".join(Asset)
SNAPSHOT_ID = re.compile(rf"(?P<host>{_HOST})/(?P<asset>{_ASSETS})/(?P<moment>{_MOMENT})")
MANIFEST_KEY = re.compile(rf"hosts/(?P<id>{_HOST}/(?:{_ASSETS})/{_MOMENT})/manifest\.json")
CHECK_KEY = re.compile(rf"hosts/(?P<id>{_HOST}/(?:{_ASSETS})/{_MOMENT})/checks/{_MOMENT}\.json")
RECORD_KEY = re.compile(rf"hosts/(?P<host>{_HOST})/runs/{_MOMENT}\.json")


def stamp(moment: datetime) -> str:
    """A time as names hold it: `20261122T140211Z`."""
    return moment.astimezone(UTC).strftime(_STAMP)


def moment_name(moment: datetime) -> str:
    """A name for something that happened at a time: the time and 32 random bits."""
    return f"{stamp(moment)}-{secrets.token_hex(4)}"


def new_snapshot_id(host: str, asset: Asset, at: datetime) -> str:
    """`<host>/<asset>/<YYYYMMDDTHHMMSSZ>-<8 hex>`. Raises `ValueError` for a host that cannot stand in a key."""
    made = f"{host}/{asset}/{moment_name(at)}"
    if not SNAPSHOT_ID.fullmatch(made):
        raise ValueError(f"{host!r} is no host name")
    return made


def time_of(snapshot_id: str) -> datetime:
    """The time within a snapshot's id. Raises `ValueError` when it holds none."""
    found = _STAMPED.fullmatch(snapshot_id.rpartition("/")[2].partition("-")[0])
    if found is None:
        raise ValueError
    year, month, day, hour, minute, second = map(int, found.groups())  # a tenth of the time of strptime
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def snapshot_prefix(snapshot_id: str) -> str:
    """The directory of a snapshot, with the `/` at its end."""
    return f"{HOSTS}{snapshot_id}/"


def manifest_key(snapshot_id: str) -> str:
    """Where a snapshot's manifest is."""
    return snapshot_prefix(snapshot_id) + MANIFEST


def check_key_of(snapshot_id: str, at: datetime) -> str:
    """A new place for the record of a check."""
    return f"{snapshot_prefix(snapshot_id)}checks/{moment_name(at)}.json"


def record_key(host: str, at: datetime) -> str:
    """A new place for the record of an attempt."""
    return f"{HOSTS}{host}/runs/{moment_name(at)}.json"
