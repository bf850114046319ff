"""What the live database has and a snapshot has not: what a restore loses, in sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from backends.assets.database_session import Session, open_session
from backends.connection.base import Connection
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace
from backends.untrusted import clean

_SECONDS = 8.0
_MOST = 100_000

_LOOK = """
SELECT jsonb_build_object(
  'statuses', to_regclass('public.statuses') IS NOT NULL, 'users', to_regclass('public.users') IS NOT NULL,
  'accounts', to_regclass('public.accounts') IS NOT NULL,
  'role', (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid =
    coalesce(to_regclass('public.schema_migrations'), to_regclass('public.accounts'))),
  'bytes', pg_database_size(current_database()),
  'prepared', (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()),
  'available', (SELECT coalesce(jsonb_agg(name), '[]') FROM pg_available_extensions),
  'foreign', (SELECT coalesce(jsonb_agg(DISTINCT format('%s (%s)', usename, coalesce(nullif(application_name, ''),
      'no name'))), '[]') FROM pg_stat_activity WHERE datname = current_database() AND usesysid IS NOT NULL
      AND pid <> pg_backend_pid() AND NOT ((SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        OR (pg_has_role(usesysid, 'MEMBER') AND NOT (SELECT rolsuper FROM pg_roles r WHERE r.oid = usesysid)))))
"""
_STATUSES = """
SELECT jsonb_build_object(
  'newest', (SELECT to_char(created_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM public.statuses ORDER BY id DESC LIMIT 1),
  'newer', (SELECT count(*) FROM (SELECT FROM public.statuses WHERE id > {id} LIMIT {most}) found),
  'ours', (SELECT count(*) FROM (SELECT FROM public.statuses WHERE id > {id} AND (local OR uri IS NULL)
    LIMIT {most}) found))
"""
# The moment is cut to seconds, so what came within that second may be in the snapshot.
_ACCOUNTS = """
SELECT jsonb_build_object(
  'newer', (SELECT count(*) FROM (SELECT FROM public.accounts WHERE created_at >= timestamp {at} LIMIT {most}) found),
  'ours', (SELECT count(*) FROM public.users WHERE created_at >= timestamp {at}))
"""


@dataclass(frozen=True, slots=True)
class Now:
    """The live database as it is now. `damaged` says which of Mastodon's tables it lacks."""

    role: str = ""
    bytes: int = 0
    prepared: int = 0
    available: tuple[str, ...] | None = None
    foreign: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    unknown: str = ""
    """Why what is lost could not be found out; empty when it was."""


def look_at_live(connection: Connection, place: DatabasePlace, psql: str, facts: Mapping[str, Any]) -> Now:
    """Ask the live database, in seconds.

    Args:
        connection: the host.
        place: the live database.
        psql: on the host.
        facts: of the snapshot's manifest.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    now = Now()
    try:
        with open_session(connection, place, psql) as session:
            seen = session.ask(_LOOK, timeout=_SECONDS)
            now = Now(
                role=str(seen["role"] or ""),
                bytes=int(seen["bytes"]),
                prepared=int(seen["prepared"]),
                available=tuple(str(name) for name in seen["available"]),
                foreign=tuple(clean(str(who), 100) for who in seen["foreign"]),
                damaged=tuple(name for name in ("accounts", "statuses", "users") if not seen[name]),
            )
            return replace(now, lost=tuple(_lost(session, facts, now.damaged)))
    except AssetFailed as error:
        # A question that took too long has ended the session; what was learnt before counts.
        return replace(now, unknown=error.sentence)


def _lost(session: Session, facts: Mapping[str, Any], damaged: tuple[str, ...]) -> list[str]:
    newest, at = facts.get("newest_status"), str(facts.get("snapshot_at", ""))
    found: list[str] = []
    number = str(newest.get("id")) if isinstance(newest, dict) else ""
    if "statuses" not in damaged and isinstance(newest, dict) and re.fullmatch(r"-?[0-9]{1,20}", number):
        query = _STATUSES.format(id=int(number), most=_MOST + 1)
        found += statuses_lost(session.ask(query, timeout=_SECONDS) or {}, newest)
    if not {"accounts", "users"} & {*damaged} and re.fullmatch(r"[0-9:TZ-]{20}", at):
        query = _ACCOUNTS.format(at=f"'{at.rstrip('Z')}' + interval '1 second'", most=_MOST + 1)
        found += accounts_lost(session.ask(query, timeout=_SECONDS) or {}, at)
    return found


def statuses_lost(answer: Mapping[str, Any], newest: Mapping[str, Any]) -> list[str]:
    """Posts that are gone after the restore, as a sentence; nothing when there are none."""
    newer, ours = _number(answer, "newer"), _number(answer, "ours")
    if not newer:
        return []
    written = f", {_many(ours)} of them written here" if ours else ""
    return [
        f"{_counted(newer, 'post')} newer than the snapshot's last one of {_moment(newest.get('created_at'))}{written}"
        f" (the newest is of {_moment(answer.get('newest'))})"
    ]


def accounts_lost(answer: Mapping[str, Any], at: str) -> list[str]:
    """Accounts that are gone after the restore, as a sentence; nothing when there are none."""
    newer, ours = _number(answer, "newer"), _number(answer, "ours")
    if not newer and not ours:
        return []
    signed_up = f", {_many(ours)} of them people who signed up here" if ours else ""
    return [f"{_counted(max(newer, ours), 'account')} that came after {_moment(at)}{signed_up}"]


def _counted(count: int, what: str) -> str:
    return f"{_many(count)} {what}{'' if count == 1 else 's'}"


def _many(count: int) -> str:
    return f"more than {_MOST:,}" if count > _MOST else f"{count:,}"


def _moment(text: object) -> str:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return "an unknown time"


def _number(answer: Mapping[str, Any], name: str) -> int:
    value = answer.get(name)
    return value if isinstance(value, int) and value > 0 else 0
