"""Who may make, rename and drop databases on the target."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from backends.assets.database_access import shown_place, through_pgbouncer
from backends.connection.base import Connection
from backends.errors import AssetFailed, BecomeRefused, CommandFailed
from backends.mastodon.database_place import DEFAULT_SOCKET_DIR
from backends.mastodon.installation import DatabasePlace
from backends.restore.database_locale import Locale, locale_of
from backends.restore.database_names import identifier, literal
from backends.restore.database_statements import drop_by_name, question
from backends.restore.database_tools import Toolbox, find_toolbox
from backends.untrusted import clean

SUPERUSER = "postgres"
"""PostgreSQL's own system user and role, on every packaged server."""
_MAINTENANCE = ("postgres", "template1")
_LOCAL = {"", "localhost", "127.0.0.1", "::1"}


# Where the data is only superusers are told; for others that row is missing.
_RIGHTS = """
SELECT jsonb_build_object(
  'direct', coalesce(current_setting('mastovault.direct', true), '') = 'on',
  'version', split_part(current_setting('server_version'), ' ', 1),
  'version_num', current_setting('server_version_num')::int,
  'recovery', pg_is_in_recovery(),
  'user', current_user, 'super', me.rolsuper, 'createdb', me.rolcreatedb, 'createrole', me.rolcreaterole,
  'role_exists', EXISTS (SELECT FROM pg_roles WHERE rolname = {role}),
  'member', coalesce((SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = {role}), false),
  'live', (SELECT jsonb_build_object('oid', d.oid::bigint, 'owner', pg_get_userbyid(d.datdba),
     'owns', pg_has_role(d.datdba, 'USAGE'), 'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate,
     'ctype', d.datctype, 'locale_provider', to_jsonb(d) ->> 'datlocprovider',
     'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
     'tablespace', CASE WHEN has_tablespace_privilege(t.oid, 'CREATE') THEN t.spcname ELSE '' END,
     'tablespace_path', CASE WHEN has_tablespace_privilege(t.oid, 'CREATE') THEN pg_tablespace_location(t.oid) END)
   FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = {database}),
  'databases', (SELECT coalesce(jsonb_object_agg(datname, oid::bigint), '{{}}') FROM pg_database),
  'data_directory', (SELECT s.setting FROM pg_settings s WHERE s.name = 'data_directory'),
  'wal', (SELECT s.setting::bigint * 1048576 FROM pg_settings s WHERE s.name = 'max_wal_size'),
  'free_connections', current_setting('max_connections')::int - (SELECT count(*) FROM pg_stat_activity))
FROM pg_roles me WHERE me.rolname = current_user
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The database that is there now."""

    oid: int
    owner: str
    locale: Locale | None
    tablespace: str
    """Where it is; empty when the new one may not be there, and so goes where the server puts it."""
    tablespace_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """Somebody who may do what a restore needs, connected to a database that is not Mastodon's.

    Attributes:
        place: as whom, and where; the name is that of the maintenance database.
        box: programs on the host.
        version: of the server.
        superuser: whether nothing is refused.
        live: the database that is to be replaced; None when there is none.
        role_exists: whether Mastodon's own role is there.
        databases: all of the server's, by name with their oid.
    """

    place: DatabasePlace
    box: Toolbox
    version: str
    version_num: int
    recovery: bool
    superuser: bool
    live: Live | None
    role_exists: bool
    databases: dict[str, int]
    data_directory: str
    free_connections: int
    wal: int
    """Bytes to which the write-ahead log may grow meanwhile."""

    @property
    def psql(self) -> str:
        """The psql for statements."""
        return self.box.psql

    def at(self, database: str) -> DatabasePlace:
        """The same right in another database."""
        return replace(self.place, name=database)


def admin_place(connection: Connection, place: DatabasePlace) -> DatabasePlace:
    """As whom databases can be made and renamed: Mastodon's own role, else the superuser over the local socket.

    Args:
        connection: the host.
        place: where Mastodon's database is (or will be).

    Raises:
        AssetFailed: nobody that we may become; says what to do.
        ConnectionFailed: the connection is gone.
    """
    return find_admin(connection, place).place


def find_admin(
    connection: Connection,
    place: DatabasePlace,
    *,
    prefer: tuple[str, str | None] | None = None,
    box: Toolbox | None = None,
) -> Admin:
    """As `admin_place`, with all that was learnt on the way. Raises the same.

    Args:
        connection: the host.
        place: where Mastodon's database is.
        prefer: a role and a system user that were good enough before: they are tried first.
        box: the host's programs, where they are known already.
    """
    lacking: list[str] = []
    refused: AssetFailed | None = None
    candidates = _candidates(connection, place)
    for candidate in sorted(candidates, key=lambda each: (each.user, each.as_user) != prefer):
        try:
            box = box or find_toolbox(connection, candidate)
            maintenance, answer = _rights(connection, candidate, place, box.psql)
        except (AssetFailed, BecomeRefused, CommandFailed) as error:
            refused = refused or AssetFailed(error.sentence, error.next_step)
            continue
        lack = lacks(answer, place.user)
        if not lack:
            return _admin(maintenance, box, answer)
        lacking.append(lack)
    if lacking:
        raise _nobody(connection.host, place, lacking[0], refused)
    raise refused or AssetFailed(f"PostgreSQL on {connection.host} cannot be reached.")


