"""Reading a vault into the cache: only what is new in it, and nothing that is not what it says."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from backends.archive.layout import CHECK_KEY, HOSTS, MANIFEST_KEY, MAX_MANIFEST, MAX_RECORD, RECORD_KEY
from backends.catalog.records import parse_attempt, parse_check
from backends.catalog.store import TABLES, Store
from backends.errors import Damaged, NotFound, VaultError, VaultFormatTooNew
from backends.model import utc_now
from backends.untrusted import clean
from backends.vault.base import Vault
from backends.vault.format import read_format

_BATCH = 500
_PATIENCE = 10
"""Reads in a row that may fail before a vault counts as away."""
_MAX_FINGERPRINT = 200


class Seen(NamedTuple):
    """How a listing shows a record: one that is the same was read already."""

    size: int
    modified: float


@dataclass(slots=True)
class _Rows:
    """Rows for the cache, by table."""

    snapshots: list[tuple[object, ...]] = field(default_factory=list)
    manifests: list[tuple[object, ...]] = field(default_factory=list)
    checks: list[tuple[object, ...]] = field(default_factory=list)
    attempts: list[tuple[object, ...]] = field(default_factory=list)
    unreadable: list[tuple[object, ...]] = field(default_factory=list)


def refresh(store: Store, vault: Vault) -> None:
    """Bring the cache up to date with a vault. A vault that is away keeps its last known content, with the error.

    Raises:
        CacheFailed: the cache cannot be used.
    """
    try:
        stored = _bring_in(store, vault)
    except VaultError as error:
        with store.writing() as cache:
            note_failure(cache, vault.name, vault.where, offsite=vault.offsite, error=error.sentence)
        return
    with store.writing() as cache:
        cache.execute(
            "UPDATE vaults SET read_at = ?, error = '', free = ?, machine = ?, stored = ? WHERE name = ?",
            (utc_now().timestamp(), _free(vault), vault.machine_id(), stored, vault.name),
        )


def _bring_in(store: Store, vault: Vault) -> int:
    """Returns the bytes in the vault. Raises `VaultError` when it is away."""
    found = read_format(vault)
    vault_id = found.id if found else ""
    _settle(store, vault, vault_id)
    with store.reading() as cache:
        known = _known(cache, vault.name)
    listed, stored = _list(vault)
    new = [key for key, seen in listed.items() if known.get(key) != seen]
    _read_new(store, vault, new, listed)
    if gone := [key for key in known if key not in listed]:
        with store.writing() as cache:
            _remove(cache, vault.name, gone)
    return stored


def _remove(cache: sqlite3.Connection, vault: str, keys: list[str]) -> None:
    """Forget what was read under some keys, whatever it was."""
    for table in (*TABLES, "manifests"):
        cache.executemany(f"DELETE FROM {table} WHERE vault = ? AND key = ?", ((vault, key) for key in keys))  # noqa: S608


def _settle(store: Store, vault: Vault, vault_id: str) -> None:
    """Forget what is known of another vault that had this name.

    Raises:
        VaultError: the vault has vanished from its place, which is what an unmounted disk looks like.
    """
    with store.writing() as cache:
        row = cache.execute("SELECT place, vault_id FROM vaults WHERE name = ?", (vault.name,)).fetchone()
        same_place = row is not None and row[0] == vault.where
        if same_place and row[1] and not vault_id:
            raise VaultError(f"there is no vault in {vault.where} any more", "Is its disk mounted?")
        if row is not None and (not same_place or row[1] not in {"", vault_id}):
            forget(cache, vault.name)
            row = None
        if row is None:
            cache.execute(
                "INSERT INTO vaults (name, place, offsite, error, vault_id, stored) VALUES (?, ?, ?, '', ?, 0)",
                (vault.name, vault.where, vault.offsite, vault_id),
            )
        else:
            cache.execute(
                "UPDATE vaults SET offsite = ?, vault_id = ? WHERE name = ?", (vault.offsite, vault_id, vault.name)
            )


def forget(cache: sqlite3.Connection, name: str) -> None:
    """Remove everything known of a vault."""
    for table in (*TABLES, "manifests"):
        cache.execute(f"DELETE FROM {table} WHERE vault = ?", (name,))  # noqa: S608
    cache.execute("DELETE FROM vaults WHERE name = ?", (name,))


def _known(cache: sqlite3.Connection, name: str) -> dict[str, Seen]:
    query = " UNION ALL ".join(f"SELECT key, size, modified FROM {table} WHERE vault = :name" for table in TABLES)  # noqa: S608
    return {key: Seen(size, modified) for key, size, modified in cache.execute(query, {"name": name})}


def _list(vault: Vault) -> tuple[dict[str, Seen], int]:
    """The records in a vault as they are listed, and the bytes of all that is in it."""
    listed: dict[str, Seen] = {}
    stored = 0
    for found in vault.list():
        stored += found.bytes
        if found.key.endswith(".json") and _is_record(found.key):
            listed[found.key] = Seen(found.bytes, found.modified_at.timestamp())
    return listed, stored


def _is_record(key: str) -> bool:
    return bool(MANIFEST_KEY.fullmatch(key) or CHECK_KEY.fullmatch(key) or RECORD_KEY.fullmatch(key))


def _read_new(store: Store, vault: Vault, new: Iterable[str], listed: dict[str, Seen]) -> None:
    failures = _Failures()
    for batch in _batches(new):
        rows = _Rows()
        for key in batch:
            try:
                _read_one(vault, key, listed[key], rows)
                failures.none()
            except NotFound:  # pruned since it was listed
                continue
            except (Damaged, VaultFormatTooNew) as error:
                rows.unreadable.append((vault.name, key, *listed[key], error.sentence))
            except VaultError as error:
                failures.one(error)
                # its size is remembered as one that no object has: it is tried again the next time
                rows.unreadable.append((vault.name, key, -1, 0.0, error.sentence))
        _keep(store, vault.name, batch, rows)


class _Failures:
    """Tells one bad file from a vault that has gone away."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def none(self) -> None:
        """Something was read."""
        self._in_a_row = 0

    def one(self, error: VaultError) -> None:
        """Something was not. Raises it when it is one too many."""
        self._in_a_row += 1
        if self._in_a_row >= _PATIENCE:
            raise error


