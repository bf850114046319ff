"""The database asset: PostgreSQL, dumped by the server's own pg_dump from one moment's view of the data."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from typing import Any, ClassVar

from backends.archive.manifest import Manifest, ObjectEntry
from backends.archive.snapshot import SnapshotWriter
from backends.assets.base import BackupContext, Outcome, Plan, Step
from backends.assets.database_access import place_of, shown, shown_place
from backends.assets.database_dump import DumpForm, DumpStream, choose_form, dump_argv, shown_dump
from backends.assets.database_facts import RowCounts, Survey, survey
from backends.assets.database_globals import GlobalsFetch, globals_argv
from backends.assets.database_probe import observe
from backends.assets.database_programs import Programs, find_programs
from backends.assets.database_session import Session, open_session, psql_command
from backends.connection.base import Connection
from backends.errors import AssetFailed, BecomeRefused, CommandFailed, MastovaultError
from backends.mastodon.installation import DatabasePlace, Installation
from backends.model import Asset, AssetObservation
from backends.progress import Job

# Below this a dump may shrink for many reasons; above it, losing half is worth a word.
_WORTH_COMPARING = 1024 * 1024
_SMALL_PART = 400


class DatabaseAsset:
    """PostgreSQL: accounts, posts, followers; everything that matters."""

    asset: ClassVar[Asset] = Asset.DATABASE

    def probe(self, connection: Connection, installation: Installation) -> AssetObservation:
        """Does it answer, which version, how big, is there a standby elsewhere."""
        return observe(connection, installation)

    def plan_backup(self, connection: Connection, installation: Installation) -> Plan:
        """The session, the dump and the roles, with the commands as they will run."""
        host = connection.host
        try:
            place = place_of(installation)
            found = find_programs(connection, place)
            with open_session(connection, place, found.psql) as session:
                session.begin()
            programs = found.for_server(session.version_num)
        except (AssetFailed, BecomeRefused, CommandFailed) as error:
            blocked = f"{error.sentence} {error.next_step}".strip()
            return Plan(host=host, asset=Asset.DATABASE, steps=(), blocked=blocked)
        form = choose_form(found, programs)
        steps = (
            Step(
                name="look",
                what=f"open one snapshot of {shown_place(place)} and list its tables, indexes and migrations",
                command=shown(psql_command(place, found.psql).argv),
            ),
            Step(
                name="globals",
                what="dump the roles"
                + ("" if session.reads_passwords else ", without their passwords: the rights lack"),
                command=shown(globals_argv(place, programs, passwords=session.reads_passwords)),
            ),
            Step(
                name="dump",
                what=f"dump that snapshot with pg_dump {programs.version}, {form.words}; count the rows meanwhile",
                command=shown_dump(place, programs, form, "…"),
            ),
        )
        return Plan(host=host, asset=Asset.DATABASE, steps=steps, warnings=place.warnings)

    def back_up(self, context: BackupContext, writer: SnapshotWriter) -> Outcome:
        """Dump the database and its roles, and say what the dump should hold.

        Raises:
            AssetFailed: PostgreSQL refused, pg_dump failed, or what came is not the dump of these tables.
        """
        began = time.monotonic()
        connection, job = context.connection, context.job
        try:
            job.step("connecting to PostgreSQL")
            place = place_of(context.installation)
            found = find_programs(connection, place)
            job.log(f"$ {shown(psql_command(place, found.psql).argv)}")
            with open_session(connection, place, found.psql) as session, _ended_by(job, session.terminate):
                session.begin()
                programs = found.for_server(session.version_num)
                form = choose_form(found, programs)
                known = survey(session)
                roles = GlobalsFetch(connection, place, programs, job, passwords=session.reads_passwords)
                try:
                    entry, facts = _dump(context, writer, session, place, programs, form, known)
                    globals_ = roles.result()
                finally:
                    roles.end()
            if globals_.sql:
                writer.write("globals.sql", BytesIO(globals_.sql), compress=True)
        except MastovaultError:
            job.check_cancelled()
            raise
        warnings = [
            *place.warnings,
            *known.warnings,
            *facts.pop("warnings"),
            *([globals_.warning] if globals_.warning else []),
        ]
        warnings += size_warnings(entry, known, context.previous)
        for warning in warnings:
            job.log(f"note: {warning}")
        return Outcome(
            facts={
                **known.facts,
                **facts,
                "mastodon_version": context.installation.version,
                "database": place.name,
                "globals": globals_.kind,
                "warnings": warnings,
                "seconds": round(time.monotonic() - began, 3),
            }
        )


class _ended_by:  # noqa: N801
    """Ends something when the job is cancelled, for as long as the block lasts."""

    def __init__(self, job: Job, end: Callable[[], None]) -> None:
        self._job, self._end = job, end

    def __enter__(self) -> None:
        self._forget = self._job.on_cancel(self._end)
        try:
            # It may have been cancelled just before
            self._job.check_cancelled()
        except MastovaultError:
            self._forget()
            raise

    def __exit__(self, *unused: object) -> None:
        self._forget()


def _dump(
    context: BackupContext,
    writer: SnapshotWriter,
    session: Session,
    place: DatabasePlace,
    programs: Programs,
    form: DumpForm,
    known: Survey,
) -> tuple[ObjectEntry, dict[str, Any]]:
    job = context.job
    job.step("dumping", total=known.bytes)
    job.log(f"$ {shown_dump(place, programs, form, session.snapshot)}")
    counts = RowCounts(session, known.tables)
    stream = DumpStream(context.connection, place, programs, form, snapshot=session.snapshot, survey=known, job=job)
    try:
        with _ended_by(job, stream.process.terminate):
            counts.start()
            entry = writer.write(form.name, stream, compress=form.compress_here, already=form.already)
            _reached_its_end(stream)
            job.step("counting rows")
            tables, why = counts.finish()
    finally:
        stream.close()
    job.check_cancelled()
    return entry, {
        "tables": tables,
        "rows": sum(table["rows"] for table in tables.values()),
        "dump_version": programs.version,
        "dump_format": "custom",
        "archive_version": stream.archive_version,
        "compression": form.words,
        "command": shown(dump_argv(place, programs, form)),
        "dump_bytes": stream.bytes,
        "warnings": [why] if why else [],
    }


def _reached_its_end(stream: DumpStream) -> None:
    """Make sure of the end even when a writer stopped reading before it."""
    if stream.read(1):
        raise AssetFailed("The dump was not read to its end.", "Run the backup again.")


def size_warnings(entry: ObjectEntry, known: Survey, previous: Manifest | None) -> list[str]:
    """What is odd about a dump's size: against the last one, and against the tables it was made of."""
    warnings = []
    if previous is not None:
        before = sum(old.bytes for old in previous.objects if old.name.startswith("database.pgdump"))
        if before > _WORTH_COMPARING and entry.bytes * 2 < before:
            warnings.append(f"the dump shrank from {before} to {entry.bytes} bytes since {previous.id}")
    if known.bytes > 64 * _WORTH_COMPARING and entry.bytes * _SMALL_PART < known.bytes:
        warnings.append(f"the dump has {entry.bytes} bytes for tables of {known.bytes} bytes")
    return warnings


HANDLER = DatabaseAsset()
