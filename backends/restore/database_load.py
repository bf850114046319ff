"""Loading a dump into a new database: from a staged file with several workers, else streamed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

from backends.assets.database_access import command, parameters, shown
from backends.connection.base import Command, Connection, sh
from backends.errors import AssetFailed, MastovaultError
from backends.mastodon.installation import DatabasePlace
from backends.progress import Job
from backends.restore.database_locale import LOCALES, Locale, choose_locale, locale_of
from backends.restore.database_names import identifier
from backends.restore.database_staging import NoRoom, compressed_entry, dump_entry, pump, stage, unstage
from backends.restore.database_statements import drop_by_name, execute, question, with_options
from backends.restore.database_tools import Toolbox, Tools, dump_major, find_toolbox
from backends.restore.database_watch import RestoreWatch, SizeWatch, Unsound, load_failure
from backends.restore.source import Source
from backends.untrusted import clean

MAX_WORKERS = 8

# POSIX sh has no pipefail: see database_dump. A pg_restore that has all it needs lets zstd come to its end.
_PIPELINE = r"""
marker=$1; shift
ended=$( { { zstd -q -d -c 3>&-; echo "zstd $?" >&3; } | {
  "$@" 3>&- >&2; status=$?; if [ "$status" -eq 0 ]; then cat >/dev/null; fi; echo "pg_restore $status" >&3; }; } 3>&1 )
echo "$marker" $ended >&2
case " $ended" in *pg_restore\ 0*) ;; *) exit 10 ;; esac
case " $ended" in *zstd\ 0*) exit 0 ;; *) exit 11 ;; esac
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How the new database is made and filled, where it is not as the dump alone says."""

    role: str = ""
    """To whom its tables belong; empty: the database's owner."""
    privileges: bool = False
    """Whether rights of other roles that stand in the dump are given; those roles must exist."""
    workers: int = 0
    """Of pg_restore; 0: as many as the target has cores."""
    live_locale: Locale | None = None
    """What to fall back to when the target lacks the dump's collation."""
    tablespace: str = ""


