"""What nobody refers to any more in a vault: packs of removed snapshots, and what broken runs left.

Nothing goes that is younger than a day by the vault's clock, no pack while some manifest cannot be relied on, and
listings are not believed alone: what is known from elsewhere is asked for by its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from backends.archive.layout import (
    HOSTS,
    MANIFEST,
    MANIFEST_KEY,
    RECORD_KEY,
    SNAPSHOT_ID,
    snapshot_prefix,
    time_of,
)
from backends.errors import NotFound, VaultDenied
from backends.model import Asset
from backends.operations.removal import Remover, may_not
from backends.vault.base import StoredObject, Vault

LEFTOVER_AGE = timedelta(days=1)
RECORDS_AGE = timedelta(days=400)
"""Records of attempts that are older go; a year's worth stays."""
_PACK = re.compile(r"packs/(?:[0-9a-f]{8}/)?[A-Za-z0-9_-][A-Za-z0-9._-]*\.age")
"""Below the asset's place; docs/format.md."""


def sweep(
    remover: Remover, host: str, asset: Asset, known: Collection[str], needed: Callable[[], Collection[str]]
) -> None:
    """Remove what no manifest of a host refers to, of one asset, and what broken uploads left.

    Args:
        remover: removes it.
        host: whose.
        asset: of which asset; runs that write it must be kept out by a lease.
        known: ids of snapshots that may be there although a listing does not show them.
        needed: keys of shared objects that are known to be needed, so that no manifest is read for them.

    Raises:
        Unsure: some manifest cannot be relied on; no shared object was removed.
        MayNotDelete, LeaseLost, VaultError: the vault failed.
        Cancelled: the operator asked to stop.
    """
    vault, above, since = remover.vault, f"{HOSTS}{host}/{asset.value}/", remover.now - LEFTOVER_AGE
    try:
        vault.clean_leftovers(since, above.rstrip("/"))
    except VaultDenied as error:
        raise may_not(vault) from error
    whole: set[str] = set()
    young: set[str] = set()
    orphans: list[StoredObject] = []
    packs: dict[str, int] = {}
    for stored in vault.list(above):
        place, old = _place(stored.key, above), stored.modified_at < since
        if MANIFEST_KEY.fullmatch(stored.key):
            whole.add(place)
        elif place:
            orphans.append(stored)
            if not old:
                young.add(place)
        elif not _PACK.fullmatch(stored.key.removeprefix(above)):
            remover.foreign += 1
        elif old:
            packs[stored.key] = stored.bytes
    torn = [stored for stored in orphans if _place(stored.key, above) not in whole | young]
    _orphans(remover, torn, above)
    _packs(remover, host, packs, known, needed)


def sweep_records(remover: Remover, host: str) -> None:
    """Remove records of attempts that are older than a year and a month. Raises `VaultError`."""
    for stored in list(remover.vault.list(f"{HOSTS}{host}/runs/")):
        if not RECORD_KEY.fullmatch(stored.key):
            remover.foreign += 1
            continue
        remover.stop()
        if max(stored.modified_at, _time(stored)) < remover.now - RECORDS_AGE:
            remover.remove_unlocked(stored.key, stored.bytes)


def _time(record: StoredObject) -> datetime:
    try:
        return time_of(record.key.removesuffix(".json"))
    except ValueError:  # no such day: then as old as it is stored
        return record.modified_at


def _place(key: str, above: str) -> str:
    """The directory of the snapshot that an object is in; empty when it is in none."""
    snapshot = above.removeprefix(HOSTS) + key.removeprefix(above).partition("/")[0]
    return snapshot_prefix(snapshot) if SNAPSHOT_ID.fullmatch(snapshot) else ""


def _orphans(remover: Remover, torn: list[StoredObject], above: str) -> None:
    """Objects of a snapshot without a manifest: its run was killed, or its removal was."""
    absent: dict[str, bool] = {}
    for stored in torn:
        place = _place(stored.key, above)
        if place not in absent:
            absent[place] = _is_absent(remover.vault, place + MANIFEST)
        if absent[place]:
            remover.stop()
            remover.remove_unlocked(stored.key, stored.bytes)


def _is_absent(vault: Vault, key: str) -> bool:
    try:
        vault.read(key).close()
    except NotFound:
        return True
    return False


def _packs(
    remover: Remover,
    host: str,
    packs: dict[str, int],
    known: Collection[str],
    needed: Callable[[], Collection[str]],
) -> None:
    spared = set(needed()) if packs else set()
    remover.remove_unused(host, ((key, size) for key, size in packs.items() if key not in spared), known)
