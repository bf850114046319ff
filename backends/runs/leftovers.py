"""Removing from the vaults what a killed run left there: its leases, unfinished uploads, uncommitted objects."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backends.archive.layout import HOSTS, MANIFEST_KEY, SNAPSHOT_ID, manifest_key, snapshot_prefix
from backends.archive.reader import read_manifest
from backends.config.schema import Config
from backends.errors import Locked, NotFound, VaultDenied
from backends.model import Asset, utc_now
from backends.operations.leases import NAMES, name_of
from backends.vault.base import StoredObject, Vault
from backends.vault.format import read_format
from backends.vault.lease import Lease, end_gone, take_lease
from backends.vault.open import open_vault

_LEFTOVER_AGE = timedelta(days=1)
_ANY_AGE = timedelta(days=36500)
_ANSWER = 10.0
"""Seconds within which a vault must answer; one that does not is left for the next time."""


@dataclass(frozen=True, slots=True)
class Reached:
    """The vaults that answer now, by name, and whether each was ever prepared: an unmounted disk was not."""

    vaults: Mapping[str, Vault]
    prepared: frozenset[str]

    def of(self, names: Iterable[str]) -> list[Vault]:
        """Those of some names that answer."""
        return [self.vaults[name] for name in names if name in self.vaults]

    def close(self) -> None:
        """Let go of connections."""
        for vault in self.vaults.values():
            vault.close()


def reach(config: Config, names: Iterable[str], seconds: float = _ANSWER) -> Reached:
    """Ask vaults whether they are there, all at once, and wait a bounded time for their answers. Never raises."""
    answers: dict[str, tuple[Vault, bool]] = {}

    def ask(name: str) -> None:
        with contextlib.suppress(Exception):  # away, or not to be understood: nothing can be cleaned there now
            vault = open_vault(name, config.vaults[name])
            answers[name] = vault, read_format(vault) is not None

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in dict.fromkeys(names)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    known = dict(answers)
    return Reached(
        {name: vault for name, (vault, _) in known.items()},
        frozenset(name for name, (_, prepared) in known.items() if prepared),
    )


def clean_vault(
    vault: Vault, host: str, assets: Iterable[Asset], begun: Mapping[Asset, Sequence[str]], run: str
) -> bool:
    """Remove what a killed run left in a vault; returns whether nothing is left that could be removed.

    Objects are removed under the asset's leases only: a run elsewhere may be filling the vault with the same snapshot,
    or refer to the packs that are left.

    Raises:
        VaultError: the vault cannot be used.
    """
    clean = True
    for asset in dict.fromkeys([*assets, *begun]):
        try:
            for kind in NAMES:
                end_gone(vault, name_of(host, asset, kind))
            if begun.get(asset):
                with _leases(vault, host, asset, run) as lease:
                    _clean_asset(vault, host, asset, begun[asset], lease)
        except VaultDenied:
            continue  # these credentials may only add: others prune
        except Locked:
            clean = False
    return clean


@contextlib.contextmanager
def _leases(vault: Vault, host: str, asset: Asset, run: str) -> Iterator[Lease]:
    """Hold both leases of an asset; the one of writing. Raises `Locked`, `VaultError`."""
    with contextlib.ExitStack() as stack:
        held = []
        for kind in NAMES:
            lease = take_lease(vault, name_of(host, asset, kind), run=run, doing="tidied up")
            stack.callback(lease.release)
            held.append(lease)
        yield held[0]


def _clean_asset(vault: Vault, host: str, asset: Asset, keys: Sequence[str], lease: Lease) -> None:
    """Remove what one job left, unless its snapshot had been committed to this vault: then all of it stays.

    Raises `VaultError` when the vault cannot be used, or the lease was lost.
    """
    snapshots = [key for key in keys if SNAPSHOT_ID.fullmatch(key)]
    if not any(holds(vault, snapshot) for snapshot in snapshots):
        for snapshot in snapshots:
            for stored in list(vault.list(snapshot_prefix(snapshot))):
                vault.delete(stored.key)
            # nobody else writes below this prefix now, so that even the youngest leftovers there are this run's
            vault.clean_leftovers(utc_now() + _ANY_AGE, snapshot_prefix(snapshot).rstrip("/"))
            vault.delete(manifest_key(snapshot))  # which is not there; this removes the empty directory
        shared = _shared(vault, host, keys)
        if shared:
            kept = _referred(vault, host, min(stored.modified_at for stored in shared))
            lease.check()
            for stored in shared:
                if stored.key not in kept:
                    vault.delete(stored.key)
    if lease.knows_time:  # by the vault's clock, for this machine's may be days ahead of it
        vault.clean_leftovers(lease.now() - _LEFTOVER_AGE, f"{HOSTS}{host}/{asset.value}")


def _shared(vault: Vault, host: str, keys: Sequence[str]) -> list[StoredObject]:
    """The shared objects that a run had begun and that are there; their names end in the codecs' suffixes."""
    found = []
    for key in keys:
        if key.startswith(f"{HOSTS}{host}/"):
            found += [stored for stored in vault.list(key) if stored.key.startswith(f"{key}.")]
    return found


def _referred(vault: Vault, host: str, since: datetime) -> set[str]:
    """Keys of shared objects that manifests name which were written since then, by the vault's clock."""
    kept: set[str] = set()
    for stored in list(vault.list(f"{HOSTS}{host}/")):
        match = MANIFEST_KEY.fullmatch(stored.key)
        if match and stored.modified_at >= since - _LEFTOVER_AGE:
            kept |= {entry.key for entry in read_manifest(vault, match["id"]).objects}
    return kept


def holds(vault: Vault, snapshot: str) -> bool:
    """Whether a vault holds a snapshot's manifest. Raises `VaultError` when it cannot be asked."""
    try:
        vault.read(manifest_key(snapshot)).close()
    except NotFound:
        return False
    return True
