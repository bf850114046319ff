"""Backing up the assets of one host: what will be done, and doing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from backends.archive.keys import normal_recipients
from backends.archive.manifest import Manifest
from backends.archive.signing import Signer, load_signer
from backends.archive.writer import Snapshot, begin_snapshot
from backends.assets.base import BackupContext, Outcome, Plan
from backends.assets.registry import handler
from backends.catalog import Catalog, record_attempt, record_check
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.connection.base import Connection
from backends.errors import (
    Cancelled,
    ConfigurationError,
    ConnectionFailed,
    KeyUnavailable,
    Locked,
    MastovaultError,
)
from backends.mastodon.installation import Installation
from backends.model import Asset, Attempt, JobResult, JobState, Secret, utc_now
from backends.operations.line import ATTEMPTS, pause
from backends.operations.link import Link
from backends.operations.locks import hold
from backends.operations.mishap import internal
from backends.operations.noting import NotingJob, RecordingWriter
from backends.progress import Job
from backends.vault.base import Vault
from backends.vault.format import prepare
from backends.vault.open import open_vault

Watcher = Callable[[JobResult], None]


def require_ready(config: Config, host: str) -> None:
    """Raise `ConfigurationError` when a backup of this host cannot even begin."""
    if host not in config.hosts:
        raise ConfigurationError(f"no host named {host} is configured", "`mastovault host list` shows them.")
    if not config.encryption.recipients:
        raise ConfigurationError("nobody could read the backups: there is no recipient", "Run `mastovault key new`.")
    if not config.vaults_of(host):
        raise ConfigurationError(
            "there is no vault to keep the backups in", "`mastovault vault add NAME DIRECTORY` adds one."
        )


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
    on_result: Watcher | None = None,
) -> list[JobResult]:
    """Back up some assets of one host; one that fails does not keep the others from being saved.

    Args:
        config: the configuration.
        paths: where state and cache are.
        host: the host's name.
        assets: what to back up; done in order of importance.
        jobs: where each asset reports to.
        run_id: the run this belongs to.
        at: the time the snapshots carry; now, unless history is being made.
        on_result: told of each result as soon as it is known.

    Returns:
        One result for each asset, in order of importance. Faults of hosts and vaults are results, never raised.
    """
    ordered = [asset for asset in Asset if asset in assets]
    began = time.monotonic()
    try:
        require_ready(config, host)
        work = _prepare(config, paths, host, jobs[ordered[0]], run_id, at)
    except MastovaultError as error:
        results = [_failed(host, asset, error, began) for asset in ordered]
        for result in results:
            _tell(on_result, result)
        return results
    try:
        with ThreadPoolExecutor(config.limits.jobs_per_host, thread_name_prefix="job") as pool:
            return list(pool.map(lambda asset: _job(work, asset, jobs[asset], on_result), ordered))
    finally:
        work.link.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the jobs of one host share. `lacking` are the vaults that could not be opened, and why."""

    config: Config
    paths: Paths
    host: str
    run: str
    at: datetime | None
    link: Link
    vaults: tuple[Vault, ...]
    lacking: Mapping[str, str]
    catalog: Catalog


def _prepare(config: Config, paths: Paths, host: str, job: Job, run: str, at: datetime | None) -> _Work:
    recipients = normal_recipients(config.encryption.recipients)
    catalog = Catalog(paths.cache_dir)
    vaults: list[Vault] = []
    lacking: dict[str, str] = {}
    error: MastovaultError | None = None
    for name in config.vaults_of(host):
        try:
            vault = open_vault(name, config.vaults[name])
            prepare(vault, recipients)
            vaults.append(vault)
        except MastovaultError as failure:
            error = failure
            lacking[name] = failure.sentence
            job.log(f"the vault {name} cannot be used: {failure.sentence}")
    if not vaults and error is not None:
        raise error
    _refresh(catalog, vaults, job)
    return _Work(
        config=config,
        paths=paths,
        host=host,
        run=run,
        at=at,
        link=Link(host, config.hosts[host]),
        vaults=tuple(vaults),
        lacking=lacking,
        catalog=catalog,
    )


def _job(work: _Work, asset: Asset, job: Job, on_result: Watcher | None) -> JobResult:
    """Back up one asset; every way it can end is a result."""
    began, at = time.monotonic(), work.at or utc_now()
    noting = NotingJob(job)
    try:
        with hold(work.paths.state_dir, work.host, asset, work.run):
            job.check_cancelled()
            result = _with_retries(work, asset, noting)
    except MastovaultError as error:
        result = _failed(work.host, asset, _cancelled(job) or error, began)
    except Exception as error:  # noqa: BLE001 - a bug in one asset must not end the others
        result = _failed(work.host, asset, _cancelled(job) or internal(error), began)
    result = replace(result, seconds=time.monotonic() - began)
    # What is locked is being backed up: this was no attempt of its own.
    if result.state is not JobState.SKIPPED and result.exit_code != Locked.exit_code:
        _record(work, result, at, job)
    _refresh(work.catalog, work.vaults, job)
    _tell(on_result, result)
    return result


