"""Filling one vault from others, without the host: snapshots are copied as they are stored, the newest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from backends.archive.layout import MAX_RECORD
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import AlreadyExists, MastovaultError, VaultError, VaultFull, VaultStalled
from backends.model import Asset, JobResult, JobState, utc_now
from backends.operations.backup_work import note_away
from backends.operations.each_asset import each_asset
from backends.operations.leases import Held, hold_vaults
from backends.operations.mishap import failure, internal
from backends.operations.reading import reading
from backends.operations.sync_copy import Copier, NoCopy
from backends.operations.sync_plan import (
    Ends,
    LeftOut,
    SyncItem,
    SyncPair,
    SyncPlan,
    absent_objects,
    free_bytes,
    lacking,
    open_ends,
    plan_sync,
)
from backends.progress import Job
from backends.vault.format import prepare, read_format

__all__ = ["LeftOut", "SyncItem", "SyncPair", "SyncPlan", "plan_sync", "sync_host"]

OnResult = Callable[[JobResult], None]
_SPARE = 16 * 1024 * 1024
"""Bytes that are left free in the target."""
_RECORDS = 1000
"""Records of attempts of one asset that are copied at once, the newest."""


def sync_host(
    config: Config,
    paths: Paths,
    host: str,
    jobs: Mapping[Asset, Job],
    run_id: str,
    on_result: OnResult = lambda _result: None,
    *,
    source: str | None,
    target: str,
    everything: bool = False,
) -> list[JobResult]:
    """Copy what a vault lacks of a host from other vaults; asset by asset, the newest snapshots first.

    Args:
        config: the configuration. No key is needed.
        paths: where state and cache are.
        host: whose snapshots.
        jobs: where each asset reports to; these assets are copied.
        run_id: the run this belongs to.
        on_result: told of each result as soon as it is known.
        source: the vault to copy from; None takes each snapshot from whichever has a good copy.
        target: the vault to fill.
        everything: also snapshots whose writer is not trusted.

    Returns:
        One result for each asset, in order of importance. Faults are results, never raised.
    """

    def prepare() -> closing[Ends]:
        first = jobs[next(asset for asset in Asset if asset in jobs)]
        first.step("looking at the vaults")
        return closing(open_ends(config, paths, source, target, first.log))

    def one(ends: Ends, asset: Asset) -> JobResult:
        return _job(_Work(ends, host, asset, jobs[asset], run_id, everything, source is not None))

    return each_asset(host, jobs, prepare, one, on_result)


@dataclass(slots=True)
class _Work:
    """One asset's part of a sync."""

    ends: Ends
    host: str
    asset: Asset
    job: Job
    run: str
    everything: bool
    chosen: bool
    copied: list[str] = field(default_factory=list)
    """Ids of the snapshots that are in the target now."""
    left: list[LeftOut] = field(default_factory=list)
    full: bool = False
    """The target has no room for the next snapshot."""
    damaged: set[str] = field(default_factory=set)
    """Vaults in which damage was found on the way."""


def _job(work: _Work) -> JobResult:
    """Fill the target with one asset; every way it can end is a result."""
    began = time.monotonic()
    job = work.job
    try:
        job.check_cancelled()
        if work.ends.stalled is not None:
            raise work.ends.stalled
        job.step("looking")
        _prepare(work.ends)
        with (
            hold_vaults(
                [work.ends.target], work.host, work.asset, work.run, "copied from another vault", job.log, kind="sync"
            ) as held,
            reading(work.run, "copied to another vault", job.log, job.check_cancelled) as leases,
        ):
            for vault in work.ends.sources.values():
                leases.hold(vault, work.host, work.asset)
            result = _watched(work, held)
    except MastovaultError as error:
        result = failure(work.host, work.asset, error, began)
    except Exception as error:  # noqa: BLE001 - a bug in one asset must not end the others
        result = failure(work.host, work.asset, internal(error), began)
    _refresh(work)
    return replace(result, seconds=time.monotonic() - began)


def _watched(work: _Work, held: Held) -> JobResult:
    """Copy what is lacking; of a target that hangs nothing more is asked. Raises what stops it."""
    try:
        return _fill(work, held)
    except VaultStalled as error:
        work.ends.stalled = error
        held.abandon(work.ends.target, error.sentence)
        note_away(work.ends.catalog, work.ends.target, error.sentence)
        raise


def _prepare(ends: Ends) -> None:
    """Make a new target a vault. Raises `VaultError`."""
    if read_format(ends.target) is not None:
        return
    recipients: Sequence[str] = ends.config.encryption.recipients
    for vault in ends.sources.values():
        found = read_format(vault)
        recipients = recipients or (found.recipients if found else ())
    prepare(ends.target, recipients)


