"""How PostgreSQL on a host is reached: parameters and environment of its programs, and what its refusals mean."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from backends.connection.base import Command
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace, Installation
from backends.model import Secret
from backends.untrusted import clean

PGBOUNCER_PORT = 6432
CONNECT_SECONDS = 15
# A custom setting given at the start of a direct connection is there afterwards. PgBouncer refuses it, or drops it
# when its ignore_startup_parameters names `options` (pgbouncer.org/config.html).
DIRECT_SETTING = "mastovault.direct"


def place_of(installation: Installation) -> DatabasePlace:
    """Where the database is. Raises `AssetFailed` when that is unknown, or leads through PgBouncer."""
    place = installation.database
    if place is None:
        raise AssetFailed(
            f"Where PostgreSQL is was not found on {installation.host}.",
            "Set database_host, database_port and database_user for this host in the configuration.",
        )
    if place.port == PGBOUNCER_PORT:
        raise through_pgbouncer(installation.host)
    words = (place.host, place.name, place.user, place.sslmode, place.password.reveal() if place.password else "")
    if any(sign in word for word in words for sign in "\n\r\0"):
        raise AssetFailed(
            f"The database settings of {installation.host} hold a line break or a NUL.",
            "Look at DB_HOST, DB_NAME, DB_USER and DB_PASS in .env.production on the host.",
        )
    return place


def through_pgbouncer(host: str) -> AssetFailed:
    """The refusal to dump through a pooler (github.com/pgbouncer/pgbouncer issues 452 and 976)."""
    return AssetFailed(
        f"The database of {host} is reached through PgBouncer, and a dump through it breaks the running Mastodon.",
        "Set database_port (and database_host) of PostgreSQL itself for this host in the configuration.",
    )


def shown_place(place: DatabasePlace) -> str:
    """For people: `mastodon_production at localhost:5432`."""
    where = f"{place.host}/.s.PGSQL.{place.port}" if place.is_socket else f"{place.host or 'localhost'}:{place.port}"
    return clean(f"{place.name} at {where}", 200)


def parameters(place: DatabasePlace, *, database_option: str = "--dbname") -> tuple[str, ...]:
    """Connection options of psql, pg_dump and, with `--database`, pg_dumpall; nothing secret is among them."""
    host = (f"--host={place.host}",) if place.host else ()
    name = _as_name(place.name)
    return (*host, f"--port={place.port}", f"--username={place.user}", f"{database_option}={name}", "--no-password")


def _as_name(name: str) -> str:
    # libpq reads a name with "=" or a URL's beginning as a whole connection string
    if "=" in name or name.startswith(("postgres://", "postgresql://")):
        return "dbname='" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return name


def command(place: DatabasePlace, argv: Sequence[str]) -> Command:
    """One of PostgreSQL's programs as a command: the right user, the password out of sight."""
    secret_env = {"PGPASSWORD": Secret(place.password.reveal())} if place.password else None
    return Command(
        tuple(argv),
        as_user=place.as_user,
        secret_env=secret_env,
        env={
            "LC_ALL": "C",
            "PGAPPNAME": "mastovault",
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "PGOPTIONS": f"-c {DIRECT_SETTING}=on",
            "PGSSLMODE": place.sslmode or "prefer",
        },
    )


def shown(argv: Sequence[str]) -> str:
    """A command as it can be typed."""
    return clean(shlex.join(argv))


_REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        r"password authentication failed",
        "PostgreSQL on {host} refused the password of {user}.",
        "Check DB_PASS (or DATABASE_URL) in .env.production on the host.",
    ),
    (
        r"no password supplied",
        "PostgreSQL on {host} wants a password of {user}, and none is set.",
        "Set DB_PASS in .env.production on the host, or allow peer authentication in pg_hba.conf.",
    ),
    (
        r"(?:peer|ident) authentication failed",
        "PostgreSQL on {host} lets only the system user {user} in as {user}.",
        'Set become = "sudo" for this host, or log in as that user.',
    ),
    (
        r"no pg_hba\.conf entry",
        "PostgreSQL on {host} does not let {user} in from there (pg_hba.conf).",
        "Add a line for it to pg_hba.conf, or set database_host for this host.",
    ),
    (
        r"role \".*\" does not exist",
        "PostgreSQL on {host} knows no user {user}.",
        "Check DB_USER in .env.production, or set database_user for this host.",
    ),
    (
        r"database \".*\" does not exist",
        "PostgreSQL on {host} has no database {name}.",
        "Check DB_NAME in .env.production on the host.",
    ),
    (
        r"too many clients|remaining connection slots|too many connections",
        "PostgreSQL on {host} has no connection left.",
        "Try again later, or raise max_connections.",
    ),
    (
        r"system is (?:starting up|shutting down|in recovery mode)|not yet accepting connections",
        "PostgreSQL on {host} is starting or stopping.",
        "Wait until it is up and try again.",
    ),
    (
        r"terminating connection|server closed the connection unexpectedly|connection to server was lost",
        "PostgreSQL on {host} ended the connection in the middle of the work.",
        "Look at PostgreSQL's own log there: it was stopped, restarted or ran out of memory. Then run it again.",
    ),
    (
        r"lock timeout|lock_timeout|could not obtain lock",
        "A table of {name} on {host} stayed locked for ten minutes.",
        "Wait until the migration or maintenance that holds it has ended, then try again.",
    ),
    (
        r"Connection refused|could not connect|timeout expired|could not translate host name|No route to host"
        r"|connection to server .* failed: No such file or directory|Is the server running",
        "PostgreSQL on {host} does not answer ({place}).",
        "Start it (systemctl start postgresql), or set database_host and database_port for this host.",
    ),
    (
        r"permission denied",
        "{user} may not read all of {name} on {host}: {last}",
        "Set database_user to the owner of the database for this host.",
    ),
)


def explain(said: str, host: str, place: DatabasePlace, *, what: str = "") -> AssetFailed:
    """Make one sentence and a next step of what PostgreSQL or one of its programs said on stderr."""
    if "unsupported startup parameter" in said:
        return through_pgbouncer(host)
    last = telling_line(said)
    words = {
        "host": host,
        "user": clean(place.user, 100),
        "name": clean(place.name, 100),
        "place": shown_place(place),
        "last": last,
    }
    for pattern, sentence, next_step in _REFUSALS:
        if re.search(pattern, said, re.IGNORECASE):
            return AssetFailed(sentence.format(**words), next_step)
    return AssetFailed(f"{what or 'PostgreSQL'} failed on {host}: {last}", "Look at the job's log.")


def telling_line(said: str) -> str:
    """The line of stderr that says why: the first error, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(?:error|fatal|panic):", line, re.IGNORECASE)]
    line = (errors or lines[-1:] or ["it said nothing"])[0]
    return clean(re.sub(r"^(?:psql|pg_dump|pg_dumpall): (?:error: )?", "", line), 300)
