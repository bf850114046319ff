"""Verifying: every vault's copy of a snapshot is read again, decrypted and decoded, and what was found is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from backends.archive.layout import SNAPSHOT_ID
from backends.archive.signing import trust_of
from backends.catalog import Catalog, record_check
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, MastovaultError, NotFound, VaultError
from backends.model import Asset, JobResult, JobState, Trust, utc_now
from backends.operations.choose import open_identities
from backends.operations.each_asset import each_asset
from backends.operations.mishap import failure, internal
from backends.operations.proof_copy import CopyReport, check_copy
from backends.operations.reading import reading
from backends.operations.trust_words import distrust, way_out
from backends.progress import Job
from backends.untrusted import clean
from backends.vault.base import Vault
from backends.vault.open import open_vault

OnResult = Callable[[JobResult], None]


def verify_host(
    config: Config,
    paths: Paths,
    host: str,
    snapshots: Mapping[Asset, str],
    jobs: Mapping[Asset, Job],
    run_id: str,
    on_result: OnResult = lambda _result: None,
    *,
    sample: int | None = None,
) -> list[JobResult]:
    """Verify one snapshot of each asset, in every vault that holds it.

    Args:
        config: the configuration; the identity is needed.
        paths: where state and cache are.
        host: whose snapshots they are.
        snapshots: a snapshot's id for each asset.
        jobs: where each asset reports to.
        run_id: the run this belongs to.
        on_result: told of each result as soon as it is known.
        sample: how many objects of each snapshot to read; None reads all.

    Returns:
        One result for each asset, in order of importance. Faults are results, never raised.
    """

    def prepare() -> closing[_Work]:
        require_sane(host, snapshots)
        first = jobs[next(asset for asset in Asset if asset in snapshots)]
        if sample is not None and sample < 1:
            raise ConfigurationError("a sample is at least one object", "Leave it out to read all.")
        identities = open_identities(config, first.ask)
        work = _Work(config, Catalog(paths.cache_dir, config.signers), run_id, identities, sample)
        work.vaults, work.closed = opened(config)
        refresh(work.catalog, work.vaults, first)
        return closing(work)

    def one(work: _Work, asset: Asset) -> JobResult:
        result = _job(work, host, asset, snapshots[asset], jobs[asset])
        refresh(work.catalog, work.vaults, jobs[asset])
        return result

    return each_asset(host, snapshots, prepare, one, on_result)


def opened(config: Config) -> tuple[list[Vault], dict[str, str]]:
    """Every configured vault, and why some cannot be used."""
    vaults: list[Vault] = []
    closed: dict[str, str] = {}
    for name, its in config.vaults.items():
        try:
            vaults.append(open_vault(name, its))
        except MastovaultError as error:
            closed[name] = error.sentence
    return vaults, closed


def refresh(catalog: Catalog, vaults: Sequence[Vault], job: Job) -> None:
    """Bring the cache up to date. A cache that cannot be used keeps nothing from being checked."""
    try:
        for vault in vaults:
            catalog.refresh_vault(vault)
    except MastovaultError as error:
        job.log(f"note: {error.sentence}")


def tool_version() -> str:
    """The version of this program."""
    try:
        return version("mastovault")
    except PackageNotFoundError:
        return "unknown"


@dataclass(slots=True)
class _Work:
    config: Config
    catalog: Catalog
    run: str
    identities: Sequence[Any]
    sample: int | None
    vaults: Sequence[Vault] = ()
    closed: Mapping[str, str] | None = None

    def close(self) -> None:
        """Let go of the vaults."""
        for vault in self.vaults:
            vault.close()


def require_sane(host: str, snapshots: Mapping[Asset, str]) -> None:
    """Raise `ConfigurationError` when these are no snapshots of that host's assets."""
    if not snapshots:
        raise ConfigurationError("no snapshot is named", "`mastovault list` shows the snapshots.")
    for asset, snapshot in snapshots.items():
        if not SNAPSHOT_ID.fullmatch(snapshot) or snapshot.split("/")[:2] != [host, asset.value]:
            raise ConfigurationError(
                f"{clean(snapshot, 120)} is no snapshot of {host}/{asset}", "`mastovault list` shows them."
            )


def _job(work: _Work, host: str, asset: Asset, snapshot: str, job: Job) -> JobResult:
    """Verify one snapshot; every way it can end is a result."""
    began = time.monotonic()
    try:
        job.check_cancelled()
        found = _Found()
        for vault in work.vaults:
            with reading(work.run, "verified", job.log, job.check_cancelled) as leases:
                leases.hold(vault, host, asset)
                _copy(work, vault, snapshot, job, found)
        if not found.reports and not found.away:
            raise NotFound(f"no vault holds {snapshot}", "`mastovault list` shows what there is.")
        result = _judged(work, host, asset, snapshot, found)
    except MastovaultError as error:
        result = failure(host, asset, error, began)
    except Exception as error:  # noqa: BLE001 - a bug in one asset must not end the others
        result = failure(host, asset, internal(error), began)
    return replace(result, snapshot=snapshot, seconds=time.monotonic() - began)


class _Found:
    """What became of each copy."""

    def __init__(self) -> None:
        self.reports: list[CopyReport] = []
        self.away: dict[str, str] = {}
        """Vaults that could not be asked, and why."""
        self.not_recorded: dict[str, str] = {}


