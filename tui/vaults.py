"""What the storage screens know of a vault beyond its status, and the plans of a sync and of a prune. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from backends.config.schema import Config
from backends.model import Asset, SnapshotInfo

if TYPE_CHECKING:
    from backends.operations.vault_check import VaultReport


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultDetail:
    """The snapshots of one vault, newest first: those it holds, and those that others hold and that belong here too."""

    name: str
    snapshots: tuple[SnapshotInfo, ...] = ()
    lacks: tuple[SnapshotInfo, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedVault:
    """How a vault's last check in this window went."""

    at: datetime
    report: VaultReport


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One snapshot in the plan of a sync or a prune."""

    key: str
    id: str
    host: str
    asset: Asset
    at: datetime
    bytes: int | None
    vault: str
    """Where it goes from; of a sync, where it is read."""
    goes: bool
    """Of a prune: it is removed; of a sync: it is copied."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a sync or a prune would do: every snapshot, the bytes that move or go, and what stands in the way."""

    rows: tuple[PlanRow, ...] = ()
    bytes: int = 0
    free: int | None = None
    """Room where it goes to, as far as that is known."""
    notes: tuple[str, ...] = ()
    """What cannot be done, and why."""

    @property
    def going(self) -> tuple[PlanRow, ...]:
        """What something is done to."""
        return tuple(row for row in self.rows if row.goes)

    @property
    def hosts(self) -> Mapping[str, tuple[Asset, ...]]:
        """Of which hosts, and which of their assets."""
        found: dict[str, set[Asset]] = {}
        for row in self.going:
            found.setdefault(row.host, set()).add(row.asset)
        return {host: tuple(asset for asset in Asset if asset in found[host]) for host in sorted(found)}


def row_of(info: SnapshotInfo, *, vault: str, goes: bool, why: str, bytes: int | None = None) -> PlanRow:  # noqa: A002
    """A row about one snapshot in one vault."""
    return PlanRow(
        key=f"{vault}/{info.id}",
        id=info.id,
        host=info.host,
        asset=info.asset,
        at=info.at,
        bytes=info.bytes if bytes is None else bytes,
        vault=vault,
        goes=goes,
        why=why,
    )


def is_in(info: SnapshotInfo, vault: str) -> bool:
    """Whether a vault holds a copy, be it a bad one."""
    return vault in info.vaults or vault in info.damaged or vault in info.altered


def lacking(snapshots: Iterable[SnapshotInfo], config: Config, vault: str) -> tuple[SnapshotInfo, ...]:
    """What other vaults hold of the hosts whose backups go to this one, and it does not."""
    mine = {host for host in config.hosts if vault in config.vaults_of(host)}
    return tuple(
        one
        for one in snapshots
        if one.host in mine and vault not in one.vaults and set(one.vaults) & set(config.vaults)
    )
