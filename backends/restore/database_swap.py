"""The swap: sessions are ended, then both databases change names in one transaction."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress

from backends.connection.base import Connection
from backends.errors import AssetFailed, MastovaultError
from backends.progress import Job
from backends.restore.database_admin import Admin
from backends.restore.database_names import identifier, literal
from backends.restore.database_statements import Refused, execute, question
from backends.untrusted import clean

PATIENCE = 6.0
"""Seconds that sessions get to end once they were told to."""
_STEP_SECONDS = 0.05
_HELD = "mastovault-held: "

# One statement, so that the server itself carries it to its end when the connection is cut in the middle. COMMIT
# within DO works from PostgreSQL 11 on. A database that takes no connections is closed to superusers too, so a client
# that comes back at once finds no way in. Only what may be ended is told to; what has no user is autovacuum, which a
# rename ends by itself (and whose kind only a superuser sees).
_EXCHANGE = """
DO ${tag}$
DECLARE held text; refused text;
BEGIN
  {close}
  COMMIT;
  FOR turn IN 1..{turns} LOOP
    PERFORM pg_stat_clear_snapshot();
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname IN ({names}) AND pid <> pg_backend_pid() AND ({may});
    PERFORM pg_sleep({step});
    PERFORM pg_stat_clear_snapshot();
    SELECT string_agg(format('%s (%s%s, process %s)', usename, coalesce(nullif(application_name, ''), 'no name'),
        coalesce(' from ' || host(client_addr), ''), pid), ', ')
      INTO held FROM pg_stat_activity
      WHERE datname IN ({names}) AND pid <> pg_backend_pid() AND usesysid IS NOT NULL;
    EXIT WHEN held IS NULL;
  END LOOP;
  IF held IS NULL THEN
    BEGIN
      {rename}
    EXCEPTION WHEN OTHERS THEN
      refused := SQLERRM;
    END;
  END IF;
  {open}
  COMMIT;
  IF held IS NOT NULL THEN
    RAISE EXCEPTION '{mark}%', held;
  ELSIF refused IS NOT NULL THEN
    RAISE EXCEPTION '%', refused;
  END IF;
END ${tag}$"""
_MAY = "pg_has_role(usesysid, 'MEMBER') AND NOT (SELECT rolsuper FROM pg_roles WHERE oid = usesysid)"


def exchange(
    connection: Connection,
    admin: Admin,
    renames: Sequence[tuple[str, str]],
    job: Job,
    *,
    patience: float | None = None,
) -> None:
    """Rename databases, all or none, ending every session in them first.

    Args:
        connection: the host.
        admin: who may.
        renames: from and to, in order.
        job: for its log.
        patience: seconds that sessions get to end; None: `PATIENCE`.

    Raises:
        AssetFailed: somebody's session cannot be ended, or PostgreSQL refused; the names are as they were.
    """
    for old, new in renames:
        job.log(f"$ {clean(rename_statement(old, new))}")
    try:
        execute(
            connection, admin.place, admin.psql, [exchange_statement(admin, renames, patience=patience or PATIENCE)]
        )
    except MastovaultError as error:
        for name in dict.fromkeys(name for pair in renames for name in pair):
            with suppress(MastovaultError):
                reopen(connection, admin, name)
        raise _refused(error, connection.host) from error


def exchange_statement(admin: Admin, renames: Sequence[tuple[str, str]], *, patience: float) -> str:
    """The whole swap as one statement."""
    olds = [old for old, _ in renames]
    closing = {old: f"EXECUTE {literal(f'ALTER DATABASE {identifier(old)} ALLOW_CONNECTIONS false')};" for old in olds}
    finals = {new: f"ALTER DATABASE {identifier(new)} ALLOW_CONNECTIONS true" for _, new in renames}
    back = {old: f"ALTER DATABASE {identifier(old)} ALLOW_CONNECTIONS true" for old in olds}
    opening = (
        "IF held IS NULL AND refused IS NULL THEN "
        + " ".join(f"EXECUTE {literal(statement)};" for statement in finals.values())
        + " ELSE "
        + " ".join(f"EXECUTE {literal(statement)};" for statement in back.values())
        + " END IF;"
    )
    return _EXCHANGE.format(
        tag=f"mv{secrets.token_hex(8)}",
        close=" ".join(closing.values()),
        names=", ".join(literal(name) for name in olds),
        may="true" if admin.superuser else _MAY,
        turns=max(1, int(patience / _STEP_SECONDS)),
        step=_STEP_SECONDS,
        rename=" ".join(f"EXECUTE {literal(rename_statement(old, new))};" for old, new in renames),
        open=opening,
        mark=_HELD,
    )


def rename_statement(old: str, new: str) -> str:
    """One rename as SQL."""
    return f"ALTER DATABASE {identifier(old)} RENAME TO {identifier(new)}"


def reopen(connection: Connection, admin: Admin, database: str) -> None:
    """Let sessions in again, where a swap that was cut off has left a database closed. Raises `AssetFailed`."""
    query = f"SELECT to_jsonb(datallowconn) FROM pg_database WHERE datname = {literal(database)}"  # noqa: S608
    if question(connection, admin.place, admin.psql, query) is False:
        statement = f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS true"
        execute(connection, admin.place, admin.psql, [statement])


def databases(connection: Connection, admin: Admin, names: Sequence[str]) -> dict[str, int]:
    """Which of these databases there are, with their oid. Raises `AssetFailed`."""
    wanted = ", ".join(literal(name) for name in names)
    query = (
        "SELECT coalesce(jsonb_object_agg(datname, oid::bigint), '{}') FROM pg_database"  # noqa: S608
        f" WHERE datname IN ({wanted})"
    )
    answer = question(connection, admin.place, admin.psql, query)
    return {str(name): int(oid) for name, oid in answer.items()}


def _refused(error: MastovaultError, host: str) -> MastovaultError:
    said = error.said if isinstance(error, Refused) else ""
    if held := re.search(re.escape(_HELD) + r"(.{1,300})", said):
        return AssetFailed(
            f"Sessions in the database on {host} could not be ended: {clean(held[1].strip(), 250)}.",
            "End them there (stop the program, or as the superuser: SELECT pg_terminate_backend(process)), then"
            " restore again.",
        )
    if "being accessed by other users" in said:
        return AssetFailed(
            f"The database on {host} is held by something that is no session, most likely a prepared transaction.",
            "Look at pg_prepared_xacts there and roll them back, then restore again.",
        )
    return error