def _read_one(vault: Vault, key: str, seen: Seen, rows: _Rows) -> None:
    if CHECK_KEY.fullmatch(key):
        snapshot_id = key.removeprefix(HOSTS).partition("/checks/")[0]
        check = parse_check(_read(vault, key, MAX_RECORD), snapshot_id)
        found = (check.kind, check.at.timestamp(), check.ok, check.whole, check.seconds, check.opens)
        rows.checks.append((vault.name, key, *seen, snapshot_id, *found, json.dumps(check.details)))
    elif match := RECORD_KEY.fullmatch(key):
        tried = parse_attempt(_read(vault, key, MAX_RECORD), match["host"])
        what = (tried.host, tried.asset.value, tried.run, tried.at.timestamp(), tried.seconds, tried.state.value)
        result = (tried.snapshot, tried.bytes, tried.error, tried.in_part)
        rows.attempts.append((vault.name, key, *seen, *what, *result))
    else:
        _read_manifest(vault.name, key, seen, _read(vault, key, MAX_MANIFEST), rows)


def _read_manifest(name: str, key: str, seen: Seen, data: bytes, rows: _Rows) -> None:
    from backends.archive.reader import parse_sealed  # late: it brings pydantic

    found, seal = parse_sealed(key, data)
    fingerprint = found.facts.get("fingerprint")
    if not (isinstance(fingerprint, str) and fingerprint.isascii() and len(fingerprint) <= _MAX_FINGERPRINT):
        fingerprint = None
    seconds = (found.finished_at - found.started_at).total_seconds()
    what = (found.id, found.host, found.asset.value, found.started_at.timestamp(), seconds)
    result = (found.bytes, clean(found.run, 80), found.in_part, fingerprint, seal.signature, seal.signer)
    rows.snapshots.append((name, key, *seen, *what, *result))
    rows.manifests.append((name, key, zlib.compress(data, 1)))


def _read(vault: Vault, key: str, limit: int) -> bytes:
    with vault.read(key) as stored:
        data = stored.read(limit + 1)
    if len(data) > limit:
        raise Damaged(f"{key} is longer than {limit} bytes")
    return data


def _keep(store: Store, vault: str, batch: list[str], rows: _Rows) -> None:
    with store.writing() as cache:
        _remove(cache, vault, batch)
        for table in ("snapshots", "manifests", "checks", "attempts", "unreadable"):
            values: list[tuple[object, ...]] = getattr(rows, table)
            if values:
                marks = ", ".join("?" * len(values[0]))
                cache.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)  # noqa: S608


def note_failure(cache: sqlite3.Connection, name: str, where: str, *, offsite: bool, error: str) -> None:
    """Remember that a vault did not answer; what was known of another place of that name is forgotten."""
    row = cache.execute("SELECT place FROM vaults WHERE name = ?", (name,)).fetchone()
    if row is not None and row[0] != where:
        forget(cache, name)
    cache.execute(
        "INSERT INTO vaults (name, place, offsite, error, vault_id, stored) VALUES (?, ?, ?, ?, '', 0)"
        " ON CONFLICT (name) DO UPDATE SET error = excluded.error, offsite = excluded.offsite",
        (name, where, offsite, error),
    )


def _free(vault: Vault) -> int | None:
    try:
        return vault.free_bytes()
    except VaultError:
        return None


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    left = iter(keys)
    while batch := list(islice(left, _BATCH)):
        yield batch
