"""Drills: a restore into a throwaway place, compared with what was backed up, and recorded as proof.

Each asset is proven in its own way: the dump is loaded and compared with its manifest, the secrets open it, a sample of
the media is looked up in it and read, the snapshot of Redis is loaded and its queues are counted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from backends.catalog import Catalog, record_check
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import AssetFailed, Damaged, MastovaultError
from backends.model import Asset, JobResult, JobState, utc_now
from backends.operations.choose import points, sources
from backends.operations.each_asset import each_asset
from backends.operations.fleet_words import took
from backends.operations.mishap import failure, internal
from backends.operations.proof_database import DatabaseProof, prove_database, prove_pair
from backends.operations.proof_media import attachments, match
from backends.operations.proof_place import DrillPlace, Workshop, host_place, require_host
from backends.operations.reading import Reading, reading
from backends.operations.trust_words import require_trusted
from backends.operations.verify import opened, refresh, require_sane, tool_version
from backends.progress import Job
from backends.restore.database_watch import Unsound
from backends.restore.source import Source

OnResult = Callable[[JobResult], None]
_T = TypeVar("_T")
_SHOWN = 2


def drill_host(
    config: Config,
    paths: Paths,
    host: str,
    snapshots: Mapping[Asset, str],
    jobs: Mapping[Asset, Job],
    run_id: str,
    on_result: OnResult = lambda _result: None,
    *,
    on: str | None = None,
    accept: Collection[str] = (),
) -> list[JobResult]:
    """Prove one snapshot of each asset, and record in the vaults what came of it.

    Args:
        config: the configuration; the identity is needed.
        paths: where state and cache are.
        host: whose snapshots they are.
        snapshots: a snapshot's id for each asset.
        jobs: where each asset reports to.
        run_id: the run this belongs to.
        on_result: told of each result as soon as it is known.
        on: the host on whose PostgreSQL the throwaway database is made; None for one of our own, here.
        accept: the words that were typed to load a snapshot whose writer is not trusted: a dump is a program.

    Returns:
        One result for each asset, in order of importance. Faults are results, never raised.
    """

    @contextmanager
    def prepare() -> Iterator[_Drill]:
        require_sane(host, snapshots)
        if on is not None:
            require_host(config, on)
        first = jobs[next(asset for asset in Asset if asset in snapshots)]
        with reading(run_id, "drilled", first.log, first.check_cancelled) as leases, ExitStack() as stack:
            yield _Drill(_prepare(config, paths, snapshots, first, run_id, on, accept, leases), host, stack)

    def one(drill: _Drill, asset: Asset) -> JobResult:
        result = drill.job(asset, jobs[asset])
        refresh(drill.catalog, opened(config)[0], jobs[asset])
        return result

    return each_asset(host, snapshots, prepare, one, on_result)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a drill has at hand. `holding` are the vaults of each snapshot, which take its record."""

    config: Config
    paths: Paths
    catalog: Catalog
    run: str
    id: str
    on: str | None
    sources: Mapping[Asset, Source]
    holding: Mapping[Asset, Sequence[Any]]
    secrets: Source | None
    """Those that belong to the database."""


def _prepare(
    config: Config,
    paths: Paths,
    snapshots: Mapping[Asset, str],
    job: Job,
    run: str,
    on: str | None,
    accept: Collection[str],
    leases: Reading,
) -> _Work:
    catalog = Catalog(paths.cache_dir, config.signers)
    refresh(catalog, opened(config)[0], job)
    wanted = {**_companion(catalog, snapshots), **snapshots}
    found = sources(config, catalog, wanted, job.ask, job.log, leases)
    require_trusted(found.values(), config.signers, accept)
    return _Work(
        config=config,
        paths=paths,
        catalog=catalog,
        run=run,
        id=f"{utc_now():%Y%m%dt%H%M%S}{secrets.token_hex(2)}",
        on=on,
        sources={asset: source for asset, source in found.items() if asset in snapshots},
        holding={asset: tuple(source.vaults) for asset, source in found.items()},
        secrets=found.get(Asset.SECRETS),
    )


def _companion(catalog: Catalog, snapshots: Mapping[Asset, str]) -> dict[Asset, str]:
    """The secrets of the same restore point, for a database that is drilled without them."""
    database = snapshots.get(Asset.DATABASE)
    if database is None or Asset.SECRETS in snapshots:
        return {}
    for point in points(catalog, database.partition("/")[0]):
        its = point.snapshots
        keys = its.get(Asset.SECRETS)
        if Asset.DATABASE in its and its[Asset.DATABASE].id == database and keys and catalog.trust(keys).good:
            return {Asset.SECRETS: keys.id}
    return {}


