"""The look before a database's restore: what is there, what fits, what is missing, what is lost."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Literal

from backends.assets.database_access import place_of, shown_place
from backends.connection.base import Connection
from backends.errors import AssetFailed, BecomeRefused, CommandFailed
from backends.mastodon.installation import DatabasePlace
from backends.model import Asset
from backends.restore.base import Target
from backends.restore.database_admin import Admin, find_admin
from backends.restore.database_code import judge_code, newest_migration
from backends.restore.database_load import create_statement, extensions_of, workers
from backends.restore.database_locale import LOCALES, Chosen, choose_locale, locale_of
from backends.restore.database_lost import Now, look_at_live
from backends.restore.database_names import before_name, made_by_restores, restored_name, staging_directory
from backends.restore.database_room import (
    Rooms,
    choose_staging,
    database_need,
    find_rooms,
    staged_need,
    table_bytes,
)
from backends.restore.database_staging import compressed_entry, dump_entry
from backends.restore.database_statements import question
from backends.restore.database_tools import Tools, dump_major, server_major
from backends.restore.plan import Finding, Look, RestoreRequest, Space
from backends.restore.source import Source
from backends.untrusted import clean

_MIB = 1024 * 1024
_SPARE_CONNECTIONS = 6
# Rates for a first guess, in bytes a second; history takes their place.
_SENDING, _LOADING, _COUNTING, _ANALYZING = 40 * _MIB, 12 * _MIB, 200 * _MIB, 80 * _MIB


def look(request: RestoreRequest, target: Target, source: Source) -> Look:
    """Everything about the database's restore, read-only.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    facts = source.manifest.facts
    findings: list[Finding] = []
    try:
        findings += _schema_findings(facts)
        code, migrate = _code(target, facts)
        findings += code
        place = place_of(target.installation)
        admin = find_admin(target.connection, place)
        tools = admin.box.fitting(dump_major(facts), admin.version_num // 10000)
        entry = dump_entry(source)
    except (AssetFailed, BecomeRefused, CommandFailed) as error:
        way_out = error.next_step
        if target.bare and "was not found" in error.sentence:
            way_out = "Install PostgreSQL there with its client (the package postgresql on Debian)."
        findings.append(_block(error.sentence, way_out))
        return Look(findings=tuple(findings))
    findings += _server_findings(admin, facts, tools, target.connection.host)
    chosen = _locale(target.connection, admin, facts)
    now = Now()
    if admin.live is not None:
        now = look_at_live(target.connection, admin.at(place.name), admin.psql, facts)
    findings += _live_findings(admin, now, place, request)
    findings += _extension_findings(facts, now)
    if chosen.note:
        findings.append(_note(chosen.note, chosen.way_out))
    rooms = find_rooms(target.connection, admin)
    _, packed = compressed_entry(entry, zstd_there=True)
    staged = staged_need(facts, entry.plain_bytes, packed=packed and not entry.plain_sha256)
    count = max(1, min(workers(admin.box.cores), admin.free_connections - _SPARE_CONNECTIONS))
    staging = choose_staging(rooms, staged=staged, database=database_need(facts)) if count > 1 else None
    spaces, lack = _spaces(rooms, facts, staged, staging.path if staging else "", admin.wal)
    findings += lack
    if count > 1 and staging is None:
        findings.append(_note("no room for a copy of the dump beside the database: it is streamed with one worker", ""))
    directory = staging_directory(staging.path, request.id) if staging else None
    owner = admin.live.owner if admin.live else place.user
    # As somebody whom we cannot become the tables could not be made; the owner of the database can have them.
    role = now.role if now.role and (admin.superuser or now.role == admin.place.user) else owner
    known: dict[str, object] = {
        "database": place.name,
        "restored": restored_name(place.name, request.id),
        "before": before_name(place.name, request.id),
        "exists": admin.live is not None,
        "owner": owner,
        "role": role,
        "create_role": not admin.role_exists,
        "migrate": migrate,
        "privileges": admin.live is not None and target.same_host,
        "staging": directory,
        "workers": count,
        "compressed": packed and admin.box.zstd,
        "tablespace": admin.live.tablespace if admin.live else "",
        "admin": _shown_admin(admin.place),
        "programs": {"psql": tools.psql, "pg_restore": tools.pg_restore, "vacuumdb": tools.vacuumdb},
        "create": create_statement(
            restored_name(place.name, request.id),
            owner,
            chosen.locale,
            admin.version_num,
            tablespace=admin.live.tablespace if admin.live else "",
        ),
        "seconds": expected_seconds(facts, entry.plain_bytes, count if staging else 1, staged=bool(staging)),
    }
    return Look(
        facts=known,
        findings=tuple(findings),
        spaces=spaces,
        lost=_all_since(admin, source) + now.lost,
        untouched=_untouched(admin, place),
    )


def _all_since(admin: Admin, source: Source) -> tuple[str, ...]:
    """What is lost in any case, also where the live database cannot say how much that is."""
    if admin.live is None:
        return ()
    return (f"whatever was written to the database after {source.manifest.started_at:%Y-%m-%d %H:%M} UTC",)


def expected_seconds(facts: Mapping[str, Any], sent: int, count: int, *, staged: bool) -> dict[str, float]:
    """A first guess at how long each step takes, from sizes alone."""
    whole, tables = database_need(facts), table_bytes(facts)
    sending = sent / _SENDING
    loading = whole / (_LOADING * count)
    return {
        "load": round(1 + (sending + loading if staged else max(sending, loading)), 1),
        "check": round(1 + tables / _COUNTING, 1),
        "analyze": round(1 + tables / _ANALYZING, 1),
        "swap": 2.0,
    }


def _schema_findings(facts: Mapping[str, Any]) -> list[Finding]:
    schemas = facts.get("schemas")
    others = sorted(str(name) for name in schemas if name != "public") if isinstance(schemas, list) else []
    if not others:
        return []
    names = clean(", ".join(others), 200)
    return [_note(f"only the schema public is restored; the snapshot also holds {names}, which is not Mastodon's", "")]


def _code(target: Target, facts: Mapping[str, Any]) -> tuple[list[Finding], bool]:
    version = "" if target.bare else target.installation.version
    newest = newest_migration(target.connection, target)
    if target.bare and not newest:
        made_by = clean(str(facts.get("mastodon_version") or ""), 60)
        text = f"Mastodon's code is not on the target: the dump needs {f'v{made_by}' if made_by else 'its version'}"
        return [_note(text, "Install it there before the services are started, without mastodon:setup.")], False
    return judge_code(facts, newest, version)


def _server_findings(admin: Admin, facts: Mapping[str, Any], tools: Tools, host: str) -> list[Finding]:
    found = []
    there, dumped = admin.version_num // 10000, server_major(facts)
    if dumped and there < dumped:
        way_out = f"Upgrade PostgreSQL there to {dumped} or newer, or restore to a host that has it."
        found.append(_block(f"PostgreSQL {admin.version} on {host} is older than the dump's server, {dumped}", way_out))
    else:
        words = f"PostgreSQL {admin.version} takes a dump of PostgreSQL {dumped}" if dumped else "PostgreSQL answers"
        found.append(_ok(f"{words}, with pg_restore {tools.version}"))
    if admin.recovery:
        found.append(
            _block(f"PostgreSQL on {host} is a standby, which takes no changes", "Restore to its primary instead.")
        )
    return found


def _locale(connection: Connection, admin: Admin, facts: Mapping[str, Any]) -> Chosen:
    answer: Any = {}
    try:
        answer = question(connection, admin.place, admin.psql, LOCALES)
    except AssetFailed:
        # What cannot be asked is tried with the dump's own words, and said by PostgreSQL then.
        answer = {}
    live = admin.live.locale if admin.live else None
    return choose_locale(locale_of(facts), live, answer if isinstance(answer, dict) else {}, admin.version_num)


def _live_findings(admin: Admin, now: Now, place: DatabasePlace, request: RestoreRequest) -> list[Finding]:
    found = []
    if admin.live is None:
        found.append(_note(f"there is no database {clean(place.name, 100)} yet: it is made", ""))
        if not admin.role_exists:
            found.append(_note(f"there is no role {clean(place.user, 100)} yet: it is made", ""))
    if now.damaged:
        found.append(_note(f"the live database lacks Mastodon's tables {', '.join(now.damaged)}", ""))
    if now.unknown:
        found.append(_note(f"what is lost since the snapshot could not be found out: {now.unknown}", ""))
    if now.prepared:
        text = f"the live database has {now.prepared} prepared transactions, which keep it from being renamed"
        found.append(_block(text, "Look at pg_prepared_xacts there and roll them back (ROLLBACK PREPARED)."))
    if now.foreign:
        text = f"these sessions in the live database cannot be ended from here: {clean(', '.join(now.foreign), 200)}"
        found.append(_note(text, "Close them before the swap, or it will not happen."))
    for name, (kind, restore) in sorted(made_by_restores(admin.databases, place.name).items()):
        if restore == request.id:
            continue
        shown = clean(name, 100)
        if kind == "restore":
            text = f"{shown} is left of the restore {restore}, unfinished or undone"
        else:
            text = f"{shown} is kept for an undo of the restore {restore}"
        found.append(_note(text, f"`mastovault undo {restore} --forget` drops it when it is no longer needed."))
    return found


def _extension_findings(facts: Mapping[str, Any], now: Now) -> list[Finding]:
    if now.available is None:
        return []
    missing = [name for name in extensions_of(facts) if name not in now.available]
    if not missing:
        return []
    names = clean(", ".join(missing), 200)
    return [_note(f"the target lacks the extensions {names}; Mastodon does not need them, they are left out", "")]


def _spaces(
    rooms: Rooms, facts: Mapping[str, Any], staged: int, staging: str, wal: int
) -> tuple[tuple[Space, ...], list[Finding]]:
    need = database_need(facts)
    data = rooms.data
    spaces = [
        Space(what="the new database", path=data.path if data else "", need=need, free=data.free if data else None)
    ]
    if staging:
        room = next(room for room in rooms.staging if room.path == staging)
        spaces.append(Space(what="the dump while it is loaded", path=staging, need=staged, free=room.free))
    if data is not None and data.free < need:
        text = (
            f"{clean(data.path, 200)} has {data.free / _MIB:,.0f} MiB free, and the restored database needs"
            f" {need / _MIB:,.0f} MiB beside the live one"
        )
        return tuple(spaces), [_block(text, f"Free {(need - data.free) / _MIB:,.0f} MiB there, or restore elsewhere.")]
    if data is not None and data.free < need + min(wal, need):
        text = f"room is tight in {clean(data.path, 200)}: the load also writes up to {wal / _MIB:,.0f} MiB of log"
        return tuple(spaces), [_note(text, "Free some space there before.")]
    return tuple(spaces), []


def _untouched(admin: Admin, place: DatabasePlace) -> tuple[str, ...]:
    others = [name for name in admin.databases if name not in {place.name, "template0", "template1", "postgres"}]
    if not others:
        return ()
    where = posixpath.basename(admin.place.host) if not admin.place.is_socket else "this host"
    return (f"the other databases of PostgreSQL on {clean(where, 100)}: {len(others)}",)


def _shown_admin(place: DatabasePlace) -> dict[str, object]:
    """Where the steps run, for showing their commands; no password."""
    return {
        "host": place.host,
        "port": place.port,
        "user": place.user,
        "name": place.name,
        "as_user": place.as_user,
        "shown": shown_place(place),
    }


def _finding(level: Literal["ok", "note", "block"], text: str, way_out: str) -> Finding:
    return Finding(level=level, text=text, way_out=way_out, asset=Asset.DATABASE)


def _ok(text: str) -> Finding:
    return _finding("ok", text, "")


def _note(text: str, way_out: str) -> Finding:
    return _finding("note", text, way_out)


def _block(text: str, way_out: str) -> Finding:
    return _finding("block", text, way_out)
