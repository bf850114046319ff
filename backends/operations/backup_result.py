"""How one asset's backup ended, as a value and as a record in the vaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from backends.archive.manifest import Manifest
from backends.archive.writer import Snapshot
from backends.assets.base import Outcome
from backends.catalog import record_attempt, record_check
from backends.model import Asset, Attempt, JobResult, JobState, utc_now
from backends.operations.backup_work import Work
from backends.operations.leases import Held
from backends.operations.noting import NotingJob
from backends.progress import Job


def stored(work: Work, asset: Asset, job: NotingJob, held: Held, snapshot: Snapshot, manifest: Manifest) -> JobResult:
    """A snapshot was made; in part when something was left out or a vault lacks it."""
    dropped = {name: error.sentence for name, error in snapshot.lacking.items()}
    warnings = [*job.warnings, *_lacks(work, held, dropped, snapshot.vaults)]
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


def without_copy(work: Work, asset: Asset, job: NotingJob, held: Held, outcome: Outcome) -> JobResult:
    """No copy was needed: the provider keeps it, or the host still holds what the newest snapshot does."""
    if outcome.unchanged is None:
        job.log(f"nothing to copy: {outcome.skipped}")
        return JobResult(host=work.host, asset=asset, state=JobState.SKIPPED, warnings=(outcome.skipped or "",))
    missing = record_check(held.vaults, outcome.unchanged, "unchanged", work.at or utc_now(), True, {"run": work.run})
    dropped = {name: error.sentence for name, error in missing.items()}
    names = tuple(vault.name for vault in held.vaults if vault.name not in missing)
    warnings = [*job.warnings, *_lacks(work, held, dropped, names)]
    return JobResult(
        host=work.host,
        asset=asset,
        state=JobState.DONE,
        snapshot=outcome.unchanged,
        in_part=bool(warnings),
        warnings=tuple(warnings),
        vaults=names,
    )


def record(work: Work, attempt: Attempt, job: Job) -> None:
    """Leave a record of the attempt in every vault; one that does not take it is only said."""
    for name, error in record_attempt(work.vaults, attempt).items():
        job.log(f"the vault {name} did not take the record of this attempt: {error.sentence}")


def _lacks(work: Work, held: Held, dropped: Mapping[str, str], have: Collection[str]) -> list[str]:
    """Sentences on the vaults that lack a snapshot; one that hung in another job may have it."""
    every = {**work.lacking, **held.lacking, **dropped}
    return [f"the vault {name} lacks it: {why}" for name, why in every.items() if name not in have]
