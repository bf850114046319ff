"""The dump itself: how it is compressed, the pipeline on the host, and a stream that does not end well by chance."""

from __future__ import annotations

import secrets
import signal
from dataclasses import dataclass
from typing import Literal

from backends.assets.database_access import command, explain, parameters, shown
from backends.assets.database_facts import Survey
from backends.assets.database_follow import Follower, TableProgress
from backends.assets.database_header import HeaderWatch
from backends.assets.database_programs import Found, Programs
from backends.connection.base import Command, Connection, Process, sh
from backends.errors import AssetFailed, Damaged, MastovaultError
from backends.mastodon.installation import DatabasePlace
from backends.progress import Job

# Long enough for a migration's lock, short enough not to hold back vacuum for a day.
_LOCK_WAIT_MS = 600_000
_AFTER_END_SECONDS = 60

# POSIX sh has no pipefail: the stages report their statuses over fd 3, apart from the data on fd 4. The last line on
# stderr and the script's own status both tell; a script that is killed tells neither.
_PIPELINE = r"""
marker=$1; shift
exec 4>&1
ended=$( { { "$@" 3>&- 4>&-; echo "pg_dump $?" >&3; } | { zstd -q -3 -T0 -c 3>&- >&4; echo "zstd $?" >&3; }; } 3>&1 )
exec 4>&-
echo "$marker" $ended >&2
case " $ended" in *pg_dump\ 0*) ;; *) exit 10 ;; esac
case " $ended" in *zstd\ 0*) exit 0 ;; *) exit 11 ;; esac
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpForm:
    """How the dump is compressed, and so what its object is called before encryption."""

    how: Literal["pg_dump", "host", "here"]
    options: tuple[str, ...]
    name: str
    compress_here: bool
    already: tuple[Literal["zstd"], ...] = ()

    @property
    def words(self) -> str:
        """For people."""
        return {
            "pg_dump": "compressed by pg_dump itself (zstd)",
            "host": "compressed by zstd on the host",
            "here": "compressed by zstd here",
        }[self.how]


def choose_form(found: Found, programs: Programs) -> DumpForm:
    """The best that the host can: pg_dump's own zstd (16 and later), a zstd beside it, or compression on this side."""
    if programs.builtin_zstd:
        return DumpForm(how="pg_dump", options=("--compress=zstd:3",), name="database.pgdump", compress_here=False)
    if found.zstd:
        name = "database.pgdump.zst"
        return DumpForm(how="host", options=("-Z0",), name=name, compress_here=False, already=("zstd",))
    return DumpForm(how="here", options=("-Z0",), name="database.pgdump", compress_here=True)


def dump_argv(place: DatabasePlace, programs: Programs, form: DumpForm, snapshot: str = "") -> tuple[str, ...]:
    """The exact pg_dump command."""
    shared = (f"--snapshot={snapshot}",) if snapshot else ()
    wait = f"--lock-wait-timeout={_LOCK_WAIT_MS}"
    return (programs.pg_dump, *parameters(place), "-Fc", *form.options, "--verbose", wait, *shared)


def shown_dump(place: DatabasePlace, programs: Programs, form: DumpForm, snapshot: str = "") -> str:
    """What runs on the host, as it can be typed."""
    dump = shown(dump_argv(place, programs, form, snapshot))
    return f"{dump} | zstd -3 -T0" if form.how == "host" else dump


