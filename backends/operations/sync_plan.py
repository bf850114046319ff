"""What a vault lacks that other vaults hold, and what of it a sync would copy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from backends import retention
from backends.archive.layout import HOSTS
from backends.archive.reader import object_key
from backends.archive.signing import trust_of
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, MastovaultError, VaultError, VaultStalled
from backends.model import Asset, SnapshotInfo
from backends.operations.prune_plan import copies_in
from backends.operations.trust_words import distrust
from backends.vault.base import Vault
from backends.vault.open import open_vault


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncItem:
    """One snapshot that is copied."""

    snapshot: SnapshotInfo
    sources: tuple[str, ...]
    """Vaults with a good copy, in the order in which they are tried."""
    bytes: int
    """Of the objects that the target lacks; one that several snapshots share counts with the newest of them."""
    repair: bool = False
    """The target's own copy is damaged: its objects are read, and those that are not good are copied again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """One snapshot that the target lacks, and why it is not copied."""

    snapshot: SnapshotInfo
    why: str
    amiss: bool
    """Whether somebody should do something about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPair:
    """What is copied of one asset of one host."""

    host: str
    asset: Asset
    snapshots: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """What a sync would do, the newest snapshots of each asset first."""

    source: str | None
    """The vault to copy from; None: whichever has a good copy."""
    target: str
    items: tuple[SyncItem, ...]
    left_out: tuple[LeftOut, ...]
    free_bytes: int | None
    """Room in the target, where it has such a notion."""
    away: Mapping[str, str]
    """Vaults that could not be asked, and why."""

    @property
    def bytes(self) -> int:
        """What is copied in all."""
        return sum(item.bytes for item in self.items)

    @property
    def fits(self) -> bool:
        """Whether there is room for all of it, as far as the target knows."""
        return self.free_bytes is None or self.bytes <= self.free_bytes

    @property
    def pairs(self) -> tuple[SyncPair, ...]:
        """By host and asset."""
        grouped: dict[tuple[str, Asset], list[SyncItem]] = {}
        for item in self.items:
            grouped.setdefault((item.snapshot.host, item.snapshot.asset), []).append(item)
        return tuple(
            SyncPair(host=host, asset=asset, snapshots=len(its), bytes=sum(item.bytes for item in its))
            for (host, asset), its in grouped.items()
        )


@dataclass(slots=True)
class Ends:
    """The two ends of a sync: the vault that is filled, and those that it is filled from."""

    config: Config
    catalog: Catalog
    target: Vault
    sources: dict[str, Vault]
    """By name, in the order in which they are tried: those that are near come first."""
    away: dict[str, str]
    stalled: VaultStalled | None = None
    """Why nothing more is asked of the target: it hangs."""

    def close(self) -> None:
        """Let go of connections."""
        for vault in (*([] if self.stalled else [self.target]), *self.sources.values()):
            vault.close()


def open_ends(
    config: Config, paths: Paths, source: str | None, target: str, log: Callable[[str], None] = lambda _line: None
) -> Ends:
    """Open the vaults of a sync and look what is in them.

    Raises:
        ConfigurationError: a vault is not configured, or the two are the same.
        VaultError: the target cannot be used, or no source can.
        CacheFailed: the cache cannot be used.
    """
    for name in (target, *([source] if source else ())):
        if name not in config.vaults:
            raise ConfigurationError(f"no vault named {name} is configured", "`mastovault vault list` shows them.")
    if source == target:
        raise ConfigurationError("a vault cannot be filled from itself", "Name two vaults.")
    catalog = Catalog(paths.cache_dir, config.signers)
    filled = open_vault(target, config.vaults[target])
    status = catalog.refresh_vault(filled)
    if status.error:
        raise VaultError(f"the vault {target} cannot be used: {status.error}", "`mastovault vault check` looks at it.")
    sources, away = {}, {}
    for name in [source] if source else [each for each in config.vaults if each != target]:
        try:
            vault = open_vault(name, config.vaults[name])
            error = catalog.refresh_vault(vault).error
        except VaultError as failure:
            error = failure.sentence
        if error:
            away[name] = error
            log(f"nothing is copied from the vault {name}: {error}")
        else:
            sources[name] = vault
    if not sources:
        why = "; ".join(f"{name}: {error}" for name, error in away.items()) or "there is no other vault"
        raise VaultError(f"there is nothing to fill {target} from: {why}", "`mastovault vault list` shows the vaults.")
    near_first = dict(sorted(sources.items(), key=lambda each: each[1].offsite))
    return Ends(config=config, catalog=catalog, target=filled, sources=near_first, away=away)


def lacking(
    ends: Ends,
    host: str,
    assets: Collection[Asset],
    stored: dict[str, int],
    now: datetime,
    *,
    everything: bool,
    chosen: bool,
) -> tuple[list[SyncItem], list[LeftOut]]:
    """What the target lacks of some assets of a host, the newest first.

    Args:
        ends: the vaults, looked at.
        host: the host's name.
        assets: which of its assets.
        stored: filled with the lengths of the objects that the target has of them, by key.
        now: for the retention policy.
        everything: also snapshots whose writer is not trusted.
        chosen: one source was named, so that what others hold is not asked for.

    Raises:
        VaultError: the target cannot be listed.
    """
    known = ends.catalog.snapshots(host)
    kept = _kept(ends, known, host, now)
    for asset in assets:
        stored |= {found.key: found.bytes for found in ends.target.list(f"{HOSTS}{host}/{asset.value}/")}
    coming: set[str] = set()
    items: list[SyncItem] = []
    left: list[LeftOut] = []
    for info in known:
        if info.asset in assets and _is_lacking(info, ends.target.name):
            sources = tuple(name for name in ends.sources if name in info.vaults and not info.verify_failed)
            why, amiss = _reason(ends, info, sources, kept, everything=everything)
            if why and not (chosen and not sources and not info.verify_failed):
                left.append(LeftOut(snapshot=info, why=why, amiss=amiss))
            elif sources:
                items.append(_item(ends, info, sources, stored, coming))
    return items, left


def _is_lacking(info: SnapshotInfo, target: str) -> bool:
    return target not in info.vaults or target in info.damaged


def _reason(
    ends: Ends, info: SnapshotInfo, sources: Sequence[str], kept: Mapping[str, bool], *, everything: bool
) -> tuple[str, bool]:
    """Why a snapshot is not copied, and whether something is amiss; empty when it is."""
    signers = ends.config.signers
    if ends.target.name in info.altered:
        return f"{ends.target.name} holds another manifest of it, which is trusted less", True
    if info.verify_failed:
        return "every copy of it is damaged", True
    if not sources:
        return f"only {' and '.join(info.vaults)} holds it, which cannot be read now", True
    if not everything and (why := distrust(trust_of(info.signature, info.signer, signers), info.signer, signers)):
        return f"it {why}", False
    if not kept.get(info.id, True):
        return "the next prune would remove it", False
    return "", False


def _item(
    ends: Ends, info: SnapshotInfo, sources: tuple[str, ...], stored: Mapping[str, int], coming: set[str]
) -> SyncItem:
    absent = absent_objects(ends.catalog, info.id, stored)
    size = sum(length for key, length in absent.items() if key not in coming)
    coming.update(absent)
    return SyncItem(snapshot=info, sources=sources, bytes=size, repair=ends.target.name in info.damaged)


def absent_objects(catalog: Catalog, snapshot_id: str, stored: Mapping[str, int]) -> dict[str, int]:
    """The lengths of the objects of a snapshot that are not among the stored ones, by key. Raises `Damaged`."""
    manifest = catalog.manifest(snapshot_id)
    wanted = {object_key(manifest, entry): entry.bytes for entry in manifest.objects}
    return {key: length for key, length in wanted.items() if stored.get(key) != length}


def _kept(ends: Ends, known: Sequence[SnapshotInfo], host: str, now: datetime) -> dict[str, bool]:
    """Whether a prune would keep each snapshot, if the target had all that it can get. Raises `ConfigurationError`."""
    target = ends.target.name
    then = [
        replace(info, vaults=(target,), damaged=(), altered=())
        for info in known
        if target in (*info.vaults, *info.damaged, *info.altered) or not ends.sources.keys().isdisjoint(info.vaults)
    ]
    others = sorted({name for info in known for name in (*info.vaults, *info.damaged, *info.altered)} - {target})
    beside = [copies_in(known, name) for name in others]
    unread = [snapshot for _, snapshot, _ in ends.catalog.unread(host)]
    verdicts = retention.judge(then, ends.config, host, now, beside=beside, unread=unread)
    return {verdict.snapshot.id: verdict.keep for verdict in verdicts}


def plan_sync(
    config: Config,
    paths: Paths,
    hosts: Sequence[str],
    source: str | None,
    target: str,
    *,
    everything: bool = False,
    now: datetime | None = None,
) -> SyncPlan:
    """What a sync of some hosts would copy. See `sync.sync_host`; nothing is written to a vault.

    Raises:
        ConfigurationError: a vault is not configured, or the two are the same.
        VaultError: the target cannot be used, or no source can.
        CacheFailed: the cache cannot be used.
    """
    from backends.model import utc_now

    ends = open_ends(config, paths, source, target)
    try:
        items: list[SyncItem] = []
        left: list[LeftOut] = []
        for host in hosts:
            of_host = lacking(
                ends, host, tuple(Asset), {}, now or utc_now(), everything=everything, chosen=source is not None
            )
            for asset in Asset:
                items += [item for item in of_host[0] if item.snapshot.asset is asset]
                left += [each for each in of_host[1] if each.snapshot.asset is asset]
        return SyncPlan(
            source=source,
            target=target,
            items=tuple(items),
            left_out=tuple(left),
            free_bytes=free_bytes(ends.target),
            away=ends.away,
        )
    finally:
        ends.close()


def free_bytes(vault: Vault) -> int | None:
    """Room in a vault; None where nobody can tell."""
    try:
        return vault.free_bytes()
    except MastovaultError:
        return None