def _copy(work: _Work, vault: Vault, snapshot: str, job: Job, found: _Found) -> None:
    """Check one vault's copy, if it has one, and record it there."""
    began, at = time.monotonic(), utc_now()
    sample = work.sample
    if sample is not None and vault.name in _damaged(work.catalog, snapshot):
        job.log(f"all of the copy in {vault.name} is read: a sample does not clear what was found in it before")
        sample = None
    try:
        report = check_copy(vault, snapshot, work.identities, job, sample=sample)
    except NotFound:
        return
    except VaultError as error:
        job.check_cancelled()
        found.away[vault.name] = error.sentence
        job.log(f"the copy in {vault.name} could not be read: {error.sentence}")
        return
    for text in report.problems:
        job.log(f"{vault.name}: {text}")
    found.reports.append(report)
    details = _details(work, report, time.monotonic() - began)
    for name, refused in record_check([vault], snapshot, "verified", at, report.good, details).items():
        found.not_recorded[name] = refused.sentence
        job.log(f"the vault {name} did not take the record of this: {refused.sentence}")


def _damaged(catalog: Catalog, snapshot: str) -> tuple[str, ...]:
    """The vaults in whose copy damage was found and not cleared since."""
    try:
        host, asset, _ = snapshot.split("/")
        known = (info for info in catalog.snapshots(host, Asset(asset)) if info.id == snapshot)
        return next((info.damaged for info in known), ())
    except MastovaultError:
        return ()


def _details(work: _Work, report: CopyReport, seconds: float) -> dict[str, Any]:
    return {
        "run": work.run,
        "tool_version": tool_version(),
        "vault": report.vault,
        # What could not be decoded here was not wholly checked, and clears nothing.
        "whole": report.whole and not report.left_out,
        "sample": None if report.whole else report.objects,
        "objects": report.objects,
        "of": report.of,
        "bytes": report.bytes,
        "files": report.files,
        "seconds": round(seconds, 3),
        "tools": report.tools,
        "problems": report.problems,
        "signature": report.seal.signature if report.seal else "none",
        "signer": report.seal.signer if report.seal else "",
        "left_out": report.left_out,
    }


def _judged(work: _Work, host: str, asset: Asset, snapshot: str, found: _Found) -> JobResult:
    signers = work.config.signers
    bad = [report for report in found.reports if not report.good]
    good = [report for report in found.reports if report.good and _trust(report, signers).good]
    untrusted = [report for report in found.reports if report.good and not _trust(report, signers).good]
    warnings = [
        *dict.fromkeys(text for report in found.reports for text in report.left_out),
        *(f"the copy in {name} could not be read: {why}" for name, why in found.away.items()),
        *(f"the vault {name} cannot be used: {why}" for name, why in (work.closed or {}).items()),
        *(f"the vault {name} did not take the record of this: {why}" for name, why in found.not_recorded.items()),
    ]
    result = JobResult(
        host=host,
        asset=asset,
        state=JobState.DONE if good and not bad and not untrusted else JobState.FAILED,
        snapshot=snapshot,
        bytes=sum(report.bytes for report in found.reports),
        in_part=bool(warnings),
        warnings=tuple(warnings),
        vaults=tuple(report.vault for report in good),
        exit_code=0 if good and not bad and not untrusted else 1,
    )
    if untrusted and not bad:
        return replace(
            result,
            error=_untrusted_words(untrusted, good, signers),
            next_step=way_out(_trust(untrusted[0], signers)),
            detail=_good_words(good),
        )
    if bad:
        return replace(result, error=_bad_words(bad, good), next_step=_way_out(bad, good), detail=_good_words(good))
    if not good:
        name, why = next(iter(found.away.items()))
        return replace(result, error=f"the copy in {name} could not be read: {why}", next_step="Look at that vault.")
    return replace(result, detail=_good_words(good))


def _bad_words(bad: Sequence[CopyReport], good: Sequence[CopyReport]) -> str:
    said = "; ".join(f"the copy in {report.vault} is damaged: {', '.join(report.problems[:2])}" for report in bad)
    others = f"; {_names(good)} {'is' if len(good) == 1 else 'are'} good" if good else ""
    return f"{said}{others}"


def _trust(report: CopyReport, signers: Mapping[str, str]) -> Trust:
    return trust_of(report.seal.signature, report.seal.signer, signers) if report.seal else Trust.CHANGED


def _untrusted_words(untrusted: Sequence[CopyReport], good: Sequence[CopyReport], signers: Mapping[str, str]) -> str:
    """What is wrong with copies whose bytes are those of their manifest."""
    said = "; ".join(
        f"the copy in {report.vault} {distrust(_trust(report, signers), report.seal.signer, signers)}"
        for report in untrusted
        if report.seal
    )
    others = f"; {_names(good)} {'is' if len(good) == 1 else 'are'} good" if good else ""
    return f"{said} (its bytes are whole){others}"


def _way_out(bad: Sequence[CopyReport], good: Sequence[CopyReport]) -> str:
    disks = " and ".join(report.vault for report in bad)
    if good:
        return f"Restores use the good copy. Look at the disk below {disks}, and back it up again."
    return f"Back it up again now, and look at the disk below {disks}."


def _good_words(good: Sequence[CopyReport]) -> str:
    if not good:
        return ""
    first = good[0]
    amount = f"{first.objects} object{'' if first.objects == 1 else 's'}"
    if not first.whole:
        amount = f"{first.objects} of {first.of} objects, by sample,"
    files = f" with {first.files} files" if first.files else ""
    tools = f" ({', '.join(first.tools)})" if first.tools else ""
    return f"{_names(good)} {'is' if len(good) == 1 else 'are'} good: {amount}{files} read and decoded{tools}"


def _names(reports: Sequence[CopyReport]) -> str:
    names = [report.vault for report in reports]
    return f"the cop{'y' if len(names) == 1 else 'ies'} in {' and '.join(names)}"