class DumpStream:
    """The bytes of a dump as a source: its end is only reached when every stage on the host has ended well.

    `read` raises instead of returning b"" when a stage failed, the connection broke, or what came is too little to
    be the tables' dump; so a torn object is never finished.
    """

    def __init__(
        self,
        connection: Connection,
        place: DatabasePlace,
        programs: Programs,
        form: DumpForm,
        *,
        snapshot: str,
        survey: Survey,
        job: Job,
    ) -> None:
        self._host = connection.host
        self._place = place
        self._form = form
        self._least = least_bytes(survey, form)
        self._job = job
        sizes = {table.name: table.bytes for table in survey.tables}
        self._progress = TableProgress(sizes, job.advance, guess=1.0 if form.how == "here" else 4.0)
        marker = f"stages-{secrets.token_hex(8)}"
        self._follower = Follower(job, self._progress, marker)
        self._watch = HeaderWatch(f"What {self._host} sent", zstd=form.how == "host")
        self._ended = False
        self.bytes = 0
        argv = dump_argv(place, programs, form, snapshot)
        self._process = connection.start(_pipeline(place, argv, form, marker), on_stderr=self._follower.feed)

    @property
    def process(self) -> Process:
        """The running pipeline, to be ended when the job is cancelled."""
        return self._process

    @property
    def archive_version(self) -> str:
        """Version of the archive format, once the header has passed."""
        return self._watch.header.version if self._watch.header else ""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes of the dump; b"" only after a good end.

        Raises:
            AssetFailed: a stage on the host failed, or what came is no dump.
            ConnectionFailed: the connection broke.
            Cancelled: the operator asked to stop.
        """
        if self._ended:
            return b""
        try:
            data = self._process.read(size)
            if data:
                self._watch.feed(data)
                self.bytes += len(data)
                self._progress.arrived(len(data))
                return data
            self._end()
        except Damaged as error:
            self._job.check_cancelled()
            raise self._not_a_dump(error) from error
        except MastovaultError:
            self._job.check_cancelled()
            raise
        return b""

    def close(self) -> None:
        """End what still runs."""
        self._process.close()

    def _end(self) -> None:
        status = self._wait()
        self._follower.finish()
        self._job.check_cancelled()
        if self._failed(status):
            raise self._failure(status)
        self._watch.finish()
        if self.bytes < self._least:
            raise AssetFailed(
                f"The dump from {self._host} has {self.bytes} bytes, too few for the tables it should hold.",
                "Look at the job's log and run the backup again.",
            )
        self._progress.end()
        self._ended = True

    def _wait(self) -> int:
        try:
            return self._process.wait(timeout=_AFTER_END_SECONDS)
        except TimeoutError as error:
            raise AssetFailed(
                f"pg_dump on {self._host} closed its output but did not end.", "Look at the job's log."
            ) from error

    def _failed(self, status: int) -> bool:
        if self._form.how != "host":
            return status != 0
        return status != 0 or self._follower.statuses != {"pg_dump": 0, "zstd": 0}

    def _failure(self, status: int) -> AssetFailed:
        statuses = self._follower.statuses or ({"pg_dump": status} if self._form.how != "host" else {})
        dump, zstd = statuses.get("pg_dump", 0), statuses.get("zstd", 0)
        said = "\n".join(self._follower.said) or self._process.stderr_tail()
        # A pg_dump that dies of SIGPIPE only tells that the stage behind it is gone
        if zstd and dump in {0, 128 + signal.SIGPIPE}:
            return AssetFailed(
                f"zstd on {self._host} failed with {_status(zstd)}, so the dump is not whole.",
                "Look at the job's log, and at the memory of the host.",
            )
        # What pg_dump says to SIGTERM, before it ends with status 1
        asked = "terminated by user" in said
        if asked or dump in {0, -1} or dump > 128:
            how = "terminated by somebody" if asked else _status(dump or status)
            return AssetFailed(
                f"pg_dump on {self._host} was ended before it had finished ({how}).",
                "Look at the logs of PostgreSQL and at the memory of the host, then run the backup again.",
            )
        return explain(said, self._host, self._place, what="pg_dump")

    def _not_a_dump(self, damaged: Damaged) -> MastovaultError:
        # A command that fails at once leaves an empty or foreign beginning: what it said is the better reason
        self._process.close_stdin()
        try:
            status = self._process.wait(timeout=1)
        except (TimeoutError, MastovaultError):
            status = 0
        self._follower.finish()
        if self._failed(status) and self._follower.said:
            return self._failure(status)
        return AssetFailed(damaged.sentence, damaged.next_step)


def _pipeline(place: DatabasePlace, argv: tuple[str, ...], form: DumpForm, marker: str) -> Command:
    return command(place, sh(_PIPELINE, marker, *argv) if form.how == "host" else argv)


def _status(status: int) -> str:
    number = status - 128 if status > 128 else 0
    if number in {member.value for member in signal.Signals}:
        return f"signal {signal.Signals(number).name}"
    return "a signal" if status < 0 else f"status {status}"


def least_bytes(survey: Survey, form: DumpForm) -> int:
    """What a dump of these tables has at the very least: its header and, for every table, its definition.

    An entry of the archive's table of contents takes some hundred bytes as it is, and a few dozen under zstd.
    """
    return 200 + len(survey.tables) * (200 if form.how != "host" else 10)
