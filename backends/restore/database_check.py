"""Whether a database holds what the manifest says: rows, indexes, constraints, sequences, functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.archive.manifest import Manifest
from backends.assets.database_facts import Survey, survey
from backends.assets.database_session import Session, open_session
from backends.connection.base import Connection
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace
from backends.progress import Job, QuietJob
from backends.restore.database_tools import find_toolbox
from backends.untrusted import clean

_COUNTED = {
    "indexes": "indexes",
    "unique_indexes": "unique indexes",
    "constraints": "constraints",
    "foreign_keys": "foreign keys",
    "sequences": "sequences",
    "views": "views",
    "materialized_views": "materialized views",
    "functions": "functions",
}
_MOST = 12


def compare(
    connection: Connection, place: DatabasePlace, manifest: Manifest, job: Job | None = None
) -> tuple[str, ...]:
    """Say what differs between a database and what the manifest says was dumped; nothing when it is all there.

    Args:
        connection: the host.
        place: the database, as somebody who may read it.
        manifest: of the snapshot that was loaded.
        job: advanced table by table.

    Raises:
        AssetFailed: PostgreSQL refused.
        ConnectionFailed, Cancelled: as they are.
    """
    job = job or QuietJob()
    psql = find_toolbox(connection, place).psql
    with open_session(connection, place, psql) as session:
        forget = job.on_cancel(session.terminate)
        try:
            job.check_cancelled()
            session.begin()
            try:
                known = survey(session)
            except AssetFailed as error:
                job.check_cancelled()
                return (error.sentence,)
            rows = _count(session, known, manifest.facts, job)
        except AssetFailed:
            job.check_cancelled()
            raise
        finally:
            forget()
    found = differences(manifest.facts, known, rows)
    more = len(found) - _MOST
    return (*found[:_MOST], *([f"and {more} more differences"] if more > 0 else []))


def _count(session: Session, known: Survey, facts: Mapping[str, Any], job: Job) -> dict[str, int]:
    """Rows of the tables that the manifest has exact counts of."""
    wanted = _tables(facts)
    chosen = [table for table in known.tables if wanted.get(table.name, {}).get("exact")]
    job.step("counting rows", total=sum(table.bytes for table in chosen))
    # Unlike a backup, nobody waits for these tables: large ones may be counted by several workers.
    session.ask("SELECT to_jsonb(set_config('max_parallel_workers_per_gather', '4', false))", timeout=60)
    rows: dict[str, int] = {}
    for table in chosen:
        job.check_cancelled()
        # The server has quoted the name
        rows[table.name] = int(session.ask(f"SELECT to_jsonb(count(*)) FROM ONLY {table.quoted}"))  # noqa: S608
        job.advance(table.bytes)
    return rows


def differences(facts: Mapping[str, Any], known: Survey, rows: Mapping[str, int]) -> list[str]:
    """What is not as the manifest says. What only it could have (another schema than public) is left out."""
    wanted = _tables(facts)
    there = {table.name: table for table in known.tables}
    found = []
    for name, table in sorted(wanted.items()):
        shown = clean(name.removeprefix("public."), 100)
        if name not in there:
            found.append(f"the table {shown} is missing")
            continue
        if name in rows and rows[name] != table.get("rows"):
            found.append(f"{shown} has {rows[name]} rows instead of {_shown(table.get('rows'))}")
        if there[name].indexes != table.get("indexes", there[name].indexes):
            found.append(f"{shown} has {there[name].indexes} indexes instead of {_shown(table.get('indexes'))}")
    if only_public(facts):
        found += [
            f"there are {known.facts.get(fact)} {words} instead of {_shown(facts[fact])}"
            for fact, words in _COUNTED.items()
            if isinstance(facts.get(fact), int) and known.facts.get(fact) != facts[fact]
        ]
    if facts.get("timestamp_id") and not known.facts.get("timestamp_id"):
        found.append("the function timestamp_id, which makes ids, is missing")
    if invalid := known.facts.get("invalid_indexes"):
        found.append("these indexes are invalid: " + clean(", ".join(map(str, invalid)), 300))
    for fact, words in (("migrations", "migrations"), ("newest_status", "newest post")):
        if isinstance(facts.get(fact), dict) and known.facts.get(fact) != facts[fact]:
            found.append(f"the {words} differ: {_shown(known.facts.get(fact))} instead of {_shown(facts[fact])}")
    return found


def only_public(facts: Mapping[str, Any]) -> bool:
    """Whether all that was dumped is in the schema public, so that whole counts can be compared."""
    schemas = facts.get("schemas")
    if isinstance(schemas, list):
        return set(schemas) <= {"public"}
    tables = facts.get("tables")
    return isinstance(tables, dict) and all(str(name).startswith("public.") for name in tables)


def _tables(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tables = facts.get("tables")
    if not isinstance(tables, dict):
        return {}
    return {
        str(name): values
        for name, values in tables.items()
        if str(name).startswith("public.") and isinstance(values, dict)
    }


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return clean(", ".join(f"{key} {part}" for key, part in sorted(value.items())), 100)
    return clean(str(value), 40)
