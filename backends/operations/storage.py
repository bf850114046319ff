"""The vaults as the storage screen and `mastovault vault list` show them, and which vault holds which snapshot.

Made from the cache alone, so that it is there at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from backends.archive.signing import trust_of
from backends.catalog import Catalog, VaultStatus, VaultUsage
from backends.config import save
from backends.config.paths import Paths
from backends.config.schema import Config, DirectoryVault, S3Vault, VaultConfig
from backends.errors import ConfigurationError
from backends.model import Asset, SnapshotInfo, Trust
from backends.untrusted import clean

GIGABYTE = 1_000_000_000
_LOW_DAYS = 14
_LOW_SHARE = 0.05
"""Of what a vault holds and has room for: with less than that left it is low on space."""


class StorageState(StrEnum):
    """How a vault is, the worst first; the words are what the screens show."""

    AWAY = "AWAY"
    UNASKED = "UNASKED"
    FULL = "FULL"
    LOW = "LOW SPACE"
    DAMAGED = "DAMAGED"
    BEHIND = "BEHIND"
    OK = "OK"


class CopyState(StrEnum):
    """What a vault has of a snapshot."""

    HELD = "held"
    LACKING = "lacking"
    DAMAGED = "damaged"
    """Its last verification there failed."""
    ALTERED = "altered"
    """There is another manifest of it, which is trusted less: that copy is left aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageRow:
    """One vault."""

    name: str
    kind: str
    """`directory`, `s3`, `sftp`."""
    where: str
    state: StorageState
    said: str
    """One sentence on the state; empty when it is OK."""
    offsite: bool
    status: VaultStatus
    usage: VaultUsage
    hosts: tuple[str, ...]
    """Those whose backups go there."""
    behind: tuple[str, ...] = ()
    """`host/asset` of what goes there and whose newest snapshot it lacks; `vault sync` fills that."""
    damaged: int = 0
    """Copies in it whose last verification failed."""
    price: float | None = None
    """In a month, in `currency`, for what it holds now; None when the configuration names no price."""
    currency: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What one vault has of a snapshot."""

    vault: str
    state: CopyState
    offsite: bool
    stale: bool = False
    """The vault did not answer the last time: this is what was last known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """One snapshot, and what each vault has of it, in the order of the configuration."""

    snapshot: SnapshotInfo
    trust: Trust
    vaults: tuple[Copy, ...]

    @property
    def held(self) -> int:
        """Good copies."""
        return sum(copy.state is CopyState.HELD for copy in self.vaults)

    @property
    def offsite(self) -> int:
        """Good copies that are off-site."""
        return sum(copy.state is CopyState.HELD and copy.offsite for copy in self.vaults)


def storage(config: Config, catalog: Catalog, now: datetime) -> tuple[StorageRow, ...]:
    """Every configured vault, in the order of the configuration. Reads the cache only. Raises `CacheFailed`."""
    catalog = catalog.trusting(config.signers)
    seen = {status.name: status for status in catalog.vaults()}
    newest = {pair: its[0] for pair, its in catalog.recent(1).items() if its}
    damaged = catalog.damaged()
    rows = []
    for name, its in config.vaults.items():
        status = vault_status(name, its, seen.get(name))
        usage = catalog.usage(name, now)
        hosts = tuple(host for host in config.hosts if name in config.vaults_of(host))
        behind = _behind(config, name, hosts, newest) if status.read_at else ()
        state, said = _state(status, usage, behind, damaged.get(name, 0), now)
        rows.append(
            StorageRow(
                name=name,
                kind=its.type,
                where=status.where,
                state=state,
                said=said,
                offsite=status.offsite,
                status=status,
                usage=usage,
                hosts=hosts,
                behind=behind,
                damaged=damaged.get(name, 0),
                price=status.price,
                currency=status.currency,
            )
        )
    return tuple(rows)


def copies(config: Config, catalog: Catalog, host: str, asset: Asset | None = None) -> tuple[Copies, ...]:
    """What every vault has of each snapshot of a host, newest first.

    The vaults are those that its backups go to, and others that hold it all the same. Reads the cache only. Raises
    `CacheFailed`.
    """
    catalog = catalog.trusting(config.signers)
    seen = {status.name: status for status in catalog.vaults()}
    wanted = config.vaults_of(host) if host in config.hosts else ()
    found = []
    for snapshot in catalog.snapshots(host, asset):
        states = _copy_states(snapshot)
        names = [name for name in config.vaults if name in wanted or name in states]
        found.append(
            Copies(
                snapshot=snapshot,
                trust=trust_of(snapshot.signature, snapshot.signer, config.signers),
                vaults=tuple(_copy(config, name, states, seen) for name in names),
            )
        )
    return tuple(found)


