"""Roles and tablespaces beside the dump: pg_dumpall --globals-only, as much of it as the rights allow."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from backends.assets.database_access import command, parameters, shown, telling_line
from backends.assets.database_programs import Programs
from backends.connection.base import Connection
from backends.errors import AssetFailed, CommandFailed, MastovaultError
from backends.mastodon.installation import DatabasePlace
from backends.progress import Job

_BEGIN = b"--\n-- PostgreSQL database cluster dump\n--"
_COMPLETE = b"-- PostgreSQL database cluster dump complete"
_SECONDS = 120.0

Kind = Literal["with passwords", "without passwords", "missing"]
_KINDS: tuple[Kind, ...] = ("with passwords", "without passwords")


@dataclass(frozen=True, slots=True)
class Globals:
    """The SQL, which holds password digests and so is never shown; or why there is none."""

    kind: Kind
    sql: bytes = b""
    why: str = ""

    @property
    def warning(self) -> str:
        """What a restore will lack; empty when nothing."""
        if self.kind == "missing":
            return f"roles are not in this backup: {self.why}"
        if self.kind == "without passwords":
            return "roles are in this backup without their passwords: the database user may not read these"
        return ""


def globals_argv(place: DatabasePlace, programs: Programs, *, passwords: bool = True) -> tuple[str, ...]:
    """The exact pg_dumpall command."""
    less = () if passwords else ("--no-role-passwords",)
    return (programs.pg_dumpall, *parameters(place, database_option="--database"), "--globals-only", *less)


def dump_globals(
    connection: Connection, place: DatabasePlace, programs: Programs, job: Job, *, passwords: bool
) -> Globals:
    """Fetch the roles: with passwords where `passwords` says that these may be read, else without, else none.

    Missing ones fail no backup.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    why = ""
    for kind in _KINDS[0 if passwords else 1 :]:
        argv = globals_argv(place, programs, passwords=kind == "with passwords")
        job.log(f"$ {shown(argv)}")
        try:
            done = connection.run(command(place, argv), timeout=_SECONDS)
        except CommandFailed as error:
            why = error.sentence
            continue
        # What comes before the beginning is a login shell's greeting
        begin = done.stdout.find(_BEGIN)
        if done.status == 0 and begin >= 0 and _COMPLETE in done.stdout[-400:]:
            return Globals(kind, done.stdout[begin:])
        why = telling_line(done.stderr.decode("utf-8", "replace"))
        job.log(f"pg_dumpall ended with status {done.status}: {why}")
    return Globals("missing", why=why)


class GlobalsFetch:
    """Fetches the roles in a thread of its own, while the dump streams."""

    def __init__(
        self, connection: Connection, place: DatabasePlace, programs: Programs, job: Job, *, passwords: bool
    ) -> None:
        self._connection, self._place, self._programs, self._job = connection, place, programs, job
        self._passwords = passwords
        self._result: Globals | MastovaultError | None = None
        self._thread = threading.Thread(target=self._fetch, name="roles", daemon=True)
        self._thread.start()

    def result(self) -> Globals:
        """Wait for the roles. Raises what `dump_globals` raises."""
        self._thread.join()
        if self._result is None:
            raise AssetFailed("The roles could not be fetched.", "Look at the run's log.")
        if isinstance(self._result, MastovaultError):
            raise self._result
        return self._result

    def end(self, patience: float = 5.0) -> None:
        """Give the thread a moment to end, without asking how it went."""
        self._thread.join(patience)

    def _fetch(self) -> None:
        try:
            self._result = dump_globals(
                self._connection, self._place, self._programs, self._job, passwords=self._passwords
            )
        except MastovaultError as error:
            self._result = error