def _with_retries(work: _Work, asset: Asset, job: NotingJob) -> JobResult:
    for attempt in range(1, ATTEMPTS + 1):
        job.step("connecting")
        connection, installation = work.link.get(job.log, lambda seconds: _wait(job, seconds), job.ask)
        try:
            return _back_up(work, asset, job, connection, installation)
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
    work: _Work, asset: Asset, job: NotingJob, connection: Connection, installation: Installation
) -> JobResult:
    for warning in installation.warnings:
        job.log(f"note: {warning}")
    recipients = normal_recipients(work.config.encryption.recipients)
    snapshot = begin_snapshot(
        work.vaults,
        host=work.host,
        asset=asset,
        run=work.run,
        recipients=recipients,
        at=work.at,
        log=job.log,
        sign=_signer(work.config, job),
    )
    job.begin(snapshot.id)
    try:
        context = BackupContext(
            connection=connection,
            installation=installation,
            job=job,
            include_cache=work.config.hosts[work.host].include_cache,
            previous=_previous(work, asset, recipients, job),
        )
        outcome = handler(asset).back_up(context, RecordingWriter(snapshot, job))
        job.check_cancelled()
        if outcome.skipped is not None or outcome.unchanged is not None:
            snapshot.discard()
            return _without_copy(work, asset, job, outcome)
        job.step("committing")
        manifest = snapshot.commit(outcome.facts, warnings=job.warnings)
    except BaseException:
        snapshot.discard()
        raise
    return _stored(work, asset, job, snapshot, manifest)


def _signer(config: Config, job: Job) -> Signer | None:
    """What signs the manifest; a copy that nobody signed is better than none, so a lost key is only a warning."""
    path = config.encryption.signing_key
    if path is None:
        return None
    try:
        return load_signer(path.expanduser())
    except KeyUnavailable as error:
        job.warn(f"the snapshot is not signed: {error.sentence}")
        return None


def _refresh(catalog: Catalog, vaults: Sequence[Vault], job: Job) -> None:
    """Bring the cache up to date. A cache that cannot be used is no reason to make no backup."""
    try:
        for vault in vaults:
            catalog.refresh_vault(vault)
    except MastovaultError as error:
        job.log(f"note: {error.sentence}")


def _previous(work: _Work, asset: Asset, recipients: Sequence[str], job: Job) -> Manifest | None:
    """The newest good manifest; for secrets none when a new copy is needed anyway.

    That is when a vault lacks it, or not all recipients can read it: an unchanged copy would then not be good enough.
    """
    try:
        good = (snapshot for snapshot in work.catalog.snapshots(work.host, asset) if not snapshot.verify_failed)
        newest = next(good, None)
        manifest = work.catalog.manifest(newest.id) if newest else None
    except MastovaultError as error:
        job.log(f"note: what is there already is not known: {error.sentence}")
        return None
    if newest is None or manifest is None:
        return None
    if asset is Asset.SECRETS:
        everywhere = {vault.name for vault in work.vaults} <= set(newest.vaults)
        readable = set(manifest.recipients) == set(recipients)
        if not everywhere or not readable:
            return None
    return manifest


def _without_copy(work: _Work, asset: Asset, job: NotingJob, outcome: Outcome) -> JobResult:
    if outcome.unchanged is None:
        job.log(f"nothing to copy: {outcome.skipped}")
        return JobResult(host=work.host, asset=asset, state=JobState.SKIPPED, warnings=(outcome.skipped or "",))
    missing = record_check(work.vaults, outcome.unchanged, "unchanged", work.at or utc_now(), True, {"run": work.run})
    warnings = [*job.warnings, *_lacks(work, {name: error.sentence for name, error in missing.items()})]
    return JobResult(
        host=work.host,
        asset=asset,
        state=JobState.DONE,
        snapshot=outcome.unchanged,
        in_part=bool(warnings),
        warnings=tuple(warnings),
        vaults=tuple(vault.name for vault in work.vaults),
    )


def _stored(work: _Work, asset: Asset, job: NotingJob, snapshot: Snapshot, manifest: Manifest) -> JobResult:
    warnings = [*job.warnings, *_lacks(work, {name: error.sentence for name, error in snapshot.lacking.items()})]
    return JobResult(
        host=work.host,
        asset=asset,
        state=JobState.DONE,
        snapshot=manifest.id,
        bytes=manifest.bytes,
        in_part=bool(warnings),
        warnings=tuple(warnings),
        vaults=snapshot.vaults,
    )


def _lacks(work: _Work, dropped: Mapping[str, str]) -> list[str]:
    return [f"the vault {name} lacks it: {why}" for name, why in {**work.lacking, **dropped}.items()]


def _record(work: _Work, result: JobResult, at: datetime, job: Job) -> None:
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
    for name, error in record_attempt(work.vaults, attempt).items():
        job.log(f"the vault {name} did not take the record of this attempt: {error.sentence}")


def _failed(host: str, asset: Asset, error: MastovaultError, began: float) -> JobResult:
    cancelled = isinstance(error, Cancelled)
    return JobResult(
        host=host,
        asset=asset,
        state=JobState.CANCELLED if cancelled else JobState.FAILED,
        seconds=time.monotonic() - began,
        error=error.sentence,
        next_step=error.next_step or None,
        exit_code=error.exit_code,
    )


def _cancelled(job: Job) -> Cancelled | None:
    """What ended remote processes raise after a cancel is a consequence, not the reason."""
    try:
        job.check_cancelled()
    except Cancelled as cancelled:
        return cancelled
    return None


def _tell(on_result: Watcher | None, result: JobResult) -> None:
    if on_result is not None:
        on_result(result)


def _wait(job: Job, seconds: float) -> None:
    job.check_cancelled()
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        job.check_cancelled()
        time.sleep(min(0.1, left))


def _quiet(line: str) -> None:
    pass
