"""What a dump should hold, asked in the same snapshot: tables, rows, indexes, migrations, collation."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.assets import database_sql as sql
from backends.assets.database_session import Session
from backends.errors import AssetFailed, MastovaultError
from backends.untrusted import clean

# Larger tables are counted only for as long as the dump goes on anyway; else the planner's estimate stands in.
COUNT_AT_ONCE_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Table:
    """One table: sizes in bytes without its indexes; `quoted` is its name as SQL."""

    name: str
    quoted: str
    bytes: int
    estimate: int
    indexes: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known before the dump begins."""

    facts: dict[str, Any]
    tables: tuple[Table, ...]
    warnings: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """What the dump will read: all tables without indexes."""
        return sum(table.bytes for table in self.tables)


def survey(session: Session, *, timeout: float = 900.0) -> Survey:
    """Ask everything that is quick.

    Raises:
        AssetFailed: the database is not Mastodon's, or PostgreSQL refused.
    """
    tables = parse_tables(session.ask(sql.TABLES, timeout=timeout))
    if not {"public.accounts", "public.schema_migrations"} & {table.name for table in tables}:
        raise AssetFailed(
            f"The database on {session.host} holds no table of Mastodon: neither accounts nor schema_migrations.",
            "Check DB_NAME in .env.production on the host.",
        )
    facts: dict[str, Any] = {
        "server_version": session.version,
        "server_version_num": session.version_num,
        "in_recovery": session.recovery,
    }
    facts |= session.ask(sql.DATABASE, timeout=timeout)
    warnings = []
    if session.version_num >= 150000 and (now := session.ask(sql.COLLATION_NOW, timeout=timeout)):
        facts["collation_version_now"] = now
        if facts.get("collation_version") not in {None, now}:
            warnings.append(
                f"the collation changed from version {clean(str(facts['collation_version']), 40)} to"
                f" {clean(str(now), 40)} below the database: text indexes may be damaged"
            )
    facts |= session.ask(sql.OBJECTS, timeout=timeout)
    if invalid := facts.get("invalid_indexes"):
        warnings.append("these indexes are invalid: " + clean(", ".join(map(str, invalid)), 300))
    columns = session.ask(sql.COLUMNS, timeout=timeout)
    for column, (fact, query) in sql.MASTODON.items():
        if column in columns:
            facts[fact] = session.ask(query, timeout=timeout)
    return Survey(facts=facts, tables=tables, warnings=tuple(warnings))


def parse_tables(answer: Any) -> tuple[Table, ...]:
    """Make tables of the catalogue's answer, smallest first. Raises `AssetFailed` for anything else."""
    try:
        tables = [
            Table(
                name=name,
                quoted=str(values["quoted"]),
                bytes=max(0, int(values["bytes"] or 0)),
                estimate=max(0, int(values["estimate"] or 0)),
                indexes=max(0, int(values["indexes"] or 0)),
            )
            for name, values in answer.items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AssetFailed("The catalogue of the database cannot be read.") from error
    return tuple(sorted(tables, key=lambda table: (table.bytes, table.name)))


class RowCounts:
    """Counts rows in the session's snapshot, in a thread of its own, while the dump streams."""

    def __init__(self, session: Session, tables: tuple[Table, ...], *, at_once: int = COUNT_AT_ONCE_BYTES) -> None:
        self._session = session
        self._tables = tables
        self._at_once = at_once
        self._rows: dict[str, int] = {}
        self._error: MastovaultError | None = None
        self._small_done = threading.Event()
        self._thread = threading.Thread(target=self._count, name="row counts", daemon=True)

    def start(self) -> None:
        """Begin; the session belongs to the thread until `finish`."""
        self._thread.start()

    def finish(self, *, grace: float = 5.0) -> tuple[dict[str, dict[str, Any]], str]:
        """Wait for the tables below the limit, `grace` seconds more for larger ones; then end the session.

        Returns the tables' facts, and why some counts are estimates (empty when none is).
        """
        self._small_done.wait()
        self._thread.join(grace)
        if self._thread.is_alive():
            self._session.terminate()
            self._thread.join()
        return table_facts(self._tables, self._rows), self._why()

    def _why(self) -> str:
        missing = [table.name for table in self._tables if table.name not in self._rows]
        if not missing:
            return ""
        names = clean(", ".join(missing[:5]) + (" and more" if len(missing) > 5 else ""), 200)
        if all(table.bytes >= self._at_once for table in self._tables if table.name in missing):
            return f"rows of {names} are an estimate: too large to count longer than the dump took"
        return f"rows of {names} are an estimate: " + (self._error.sentence if self._error else "not counted")

    def _count(self) -> None:
        try:
            for table in self._tables:
                if table.bytes >= self._at_once:
                    self._small_done.set()
                # The server has quoted the name
                count = f"SELECT to_jsonb(count(*)) FROM ONLY {table.quoted}"  # noqa: S608
                self._rows[table.name] = int(self._session.ask(count))
        except MastovaultError as error:
            self._error = error
        except (TypeError, ValueError):
            self._error = AssetFailed("a count that is no number")
        finally:
            self._small_done.set()


def table_facts(tables: tuple[Table, ...], rows: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The manifest's table facts by name; `exact` says whether `rows` were counted or estimated."""
    return {
        table.name: {
            "rows": rows.get(table.name, table.estimate),
            "exact": table.name in rows,
            "bytes": table.bytes,
            "indexes": table.indexes,
        }
        for table in sorted(tables, key=lambda table: table.name)
    }
