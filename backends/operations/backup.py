"""Backing up the assets of one host: what will be done, and doing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime

from backends.archive.writer import begin_snapshot
from backends.assets.base import BackupContext, Plan
from backends.assets.registry import handler
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.connection.base import Connection
from backends.errors import Cancelled, ConnectionFailed, Locked, MastovaultError, VaultStalled
from backends.mastodon.installation import Installation
from backends.model import Asset, Attempt, JobResult, JobState, Secret, utc_now
from backends.operations import backup_result as result_of
from backends.operations.backup_work import Work, begin, previous, refresh, require_ready, signer
from backends.operations.each_asset import each_asset
from backends.operations.leases import Held, hold_vaults
from backends.operations.line import ATTEMPTS, pause
from backends.operations.link import Link
from backends.operations.locks import hold
from backends.operations.mishap import failure, internal
from backends.operations.noting import NotingJob, RecordingWriter
from backends.operations.prune import prune_after
from backends.progress import Job
from backends.vault.base import Vault

__all__ = ["back_up_host", "plan", "require_ready"]

Watcher = Callable[[JobResult], None]
_PATIENCE = 10.0
"""Seconds to wait for another machine that holds a lease: one that prunes is soon done."""


def plan(
    config: Config, host: str, assets: Sequence[Asset], *, ask: Callable[[str], Secret | None] | None = None
) -> list[Plan]:
    """What a backup would do, asset by asset; nothing is changed on the host or in a vault.

    Raises:
        ConfigurationError, ConnectionFailed, LoginRefused, DiscoveryFailed: why no plan can be made.
    """
    require_ready(config, host)
    link = Link(host, config.hosts[host])
    try:
        connection, installation = link.get(_quiet, time.sleep, ask)
        plans = []
        for asset in assets:
            try:
                plans.append(handler(asset).plan_backup(connection, installation))
            except MastovaultError as error:
                plans.append(Plan(host=host, asset=asset, steps=(), blocked=error.sentence))
        return plans
    finally:
        link.close()


def back_up_host(
    config: Config,
    paths: Paths,
    host: str,
    assets: Sequence[Asset],
    jobs: Mapping[Asset, Job],
    run_id: str,
    at: datetime | None = None,
    on_result: Watcher = lambda _result: None,
) -> list[JobResult]:
    """Back up some assets of one host; one that fails does not keep the others from being saved.

    Args:
        config: the configuration.
        paths: where state and cache are.
        host: the host's name.
        assets: what to back up; done in order of importance.
        jobs: where each asset reports to.
        run_id: the run this belongs to.
        at: the time the snapshots carry; now, unless history is being made (which prunes nothing).
        on_result: told of each result as soon as it is known.

    Returns:
        One result for each asset, in order of importance. Faults of hosts and vaults are results, never raised.
    """

    def prepare() -> closing[Work]:
        require_ready(config, host)
        first = next(asset for asset in Asset if asset in assets)
        return closing(begin(config, paths, host, jobs[first], run_id, at))

    return each_asset(
        host,
        assets,
        prepare,
        lambda work, asset: _job(work, asset, jobs[asset]),
        on_result,
        at_once=config.limits.jobs_per_host,
    )


def _job(work: Work, asset: Asset, job: Job) -> JobResult:
    """Back up one asset; every way it can end is a result."""
    began, at = time.monotonic(), work.at or utc_now()
    try:
        with hold(work.paths.state_dir, work.host, asset, work.run):
            job.check_cancelled()
            result = _under_lease(work, asset, job, lambda ended: _noted(work, ended, began, at, job))
    except MastovaultError as error:
        result, _ = _noted(work, failure(work.host, asset, _cancelled(job) or error, began), began, at, job)
    except Exception as error:  # noqa: BLE001 - a bug in one asset must not end the others
        result, _ = _noted(work, failure(work.host, asset, _cancelled(job) or internal(error), began), began, at, job)
    return result


def _under_lease(work: Work, asset: Asset, job: Job, noted: Callable[[JobResult], tuple[JobResult, bool]]) -> JobResult:
    """Back up while no other machine does; what is too old goes after a success that was noted."""
    noting = NotingJob(job)
    job.step("taking the lease")
    with ExitStack() as stack:
        held = _take_leases(stack, work, asset, job)
        result, fresh = noted(_with_retries(work, asset, noting, held))
        good = result.snapshot and not result.in_part and work.at is None
        if good and fresh and work.config.retention.after_backup:
            _prune(work, asset, job, held)
    return result


def _noted(work: Work, result: JobResult, began: float, at: datetime, job: Job) -> tuple[JobResult, bool]:
    """Record how it ended; returns it, and whether the cache is up to date with that."""
    result = replace(result, seconds=time.monotonic() - began)
    # What is locked is being backed up: this was no attempt of its own.
    if result.state is not JobState.SKIPPED and result.exit_code != Locked.exit_code:
        _record(work, result, at, job)
    return result, refresh(work.catalog, work.vaults, job, [result])


def _take_leases(stack: ExitStack, work: Work, asset: Asset, job: Job) -> Held:
    """The leases of an asset, after a little patience. Raises `Locked`, `VaultError`, `Cancelled`."""
    until = time.monotonic() + _PATIENCE
    told = False
    while True:
        try:
            return stack.enter_context(hold_vaults(work.vaults, work.host, asset, work.run, log=job.log))
        except Locked as error:
            if time.monotonic() >= until:
                raise
            if not told:
                job.log(f"{error.sentence}; waiting a moment")
                told = True
        _wait(job, 1.0)


def _prune(work: Work, asset: Asset, job: Job, held: Held) -> None:
    """What no policy keeps any more goes; that it did not work is no fault of the backup. The cache is up to date."""
    job.step("pruning")
    touched = held.vaults
    try:
        pruned = prune_after(
            work.config,
            held.vaults,
            work.host,
            asset,
            held.leases,
            work.catalog,
            job.log,
            check=job.check_cancelled,
            run=work.run,
        )
        touched = [vault for vault in held.vaults if pruned.removed.get(vault.name)]
    except Cancelled:
        job.log("cancelled while pruning; the backup is whole")
    except Exception as error:  # noqa: BLE001 - the backup is made, whatever became of the old ones
        why = error.sentence if isinstance(error, MastovaultError) else internal(error).sentence
        job.log(f"note: what no policy keeps was not removed: {why}")
    refresh(work.catalog, touched, job)


def _with_retries(work: Work, asset: Asset, job: NotingJob, held: Held) -> JobResult:
    for attempt in range(1, ATTEMPTS + 1):
        job.step("connecting")
        connection, installation = work.link.get(job.log, lambda seconds: _wait(job, seconds), job.ask)
        try:
            return _back_up(work, asset, job, held, connection, installation)
        except ConnectionFailed as error:
            job.check_cancelled()
            work.link.lose(connection)
            if attempt == ATTEMPTS or not error.retryable:
                raise
            job.log(f"{error.sentence}; starting this asset again ({attempt + 1} of {ATTEMPTS})")
            job.forget_warnings()
            _wait(job, pause(attempt))
    raise AssertionError("unreachable")


def _back_up(
    work: Work, asset: Asset, job: NotingJob, held: Held, connection: Connection, installation: Installation
) -> JobResult:
    for warning in installation.warnings:
        job.log(f"note: {warning}")

    def stalled(vault: Vault, error: VaultStalled) -> None:
        held.abandon(vault, error.sentence)
        work.leave(vault, error.sentence)

    snapshot = begin_snapshot(
        held.vaults,
        host=work.host,
        asset=asset,
        run=work.run,
        recipients=work.recipients,
        at=work.at,
        log=job.log,
        sign=signer(work.config, job),
        guard=held.check,
        stalled=stalled,
    )
    job.begin(snapshot.id)
    try:
        context = BackupContext(
            connection=connection,
            installation=installation,
            job=job,
            include_cache=work.config.hosts[work.host].include_cache,
            previous=previous(work, asset, job),
        )
        outcome = handler(asset).back_up(context, RecordingWriter(snapshot, job))
        job.check_cancelled()
        if outcome.skipped is not None or outcome.unchanged is not None:
            snapshot.discard()
            return result_of.without_copy(work, asset, job, held, outcome)
        job.step("committing")
        held.wrote(snapshot.id)
        manifest = snapshot.commit(outcome.facts, warnings=job.warnings)
    except BaseException:
        snapshot.discard()
        raise
    return result_of.stored(work, asset, job, held, snapshot, manifest)


def _record(work: Work, result: JobResult, at: datetime, job: Job) -> None:
    attempt = Attempt(
        host=result.host,
        asset=result.asset,
        run=work.run,
        at=at,
        seconds=result.seconds,
        state=result.state,
        snapshot=result.snapshot,
        bytes=result.bytes,
        error=result.error,
        in_part=result.in_part,
    )
    result_of.record(work, attempt, job)


def _cancelled(job: Job) -> Cancelled | None:
    """What ended remote processes raise after a cancel is a consequence, not the reason."""
    try:
        job.check_cancelled()
    except Cancelled as cancelled:
        return cancelled
    return None


def _wait(job: Job, seconds: float) -> None:
    job.check_cancelled()
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        job.check_cancelled()
        time.sleep(min(0.1, left))


def _quiet(line: str) -> None:
    pass