def lacks(answer: dict[str, Any], role: str) -> str:
    """Which right somebody lacks to make and rename Mastodon's database, as words; empty when none."""
    who = clean(str(answer.get("user", "")), 100)
    if answer.get("super"):
        return ""
    if not answer.get("role_exists"):
        return f"the role {clean(role, 100)} is missing, and {who} may not make it"
    if not answer.get("createdb"):
        return f"{who} may not create databases"
    live = answer.get("live")
    if isinstance(live, dict) and not live.get("owns"):
        return f"{who} does not own the database, which belongs to {clean(str(live.get('owner')), 100)}"
    if not answer.get("member"):
        return f"{who} may not act as {clean(role, 100)}"
    return ""


def is_local(place: DatabasePlace) -> bool:
    """Whether the server runs on the host itself, as far as its address tells."""
    return place.is_socket or place.host in _LOCAL


def _candidates(connection: Connection, place: DatabasePlace) -> list[DatabasePlace]:
    found = [place]
    if is_local(place):
        socket = place.host if place.is_socket else DEFAULT_SOCKET_DIR
        login = connection.login_user
        for system_user in dict.fromkeys((SUPERUSER, login)):
            as_user = system_user if system_user != login else None
            found.append(replace(place, host=socket, user=system_user, as_user=as_user, password=None))
    return list(dict.fromkeys(found))


def _rights(
    connection: Connection, candidate: DatabasePlace, place: DatabasePlace, psql: str
) -> tuple[DatabasePlace, dict[str, Any]]:
    """What a candidate may do, asked in the first database that lets it in. Raises `AssetFailed`, `BecomeRefused`."""
    first: AssetFailed | None = None
    for name in _MAINTENANCE:
        if name == place.name:
            continue
        there = replace(candidate, name=name)
        words = {"role": literal(place.user), "database": literal(place.name)}
        query = _RIGHTS.format(**words)
        try:
            answer = question(connection, there, psql, query)
        except AssetFailed as error:
            first = first or error
            # Another database of the same server would refuse in the same way.
            if not re.search(r"has no database|may not read", error.sentence):
                raise
            continue
        if not isinstance(answer, dict):
            raise AssetFailed(f"PostgreSQL on {connection.host} gave no answer about rights.")
        if not answer["direct"]:
            raise through_pgbouncer(connection.host)
        return there, answer
    raise first or AssetFailed(f"PostgreSQL on {connection.host} has no maintenance database.")


def _admin(place: DatabasePlace, box: Toolbox, answer: dict[str, Any]) -> Admin:
    live = answer.get("live")
    return Admin(
        place=place,
        box=box,
        version=clean(str(answer["version"]), 40),
        version_num=int(answer["version_num"]),
        recovery=bool(answer["recovery"]),
        superuser=bool(answer["super"]),
        live=None
        if not isinstance(live, dict)
        else Live(
            oid=int(live["oid"]),
            owner=str(live["owner"]),
            locale=locale_of(live),
            tablespace=str(live["tablespace"]),
            tablespace_path=str(live.get("tablespace_path") or ""),
        ),
        role_exists=bool(answer["role_exists"]),
        databases={str(name): int(oid) for name, oid in answer["databases"].items()},
        data_directory=str(answer.get("data_directory") or ""),
        free_connections=int(answer["free_connections"]),
        wal=int(answer.get("wal") or 0),
    )


def _nobody(host: str, place: DatabasePlace, lack: str, refused: AssetFailed | None) -> AssetFailed:
    also = f" ({refused.sentence})" if refused else ""
    role = identifier(place.user)
    return AssetFailed(
        f"A restore on {host} must make a database beside {shown_place(place)}, but {lack}{clean(also, 300)}.",
        f'Let the host be managed with become = "sudo", or run there as postgres: ALTER ROLE {clean(role, 100)}'
        f" CREATEDB; ALTER DATABASE {clean(identifier(place.name), 100)} OWNER TO {clean(role, 100)};",
    )


def drop_database(connection: Connection, admin: Admin, database: str) -> None:
    """End a database's sessions and drop it. Nothing there is fine. Raises `AssetFailed`."""
    drop_by_name(connection, admin.place, admin.psql, database, admin.version_num)