@dataclass(slots=True, kw_only=True)
class _Verdict:
    """What came of one asset. `proven` is None when nothing was: that is not recorded."""

    proven: bool | None
    said: str
    next_step: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class _Drill:
    """One drill at work: what the assets share is the loaded database."""

    def __init__(self, work: _Work, host: str, stack: ExitStack) -> None:
        self._work, self._host, self._stack = work, host, stack
        self.catalog = work.catalog
        self._workshop: Workshop | None = None
        self._loaded: DrillPlace | None = None
        self._pair: tuple[str, str] = ("not_checked", "")

    def job(self, asset: Asset, job: Job) -> JobResult:
        """Prove one asset; every way it can end is a result, and what says something of the snapshot is recorded."""
        began = time.monotonic()
        source = self._work.sources[asset]
        prove = {
            Asset.DATABASE: self._database,
            Asset.SECRETS: self._secrets,
            Asset.MEDIA: self._media,
            Asset.REDIS: self._redis,
        }[asset]
        try:
            job.check_cancelled()
            verdict = prove(source, job)
            job.check_cancelled()
        except (Unsound, Damaged) as error:
            verdict = _Verdict(proven=False, said=error.sentence, next_step=error.next_step)
        except MastovaultError as error:
            return replace(failure(self._host, asset, error, began), snapshot=source.manifest.id)
        except Exception as error:  # noqa: BLE001 - a bug in one asset must not end the others
            return replace(failure(self._host, asset, internal(error), began), snapshot=source.manifest.id)
        return self._result(asset, source, job, verdict, time.monotonic() - began)

    def _result(self, asset: Asset, source: Source, job: Job, verdict: _Verdict, seconds: float) -> JobResult:
        warnings = verdict.warnings
        if verdict.proven is not None:
            warnings = [*warnings, *self._record(asset, source, verdict, seconds)]
        for text in warnings:
            job.log(f"note: {text}")
        good = verdict.proven is not False
        return JobResult(
            host=self._host,
            asset=asset,
            state=JobState.DONE if good else JobState.FAILED,
            snapshot=source.manifest.id,
            bytes=source.manifest.bytes,
            seconds=seconds,
            error=None if good else verdict.said,
            next_step=(verdict.next_step or None) if not good else None,
            in_part=good and (verdict.proven is None or bool(warnings)),
            warnings=tuple(warnings),
            vaults=tuple(vault.name for vault in self._work.holding[asset]),
            exit_code=0 if good else 1,
            detail=verdict.said if good else "",
        )

    def _record(self, asset: Asset, source: Source, verdict: _Verdict, seconds: float) -> list[str]:
        """Write the record into every vault that holds the snapshot; sentences on those that did not take it."""
        details = {
            "run": self._work.run,
            "tool_version": tool_version(),
            "on": self._work.on or "",
            "seconds": round(seconds, 3),
            **verdict.details,
        }
        if not verdict.proven:
            details["said"] = verdict.said
        vaults = self._work.holding[asset]
        missing = record_check(vaults, source.manifest.id, "drilled", utc_now(), bool(verdict.proven), details)
        return [
            f"the vault {name} did not take the record of this: {error.sentence}" for name, error in missing.items()
        ]

    def _database(self, source: Source, job: Job) -> _Verdict:
        place = self._stack.enter_context(self._place(source, job))
        proof = _from_any_copy(source, job, lambda: prove_database(place, source, job))
        self._loaded = place
        warnings = [*self._look_at_pair(place, job)]
        state, what = self._pair
        details = {**proof.details, "pair": state}
        if self._work.secrets is not None:
            details["secrets"] = self._work.secrets.manifest.id
        if proof.differences:
            said = f"the restored database differs from what was backed up: {'; '.join(proof.differences[:_SHOWN])}"
            return _Verdict(
                proven=False,
                said=said,
                next_step="Back it up again and drill that.",
                details=details,
                warnings=warnings,
            )
        if state == "locked":
            return _Verdict(proven=False, said=_locked(what), next_step=_KEYS, details=details, warnings=warnings)
        return _Verdict(proven=True, said=_equal(proof, state), details=details, warnings=warnings)

    def _place(self, source: Source, job: Job) -> Any:
        work = self._work
        if work.on is None:
            return self._here().postgres(source.manifest, job)
        return host_place(work.config, work.paths, work.on, work.id, source.manifest, job)

    def _here(self) -> Workshop:
        if self._workshop is None:
            self._workshop = self._stack.enter_context(Workshop(self._work.id))
        return self._workshop

    def _look_at_pair(self, place: DrillPlace, job: Job) -> list[str]:
        """Ask whether the secrets open the database; sentences on why that could not be asked."""
        source = self._work.secrets
        if source is None:
            return ["whether the secrets open the database was not checked: this restore point has none"]
        job.step("opening it with the saved secrets")
        try:
            from backends.restore.secrets_source import environment_of

            environment = _from_any_copy(source, job, lambda: environment_of(source)).values
            self._pair = prove_pair(place, environment)
        except (AssetFailed, Damaged) as error:
            return [f"whether the secrets open the database could not be checked: {error.sentence}"]
        job.log(f"pair check: {self._pair[1]}")
        return []

    def _secrets(self, source: Source, job: Job) -> _Verdict:
        from backends.restore.secrets_source import environment_of, read_environment_tar

        job.step("reading the settings")
        files = _from_any_copy(source, job, lambda: read_environment_tar(source))
        values = _from_any_copy(source, job, lambda: environment_of(source)).values
        state, what = self._pair
        amount = f"{len(values)} keys in {_count(len(files), 'file')}"
        details = {"keys": len(values), "files": len(files), "pair": state}
        if Asset.DATABASE in self._work.sources:
            details["database"] = self._work.sources[Asset.DATABASE].manifest.id
        if state == "not_checked":
            why = "drill the database with them"
            if Asset.DATABASE in self._work.sources:
                why = "the database was not loaded"
            why = f"whether they open the database was not checked: {why}"
            return _Verdict(proven=None, said=f"{amount} read", warnings=[why])
        if state == "locked":
            return _Verdict(proven=False, said=_locked(what), next_step=_KEYS, details=details)
        opens = "open the database" if state == "opens" else "read; the database holds nothing encrypted"
        return _Verdict(proven=True, said=f"{amount} {opens}", details=details)

    def _media(self, source: Source, job: Job) -> _Verdict:
        wanted: list[str] = []
        if self._loaded is not None:
            before = min(source.manifest.started_at, self._work.sources[Asset.DATABASE].manifest.started_at)
            wanted = attachments(self._loaded.connection, self._loaded.database, before)
        found = _from_any_copy(source, job, lambda: match(source, wanted, job))
        details = {
            "attachments": found.asked,
            "matched": found.found,
            "missing": found.missing,
            "files": found.files,
            "files_read": found.read,
        }
        if not found.good:
            said = f"only {found.found} of {found.asked} attachments of the database are among the files"
            return _Verdict(
                proven=False, said=said, next_step="Look at what the media backup leaves out.", details=details
            )
        for path in found.missing:
            job.log(f"not among the files: {path}")
        return _Verdict(proven=True, said=found.sentence, details=details)

    def _redis(self, source: Source, job: Job) -> _Verdict:
        from backends.restore.redis_live import Counts, missing
        from backends.restore.redis_load import NoReader, load_rdb
        from backends.restore.redis_saved import saved_servers

        workshop = self._here()
        directory = workshop.directory / "redis"
        directory.mkdir(mode=0o700, exist_ok=True)
        began = time.monotonic()
        try:
            found = _from_any_copy(source, job, lambda: load_rdb(directory, source, workshop.processes, job))
        except NoReader as error:
            return _Verdict(proven=None, said="not loaded", warnings=[f"{error.sentence} {error.next_step}".strip()])
        except AssetFailed as error:
            return _Verdict(proven=False, said=error.sentence, next_step=error.next_step)
        keys = sum(sum(one.keys.values()) for one in saved_servers(source.manifest))
        lacking = missing(Counts(keys=found.keys, expires=0, expired_at_load=found.expired), keys, None)
        details = {
            "restore_seconds": round(time.monotonic() - began, 3),
            "keys": found.keys,
            "expired": found.expired,
            "queues": dict(found.queues),
            "scheduled": found.scheduled,
            "retries": found.retries,
            "server": found.loaded_by,
        }
        if lacking:
            return _Verdict(
                proven=False, said=f"loaded into Redis, {lacking}", next_step="Back it up again.", details=details
            )
        said = f"{_spaced(found.keys)} keys loaded by {found.loaded_by}, {_count(found.waiting, 'job')} waiting"
        return _Verdict(proven=True, said=said, details=details)


_KEYS = "Find the ACTIVE_RECORD_ENCRYPTION_* keys that belong to this database, and back the secrets up again."


def _from_any_copy(source: Source, job: Job, read: Callable[[], _T]) -> _T:
    """What `read` gives, from the first vault whose copy is whole. Raises what the last one raised."""
    while True:
        try:
            return read()
        except Damaged as error:
            name = source.vaults[0].name if source.vaults else ""
            if not source.give_up_copy(error):
                raise
            job.log(f"the copy in {name} is damaged: {error.sentence}; going on with the next vault")


def _locked(what: str) -> str:
    return f"the saved secrets do not open this database: {what}" if what else "the saved secrets do not open it"


def _equal(proof: DatabaseProof, pair: str) -> str:
    guessed = f" ({proof.estimated} only estimated)" if proof.estimated else ""
    opens = "; the secrets open it" if pair == "opens" else ""
    counted = f"{_count(proof.tables, 'table')}, {_count(proof.rows, 'row')} equal{guessed}"
    return f"{counted}{opens}; restore takes {took(proof.restore_seconds)}"


def _count(number: int, noun: str) -> str:
    return f"{_spaced(number)} {noun}{'' if number == 1 else 's'}"


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")
