"""Removing from a vault: snapshots with their manifest first, and shared objects only when surely nobody needs them.

Whoever removes something (prune, encrypting anew) does it by these: under its leases, never what is under an Object
Lock, and no shared object while some manifest of the host cannot be read or was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from backends.archive.layout import (
    CHECK_KEY,
    HOSTS,
    MANIFEST,
    MAX_MANIFEST,
    SNAPSHOT_ID,
    manifest_key,
    snapshot_prefix,
)
from backends.archive.reader import object_key, parse_manifest
from backends.errors import MastovaultError, NotFound, VaultDenied, VaultError
from backends.model import Asset
from backends.operations.reading import require_unread
from backends.untrusted import clean
from backends.vault.base import Vault
from backends.vault.lease import Lease
from backends.vault.lease_clock import MachineTicker

_GUARD_SECONDS = 1.0


class Unsure(MastovaultError):
    """A manifest cannot be read or was changed, so that nobody can tell which objects it needs."""


class MayNotDelete(VaultDenied):
    """These credentials may add and read, and not delete."""


class Locks:
    """Until when objects of a vault are under an Object Lock; asked only where the vault may have such locks."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._possible: bool | None = None

    @property
    def possible(self) -> bool:
        """Whether there may be any: its settings say so, or may not be asked."""
        if self._possible is None:
            look = self._vault.look()
            self._possible = bool(look.object_lock or look.note)
        return self._possible

    def until(self, key: str, now: datetime) -> datetime | None:
        """Until when an object stays, or None. Raises `VaultError`."""
        try:
            until = self._vault.locked_until(key) if self.possible else None
        except NotFound:
            return None
        return until if until is not None and until > now else None


@dataclass(slots=True)
class Remover:
    """Removes objects of one vault, as long as we may.

    Args:
        vault: where.
        check: raises when a lease was lost.
        stop: raises when the operator asked to stop, or somebody reads; asked where nothing is left half done.
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
    locks: Locks = field(init=False)

    def __post_init__(self) -> None:
        self.locks = Locks(self.vault)

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
        if self.locks.until(key, self.now) is not None:
            self.locked += 1
        else:
            self.remove(key, size)

    def remove_snapshot(self, snapshot: str, announce: Callable[[], None] = lambda: None) -> None:
        """Remove a snapshot, its manifest first, so that nothing torn is ever listed. Shared objects stay.

        Args:
            snapshot: its id; that it is under no Object Lock is known.
            announce: called as soon as it is not listed any more.

        Raises:
            MayNotDelete, LeaseLost, VaultError: what stopped it; what is left of it is a leftover.
        """
        self.remove(manifest_key(snapshot))
        announce()
        for stored in list(self.vault.list(snapshot_prefix(snapshot))):
            if CHECK_KEY.fullmatch(stored.key):  # written later: its Object Lock may end later, too
                self.remove_unlocked(stored.key, stored.bytes)
            else:
                self.remove(stored.key, stored.bytes)

    def remove_unused(self, host: str, keys: Iterable[tuple[str, int]], known: Collection[str]) -> None:
        """Remove those shared objects that no manifest of a host names.

        Args:
            host: whose they are.
            keys: the candidates, and their bytes.
            known: ids of snapshots that may be there although a listing does not show them.

        Raises:
            Unsure: some manifest cannot be relied on; nothing was removed.
            MayNotDelete, LeaseLost, VaultError: the vault failed.
            Cancelled: the operator asked to stop.
        """
        candidates = dict(keys)
        if not candidates:
            return
        for key in sorted(candidates.keys() - referred(self.vault, host, known)):
            self.stop()
            self.remove_unlocked(key, candidates[key])


def may_not(vault: Vault) -> MayNotDelete:
    """What to say of credentials that may only add."""
    return MayNotDelete(
        f"these credentials may not delete in {vault.name}, so that nothing goes there",
        "Prune with others, on a machine that the hosts cannot reach; or leave it to the provider's rules.",
    )


def once_a_second(*checks: Callable[[], None]) -> Callable[[], None]:
    """Several checks as one, which asks the vault at most once a second."""
    clock = MachineTicker()  # it goes on while the machine sleeps, in which time a lease is lost
    asked = [clock.now() - _GUARD_SECONDS]

    def guard() -> None:
        if clock.now() - asked[0] >= _GUARD_SECONDS:
            for check in checks:
                check()
            asked[0] = clock.now()

    return guard


def remover_of(
    vault: Vault, host: str, asset: Asset, writing: Lease, syncing: Lease, check: Callable[[], None]
) -> Remover:
    """What removes of an asset, under its leases, as long as nobody reads it.

    Args:
        vault: where.
        host: whose asset.
        asset: which.
        writing: the lease of those who write.
        syncing: the lease of those who copy from other vaults.
        check: raises when the operator asked to stop.

    Its `stop` raises `Locked` as soon as somebody reads the asset for long.
    """
    unread = once_a_second(lambda: require_unread(vault, host, asset, writing.now()))

    def stop() -> None:
        check()
        unread()

    return Remover(vault, once_a_second(writing.check, syncing.check), stop, writing.now())


def referred(vault: Vault, host: str, known: Collection[str]) -> set[str]:
    """Keys of the shared objects that any manifest of a host names.

    Fail safe: one manifest that cannot be read, or that was changed after it was written, and nobody can tell.

    Args:
        vault: where.
        host: whose manifests.
        known: ids of snapshots that may be there although a listing does not show them.

    Raises:
        Unsure: some manifest cannot be relied on.
        VaultError: the vault cannot be asked.
    """
    listed = {each.key for each in vault.list(f"{HOSTS}{host}/") if each.key.endswith(f"/{MANIFEST}")}
    named = {manifest_key(each) for each in known if SNAPSHOT_ID.fullmatch(each) and each.startswith(f"{host}/")}
    found: set[str] = set()
    for key, data in vault.read_many(sorted(listed | named), MAX_MANIFEST):
        if isinstance(data, NotFound):  # of a snapshot that was removed, whatever a listing still shows
            continue
        if isinstance(data, VaultError):
            raise Unsure(_unsure(vault, key, data), "No pack is removed before it can be read.") from data
        try:
            manifest = parse_manifest(key, data)
            found |= {object_key(manifest, entry) for entry in manifest.objects if entry.key}
        except VaultError as error:
            raise Unsure(_unsure(vault, key, error), "Look at it: no pack is removed while it is there.") from error
    return found


def _unsure(vault: Vault, key: str, why: VaultError) -> str:
    return f"packs stay in {vault.name}, for {clean(key, 160)} cannot be relied on: {why.sentence}"
