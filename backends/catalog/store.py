"""The cache: one SQLite file that several processes use at once and that any of them may rebuild."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from backends.errors import MastovaultError

VERSION = 5
_BUSY_SECONDS = 20.0
_PAUSE = 0.01
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
TABLES = ("snapshots", "checks", "attempts", "unreadable")
"""What is read from one object of a vault each."""
BESIDE = ("manifests", "needs", "torn", "used", "daily", "packs")
"""What else is kept of a vault."""

_SCHEMA = """
CREATE TABLE vaults (
    name TEXT PRIMARY KEY, place TEXT NOT NULL, offsite INTEGER NOT NULL, read_at REAL, error TEXT NOT NULL,
    free INTEGER, machine TEXT, vault_id TEXT NOT NULL, stored INTEGER NOT NULL, recipients TEXT NOT NULL DEFAULT '[]',
    looked_at REAL, versioning TEXT NOT NULL DEFAULT '', object_lock TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '', exclusive INTEGER
) WITHOUT ROWID;
CREATE TABLE used (
    vault TEXT NOT NULL, host TEXT NOT NULL, asset TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (vault, host, asset)
) WITHOUT ROWID;
CREATE TABLE daily (
    vault TEXT NOT NULL, day INTEGER NOT NULL, bytes INTEGER NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (vault, day)
) WITHOUT ROWID;
CREATE TABLE packs (
    vault TEXT NOT NULL, key TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (vault, key)
) WITHOUT ROWID;
CREATE TABLE snapshots (
    vault TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, modified REAL NOT NULL, id TEXT NOT NULL,
    host TEXT NOT NULL, asset TEXT NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL, bytes INTEGER NOT NULL,
    run TEXT NOT NULL, in_part INTEGER NOT NULL, fingerprint TEXT, signature TEXT NOT NULL, signer TEXT NOT NULL,
    PRIMARY KEY (vault, key)
);
CREATE INDEX snapshots_by_asset ON snapshots (host, asset, at);
CREATE INDEX snapshots_by_id ON snapshots (id);
CREATE TABLE manifests (vault TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (vault, key));
CREATE TABLE needs (
    vault TEXT NOT NULL, key TEXT NOT NULL, object TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (vault, key, object)
) WITHOUT ROWID;
CREATE TABLE torn (
    vault TEXT NOT NULL, key TEXT NOT NULL, object TEXT NOT NULL, why TEXT NOT NULL, PRIMARY KEY (vault, key)
) WITHOUT ROWID;
CREATE TABLE checks (
    vault TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, modified REAL NOT NULL, id TEXT NOT NULL,
    kind TEXT NOT NULL, at REAL NOT NULL, ok INTEGER NOT NULL, whole INTEGER NOT NULL, seconds REAL, opens INTEGER,
    details TEXT NOT NULL, PRIMARY KEY (vault, key)
);
CREATE INDEX checks_by_id ON checks (vault, id);
CREATE INDEX checks_by_kind ON checks (kind, id);
CREATE TABLE attempts (
    vault TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, modified REAL NOT NULL, host TEXT NOT NULL,
    asset TEXT NOT NULL, run TEXT NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL, state TEXT NOT NULL, snapshot TEXT,
    bytes INTEGER NOT NULL, error TEXT, in_part INTEGER NOT NULL, PRIMARY KEY (vault, key)
);
CREATE INDEX attempts_by_asset ON attempts (host, asset, at);
CREATE TABLE unreadable (
    vault TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, modified REAL NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (vault, key)
);
CREATE TABLE observations (host TEXT PRIMARY KEY, asked_at REAL NOT NULL, document TEXT NOT NULL) WITHOUT ROWID;
"""


class CacheFailed(MastovaultError):
    """The cache directory cannot be used."""


class Store:
    """Opens the cache for one piece of work at a time, and makes it anew when it is broken or of another version."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "catalog.sqlite"

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read from. Raises `CacheFailed`."""
        with self._explained(), closing(self._open()) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is kept, or nothing. Raises `CacheFailed`."""
        with self._explained(), closing(self._open()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_broken(error):
                raise
        self._forget()
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        if not self._path.exists():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            if _version(connection) != VERSION:
                self._make(connection)
            connection.execute("PRAGMA synchronous = OFF")  # nothing is lost that cannot be read again
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        """Bring a new or an old file to this version."""
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                # to change the journal SQLite waits for nobody, not even for who does the same
                if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)
        self._upgrade(connection)

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) != VERSION:  # nobody was faster
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                ).fetchall():
                    connection.execute(f'DROP TABLE "{name}"')
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            connection.rollback()
            raise
        connection.commit()

    def _forget(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if _is_broken(error):
                self._forget()  # the next one finds a new one
            raise CacheFailed(
                f"the cache {self._path} failed: {error}", "It holds nothing that is not elsewhere: delete it."
            ) from error
        except OSError as error:
            raise CacheFailed(
                f"the cache {self._path} cannot be used: {error.strerror}", "Set MASTOVAULT_CACHE_DIR to another place."
            ) from error


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_broken(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _BROKEN
