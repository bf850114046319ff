"""How statements reach PostgreSQL on the target, and what a refusal means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from backends.assets.database_access import explain, telling_line
from backends.assets.database_session import open_session, psql_command
from backends.connection.base import Command, Connection
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace
from backends.restore.database_names import identifier, literal
from backends.untrusted import clean

_SECONDS = 30.0
# Sites set time-outs per role, and a load must not die of them; a rename must not wait for ever.
_SESSION = """\\encoding UTF8
SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = '20s';
SET client_min_messages = warning;
"""


def question(connection: Connection, place: DatabasePlace, psql: str, query: str) -> Any:
    """One query that gives one JSON value, without a transaction of its own around it.

    Raises:
        AssetFailed: PostgreSQL refused, or took too long.
        ConnectionFailed: the connection is gone.
    """
    with open_session(connection, place, psql) as session:
        return session.ask(query, timeout=_SECONDS)


class Refused(AssetFailed):
    """PostgreSQL refused a statement.

    Attributes:
        said: what it said, cleaned.
    """

    said = ""


def execute(
    connection: Connection, place: DatabasePlace, psql: str, statements: Sequence[str], *, timeout: float = 600.0
) -> str:
    """Run statements one by one, each on its own unless they say BEGIN; returns what they print.

    They go over stdin, never in an argument.

    Raises:
        Refused: one was refused; those before it hold.
        CommandFailed: it took longer than `timeout` seconds.
    """
    script = _SESSION + "\n".join(f"{statement.rstrip(';')};" for statement in statements) + "\n"
    done = connection.run(psql_command(place, psql), stdin=script.encode(), timeout=timeout)
    said = done.stderr.decode("utf-8", "replace")
    if done.status != 0:
        said = re.sub(r"^psql:<stdin>:\d+: ", "", said, flags=re.MULTILINE)
        raise refusal(said, connection.host, place)
    return done.text


def refusal(said: str, host: str, place: DatabasePlace) -> Refused:
    """What PostgreSQL's refusal of a statement means."""
    line = telling_line(said).removeprefix("ERROR:").strip()
    if "No space left on device" in said:
        known = Refused(f"PostgreSQL on {host} has no room left: {line}", "Free some space there and restore again.")
    elif re.search("already exists|does not exist|permission denied|must be", line):
        known = Refused(f"PostgreSQL on {host} refused: {line}", "Look at the job's log.")
    else:
        meant = explain(said, host, place)
        known = Refused(meant.sentence, meant.next_step)
    known.said = clean(said, 2000, lines=True)
    return known


def drop_by_name(connection: Connection, place: DatabasePlace, psql: str, database: str, server: int) -> None:
    """End a database's sessions and drop it. Nothing there is fine. Raises `AssetFailed`."""
    drop = f"DROP DATABASE IF EXISTS {identifier(database)}"
    if server >= 130000:
        execute(connection, place, psql, [f"{drop} WITH (FORCE)"])
    else:
        execute(connection, place, psql, [_END_SESSIONS.format(literal(database)), drop])


_END_SESSIONS = "SELECT count(pg_terminate_backend(pid)), pg_sleep(1) FROM pg_stat_activity WHERE datname = {}"


def with_options(wanted: Command, **settings: str) -> Command:
    """A command whose sessions begin with further settings of PostgreSQL's."""
    environment = dict(wanted.env or {})
    more = "".join(f" -c {name}={value}" for name, value in settings.items())
    environment["PGOPTIONS"] = environment.get("PGOPTIONS", "") + more
    return replace(wanted, env=environment)
