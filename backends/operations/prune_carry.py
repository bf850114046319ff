"""Removing one asset of a host from one vault, under its leases: manifests first, then what only they referred to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from backends.archive.layout import SNAPSHOT_ID
from backends.catalog import Catalog
from backends.config.schema import Config
from backends.errors import ConfigurationError, VaultError
from backends.model import Asset
from backends.operations.prune_packs import sweep, sweep_records
from backends.operations.prune_plan import going_of, judged, needed_in
from backends.operations.removal import Remover, remover_of
from backends.progress import Job, QuietJob
from backends.vault.base import Vault
from backends.vault.lease import Lease


@dataclass(slots=True)
class PruneResult:
    """What was removed of one asset of a host, over some vaults."""

    removed: dict[str, list[str]] = field(default_factory=dict)
    """Ids of snapshots, by vault."""
    bytes: int = 0
    locked: int = 0
    """Objects that nobody needs any more, and that stay for their Object Lock."""
    foreign: int = 0
    """Objects in the asset's place that are none of ours, and stay."""
    problems: list[str] = field(default_factory=list)
    """What did not go, and why."""

    @property
    def said(self) -> str:
        """One sentence."""
        parts = [f"{len(ids)} from {vault}" for vault, ids in self.removed.items() if ids]
        count = len({each for ids in self.removed.values() for each in ids})
        said = f"removed {_many(count, 'snapshot')} ({', '.join(parts)})" if parts else "nothing had to go"
        if self.bytes:
            said = (said if parts else "no snapshot had to go") + f", {self.bytes} bytes freed"
        said += f"; {_many(self.locked, 'object')} under an Object Lock stay for now" if self.locked else ""
        return said + (f"; {_many(self.foreign, 'file')} that Mastovault did not write stay" if self.foreign else "")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Work:
    """One asset of a host in one vault, under its leases."""

    config: Config
    catalog: Catalog
    """Which has just been brought up to date with the vault."""
    vault: Vault
    host: str
    asset: Asset
    writing: Lease
    """The lease of those who write; nobody adds a snapshot while we hold it."""
    syncing: Lease
    """The lease of those who copy from other vaults."""
    check: Callable[[], None]
    """Raises when the operator asked to stop."""
    log: Callable[[str], None]
    result: PruneResult
    job: Job = field(default_factory=QuietJob)

    @property
    def written(self) -> list[str]:
        """Ids of what was written lately: a listing may not show it yet."""
        every = dict.fromkeys((*self.writing.previous, *self.syncing.previous))
        return [each for each in every if SNAPSHOT_ID.fullmatch(each) and each.startswith(f"{self.host}/")]


def carry_out(work: Work) -> None:
    """Remove what goes of an asset, then what nothing refers to any more.

    Raises:
        Locked: somebody reads the asset for long; what is gone is gone whole.
        MayNotDelete: these credentials may not delete.
        LeaseLost: somebody took the asset over; what is gone is gone whole.
        Unsure: some manifest cannot be relied on, so that no pack was removed. All else is done.
        ConfigurationError, VaultError, Cancelled: what stopped it.
    """
    if work.host not in work.config.hosts:
        raise ConfigurationError(f"no host named {work.host} is configured, so that nothing of it goes")
    error = next((each.error for each in work.catalog.vaults() if each.name == work.vault.name), "not looked at yet")
    if error:
        raise VaultError(error, "Try again when the vault answers.")
    if not work.writing.knows_time:
        raise VaultError(f"{work.vault.name} has not shown its clock yet, and no other is believed", "Prune later.")
    now = work.writing.now()
    verdicts = judged(work.config, work.catalog, work.host, work.vault, now)
    remover = remover_of(work.vault, work.host, work.asset, work.writing, work.syncing, work.check)
    remover.stop()
    try:
        for snapshot in going_of(verdicts, work.asset):
            remover.stop()
            remover.remove_snapshot(snapshot.id, partial(_gone, work, snapshot.id))
            work.job.advance(1)
        _sweep(work, remover, {verdict.snapshot.id for verdict in verdicts if verdict.keep})
    finally:
        work.result.bytes += remover.bytes
        work.result.locked += remover.locked
        work.result.foreign += remover.foreign


def _gone(work: Work, snapshot: str) -> None:
    work.result.removed.setdefault(work.vault.name, []).append(snapshot)
    work.log(f"removed {snapshot} from {work.vault.name}")


def _sweep(work: Work, remover: Remover, kept: set[str]) -> None:
    """Remove what nothing refers to. Raises `Unsure` when that cannot be told of packs."""
    first = next((asset for asset in Asset if asset in work.config.hosts[work.host].assets), work.asset)
    if work.asset is first:  # the records are the host's: once is enough
        sweep_records(remover, work.host)
    known = {*kept, *work.written}
    sweep(remover, work.host, work.asset, known, lambda: needed_in(work.catalog, kept))
