"""Snapshots as files on this machine: what standard tools take, in a directory of its own."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import Cancelled, ConfigurationError, Damaged, Locked, MastovaultError, VaultError
from backends.model import Asset, JobResult, JobState, Secret, SnapshotInfo, utc_now
from backends.operations.choose import openable, sources
from backends.operations.extract_files import Written, explained, remove, write_asset
from backends.operations.extract_readme import readme
from backends.operations.mishap import failure, internal
from backends.operations.reading import reading
from backends.operations.trust_words import require_trusted, trust_findings
from backends.progress import Job
from backends.restore.database_room import staged_need
from backends.restore.media_host import size_of
from backends.restore.media_source import subtree_of
from backends.restore.plan import Copy, Finding, Phase, RestorePlan, RestoreRequest, Space, StepInfo
from backends.restore.source import Source
from backends.untrusted import clean

OnResult = Callable[[JobResult], None]
_PART = ".mastovault-extract.part"
_OWN = frozenset({_PART, "lost+found"})
_README = "README.txt"
_WHAT = {
    Asset.DATABASE: "database.pgdump and globals.sql",
    Asset.SECRETS: "environment/: the settings and secrets, readable by you alone",
    Asset.MEDIA: "media/: the tree with its modes and times",
    Asset.REDIS: "dump.rdb",
}
_BYTES_A_SECOND = 80_000_000


def plan_extract(
    config: Config,
    paths: Paths,
    snapshots: Mapping[Asset, str],
    directory: Path,
    *,
    subtree: str = "",
    accept: Collection[str] = (),
    ask: Callable[[str], Secret | None] | None = None,
) -> RestorePlan:
    """What would be written, whether it fits, and what is in the way. Nothing is written.

    Raises:
        ConfigurationError, KeyUnavailable, NotFound, VaultError: a snapshot cannot be read.
    """
    catalog = Catalog(paths.cache_dir, config.signers)
    found = sources(config, catalog, snapshots, ask)
    known = {snapshot.id: snapshot for snapshot in catalog.snapshots()}
    need = {asset: _need(source) for asset, source in found.items()}
    now = utc_now()
    request = RestoreRequest(
        id=f"{now.astimezone(UTC):%Y%m%dt%H%M%S}",
        host=next(iter(found.values())).manifest.host if found else "",
        snapshots=dict(snapshots),
        subtree=subtree,
        accept=tuple(accept),
        at=now,
    )
    free = _free(directory)
    steps = tuple(_step(asset, directory, size) for asset, size in need.items())
    return RestorePlan(
        request=request,
        target=f"files in {clean(str(directory), 300)} on this machine",
        copies=tuple(_copy(source, known) for source in found.values()),
        steps=steps,
        findings=(
            *trust_findings(found.values(), config.signers),
            *_findings(found, directory, sum(need.values()), free),
        ),
        spaces=(Space(what="files", path=clean(str(directory), 300), need=sum(need.values()), free=free),),
        untouched=("every server",),
        seconds=round(sum(step.seconds or 0 for step in steps), 1),
    )


def extract(
    config: Config,
    paths: Paths,
    snapshots: Mapping[Asset, str],
    directory: Path,
    jobs: Mapping[Asset, Job],
    run_id: str,
    on_result: OnResult = lambda _result: None,
    *,
    subtree: str = "",
    accept: Collection[str] = (),
) -> list[JobResult]:
    """Write snapshots as files into a new or an empty directory, 0700; nothing half-made keeps a final name.

    Args:
        config: the configuration.
        paths: where state and cache are.
        snapshots: one for each asset.
        directory: where to; it is made when it is not there.
        jobs: where each asset reports to.
        run_id: the run this belongs to.
        on_result: told of each result as soon as it is known.
        subtree: media: only what is below this path.
        accept: the words of findings that were typed to go on all the same: `unsigned`, `foreign`, `changed`.

    Returns:
        One result for each asset. Faults are results, never raised.
    """
    began = time.monotonic()
    ordered = [asset for asset in Asset if asset in snapshots]
    results: dict[Asset, JobResult] = {}

    def tell(asset: Asset, result: JobResult) -> None:
        results[asset] = result
        on_result(result)

    try:
        below = subtree_of(subtree)
        first = jobs[ordered[0]]
        first.step("looking")
        with (
            _directory(directory) as part,
            reading(run_id, "extracted", first.log, first.check_cancelled) as leases,
        ):
            catalog = Catalog(paths.cache_dir, config.signers)
            found = sources(config, catalog, snapshots, first.ask, first.log, leases)
            require_trusted(found.values(), config.signers, accept)
            for asset in ordered:
                tell(asset, _one(found[asset], directory, part, jobs[asset], below, run_id))
            if any(result.state is JobState.DONE for result in results.values()):
                _explain(directory, part, [asset for asset in ordered if results[asset].state is JobState.DONE])
    except MastovaultError as error:
        for asset in ordered:
            if asset not in results:
                tell(asset, failure(snapshots[asset].partition("/")[0], asset, error, began))
    return [results[asset] for asset in ordered]


def _one(source: Source, directory: Path, part: Path, job: Job, subtree: bytes, run_id: str) -> JobResult:
    """One asset, tried with each copy of it."""
    began = time.monotonic()
    folder = part / source.asset.value
    try:
        with explained(directory):
            folder.mkdir(mode=0o700)
        written = _from_any_copy(source, folder, job, subtree)
        with explained(directory):
            for name in written.names:
                (folder / name).rename(directory / name)
            _sync(directory)
    except MastovaultError as error:
        return failure(source.manifest.host, source.asset, error, began)
    except Exception as error:  # noqa: BLE001 - one asset must not keep the others from being written
        return failure(source.manifest.host, source.asset, internal(error, f"run {run_id}"), began)
    finally:
        remove(folder)
    return JobResult(
        host=source.manifest.host,
        asset=source.asset,
        state=JobState.DONE,
        snapshot=source.manifest.id,
        bytes=written.bytes,
        seconds=time.monotonic() - began,
        detail=f"written to {clean(str(directory), 200)}: {written.detail}",
    )


def _from_any_copy(source: Source, folder: Path, job: Job, subtree: bytes) -> Written:
    while True:
        try:
            job.check_cancelled()
            return write_asset(source, folder, job, subtree)
        except Cancelled:
            raise
        except VaultError as error:
            if not source.give_up_copy(Damaged(error.sentence, error.next_step)):
                raise
            job.log(f"{error.sentence} Trying the copy in {source.vaults[0].name}.")
            if source.asset is not Asset.MEDIA:  # whose files are checked one by one: the good ones stay
                remove(folder)
                folder.mkdir(mode=0o700)


@contextmanager
def _directory(directory: Path) -> Iterator[Path]:
    """The directory, held, and a place in it for what is not whole yet.

    Raises:
        ConfigurationError: it is not empty, not ours, or no directory.
        Locked: somebody else writes into it.
    """
    made = not directory.exists()
    shown = clean(str(directory), 200)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            f"{shown} cannot be made: {error.strerror}", "Name a new or an empty directory."
        ) from None
    try:
        _hold(handle, directory, shown)
        part = directory / _PART
        with explained(directory):
            os.fchmod(handle, 0o700)
            remove(part)  # of a run that was killed
            part.mkdir(mode=0o700)
        try:
            yield part
        finally:
            remove(part)
            if made and not any(directory.iterdir()):
                directory.rmdir()
    finally:
        os.close(handle)


def _hold(handle: int, directory: Path, shown: str) -> None:
    if os.fstat(handle).st_uid != os.geteuid():
        raise ConfigurationError(f"{shown} belongs to another user", "Name a new directory.")
    if in_the_way(directory):
        raise ConfigurationError(f"{shown} is not empty", "Name a new or an empty directory.")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(f"another run is writing into {shown}", "`mastovault runs` shows it.") from None


def in_the_way(directory: Path) -> list[str]:
    """What is in a directory already, besides what a killed run left."""
    return sorted(path.name for path in directory.iterdir() if path.name not in _OWN)


def _explain(directory: Path, part: Path, assets: list[Asset]) -> None:
    with explained(directory):
        text = part / _README
        text.write_text(readme(assets, {path.name for path in directory.iterdir()}))
        text.chmod(0o600)
        text.rename(directory / _README)
        _sync(directory)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _findings(found: Mapping[Asset, Source], directory: Path, need: int, free: int | None) -> Iterator[Finding]:
    shown = clean(str(directory), 200)
    if directory.exists() and not directory.is_dir():
        yield Finding(level="block", text=f"{shown} is no directory.", way_out="Name a new or an empty directory.")
    elif directory.exists() and in_the_way(directory):
        yield Finding(level="block", text=f"{shown} is not empty.", way_out="Name a new or an empty directory.")
    if free is not None and need > free:
        yield Finding(
            level="block",
            text=f"{size_of(need)} are needed in {shown}, and {size_of(free)} are free.",
            way_out="Free some room, or name a directory on a larger disk.",
        )
    for asset, source in found.items():
        try:
            openable(source)
        except VaultError as error:
            yield Finding(level="block", text=error.sentence, way_out=error.next_step, asset=asset)
    if Asset.SECRETS in found:
        yield Finding(
            level="note",
            text="The secrets are written unencrypted, readable by you alone.",
            way_out="Remove them when they are of no more use.",
            asset=Asset.SECRETS,
        )


def _free(directory: Path) -> int | None:
    """Free bytes where a directory is or will be."""
    for place in (directory, *directory.absolute().parents):
        try:
            known = os.statvfs(place)
        except OSError:
            continue
        return known.f_bavail * known.f_frsize
    return None


def _need(source: Source) -> int:
    """Bytes of all files; of a dump that its host compressed an estimate, for its length was never seen."""
    return sum(
        staged_need(source.manifest.facts, entry.plain_bytes, packed=True)
        if entry.name.startswith("database.pgdump") and not entry.plain_sha256
        else entry.plain_bytes
        for entry in source.manifest.objects
    )


def _step(asset: Asset, directory: Path, size: int) -> StepInfo:
    return StepInfo(
        id=f"{asset.value}.extract",
        asset=asset,
        phase=Phase.STAGE,
        name=f"write {asset.value}",
        what=f"{_WHAT[asset]}, {size_of(size)}, into {clean(str(directory), 200)}",
        seconds=round(0.5 + size / _BYTES_A_SECOND, 1),
    )


def _copy(source: Source, known: Mapping[str, SnapshotInfo]) -> Copy:
    manifest = source.manifest
    info = known.get(manifest.id)
    names = tuple(vault.name for vault in source.vaults)
    at: datetime = manifest.started_at
    return Copy(
        asset=manifest.asset,
        snapshot=manifest.id,
        at=at,
        bytes=manifest.bytes,
        vault=names[0] if names else "",
        vaults=names,
        verified_at=info.verified_at if info else None,
        drilled_at=info.drilled_at if info else None,
        in_part=manifest.in_part,
    )