def load_dump(
    connection: Connection,
    place: DatabasePlace,
    *,
    database: str,
    owner: str,
    source: Source,
    job: Job,
    staging: str | None = None,
    wanted: Wanted | None = None,
) -> None:
    """Make a fresh database and load the dump into it; a failure leaves neither it nor a staged file behind.

    Args:
        connection: the machine on which pg_restore runs; this one too.
        place: somebody who may make databases, in one that exists (see `admin_place`).
        database: its name; it must not exist.
        owner: the role to which it will belong.
        source: the snapshot.
        job: steps and progress.
        staging: a directory on the host for a copy of the dump, made when missing (0700), the copy removed after the
            load; None, or one without room for it: streamed, with one worker.
        wanted: see there.

    Raises:
        Unsound: the dump is no good.
        AssetFailed: PostgreSQL refused; in one sentence.
        Damaged, VaultError, KeyUnavailable: the snapshot cannot be read.
        ConnectionFailed, Cancelled: the half-made database may be left when the connection is gone.
    """
    wanted = wanted or Wanted()
    facts = source.manifest.facts
    box = find_toolbox(connection, place)
    entry = dump_entry(source)
    job.step("making the database")
    server = int(question(connection, place, box.psql, _VERSION))
    tools = box.fitting(dump_major(facts), server // 10000)
    load = _Load(connection, place, box, tools, database, wanted.role or owner, source, job, wanted)
    make_database(connection, place, box.psql, database, owner, facts, job, wanted, server)
    try:
        if staging is not None and load.workers > 1:
            try:
                load.staged(staging)
            except NoRoom as error:
                job.log(f"{error.sentence} It is streamed instead, with one worker.")
                load.streamed(entry.name)
        else:
            load.streamed(entry.name)
    except BaseException as error:
        with suppress(MastovaultError):
            drop_by_name(connection, place, box.psql, database, server)
        if isinstance(error, MastovaultError):
            job.check_cancelled()
        raise


_VERSION = "SELECT to_jsonb(current_setting('server_version_num')::int)"


def make_database(
    connection: Connection,
    place: DatabasePlace,
    psql: str,
    database: str,
    owner: str,
    facts: Mapping[str, Any],
    job: Job,
    wanted: Wanted,
    server: int,
) -> None:
    """Make the empty database, with the dump's collation where the target has it. Raises `AssetFailed`."""
    answer = question(connection, place, psql, LOCALES)
    chosen = choose_locale(locale_of(facts), wanted.live_locale, answer if isinstance(answer, dict) else {}, server)
    if chosen.note:
        job.log(f"note: {chosen.note}")
    statement = create_statement(database, owner, chosen.locale, server, tablespace=wanted.tablespace)
    job.log(f"$ {shown(('psql', '-d', place.name, '-c', statement))}")
    execute(connection, place, psql, [statement])
    there = replace(place, name=database)
    if wanted.role and wanted.role != owner:
        execute(connection, there, psql, [f"GRANT USAGE, CREATE ON SCHEMA public TO {identifier(wanted.role)}"])
    for extension in extensions_of(facts):
        try:
            execute(connection, there, psql, [f"CREATE EXTENSION IF NOT EXISTS {identifier(extension)}"])
        except AssetFailed as error:
            # Mastodon needs none of them.
            job.log(f"note: the extension {clean(extension, 60)} was left out: {error.sentence}")


def create_statement(database: str, owner: str, locale: Locale, server: int, *, tablespace: str = "") -> str:
    """The CREATE DATABASE of a restore."""
    where = f" TABLESPACE {identifier(tablespace)}" if tablespace and tablespace != "pg_default" else ""
    made = f"CREATE DATABASE {identifier(database)} OWNER {identifier(owner)} TEMPLATE template0"
    return f"{made}{locale.options(server)}{where}"


def extensions_of(facts: Mapping[str, Any]) -> list[str]:
    """The extensions of a dump besides plpgsql, which every database has."""
    known = facts.get("extensions")
    return sorted(str(name) for name in known if name and name != "plpgsql") if isinstance(known, dict) else []


def restore_argv(
    place: DatabasePlace, pg_restore: str, database: str, role: str, *, workers: int = 1, privileges: bool = False
) -> tuple[str, ...]:
    """The exact pg_restore command, without the file."""
    options = ["-n", "public", "--no-owner", "--exit-on-error", f"--role={role}", "--verbose"]
    options += [] if privileges else ["--no-privileges"]
    options += [f"-j{workers}"] if workers > 1 else []
    return (pg_restore, *parameters(replace(place, name=database)), *options)


class _Load:
    """One load; what both ways share."""

    def __init__(
        self,
        connection: Connection,
        place: DatabasePlace,
        box: Toolbox,
        tools: Tools,
        database: str,
        role: str,
        source: Source,
        job: Job,
        wanted: Wanted,
    ) -> None:
        self._connection, self._place, self._box, self._tools = connection, place, box, tools
        self._database, self._role, self._source, self._job = database, role, source, job
        self._privileges = wanted.privileges
        self.workers = workers(wanted.workers or box.cores)

    def staged(self, directory: str) -> None:
        """From a file on the target, with several workers."""
        job = self._job
        path = stage(self._connection, self._place, self._source, directory, job, zstd=self._box.zstd)
        try:
            job.step("restoring", total=_number(self._source.manifest.facts, "database_bytes"))
            argv = (*self._argv(self.workers), path)
            job.log(f"$ {shown(argv)}")
            watch = RestoreWatch(job)
            psql = self._box.psql
            with SizeWatch(self._connection, self._place, psql, self._database, job):
                self._run(argv, watch)
        finally:
            unstage(self._connection, self._place, directory)

    def streamed(self, name: str) -> None:
        """Over the connection, with one worker."""
        job = self._job
        entry, there = compressed_entry(dump_entry(self._source), zstd_there=self._box.zstd)
        facts = self._source.manifest.facts
        job.step("restoring", total=entry.plain_bytes or entry.bytes)
        argv = self._argv(1)
        job.log(f"$ {'zstd -d -c | ' if there else ''}{shown(argv)} < {name}")
        marker = f"stages-{secrets.token_hex(8)}"
        built = _Built(job, _number(facts, "indexes") + _number(facts, "foreign_keys"))
        watch = RestoreWatch(job, marker if there else "", built)
        run = command(self._place, sh(_PIPELINE, marker, *argv) if there else argv)
        with ExitStack() as stack:
            stream = stack.enter_context(self._source.open(entry))
            process = stack.enter_context(self._connection.start(_tuned(run), on_stderr=watch.feed))
            stack.callback(job.on_cancel(process.terminate))
            job.check_cancelled()
            pump(stream, process, job)
            process.close_stdin()
            built.begin()
            status = process.wait()
            watch.finish()
            self._judge(status, watch)

    def _run(self, argv: tuple[str, ...], watch: RestoreWatch) -> None:
        run = _tuned(command(self._place, argv))
        with self._connection.start(run, on_stderr=watch.feed) as process, ExitStack() as stack:
            stack.callback(self._job.on_cancel(process.terminate))
            self._job.check_cancelled()
            process.close_stdin()
            status = process.wait()
            watch.finish()
            self._judge(status, watch)

    def _argv(self, count: int) -> tuple[str, ...]:
        return restore_argv(
            self._place,
            self._tools.pg_restore,
            self._database,
            self._role,
            workers=count,
            privileges=self._privileges,
        )

    def _judge(self, status: int, watch: RestoreWatch) -> None:
        self._job.check_cancelled()
        if status == 0:
            return
        host = self._connection.host
        if watch.statuses.get("pg_restore", 1) == 0:
            raise AssetFailed(
                f"zstd on {host} could not decompress the dump, so not all of it was loaded.",
                "Restore another snapshot; `mastovault verify` finds out which ones are whole.",
            )
        known = load_failure(watch.said, host)
        if known is not None:
            raise known
        if not watch.said:
            how = f"status {status}" if status >= 0 else "a signal"
            raise AssetFailed(
                f"pg_restore on {host} ended with {how} before it was done.",
                "Look at the logs of PostgreSQL and at the memory of the host, then restore again.",
            )
        kind = Unsound if any("ERROR: " in line for line in watch.said) else AssetFailed
        raise kind(f"pg_restore failed on {host}: {clean(watch.said[0], 300)}", "Look at the job's log.")


class _Built:
    """Counts indexes and constraints as they are built, once the data has been sent."""

    def __init__(self, job: Job, total: int) -> None:
        self._job, self._total = job, total
        self._seen = 0
        self._shown = False

    def __call__(self) -> None:
        self._seen += 1
        if self._shown:
            self._job.advance(1)

    def begin(self) -> None:
        """All data is sent: what follows are indexes and constraints."""
        self._job.step("building indexes", total=max(self._total, self._seen) or None, unit="indexes")
        self._job.advance(self._seen)
        self._shown = True


def workers(cores: int) -> int:
    """How many workers of pg_restore a machine of so many cores gets."""
    return max(1, min(cores, MAX_WORKERS))


def _tuned(run: Command) -> Command:
    # The new database is not needed after a crash, and nothing else is written in these sessions.
    return with_options(run, synchronous_commit="off")


def _number(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) and value > 0 else 0
