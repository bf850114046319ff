"""Removing what the policies no longer keep, by hand and after a backup (docs/retention.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import Cancelled, ConfigurationError, Locked, MastovaultError, VaultStalled
from backends.model import Asset, JobResult, JobState
from backends.operations.each_asset import each_asset
from backends.operations.leases import hold_vaults
from backends.operations.locks import hold
from backends.operations.mishap import failure, internal
from backends.operations.prune_carry import PruneResult, Work, carry_out
from backends.operations.prune_plan import PrunePlan, VaultPrune, plan_prune
from backends.operations.removal import MayNotDelete, Unsure
from backends.progress import Job
from backends.vault.base import Vault
from backends.vault.format import read_format
from backends.vault.lease import Lease, take_lease
from backends.vault.open import open_vault

__all__ = ["PrunePlan", "PruneResult", "VaultPrune", "plan_prune", "prune_after", "prune_host"]

_DOING = "pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the jobs of one host share."""

    config: Config
    paths: Paths
    catalog: Catalog
    host: str
    id: str
    vaults: dict[str, Vault] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    """Vaults that cannot be used, and why."""

    def open(self, names: Sequence[str]) -> None:
        """Open vaults by name."""
        for name in names:
            try:
                self.vaults[name] = open_vault(name, self.config.vaults[name])
            except MastovaultError as error:
                self.lacking[name] = error.sentence

    def close(self) -> None:
        """Let go of the vaults."""
        for vault in self.vaults.values():
            vault.close()


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

    def prepare() -> closing[_Run]:
        catalog = Catalog(paths.cache_dir, config.signers)
        work = _Run(config=config, paths=paths, catalog=catalog, host=host, id=run_id)
        work.open(vaults or tuple(config.vaults))
        return closing(work)

    return each_asset(host, jobs, prepare, lambda work, asset: _job(work, asset, jobs[asset]), on_result)


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

    Raises:
        Cancelled: the operator asked to stop.
    """
    result = PruneResult()
    for vault in vaults:
        try:
            with ExitStack() as stack:
                syncing = take_lease(vault, f"{host}/{asset.value}/sync", run=run, doing=_DOING)
                stack.callback(syncing.release)
                carry_out(Work(config, catalog, vault, host, asset, leases[vault.name], syncing, check, log, result))
        except Cancelled:
            raise
        except Locked as error:
            log(f"note: {vault.name} is not pruned now: {error.sentence}")
        except MastovaultError as error:
            result.problems.append(_problem(vault.name, error))
            log(f"note: {result.problems[-1]}")
    if any(result.removed.values()):
        log(result.said)
    return result


def _job(run: _Run, asset: Asset, job: Job) -> JobResult:
    """Prune one asset in every vault; every way it can end is a result."""
    began = time.monotonic()
    result = PruneResult()
    ended: JobResult | None = None
    try:
        if run.host not in run.config.hosts:
            raise ConfigurationError(
                f"no host named {run.host} is configured, so that nothing of it goes", "`mastovault host list`."
            )
        with hold(run.paths.state_dir, run.host, asset, run.id, _DOING):
            _in_every_vault(run, asset, job, result)
    except MastovaultError as error:
        ended = failure(run.host, asset, error, began)
    except Exception as error:  # noqa: BLE001 - a bug in one asset must not end the others
        ended = failure(run.host, asset, internal(error), began)
    ended = ended or JobResult(host=run.host, asset=asset, state=JobState.DONE, in_part=bool(result.problems))
    gone = any(result.removed.values())
    return replace(
        ended,
        bytes=result.bytes,
        seconds=time.monotonic() - began,
        warnings=tuple(result.problems) if ended.state is JobState.DONE else (),
        vaults=tuple(name for name, ids in result.removed.items() if ids),
        detail=result.said if ended.state is JobState.DONE or gone else "",
    )


def _in_every_vault(run: _Run, asset: Asset, job: Job, result: PruneResult) -> None:
    """Raises the last fault when no vault could be pruned."""
    result.problems += [f"{name} was not pruned: {why}" for name, why in run.lacking.items()]
    last: MastovaultError | None = None
    pruned = 0
    for name, vault in list(run.vaults.items()):
        job.check_cancelled()
        job.step(f"pruning {name}", unit="snapshots")
        try:
            _one(run, vault, asset, job, result)
            pruned += 1
        except Cancelled:
            raise
        except MastovaultError as error:
            if isinstance(error, MayNotDelete | Unsure):
                pruned += 1  # that is how append-only credentials are meant to be; and packs are not all there is
            else:
                last = error
            if isinstance(error, VaultStalled):  # what hangs would hang for the next asset, too
                run.lacking[name] = error.sentence
                del run.vaults[name]
            result.problems.append(_problem(name, error))
            job.log(result.problems[-1])
    if last is not None and not pruned:
        raise last


def _one(run: _Run, vault: Vault, asset: Asset, job: Job, result: PruneResult) -> None:
    """Prune one asset in one vault. Raises what stops it."""
    if read_format(vault) is None:
        return
    with (
        hold_vaults([vault], run.host, asset, run.id, _DOING, job.log) as held,
        hold_vaults([vault], run.host, asset, run.id, _DOING, job.log, kind="sync") as also,
    ):
        writing, syncing = held.leases[vault.name], also.leases[vault.name]
        work = Work(
            run.config,
            run.catalog,
            vault,
            run.host,
            asset,
            writing,
            syncing,
            job.check_cancelled,
            job.log,
            result,
            job,
        )
        run.catalog.refresh_vault(vault, work.written)
        before = result.bytes, sum(map(len, result.removed.values()))
        try:
            carry_out(work)
        finally:
            if before != (result.bytes, sum(map(len, result.removed.values()))):
                run.catalog.refresh_vault(vault, work.written)


def _problem(vault: str, error: MastovaultError) -> str:
    if isinstance(error, MayNotDelete | Unsure):
        return error.sentence
    return f"{vault} was not pruned: {error.sentence}"
