"""Choosing what to restore: restore points, snapshots by what the operator typed, and the way to their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from backends.archive.keys_known import known_identities
from backends.archive.layout import SNAPSHOT_ID
from backends.archive.manifest import Manifest, Seal
from backends.archive.reader import read_sealed
from backends.archive.signing import trust_of
from backends.catalog import Catalog
from backends.catalog.merge import worth
from backends.config.schema import Config
from backends.errors import ConfigurationError, MastovaultError, NotFound
from backends.model import Asset, Secret, SnapshotInfo
from backends.operations.reading import Reading
from backends.restore.source import Source
from backends.untrusted import clean
from backends.vault.base import Vault
from backends.vault.open import open_vault

_LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """The snapshots of one run that belong together, and what was good at that time of the assets it did not copy."""

    host: str
    run: str
    at: datetime
    own: Mapping[Asset, SnapshotInfo]
    older: Mapping[Asset, SnapshotInfo]
    """The newest good ones from before: secrets that had not changed, media of another timer."""
    trusted: bool = True
    """Whether the writer of its own snapshots is trusted, in so far as the configuration names whom to trust."""

    @property
    def snapshots(self) -> dict[Asset, SnapshotInfo]:
        """All of it, by asset in order of importance."""
        every = {**self.older, **self.own}
        return {asset: every[asset] for asset in Asset if asset in every}


def points(catalog: Catalog, host: str) -> list[RestorePoint]:
    """The restore points of a host, newest first. Snapshots that failed a verification are in none.

    What is trusted (by the signers that the catalogue knows) and what is not never make one point together, but for
    an asset of which nothing older is trusted.
    """
    good = [snapshot for snapshot in catalog.snapshots(host) if not snapshot.verify_failed]
    trusted = [snapshot for snapshot in good if catalog.trust(snapshot).good]
    others = [snapshot for snapshot in good if not catalog.trust(snapshot).good]
    made = [
        _point(host, run, own, [*trusted, *others], trusted=its is trusted)
        for its in (trusted, others)
        for run, own in _runs(its).items()
    ]
    return sorted(made, key=lambda point: point.at, reverse=True)


def _runs(newest_first: Sequence[SnapshotInfo]) -> dict[str, dict[Asset, SnapshotInfo]]:
    runs: dict[str, dict[Asset, SnapshotInfo]] = {}
    for snapshot in newest_first:
        runs.setdefault(snapshot.run, {}).setdefault(snapshot.asset, snapshot)
    return runs


def _point(
    host: str, run: str, own: Mapping[Asset, SnapshotInfo], best_first: Sequence[SnapshotInfo], *, trusted: bool
) -> RestorePoint:
    at = max(snapshot.at for snapshot in own.values())
    older: dict[Asset, SnapshotInfo] = {}
    for snapshot in best_first:
        if snapshot.asset not in own and snapshot.at <= at:
            older.setdefault(snapshot.asset, snapshot)
    return RestorePoint(host=host, run=run, at=at, own=own, older=older, trusted=trusted)


def resolve(config: Config, catalog: Catalog, text: str) -> dict[Asset, SnapshotInfo]:
    """The snapshots that a text names.

    `HOST` is its newest restore point, `HOST/ASSET` and `HOST/ASSET/latest` the newest good snapshot of an asset, a
    run's id (or an unambiguous end of it) the restore point of that run, anything else a snapshot's id or an
    unambiguous end of one. What is not trusted is the newest only when nothing is.

    Raises:
        ConfigurationError: it names nothing, or more than one thing.
    """
    catalog = catalog.trusting(config.signers)
    host, _, rest = text.partition("/")
    if not rest and (host in config.hosts or catalog.snapshots(host)):
        newest = next(iter(_trusted_first(points(catalog, host))), None)
        if newest is None:
            raise _nothing(text)
        return newest.snapshots
    name, _, moment = rest.partition("/")
    if name in {*Asset} and moment in {"", _LATEST}:
        asset = Asset(name)
        found = catalog.newest_trusted(host, asset)
        if found is None:
            good = (snapshot for snapshot in catalog.snapshots(host, asset) if not snapshot.verify_failed)
            found = next(good, None)
        if found is None:
            raise _nothing(text)
        return {asset: found}
    return _by_end(catalog, text)


def _trusted_first(newest_first: Iterable[RestorePoint]) -> list[RestorePoint]:
    return sorted(newest_first, key=lambda point: not point.trusted)


def _by_end(catalog: Catalog, text: str) -> dict[Asset, SnapshotInfo]:
    known = catalog.snapshots()
    exact = [snapshot for snapshot in known if snapshot.id == text]
    ending = exact or [snapshot for snapshot in known if text and snapshot.id.endswith(text)]
    if len(ending) == 1:
        return {ending[0].asset: ending[0]}
    runs = {(snapshot.host, snapshot.run) for snapshot in known if text and snapshot.run.endswith(text)}
    if not ending and len(runs) == 1:
        host, run = runs.pop()
        return next(point for point in _trusted_first(points(catalog, host)) if point.run == run).snapshots
    if ending or runs:
        raise ConfigurationError(f"more than one snapshot ends in {clean(text, 80)!r}", "Type more of it.")
    raise _nothing(text)


def _nothing(text: str) -> ConfigurationError:
    return ConfigurationError(f"{clean(text, 120)!r} names no snapshot", "`mastovault list` shows them.")


def sources(
    config: Config,
    catalog: Catalog,
    snapshots: Mapping[Asset, str],
    ask: Callable[[str], Secret | None] | None = None,
    log: Callable[[str], None] = lambda _line: None,
    leases: Reading | None = None,
) -> dict[Asset, Source]:
    """The way to the bytes of some snapshots: their manifests, the vaults that hold them, and what opens them.

    Args:
        config: the configuration; its vaults are tried in the order they are written in.
        catalog: knows which vault holds what.
        snapshots: a snapshot's id for each asset.
        ask: asks for the passphrase of the identity.
        log: told of vaults that cannot be used.
        leases: keep what is read from being removed meanwhile.

    Raises:
        KeyUnavailable: there is no identity, or it does not open.
        NotFound, VaultError: no vault holds one of them, or none that does can be used.
    """
    identities = open_identities(config, ask, log)
    opened: dict[str, Vault] = {}
    found = {}
    for asset, snapshot in snapshots.items():
        if not SNAPSHOT_ID.fullmatch(snapshot):
            raise _nothing(snapshot)
        manifest, seal, vaults = _holding(config, catalog, snapshot, opened, log, leases)
        found[asset] = Source(
            manifest=manifest,
            vaults=vaults,
            identities=identities,
            trust=trust_of(seal.signature, seal.signer, config.signers),
            signer=seal.signer,
            damage=_damage(catalog, snapshot),
        )
    return found


def open_identities(
    config: Config,
    ask: Callable[[str], Secret | None] | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> list[object]:
    """What opens the backups: the identity, the command's, the old ones. One that is lost is no fault beside another.

    Raises `KeyUnavailable` when none can be opened.
    """
    return [known.identity for known in known_identities(config.encryption, ask, log)]


def _holding(
    config: Config,
    catalog: Catalog,
    snapshot: str,
    opened: dict[str, Vault],
    log: Callable[[str], None],
    leases: Reading | None,
) -> tuple[Manifest, Seal, list[Vault]]:
    """The most trusted manifest of a snapshot, as the vaults have it now, and the vaults that hold that very one."""
    known = next((info for info in catalog.snapshots() if info.id == snapshot), None)
    names = [name for name in config.vaults if known is None or name in known.vaults]
    host, asset, _ = snapshot.split("/")
    read: list[tuple[Vault, Manifest, Seal]] = []
    last: MastovaultError | None = None
    for name in names:
        try:
            vault = opened.setdefault(name, open_vault(name, config.vaults[name]))
            if leases is not None:
                leases.hold(vault, host, Asset(asset))
            read.append((vault, *read_sealed(vault, snapshot)))
        except NotFound:
            continue
        except MastovaultError as error:
            last = error
            log(f"note: the copy of {snapshot} in {name} cannot be used: {error.sentence}")
    if not read:
        raise last or NotFound(f"no vault holds {clean(snapshot, 120)}", "`mastovault list` shows what there is.")
    _, manifest, seal = min(read, key=lambda each: worth(each[2].signature, each[2].signer, config.signers))
    vaults = []
    for vault, its, its_seal in read:
        if its == manifest and its_seal.signature == seal.signature:
            vaults.append(vault)
        else:
            log(f"note: {vault.name} holds another manifest of {snapshot}; it is left aside")
    return manifest, seal, vaults


def _damage(catalog: Catalog, snapshot: str) -> str:
    known = next((info for info in catalog.snapshots() if info.id == snapshot), None)
    if known is None or not known.verify_failed:
        return ""
    return known.torn or "it failed its last verification"


def openable(source: Source) -> None:
    """Read the first bytes of one object, so that a wrong key shows before anything begins.

    Raises:
        KeyUnavailable: no identity opens it.
        Damaged, VaultError: no copy of it can be read.
    """
    if not source.manifest.objects:
        return
    smallest = min(source.manifest.objects, key=lambda entry: entry.bytes)
    with source.open(smallest) as stream:
        stream.read(1)
