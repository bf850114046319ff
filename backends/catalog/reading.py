"""Reading records of a vault into rows of the cache, and believing none of them more than it shows."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backends.archive.layout import CHECK_KEY, HOSTS, MANIFEST_KEY, MAX_MANIFEST, MAX_RECORD, RECORD_KEY
from backends.catalog.listing import Seen
from backends.catalog.records import parse_attempt, parse_check
from backends.catalog.store import TABLES, Store
from backends.errors import Damaged, NotFound, VaultError, VaultFormatTooNew
from backends.untrusted import clean
from backends.vault.base import Vault

_BATCH = 500
_BATCH_BYTES = 16 * 1024 * 1024
_PATIENCE = 10
"""Reads in a row that may fail before a vault counts as away."""
_MAX_FINGERPRINT = 200
_AGAIN = Seen(-1, 0.0)
"""How a record is remembered that no object is like: it is tried again the next time."""


@dataclass(slots=True)
class _Rows:
    """Rows for the cache, by table, and the keys that they come from."""

    keys: list[str] = field(default_factory=list)
    bytes: int = 0
    snapshots: list[tuple[object, ...]] = field(default_factory=list)
    manifests: list[tuple[object, ...]] = field(default_factory=list)
    checks: list[tuple[object, ...]] = field(default_factory=list)
    attempts: list[tuple[object, ...]] = field(default_factory=list)
    unreadable: list[tuple[object, ...]] = field(default_factory=list)
    packs: list[tuple[object, ...]] = field(default_factory=list)
    needs: list[tuple[object, ...]] = field(default_factory=list)


def read_new(
    store: Store, vault: Vault, new: Iterable[str], listed: Mapping[str, Seen], beat: Callable[[], None]
) -> None:
    """Read some records into the cache, the newest first. Raises `VaultError` when the vault has gone away."""
    newest_first = sorted(new, key=lambda key: key.split("/")[3:], reverse=True)
    manifests = [key for key in newest_first if MANIFEST_KEY.fullmatch(key)]
    records = [key for key in newest_first if not MANIFEST_KEY.fullmatch(key)]
    failures = _Failures()
    for keys, limit in ((manifests, MAX_MANIFEST), (records, MAX_RECORD)):
        rows = _Rows()
        for key, data in vault.read_many(keys, limit):
            beat()
            _take(vault.name, key, data, limit, listed.get(key, _AGAIN), rows)
            failures.note(data)
            if len(rows.keys) >= _BATCH or rows.bytes >= _BATCH_BYTES:
                _keep(store, vault.name, rows)
                rows = _Rows()
        _keep(store, vault.name, rows)


def remove(cache: sqlite3.Connection, vault: str, keys: Sequence[str]) -> None:
    """Forget what was read under some keys, whatever it was."""
    for table in (*TABLES, "manifests", "needs", "torn"):
        cache.executemany(f"DELETE FROM {table} WHERE vault = ? AND key = ?", ((vault, key) for key in keys))  # noqa: S608


class _Failures:
    """Tells one bad file from a vault that has gone away."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def note(self, data: bytes | VaultError) -> None:
        """How one read went. Raises what it failed with when it is one too many."""
        if not isinstance(data, VaultError) or isinstance(data, NotFound | Damaged):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= _PATIENCE:
            raise data


def _take(vault: str, key: str, data: bytes | VaultError, limit: int, seen: Seen, rows: _Rows) -> None:
    """Make rows of one record."""
    rows.keys.append(key)
    try:
        if isinstance(data, VaultError):
            raise data
        rows.bytes += len(data)
        if len(data) > limit:
            raise Damaged(f"{key} is longer than {limit} bytes")
        _read_one(vault, key, seen, data, rows)
    except NotFound:  # pruned since it was listed
        return
    except (Damaged, VaultFormatTooNew) as error:
        rows.unreadable.append((vault, key, *seen, error.sentence))
    except VaultError as error:
        rows.unreadable.append((vault, key, *_AGAIN, error.sentence))


def _read_one(vault: str, key: str, seen: Seen, data: bytes, rows: _Rows) -> None:
    if CHECK_KEY.fullmatch(key):
        snapshot_id = key.removeprefix(HOSTS).partition("/checks/")[0]
        check = parse_check(data, snapshot_id)
        found = (check.kind, check.at.timestamp(), check.ok, check.whole, check.seconds, check.opens)
        rows.checks.append((vault, key, *seen, snapshot_id, *found, json.dumps(check.details)))
    elif match := RECORD_KEY.fullmatch(key):
        tried = parse_attempt(data, match["host"])
        what = (tried.host, tried.asset.value, tried.run, tried.at.timestamp(), tried.seconds, tried.state.value)
        result = (tried.snapshot, tried.bytes, tried.error, tried.in_part)
        rows.attempts.append((vault, key, *seen, *what, *result))
    else:
        _read_manifest(vault, key, seen, data, rows)


def _read_manifest(vault: str, key: str, seen: Seen, data: bytes, rows: _Rows) -> None:
    from backends.archive.reader import object_key, parse_sealed  # late: it brings pydantic

    found, seal = parse_sealed(key, data)
    fingerprint = found.facts.get("fingerprint")
    if not (isinstance(fingerprint, str) and fingerprint.isascii() and len(fingerprint) <= _MAX_FINGERPRINT):
        fingerprint = None
    seconds = (found.finished_at - found.started_at).total_seconds()
    what = (found.id, found.host, found.asset.value, found.started_at.timestamp(), seconds)
    result = (found.bytes, clean(found.run, 80), found.in_part, fingerprint, seal.signature, seal.signer)
    rows.snapshots.append((vault, key, *seen, *what, *result))
    rows.manifests.append((vault, key, zlib.compress(data, 1)))
    at = found.started_at.timestamp()
    rows.needs += [(vault, key, object_key(found, entry), entry.bytes) for entry in found.objects]
    rows.packs += [(vault, entry.key, at) for entry in found.objects if entry.key]


def _keep(store: Store, vault: str, rows: _Rows) -> None:
    if not rows.keys:
        return
    with store.writing() as cache:
        remove(cache, vault, rows.keys)
        for table in ("snapshots", "manifests", "needs", "checks", "attempts", "unreadable"):
            values: list[tuple[object, ...]] = getattr(rows, table)
            if values:
                marks = ", ".join("?" * len(values[0]))
                cache.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)  # noqa: S608
        cache.executemany(
            "INSERT INTO packs VALUES (?, ?, ?)"
            " ON CONFLICT (vault, key) DO UPDATE SET since = min(since, excluded.since)",
            rows.packs,
        )
