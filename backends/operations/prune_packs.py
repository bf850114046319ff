"""What nobody refers to any more in a vault: packs of removed snapshots, and what broken runs left.

Nothing goes that is younger than a day by the vault's clock, nothing while some manifest cannot be read, and listings
are not believed alone: what is known from elsewhere is asked for by its key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from backends.archive.layout import (
    HOSTS,
    MANIFEST,
    MANIFEST_KEY,
    MAX_MANIFEST,
    RECORD_KEY,
    SNAPSHOT_ID,
    manifest_key,
    snapshot_prefix,
    time_of,
)
from backends.archive.reader import object_key, parse_sealed
from backends.errors import MastovaultError, NotFound, VaultError
from backends.model import Asset
from backends.untrusted import clean
from backends.vault.base import StoredObject, Vault

LEFTOVER_AGE = timedelta(days=1)
RECORDS_AGE = timedelta(days=400)
"""Records of attempts that are older go; a year's worth stays."""


class Unsure(MastovaultError):
    """A manifest could not be read, so that nobody can tell which objects it needs."""


def sweep(
    vault: Vault,
    host: str,
    asset: Asset,
    now: datetime,
    known: Collection[str],
    spared: Collection[str],
    guard: Callable[[], None],
) -> int:
    """Remove what no manifest of a host refers to, of one asset.

    Args:
        vault: where.
        host: whose.
        asset: of which asset; runs that write it must be kept out by a lease.
        now: the vault's time.
        known: ids of snapshots that may be there although a listing does not show them.
        spared: keys of shared objects that are known to be needed, so that no manifest is read for them.
        guard: called before each removal; raises when the lease was lost.

    Returns:
        How many bytes went.

    Raises:
        Unsure: some manifest cannot be read; no shared object was removed.
        VaultError: the vault failed.
    """
    vault.clean_leftovers(now - LEFTOVER_AGE, f"{HOSTS}{host}/{asset.value}")
    listed = list(vault.list(f"{HOSTS}{host}/{asset.value}/"))
    old = [each for each in listed if each.modified_at < now - LEFTOVER_AGE]
    return _orphans(vault, host, asset, listed, old, guard) + _packs(vault, host, asset, old, known, spared, guard)


def sweep_records(vault: Vault, host: str, now: datetime, guard: Callable[[], None]) -> None:
    """Remove records of attempts that are older than a year and a month. Raises `VaultError`."""
    for stored in list(vault.list(f"{HOSTS}{host}/runs/")):
        match = RECORD_KEY.fullmatch(stored.key)
        if match and max(stored.modified_at, _time(stored.key)) < now - RECORDS_AGE:
            guard()
            vault.delete(stored.key)


def _time(key: str) -> datetime:
    return time_of(key.removesuffix(".json"))


def _orphans(
    vault: Vault,
    host: str,
    asset: Asset,
    listed: list[StoredObject],
    old: list[StoredObject],
    guard: Callable[[], None],
) -> int:
    """Objects of a snapshot without a manifest: its run was killed, or its removal was."""
    whole = {each.key.removesuffix(MANIFEST) for each in listed if MANIFEST_KEY.fullmatch(each.key)}
    young = {_place(each.key, host, asset) for each in listed if each not in old}
    gone = 0
    absent: dict[str, bool] = {}
    for stored in old:
        place = _place(stored.key, host, asset)
        if not place or place in whole or place in young:
            continue
        if place not in absent:
            absent[place] = _is_absent(vault, place + MANIFEST)
        if absent[place]:
            guard()
            vault.delete(stored.key)
            gone += stored.bytes
    return gone


def _place(key: str, host: str, asset: Asset) -> str:
    """The directory of the snapshot that an object is in; empty when it is in none."""
    above = f"{HOSTS}{host}/{asset.value}/"
    moment = key.removeprefix(above).partition("/")[0]
    snapshot = f"{host}/{asset.value}/{moment}"
    return snapshot_prefix(snapshot) if SNAPSHOT_ID.fullmatch(snapshot) and key.startswith(above) else ""


def _is_absent(vault: Vault, key: str) -> bool:
    try:
        vault.read(key).close()
    except NotFound:
        return True
    return False


def _packs(
    vault: Vault,
    host: str,
    asset: Asset,
    old: list[StoredObject],
    known: Collection[str],
    spared: Collection[str],
    guard: Callable[[], None],
) -> int:
    place = f"{HOSTS}{host}/{asset.value}/packs/"
    packs = {each.key: each.bytes for each in old if each.key.startswith(place) and each.key not in spared}
    if not packs:
        return 0
    unused = packs.keys() - referred(vault, host, known)
    for key in sorted(unused):
        guard()
        vault.delete(key)
    return sum(packs[key] for key in unused)


def referred(vault: Vault, host: str, known: Collection[str]) -> set[str]:
    """Keys of the shared objects that any manifest of a host names. Raises `Unsure`, `VaultError`."""
    listed = {each.key for each in vault.list(f"{HOSTS}{host}/") if each.key.endswith(f"/{MANIFEST}")}
    named = {manifest_key(each) for each in known if SNAPSHOT_ID.fullmatch(each) and each.startswith(f"{host}/")}
    found: set[str] = set()
    for key, data in vault.read_many(sorted(listed | named), MAX_MANIFEST):
        if isinstance(data, NotFound) and key not in listed:
            continue
        if isinstance(data, NotFound):  # removed by another prune since it was listed
            continue
        if isinstance(data, VaultError):
            raise Unsure(_unsure(vault, key, data.sentence), "No pack is removed before it can be read.") from data
        try:
            manifest, _ = parse_sealed(key, data)
            found |= {object_key(manifest, entry) for entry in manifest.objects if entry.key}
        except VaultError as error:
            raise Unsure(
                _unsure(vault, key, error.sentence), "Look at it: no pack is removed while it is there."
            ) from error
    return found


def _unsure(vault: Vault, key: str, why: str) -> str:
    return f"packs stay in {vault.name}, for {clean(key, 160)} cannot be read: {why}"
