"""What a prune would remove from which vault, and why the rest stays. Made from the catalogue; nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from backends.archive.manifest import Manifest
from backends.archive.reader import object_key
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import MastovaultError
from backends.model import SnapshotInfo, utc_now
from backends.operations.fleet_refresh import refresh_vaults
from backends.retention import Verdict, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultPrune:
    """What a prune would do in one vault to the snapshots of one host."""

    vault: str
    host: str
    verdicts: tuple[Verdict, ...]
    """Of every snapshot that the vault holds, newest first."""
    bytes: int
    """That are freed; objects that kept snapshots share stay."""

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
    errors = {status.name: status.error for status in catalog.vaults() if status.error}
    parts = []
    for host in hosts:
        for vault in vaults or config.vaults:
            if vault not in errors and (part := plan_vault(config, catalog, host, vault, now or utc_now())):
                parts.append(part)
    away = {name: why for name, why in errors.items() if name in (vaults or config.vaults)}
    return PrunePlan(parts=tuple(parts), away=away)


def plan_vault(config: Config, catalog: Catalog, host: str, vault: str, now: datetime) -> VaultPrune | None:
    """What the policies say of a host's snapshots in one vault; None when it holds none."""
    held = copies_in(catalog.snapshots(host), vault)
    if not held:
        return None
    verdicts = judge(held, config, host, now)
    return VaultPrune(vault=vault, host=host, verdicts=tuple(verdicts), bytes=freed_bytes(catalog, verdicts))


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


def freed_bytes(catalog: Catalog, verdicts: Sequence[Verdict]) -> int:
    """Stored bytes that go, without objects that a kept snapshot shares."""
    gone: dict[str, int] = {}
    for verdict in verdicts:
        if not verdict.keep:
            gone |= _sizes(catalog, verdict.snapshot)
    if any("/packs/" in key for key in gone):
        for verdict in verdicts:
            if verdict.keep:
                for key in _sizes(catalog, verdict.snapshot):
                    gone.pop(key, None)
    return sum(gone.values())


def _sizes(catalog: Catalog, snapshot: SnapshotInfo) -> dict[str, int]:
    try:
        manifest: Manifest = catalog.manifest(snapshot.id)
        return {object_key(manifest, entry): entry.bytes for entry in manifest.objects}
    except MastovaultError:
        return {}


def going_of(verdicts: Collection[Verdict], asset: str) -> list[SnapshotInfo]:
    """What goes of one asset, the oldest first."""
    return [each.snapshot for each in reversed([*verdicts]) if not each.keep and each.snapshot.asset == asset]


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