def vault_status(name: str, config: VaultConfig, seen: VaultStatus | None) -> VaultStatus:
    """What was last seen of a vault, with what the configuration says of it."""
    status = seen or VaultStatus(name=name, where=vault_place(config), offsite=_offsite(config), read_at=None)
    price = config.price_per_gb_month
    return replace(
        status,
        kind=config.type,
        price=None if price is None else price * status.bytes / GIGABYTE,
        currency="" if price is None else config.currency,
    )


def vault_place(config: VaultConfig) -> str:
    """Where a vault is, for people, without asking it."""
    if isinstance(config, DirectoryVault):
        return clean(str(config.path), 300)
    if isinstance(config, S3Vault):
        return clean(f"s3://{config.bucket}/{config.prefix}".rstrip("/"), 300)
    path = config.path if config.path.startswith("/") else f"/~/{config.path}"
    return clean(f"sftp://{config.address}{path}", 300)


def _offsite(config: VaultConfig) -> bool:
    return not isinstance(config, DirectoryVault) if config.offsite is None else config.offsite


def _copy_states(snapshot: SnapshotInfo) -> dict[str, CopyState]:
    held = dict.fromkeys(snapshot.vaults, CopyState.HELD)
    damaged = dict.fromkeys(snapshot.damaged, CopyState.DAMAGED)
    return held | damaged | dict.fromkeys(snapshot.altered, CopyState.ALTERED)


def _copy(config: Config, name: str, states: Mapping[str, CopyState], seen: Mapping[str, VaultStatus]) -> Copy:
    status = vault_status(name, config.vaults[name], seen.get(name))
    return Copy(
        vault=name,
        state=states.get(name, CopyState.LACKING),
        offsite=status.offsite,
        stale=bool(status.error) or status.read_at is None,
    )


def _behind(
    config: Config, vault: str, hosts: Iterable[str], newest: Mapping[tuple[str, Asset], SnapshotInfo]
) -> tuple[str, ...]:
    found = []
    for host in hosts:
        for asset in config.hosts[host].assets:
            snapshot = newest.get((host, asset))
            if snapshot is not None and _copy_states(snapshot).get(vault) is not CopyState.HELD:
                found.append(f"{host}/{asset}")
    return tuple(found)


def _state(
    status: VaultStatus, usage: VaultUsage, behind: tuple[str, ...], damaged: int, now: datetime
) -> tuple[StorageState, str]:
    """How a vault is, and one sentence on it."""
    if status.error:
        return StorageState.AWAY, status.error
    if status.read_at is None:
        return StorageState.UNASKED, "not asked yet"
    free = status.free_bytes
    if free is not None and free < _needed(usage):
        return StorageState.FULL, "there is not enough room left for one more backup like the last days'"
    days = None if usage.full_at is None else (usage.full_at - now).total_seconds() / 86400
    if days is not None and days < _LOW_DAYS:
        return StorageState.LOW, f"full in {days:.0f} day{'' if round(days) == 1 else 's'}, as it grows now"
    if free is not None and free < _LOW_SHARE * (free + status.bytes):
        return StorageState.LOW, f"less than {_LOW_SHARE:.0%} of its room is left"
    if damaged:
        what = "copy in it is" if damaged == 1 else "copies in it are"
        return StorageState.DAMAGED, f"{damaged} {what} damaged, as the last verification found"
    if behind:
        more = "" if len(behind) <= 3 else f" and {len(behind) - 3} more"
        return StorageState.BEHIND, f"it lacks the newest snapshot of {', '.join(behind[:3])}{more}"
    return StorageState.OK, status.warning


def _needed(usage: VaultUsage) -> float:
    """What another day takes, at least a little."""
    return max(usage.growth, 64 * 1024 * 1024)


def require_unused(config: Config, paths: Paths, name: str) -> None:
    """Make sure that a vault can be forgotten. Raises `ConfigurationError` when it is unknown, or a host names it."""
    if name not in config.vaults:
        raise ConfigurationError(f"no vault named {name} is configured", "`mastovault vault list` shows them.")
    using = [host for host, its in config.hosts.items() if name in its.vaults]
    if using:
        raise ConfigurationError(
            f"{', '.join(using)} name the vault {name}", f"Take it out of their `vaults` in {paths.config_file} first."
        )


def forget_vault(config: Config, paths: Paths, name: str) -> None:
    """Take a vault out of the configuration and the cache; nothing is deleted in it.

    Raises:
        ConfigurationError: it is unknown, a host names it, or the file cannot be changed.
        CacheFailed: the cache cannot be used; it is forgotten all the same.
    """
    require_unused(config, paths, name)
    save.forget_vault(paths.config_file, name)
    Catalog(paths.cache_dir).keep_vaults(set(config.vaults) - {name})
