"""A psql that is held open: one transaction whose view of the data the dump shares."""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from backends.assets.database_access import DIRECT_SETTING, command, explain, parameters, through_pgbouncer
from backends.connection.base import Command, Connection, Process
from backends.errors import AssetFailed, Cancelled, ConnectionFailed, MastovaultError
from backends.mastodon.installation import DatabasePlace

# Big enough for the catalogue of a server with thousands of tables.
_MAX_ANSWER = 16 * 1024 * 1024

# Sites set time-outs per role or database, and a session of an hour must not die of them. Names differ by version.
_NO_TIMEOUTS = """
SELECT count(set_config(name, '0', false)) FROM pg_settings
WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout');
SET lock_timeout = '600s'; SET row_security = off; SET search_path = pg_catalog;
SET max_parallel_workers_per_gather = 0;
"""

_IDENTITY = f"""
SELECT jsonb_build_object(
  'direct', coalesce(current_setting('{DIRECT_SETTING}', true), '') = 'on',
  'version', current_setting('server_version'),
  'version_num', current_setting('server_version_num')::int,
  'recovery', pg_is_in_recovery(),
  'reads_passwords', has_table_privilege('pg_catalog.pg_authid', 'SELECT'))
"""


class Session:
    """One psql on the host, in a read-only transaction that sees one moment. Not for several threads at once."""

    def __init__(self, connection: Connection, place: DatabasePlace, process: Process) -> None:
        self.host = connection.host
        self._place = place
        self._process = process
        self._end = f"end-{secrets.token_hex(8)}"
        self._unread = bytearray()
        self.version = ""
        self.version_num = 0
        self.recovery = False
        self.reads_passwords = False
        self.snapshot = ""

    def begin(self, *, timeout: float = 60.0) -> None:
        """Begin the transaction and export its snapshot.

        Raises:
            AssetFailed: PostgreSQL refused, or is reached through a pooler.
        """
        self._exchange("\\encoding UTF8\n" + _NO_TIMEOUTS, timeout)
        self._exchange("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;", timeout)
        identity = self.ask(_IDENTITY, timeout=timeout)
        if not identity["direct"]:
            raise through_pgbouncer(self.host)
        self.version, self.version_num = str(identity["version"]), int(identity["version_num"])
        self.recovery = bool(identity["recovery"])
        self.reads_passwords = bool(identity["reads_passwords"])
        self.snapshot = str(self.ask("SELECT to_jsonb(pg_export_snapshot())", timeout=timeout))

    def ask(self, query: str, *, timeout: float | None = None) -> Any:
        """Run one query that gives one JSON value, and return that; None for NULL or no row.

        Raises:
            AssetFailed: the query failed (which ends the session), or took longer than `timeout` seconds.
            ConnectionFailed: the connection is gone.
        """
        lines = [line for line in self._exchange(query.strip() + ";", timeout) if line.strip()]
        try:
            return json.loads(lines[-1]) if lines else None
        except ValueError as error:
            raise AssetFailed(f"psql on {self.host} gave an answer that cannot be read.") from error

    def terminate(self) -> None:
        """End psql from any thread; whoever waits for an answer gets an error."""
        self._process.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._process:
            if error is None:
                # Without input psql rolls back and goes; ended by a signal it may take its time
                self._process.close_stdin()
                with suppress(TimeoutError, MastovaultError):
                    self._process.wait(timeout=5)

    def _exchange(self, sql: str, timeout: float | None) -> list[str]:
        late = threading.Event()
        watchdog = threading.Timer(timeout, self._give_up, (late,)) if timeout else None
        if watchdog:
            watchdog.daemon = True
            watchdog.start()
        try:
            # The first line feed also ends a line that a shell's banner left open.
            self._process.write(f"{sql}\n\\echo\n\\echo {self._end}\n".encode())
            return self._answer()
        except (OSError, EOFError, ConnectionFailed, Cancelled) as error:
            if late.is_set():
                raise AssetFailed(
                    f"PostgreSQL on {self.host} gave no answer within {timeout:g} seconds.",
                    "Look whether a migration or maintenance holds a lock, and how loaded the host is.",
                ) from error
            if isinstance(error, Cancelled):
                raise
            raise self._failure() from error
        finally:
            if watchdog:
                watchdog.cancel()

    def _give_up(self, late: threading.Event) -> None:
        late.set()
        self._process.terminate()

    def _answer(self) -> list[str]:
        end = f"\n{self._end}\n".encode()
        while (found := self._unread.find(end)) < 0:
            data = self._process.read(64 * 1024)
            if not data:
                raise EOFError
            if len(self._unread) > _MAX_ANSWER:
                raise AssetFailed(f"psql on {self.host} gave an answer that is too long.")
            self._unread += data
        answer = bytes(self._unread[:found]).decode("utf-8", "replace")
        del self._unread[: found + len(end)]
        return answer.splitlines()

    def _failure(self) -> MastovaultError:
        try:
            self._process.wait(timeout=5)
        except TimeoutError:
            pass
        except MastovaultError as error:
            return error
        return explain(self._process.stderr_tail(), self.host, self._place, what="psql")


def psql_command(place: DatabasePlace, psql: str) -> Command:
    """A psql that reads SQL from stdin, prints bare values and ends at the first error."""
    return command(place, (psql, *parameters(place), "-XAtq", "--set=ON_ERROR_STOP=1"))


def open_session(connection: Connection, place: DatabasePlace, psql: str) -> Session:
    """Start psql; call `begin` on what comes back, and close it."""
    return Session(connection, place, connection.start(psql_command(place, psql)))


def ask_once(connection: Connection, place: DatabasePlace, psql: str, query: str, *, timeout: float = 30.0) -> Any:
    """One query in a session of its own, one JSON value back. Raises as `Session`."""
    with open_session(connection, place, psql) as session:
        session.begin(timeout=timeout)
        return session.ask(query, timeout=timeout)
