"""A first question to PostgreSQL: which version it is, as whom it lets us in, and which programs fit it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from backends.connection.base import Command, Completed, Connection
from backends.errors import BecomeRefused, CommandFailed
from backends.mastodon.installation import DatabasePlace
from backends.model import Secret
from backends.untrusted import clean

TIMEOUT = 30.0
CONNECT_SECONDS = 10


def probe_database(
    connection: Connection, place: DatabasePlace, *, user: str, program_dirs: Sequence[str] = ()
) -> DatabasePlace:
    """The place with `server_version`, `bin_dir` and, where peer authentication asks for it, `as_user`.

    What fails becomes a warning; the database asset reports it properly when it is asked to work.

    Args:
        connection: the host.
        place: from the settings.
        user: the system user that Mastodon runs as.
        program_dirs: directories that hold a `pg_dump`.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    dirs = sorted(program_dirs, key=_major_of, reverse=True)
    first = ""
    for as_user in _peers(connection, place, user):
        candidate = replace(place, as_user=as_user)
        version, said = _ask(connection, candidate, dirs)
        if version is not None:
            fitting = fitting_dir(version // 10000, dirs)
            return replace(candidate, server_version=version, bin_dir=fitting)
        first = first or said
    return replace(place, warnings=(*place.warnings, f"PostgreSQL did not answer: {first}"))


def _peers(connection: Connection, place: DatabasePlace, user: str) -> tuple[str | None, ...]:
    """As whom to try: over a unix socket peer authentication looks at the system user, password or not."""
    if not place.is_socket:
        return (place.as_user,)
    others = [user] if user and user != connection.login_user else []
    return tuple(dict.fromkeys((place.as_user, *others, None)))


def connection_environment(place: DatabasePlace) -> dict[str, str]:
    """The variables that libpq reads, for a place; in an argument a name could be read as connection settings."""
    return {
        "PGHOST": place.host,
        "PGPORT": str(place.port),
        "PGUSER": place.user,
        "PGDATABASE": place.name,
        "PGSSLMODE": place.sslmode,
        "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
        "PGAPPNAME": "mastovault",
        "LC_ALL": "C",
    }


def fitting_dir(major: int, program_dirs: Sequence[str]) -> str | None:
    """The directory with the server's own programs, else the next newer ones; None leaves it to the PATH."""
    newer = sorted((found, path) for path in program_dirs if (found := _major_of(path)) >= major)
    return newer[0][1] if newer else None


def _major_of(path: str) -> int:
    match = re.search(r"/(?:pgsql-)?(\d{1,3})/bin/?$", path)
    return int(match[1]) if match else 0


def _ask(connection: Connection, place: DatabasePlace, dirs: Sequence[str]) -> tuple[int | None, str]:
    password = place.password
    if password is not None and re.search(r"[\r\n\0]", password.reveal()):
        return None, "its password holds a line break"
    said = ""
    for program in ("psql", *(f"{path}/psql" for path in dirs[:1])):
        try:
            done = _run(connection, place, program, password)
        except (BecomeRefused, CommandFailed) as error:
            return None, error.sentence
        text = done.text.strip()
        if done.status == 0 and re.fullmatch(r"\d{5,7}", text):
            return int(text), ""
        # The first line is the error, the others are hints.
        lines = clean(done.stderr, lines=True).strip().splitlines()
        said = lines[0].removeprefix("psql: error: ") if lines else f"psql ended with status {done.status}"
        if done.status != 127:
            break
        said = "psql is not installed on the host"
    return None, said


def _run(connection: Connection, place: DatabasePlace, program: str, password: Secret | None) -> Completed:
    command = Command(
        (program, "-XAtwq", "-c", "show server_version_num"),
        as_user=place.as_user,
        secret_env={"PGPASSWORD": password} if password else None,
        env=connection_environment(place),
    )
    return connection.run(command, timeout=TIMEOUT)
