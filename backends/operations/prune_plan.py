"""What a prune would remove from which vault, and why the rest stays. Made from the catalogue; nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from backends.archive.layout import manifest_key
from backends.archive.reader import object_key
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import MastovaultError, VaultError
from backends.model import Asset, SnapshotInfo, utc_now
from backends.operations.fleet_refresh import refresh_vaults
from backends.operations.removal import Locks
from backends.retention import Verdict, judge
from backends.vault.base import Vault
from backends.vault.open import open_vault

_AT_ONCE = 8
"""Objects whose lock is asked for at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultPrune:
    """What a prune would do in one vault to the snapshots of one host."""

    vault: str
    host: str
    verdicts: tuple[Verdict, ...]
    """Of every snapshot that the vault holds, newest first."""
    freed: Mapping[Asset, int]
    """Bytes; objects that kept snapshots share stay."""
    notes: tuple[str, ...] = ()
    """What cannot be judged, and stays."""

    @property
    def bytes(self) -> int:
        """That are freed."""
        return sum(self.freed.values())

    @property
    def going(self) -> tuple[SnapshotInfo, ...]:
        """What is removed."""
        return tuple(verdict.snapshot for verdict in self.verdicts if not verdict.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What a prune would do."""

    parts: tuple[VaultPrune, ...]
    away: dict[str, str]
    """Vaults that did not answer, and why: nothing is removed there."""

    @property
    def bytes(self) -> int:
        """That are freed in all."""
        return sum(part.bytes for part in self.parts)

    @property
    def count(self) -> int:
        """How many snapshots go; one in two vaults counts twice."""
        return sum(len(part.going) for part in self.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What stays although nobody judged it, in whatever vault."""
        return tuple(note for part in self.parts for note in part.notes)


def plan_prune(
    config: Config,
    paths: Paths,
    hosts: Sequence[str],
    *,
    vaults: Sequence[str] = (),
    now: datetime | None = None,
) -> PrunePlan:
    """What a prune of some hosts would remove; every vault is looked at first.

    Args:
        config: the policies.
        paths: where the cache is.
        hosts: whose snapshots.
        vaults: only there; empty means every vault.
        now: the time that the policies count from.

    Raises:
        ConfigurationError: a policy keeps nothing.
        CacheFailed: the cache cannot be used.
    """
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh_vaults(config, catalog)
    away = {status.name: status.error for status in catalog.vaults() if status.error}
    at = now or utc_now()
    parts: list[VaultPrune] = []
    for name in vaults or config.vaults:
        if name not in away:
            try:
                parts += _plans(config, catalog, hosts, name, at)
            except VaultError as error:
                away[name] = error.sentence
    order = {host: number for number, host in enumerate(hosts)}
    parts.sort(key=lambda part: order[part.host])
    return PrunePlan(
        parts=tuple(parts), away={name: why for name, why in away.items() if name in (vaults or config.vaults)}
    )


def _plans(config: Config, catalog: Catalog, hosts: Sequence[str], name: str, now: datetime) -> list[VaultPrune]:
    """What goes from one vault. Raises `VaultError` when it cannot be asked for its locks."""
    vault = open_vault(name, config.vaults[name])
    try:
        found = [plan_vault(config, catalog, host, vault, now) for host in hosts]
    finally:
        vault.close()
    return [part for part in found if part is not None]


def plan_vault(config: Config, catalog: Catalog, host: str, vault: Vault, now: datetime) -> VaultPrune | None:
    """What the policies say of a host's snapshots in one vault; None when it holds none. Raises what `judged` does."""
    verdicts = judged(config, catalog, host, vault, now)
    if not verdicts:
        return None
    notes = [
        f"{snapshot} stays in {vault.name}: {why}" for name, snapshot, why in catalog.unread(host) if name == vault.name
    ]
    freed = freed_bytes(catalog, verdicts)
    return VaultPrune(vault=vault.name, host=host, verdicts=tuple(verdicts), freed=freed, notes=tuple(notes))


def judged(config: Config, catalog: Catalog, host: str, vault: Vault, now: datetime) -> list[Verdict]:
    """The verdict on everything that one vault holds of a host, newest first.

    Only what is under an Object Lock is asked of the vault.

    Raises:
        ConfigurationError: a policy keeps nothing.
        VaultError: the vault cannot be asked.
    """
    every = catalog.snapshots(host)
    held = copies_in(every, vault.name)
    names = {name for each in every for name in (*each.vaults, *each.damaged, *each.altered)} - {vault.name}
    beside = [copies_in(every, name) for name in sorted(names)]
    unread = [snapshot for _, snapshot, _ in catalog.unread(host)]
    verdicts = judge(held, config, host, now, beside=beside, unread=unread)
    if locked := _locked(catalog, vault, [each.snapshot for each in verdicts if not each.keep], now):
        verdicts = judge(held, config, host, now, beside=beside, unread=unread, locked=locked)
    return verdicts


def copies_in(snapshots: Iterable[SnapshotInfo], vault: str) -> list[SnapshotInfo]:
    """Snapshots as one vault holds them: its own copy counts, however good the others' are."""
    found = []
    for each in snapshots:
        if vault in each.altered:
            found.append(replace(each, vaults=(vault,), altered=(vault,)))
        elif vault in each.damaged or vault in each.vaults:
            bad = vault in each.damaged or each.verify_failed
            found.append(replace(each, vaults=(vault,), damaged=(), altered=(), verify_failed=bad))
    return found


def _locked(catalog: Catalog, vault: Vault, snapshots: Sequence[SnapshotInfo], now: datetime) -> Mapping[str, datetime]:
    """Which snapshots are locked, their manifest or one of their own objects. Raises `VaultError`."""
    locks = Locks(vault)
    if not snapshots or not locks.possible:
        return {}

    def until(snapshot: SnapshotInfo) -> datetime | None:
        first = locks.until(manifest_key(snapshot.id), now)
        if first is not None:
            return first
        own = [key for key in _sizes(catalog, snapshot) if snapshot.id in key]
        return max(filter(None, (locks.until(key, now) for key in own)), default=None)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lock") as pool:
        ends = pool.map(until, snapshots)
        return {snapshot.id: end for snapshot, end in zip(snapshots, ends, strict=True) if end is not None}


def freed_bytes(catalog: Catalog, verdicts: Sequence[Verdict]) -> dict[Asset, int]:
    """Stored bytes that go, by asset, without objects that a kept snapshot shares."""
    gone: dict[Asset, dict[str, int]] = {}
    for verdict in verdicts:
        if not verdict.keep:
            gone.setdefault(verdict.snapshot.asset, {}).update(_sizes(catalog, verdict.snapshot))
    for asset, sizes in gone.items():
        if any("/packs/" in key for key in sizes):
            kept = [each.snapshot for each in verdicts if each.keep and each.snapshot.asset is asset]
            for key in needed_in(catalog, [each.id for each in kept]):
                sizes.pop(key, None)
    return {asset: sum(sizes.values()) for asset, sizes in gone.items()}


def _sizes(catalog: Catalog, snapshot: SnapshotInfo) -> dict[str, int]:
    try:
        manifest = catalog.manifest(snapshot.id)
        return {object_key(manifest, entry): entry.bytes for entry in manifest.objects}
    except MastovaultError:
        return {}


def going_of(verdicts: Collection[Verdict], asset: Asset) -> list[SnapshotInfo]:
    """What goes of one asset, the oldest first."""
    return [each.snapshot for each in reversed([*verdicts]) if not each.keep and each.snapshot.asset is asset]


def needed_in(catalog: Catalog, kept: Collection[str]) -> set[str]:
    """Keys of the shared objects that kept snapshots refer to, as far as the cache knows them."""
    found: set[str] = set()
    for snapshot in kept:
        try:
            manifest = catalog.manifest(snapshot)
            found |= {object_key(manifest, entry) for entry in manifest.objects if entry.key}
        except MastovaultError:
            continue
    return found