def _fill(work: _Work, held: Held) -> JobResult:
    """Copy what is lacking. Raises what stops it."""
    stored: dict[str, int] = {}
    items, work.left = lacking(
        work.ends,
        work.host,
        [work.asset],
        stored,
        utc_now(),
        everything=work.everything,
        chosen=work.chosen,
    )
    for left in work.left:
        work.job.log(f"not copied: {left.snapshot.id}: {left.why}")
    target = work.ends.target
    copier = Copier(
        ends=work.ends,
        job=work.job,
        run=work.run,
        stored=stored,
        guard=lambda: held.check(target),
        announce=held.wrote,
        damaged=work.damaged,
        everything=work.everything,
    )
    count = f"{len(items)} snapshot{'' if len(items) == 1 else 's'}"
    work.job.step(f"copying {count}", sum(item.bytes for item in items))
    try:
        for item in items:
            work.job.check_cancelled()
            _one(work, copier, item)
        work.job.step("copying records", unit="items")
        _records(work)
    except MastovaultError as error:
        work.job.check_cancelled()
        if work.copied:
            error.reword(f"{error.sentence} ({_said(work.copied)} copied before that)")
        raise
    return _result(work, copier)


def _one(work: _Work, copier: Copier, item: SyncItem) -> None:
    """Copy one snapshot, or say why not. Raises `VaultError` when the target fails."""
    try:
        why = _no_room(work, copier, item)
        if not why:
            copier.copy(item)
    except NoCopy as error:
        why = error.sentence
    if why:
        work.left.append(LeftOut(snapshot=item.snapshot, why=why, amiss=True))
        work.job.log(f"not copied: {item.snapshot.id}: {why}")
        return
    work.copied.append(item.snapshot.id)
    part = " (in part: something was left out when it was made)" if item.snapshot.in_part else ""
    work.job.log(f"copied {item.snapshot.id}{part}")


def _no_room(work: _Work, copier: Copier, item: SyncItem) -> str:
    """Why a snapshot does not fit; an older one does not take the place of one that does not."""
    free = free_bytes(work.ends.target)
    needed = sum(absent_objects(work.ends.catalog, item.snapshot.id, copier.stored).values())
    work.full = work.full or (free is not None and needed > 0 and needed > free - _SPARE)
    return f"there is no room for it: it takes {needed} bytes, {free} are free" if work.full else ""


def _records(work: _Work) -> None:
    """Copy the records of attempts, so that both vaults tell the same history. Nothing hangs on it."""
    target = work.ends.target
    for name, vault in work.ends.sources.items():
        try:
            keys = work.ends.catalog.attempts_beyond(name, target.name, work.host, work.asset)[:_RECORDS]
            for key, data in vault.read_many(keys, MAX_RECORD):
                work.job.check_cancelled()
                if not isinstance(data, VaultError) and len(data) <= MAX_RECORD:
                    _put(work, key, data)
        except VaultError as error:
            work.job.log(f"note: records of runs were not copied from {name}: {error.sentence}")
            return


def _put(work: _Work, key: str, data: bytes) -> None:
    try:
        work.ends.target.put_new(key, data)
    except AlreadyExists:
        return
    work.job.advance(1)


def _result(work: _Work, copier: Copier) -> JobResult:
    target = work.ends.target.name
    amiss = [f"{left.snapshot.id} was not copied: {left.why}" for left in work.left if left.amiss]
    warnings = [
        *amiss,
        *(problem for problem in copier.problems if not any(problem in text for text in amiss)),
        *(f"the vault {name} could not be read: {why}" for name, why in work.ends.away.items()),
    ]
    quiet = sum(not left.amiss for left in work.left)
    also = f"; {quiet} left out: see the log" if quiet else ""
    if work.full and not work.copied:
        raise VaultFull(f"there is no room in {target} for what it lacks", "Make room there, or prune.")
    return JobResult(
        host=work.host,
        asset=work.asset,
        state=JobState.DONE,
        snapshot=work.copied[0] if work.copied else None,
        bytes=copier.copied_bytes,
        in_part=bool(warnings),
        warnings=tuple(warnings),
        vaults=(target,),
        detail=f"{_said(work.copied)} copied to {target}{also}" if work.copied else f"{target} lacks nothing{also}",
    )


def _said(copied: Sequence[str]) -> str:
    return f"{len(copied)} snapshot{'' if len(copied) == 1 else 's'}"


def _refresh(work: _Work) -> None:
    """Bring the cache up to date with the target, and with sources in which damage was found."""
    try:
        if work.ends.stalled is None:
            work.ends.catalog.refresh_vault(work.ends.target, work.copied)
        for name in work.damaged:
            if name in work.ends.sources:
                work.ends.catalog.refresh_vault(work.ends.sources[name])
    except MastovaultError as error:
        work.job.log(f"note: {error.sentence}")
