"""What belongs to a database besides its contents: rights to connect, settings, a limit, a comment; copied as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.connection.base import Connection
from backends.errors import AssetFailed
from backends.progress import Job
from backends.restore.database_admin import Admin
from backends.restore.database_names import identifier, literal
from backends.restore.database_statements import execute, question
from backends.untrusted import clean

_RIGHTS = {"CREATE", "CONNECT", "TEMPORARY"}
# Their stored values are lists of quoted words (src/backend/utils/misc: GUC_LIST_QUOTE).
_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}

_ATTRIBUTES = """
SELECT jsonb_build_object('owner', pg_get_userbyid(d.datdba), 'limit', d.datconnlimit,
  'comment', shobj_description(d.oid, 'pg_database'),
  'rights', CASE WHEN d.datacl IS NOT NULL THEN (
     SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object('privilege', a.privilege_type, 'grantable', a.is_grantable,
       'role', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END)), '[]') FROM aclexplode(d.datacl) a) END,
  'settings', (SELECT coalesce(jsonb_agg(jsonb_build_object('config', s.setconfig,
       'role', CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END)), '[]')
     FROM pg_db_role_setting s WHERE s.setdatabase = d.oid))
FROM pg_database d WHERE d.datname = {}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What `pg_dump` leaves out without `--create`. A right or a setting of role None is for everyone."""

    owner: str
    limit: int = -1
    comment: str = ""
    rights: frozenset[tuple[str | None, str, bool]] | None = None
    """Who, what, and whether it may be passed on; None: as on a fresh database."""
    settings: frozenset[tuple[str | None, str, str]] = frozenset()
    """For whom, its name, its value as stored."""


def parse_attributes(answer: Any) -> Attributes:
    """Read the catalogue's answer. Raises `AssetFailed` for anything else."""
    try:
        rights = answer["rights"]
        return Attributes(
            owner=str(answer["owner"]),
            limit=int(answer["limit"]),
            comment=str(answer["comment"] or ""),
            rights=None
            if rights is None
            else frozenset((_role(each), str(each["privilege"]), each["grantable"] is True) for each in rights),
            settings=frozenset(_settings(answer["settings"])),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AssetFailed("What the catalogue says about the database cannot be read.") from error


def _role(entry: Mapping[str, Any]) -> str | None:
    return None if entry["role"] is None else str(entry["role"])


def _settings(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str | None, str, str]]:
    for entry in entries:
        for config in entry["config"] or ():
            name, _, value = str(config).partition("=")
            yield _role(entry), name, value


def statements(wanted: Attributes, database: str) -> list[str]:
    """What makes a fresh database of the same owner equal in these things."""
    there = identifier(database)
    made = []
    if wanted.limit != -1:
        made.append(f"ALTER DATABASE {there} CONNECTION LIMIT {wanted.limit}")
    if wanted.comment:
        made.append(f"COMMENT ON DATABASE {there} IS {literal(wanted.comment)}")
    if wanted.rights is not None:
        made.append(f"REVOKE ALL ON DATABASE {there} FROM PUBLIC, {identifier(wanted.owner)}")
        made += [
            f"GRANT {privilege} ON DATABASE {there} TO {_grantee(role)}{' WITH GRANT OPTION' if pass_on else ''}"
            for role, privilege, pass_on in sorted(wanted.rights, key=_order)
            if privilege in _RIGHTS
        ]
    made += [
        f"ALTER {f'ROLE {identifier(role)} IN ' if role is not None else ''}DATABASE {there}"
        f" SET {setting_name(name)} TO {setting_value(name, value)}"
        for role, name, value in sorted(wanted.settings, key=_order)
    ]
    return made


def _order(entry: tuple[str | None, ...] | tuple[str | None, str, bool]) -> tuple[str, ...]:
    return tuple(str(part or "") for part in entry)


def _grantee(role: str | None) -> str:
    return "PUBLIC" if role is None else identifier(role)


def setting_name(name: str) -> str:
    """The name of a setting as SQL; extensions' have a dot."""
    return ".".join(identifier(part) for part in name.split("."))


def setting_value(name: str, value: str) -> str:
    """A stored value as SQL: a list becomes a list again, everything else one literal."""
    if name.lower() not in _LISTS:
        return literal(value)
    return ", ".join(literal(word) for word in split_list(value)) or "''"


def split_list(value: str) -> list[str]:
    """The words of a stored list such as `"$user", public`; a word in double quotes may hold anything."""
    words: list[str] = []
    at = 0
    while at < len(value):
        if value[at] in ", \t\n\r":
            at += 1
        elif value[at] == '"':
            word, at = _quoted(value, at + 1)
            words.append(word)
        else:
            end = value.find(",", at)
            end = len(value) if end < 0 else end
            words.append(value[at:end].strip())
            at = end
    return words


def _quoted(value: str, at: int) -> tuple[str, int]:
    word = ""
    while at < len(value):
        if value[at] == '"':
            if value[at + 1 : at + 2] != '"':
                return word, at + 1
            at += 1
        word += value[at]
        at += 1
    return word, at


def attributes_of(connection: Connection, admin: Admin, database: str) -> Attributes:
    """Ask for a database's attributes. Raises `AssetFailed`."""
    query = _ATTRIBUTES.format(literal(database))
    return parse_attributes(question(connection, admin.place, admin.psql, query))


def copy_attributes(connection: Connection, admin: Admin, live: str, restored: str, job: Job) -> None:
    """Make the restored database like the live one; what may not be copied is warned of.

    Raises:
        AssetFailed: the catalogue cannot be read.
    """
    wanted = attributes_of(connection, admin, live)
    try:
        execute(connection, admin.place, admin.psql, made := statements(wanted, restored))
    except AssetFailed:
        for statement in made:
            try:
                execute(connection, admin.place, admin.psql, [statement])
            except AssetFailed as error:
                job.log(f"{error.sentence} ({clean(statement, 200)})")
    for text in unlike(wanted, attributes_of(connection, admin, restored)):
        job.warn(f"{text} of the database could not be copied to the restored one; set it by hand")


def unlike(live: Attributes, restored: Attributes) -> list[str]:
    """In what two databases differ, as words."""
    found = []
    if live.rights != restored.rights:
        found.append("the rights")
    for role, name, _ in sorted(live.settings ^ restored.settings, key=_order):
        whose = f" for {clean(role, 60)}" if role else ""
        found.append(f"the setting {clean(name, 60)}{whose}")
    if live.limit != restored.limit:
        found.append("the connection limit")
    if live.comment != restored.comment:
        found.append("the comment")
    return list(dict.fromkeys(found))
