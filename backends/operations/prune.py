"""Removing what the policies no longer keep: manifests first, then what only they referred to (docs/retention.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from backends.archive.layout import manifest_key, snapshot_prefix
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import Cancelled, Locked, MastovaultError, NotFound, VaultDenied, VaultError
from backends.model import Asset, JobResult, JobState, SnapshotInfo, rfc3339
from backends.operations.backup_result import failed
from backends.operations.leases import hold_vaults
from backends.operations.mishap import internal
from backends.operations.prune_packs import Unsure, sweep, sweep_records
from backends.operations.prune_plan import PrunePlan, VaultPrune, going_of, needed_in, plan_prune, plan_vault
from backends.progress import Job
from backends.vault.base import Vault
from backends.vault.format import read_format
from backends.vault.lease import Lease, take_lease
from backends.vault.open import open_vault

__all__ = ["PrunePlan", "PruneResult", "VaultPrune", "plan_prune", "prune_after", "prune_host"]

_DOING = "pruned"
_GUARD_SECONDS = 1.0
_DENIED = "these credentials may not delete there, so that nothing is pruned: leave that to the provider's rules"


@dataclass(slots=True)
class PruneResult:
    """What was removed of one asset of a host, over some vaults."""

    removed: dict[str, list[str]] = field(default_factory=dict)
    """Ids of snapshots, by vault."""
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    """What did not go, and why."""

    @property
    def said(self) -> str:
        """One sentence."""
        if not any(self.removed.values()):
            return "nothing had to go"
        parts = [f"{len(ids)} from {vault}" for vault, ids in self.removed.items() if ids]
        count = len({each for ids in self.removed.values() for each in ids})
        return f"removed {count} snapshot{'' if count == 1 else 's'} ({', '.join(parts)}), {self.bytes} bytes"


@dataclass(frozen=True, slots=True)
class _Work:
    """One asset of a host in one vault, under its leases."""

    config: Config
    catalog: Catalog
    vault: Vault
    host: str
    asset: Asset
    lease: Lease
    """The lease of those who write; nobody adds a snapshot while we hold it."""
    check: Callable[[], None]
    """Raises when a lease was lost, or the operator asked to stop."""
    log: Callable[[str], None]
    result: PruneResult


def prune_host(
    config: Config,
    paths: Paths,
    host: str,
    jobs: Mapping[Asset, Job],
    run_id: str,
    on_result: Callable[[JobResult], None] = lambda _result: None,
    *,
    vaults: Sequence[str] = (),
) -> list[JobResult]:
    """Prune the snapshots of a host in its vaults; asset by asset, vault by vault.

    Args:
        config: the policies.
        paths: where state and cache are.
        host: whose snapshots.
        jobs: where each asset reports to; these assets are pruned.
        run_id: the run this belongs to.
        on_result: told of each result as soon as it is known.
        vaults: only there; empty means every vault.

    Returns:
        One result for each asset, in order of importance. Faults are results, never raised.
    """
    catalog = Catalog(paths.cache_dir, config.signers)
    results = []
    opened, lacking = _open(config, vaults or tuple(config.vaults))
    try:
        for asset in (each for each in Asset if each in jobs):
            result = _job(config, catalog, opened, lacking, host, asset, jobs[asset], run_id)
            results.append(result)
            on_result(result)
    finally:
        for vault in opened:
            vault.close()
    return results


def prune_after(
    config: Config,
    vaults: Sequence[Vault],
    host: str,
    asset: Asset,
    leases: Mapping[str, Lease],
    catalog: Catalog,
    log: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
    run: str = "",
) -> PruneResult:
    """Prune one asset under the leases of the backup that has just succeeded; a vault's fault is only logged.

    Args:
        config: the policies.
        vaults: the vaults that took the backup; the catalogue has just been brought up to date with them.
        host: the host.
        asset: the asset that was backed up; of the others nothing goes.
        leases: the leases of those who write, by vault.
        catalog: the catalogue.
        log: told what went.
        check: raises when the operator asked to stop.
        run: the backup's run.
    """
    result = PruneResult()
    for vault in vaults:
        lease = leases[vault.name]
        try:
            with ExitStack() as stack:
                other = take_lease(vault, f"{host}/{asset.value}/sync", run=run, doing=_DOING)
                stack.callback(other.release)
                guard = _guard(check, lease, other)
                _prune(_Work(config, catalog, vault, host, asset, lease, guard, log, result))
        except Cancelled:
            raise
        except Locked as error:
            log(f"note: {vault.name} is not pruned now: {error.sentence}")
        except MastovaultError as error:
            result.problems.append(f"{vault.name} was not pruned: {_why(error)}")
            log(f"note: {result.problems[-1]}")
    if any(result.removed.values()):
        log(result.said)
    return result


def _open(config: Config, names: Sequence[str]) -> tuple[list[Vault], dict[str, str]]:
    opened: list[Vault] = []
    lacking: dict[str, str] = {}
    for name in names:
        try:
            opened.append(open_vault(name, config.vaults[name]))
        except MastovaultError as error:
            lacking[name] = error.sentence
    return opened, lacking


def _job(
    config: Config,
    catalog: Catalog,
    vaults: Sequence[Vault],
    lacking: Mapping[str, str],
    host: str,
    asset: Asset,
    job: Job,
    run: str,
) -> JobResult:
    """Prune one asset in every vault; every way it can end is a result."""
    began = time.monotonic()
    result = PruneResult(problems=[f"{name} was not pruned: {why}" for name, why in lacking.items()])
    last: MastovaultError | None = None
    pruned = 0
    try:
        for vault in vaults:
            job.check_cancelled()
            job.step(f"pruning {vault.name}", unit="snapshots")
            try:
                _one(config, catalog, vault, host, asset, job, run, result)
                pruned += 1
            except Cancelled:
                raise
            except MastovaultError as error:
                if isinstance(error, VaultDenied):
                    pruned += 1  # that is how append-only credentials are meant to be
                last = error
                result.problems.append(f"{vault.name} was not pruned: {_why(error)}")
                job.log(result.problems[-1])
        if last is not None and not pruned:
            raise last
    except MastovaultError as error:
        return failed(host, asset, error, began)
    except Exception as error:  # noqa: BLE001 - a bug in one asset must not end the others
        return failed(host, asset, internal(error), began)
    return JobResult(
        host=host,
        asset=asset,
        state=JobState.DONE,
        bytes=result.bytes,
        seconds=time.monotonic() - began,
        in_part=bool(result.problems),
        warnings=tuple(result.problems),
        vaults=tuple(name for name, ids in result.removed.items() if ids),
        detail=result.said,
    )


def _one(
    config: Config, catalog: Catalog, vault: Vault, host: str, asset: Asset, job: Job, run: str, result: PruneResult
) -> None:
    """Prune one asset in one vault. Raises what stops it."""
    if read_format(vault) is None:
        return
    with (
        hold_vaults([vault], host, asset, run, _DOING, job.log) as writing,
        hold_vaults([vault], host, asset, run, _DOING, job.log, kind="sync") as syncing,
    ):
        lease, other = writing.leases[vault.name], syncing.leases[vault.name]
        status = catalog.refresh_vault(vault)
        if status.error:
            raise VaultError(status.error, "Try again when the vault answers.")
        guard = _guard(job.check_cancelled, lease, other)
        _prune(_Work(config, catalog, vault, host, asset, lease, guard, job.log, result), job)
    catalog.refresh_vault(vault)


def _guard(check: Callable[[], None], *leases: Lease) -> Callable[[], None]:
    """Make sure that we may still remove something; the vault is asked at most once a second."""
    asked = [-_GUARD_SECONDS]

    def guard() -> None:
        check()
        if time.monotonic() - asked[0] >= _GUARD_SECONDS:
            for lease in leases:
                lease.check()
            asked[0] = time.monotonic()

    return guard


def _prune(work: _Work, job: Job | None = None) -> None:
    """Remove what goes of an asset, then what nothing refers to any more. Raises what stops it."""
    now = work.lease.now()
    plan = plan_vault(work.config, work.catalog, work.host, work.vault.name, now)
    gone = work.result.removed.setdefault(work.vault.name, [])
    kept = {verdict.snapshot.id for verdict in plan.verdicts if verdict.keep} if plan else set()
    for snapshot in going_of(plan.verdicts, work.asset) if plan else ():
        why = _remove(work, snapshot)
        if why:
            work.log(f"{snapshot.id} stays in {work.vault.name}: {why}")
            kept.add(snapshot.id)
            continue
        gone.append(snapshot.id)
        work.log(f"removed {snapshot.id} from {work.vault.name}")
        if job is not None:
            job.advance(1)
    _sweep(work, kept)


def _remove(work: _Work, snapshot: SnapshotInfo) -> str:
    """Remove a snapshot, its manifest first, so that nothing torn is ever listed; returns why it stays."""
    vault, key = work.vault, manifest_key(snapshot.id)
    try:
        until = vault.locked_until(key)
    except NotFound:
        until = None
    if until is not None and until > work.lease.now():
        return f"it is under an Object Lock until {rfc3339(until)}"
    work.check()
    vault.delete(key)
    for stored in list(vault.list(snapshot_prefix(snapshot.id))):
        vault.delete(stored.key)
        work.result.bytes += stored.bytes
    return ""


def _sweep(work: _Work, kept: Collection[str]) -> None:
    """Remove what nothing refers to; what cannot be judged stays, and is said."""
    if not work.lease.knows_time:
        work.log(f"nothing is judged by its age: {work.vault.name} has not shown its clock yet")
        return
    now = work.lease.now()
    try:
        known = {*kept, *work.lease.previous}
        spared = needed_in(work.catalog, kept)
        work.result.bytes += sweep(work.vault, work.host, work.asset, now, known, spared, work.check)
        if work.asset is Asset.DATABASE:
            sweep_records(work.vault, work.host, now, work.check)
    except Unsure as error:
        work.result.problems.append(error.sentence)
        work.log(error.sentence)


def _why(error: MastovaultError) -> str:
    return _DENIED if isinstance(error, VaultDenied) else error.sentence
