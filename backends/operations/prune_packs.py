"""What nobody refers to any more in a vault: packs of removed snapshots, and what broken runs left.

Nothing goes that is younger than a day by the vault's clock, nothing while some manifest cannot be read, and listings
are not believed alone: what is known from elsewhere is asked for by its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
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
from backends.errors import MastovaultError, NotFound, VaultDenied, VaultError
from backends.model import Asset
from backends.operations.prune_plan import Locks
from backends.untrusted import clean
from backends.vault.base import StoredObject, Vault

LEFTOVER_AGE = timedelta(days=1)
RECORDS_AGE = timedelta(days=400)
"""Records of attempts that are older go; a year's worth stays."""
_PACK = re.compile(r"packs/(?:[0-9a-f]{8}/)?[A-Za-z0-9_-][A-Za-z0-9._-]*\.age")
"""Below the asset's place; docs/format.md."""


class Unsure(MastovaultError):
    """A manifest could not be read, so that nobody can tell which objects it needs."""


class MayNotDelete(VaultDenied):
    """These credentials may add and read, and not delete."""


@dataclass(slots=True)
class Remover:
    """Removes objects of one vault, as long as we may.

    Args:
        vault: where.
        check: raises when a lease was lost.
        stop: raises when the operator asked to stop; asked where nothing is left half done.
        now: the vault's time.
    """

    vault: Vault
    check: Callable[[], None]
    stop: Callable[[], None]
    now: datetime
    bytes: int = 0
    """Removed so far."""
    locked: int = 0
    """Objects that nobody needs, and that stay for their lock."""
    foreign: int = 0
    """Objects that have no place in the format, and stay."""
    _locks: Locks = field(init=False)

    def __post_init__(self) -> None:
        self._locks = Locks(self.vault)

    def remove(self, key: str, size: int = 0) -> None:
        """Remove an object. Raises `MayNotDelete`, `LeaseLost`, `VaultError`."""
        self.check()
        try:
            self.vault.delete(key)
        except VaultDenied as error:
            raise may_not(self.vault) from error
        self.bytes += size

    def remove_unlocked(self, key: str, size: int) -> None:
        """Remove an object unless it is under an Object Lock. Raises what `remove` does."""
        if self._locks.until(key, self.now) is not None:
            self.locked += 1
        else:
            self.remove(key, size)


def may_not(vault: Vault) -> MayNotDelete:
    """What to say of credentials that may only add."""
    return MayNotDelete(
        f"these credentials may not delete in {vault.name}, so that nothing goes there",
        "Prune with others, on a machine that the hosts cannot reach; or leave it to the provider's rules.",
    )


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
        Unsure: some manifest cannot be read; no shared object was removed.
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
    spared = needed() if packs else ()
    unused = packs.keys() - set(spared)
    if unused:
        unused -= referred(remover.vault, host, known)
    for key in sorted(unused):
        remover.stop()
        remover.remove_unlocked(key, packs[key])


def referred(vault: Vault, host: str, known: Collection[str]) -> set[str]:
    """Keys of the shared objects that any manifest of a host names. Raises `Unsure`, `VaultError`."""
    listed = {each.key for each in vault.list(f"{HOSTS}{host}/") if each.key.endswith(f"/{MANIFEST}")}
    named = {manifest_key(each) for each in known if SNAPSHOT_ID.fullmatch(each) and each.startswith(f"{host}/")}
    found: set[str] = set()
    for key, data in vault.read_many(sorted(listed | named), MAX_MANIFEST):
        if isinstance(data, NotFound):  # of a snapshot that was removed, whatever a listing still shows
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
