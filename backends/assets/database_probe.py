"""A cheap look at the database: does it answer, how big is it, who follows it."""

from __future__ import annotations

from typing import Any

from backends.assets.database_access import place_of, shown_place
from backends.assets.database_programs import find_programs
from backends.assets.database_session import ask_once
from backends.connection.base import Connection
from backends.errors import AssetFailed, BecomeRefused, CommandFailed
from backends.mastodon.installation import Installation
from backends.model import Asset, AssetObservation
from backends.untrusted import clean

_SECONDS = 20.0

# A standby replays what it gets and is on another machine; pg_receivewal and pg_basebackup show up here but replay
# nothing. Without the right pg_monitor the columns are null (postgresql.org/docs/current/monitoring-stats.html).
LOOK = """
SELECT jsonb_build_object(
  'version', split_part(current_setting('server_version'), ' ', 1),
  'version_num', current_setting('server_version_num')::int,
  'bytes', pg_database_size(current_database()),
  'recovery', pg_is_in_recovery(),
  'mastodon', to_regclass('public.accounts') IS NOT NULL OR to_regclass('public.schema_migrations') IS NOT NULL,
  'standby', EXISTS (SELECT FROM pg_stat_replication r WHERE r.state = 'streaming' AND r.replay_lsn IS NOT NULL
    AND r.client_addr IS NOT NULL AND NOT r.client_addr <<= '127.0.0.0/8' AND r.client_addr <> '::1'
    AND r.client_addr IS DISTINCT FROM inet_server_addr() AND coalesce(r.replay_lag, '0') < interval '10 minutes'))
"""


def observe(connection: Connection, installation: Installation) -> AssetObservation:
    """One query; a database that does not answer is an observation with a warning.

    Raises:
        ConnectionFailed: the host itself is gone.
    """
    if installation.database is None:
        detail = "where PostgreSQL is was not found"
        return AssetObservation(asset=Asset.DATABASE, present=False, detail=detail)
    try:
        place = place_of(installation)
        found = find_programs(connection, place)
        seen = ask_once(connection, place, found.psql, LOOK, timeout=_SECONDS)
        return _observation(seen, installation, _program_warning(seen, found.for_server))
    except (AssetFailed, BecomeRefused, CommandFailed) as error:
        detail = shown_place(installation.database)
        return AssetObservation(asset=Asset.DATABASE, present=True, detail=detail, warnings=(error.sentence,))


def _program_warning(seen: dict[str, Any], for_server: Any) -> tuple[str, ...]:
    try:
        for_server(int(seen["version_num"]))
    except AssetFailed as error:
        return (error.sentence,)
    return ()


def _observation(seen: dict[str, Any], installation: Installation, warnings: tuple[str, ...]) -> AssetObservation:
    place = installation.database
    if place is not None:
        warnings = (*place.warnings, *warnings)
    if not seen["mastodon"]:
        warnings = (*warnings, "the database holds no table of Mastodon")
    version = clean(str(seen["version"]), 40)
    role = ", a standby" if seen["recovery"] else ""
    return AssetObservation(
        asset=Asset.DATABASE,
        present=True,
        detail=f"PostgreSQL {version}{role}, {clean(place.name, 100) if place else ''}",
        bytes=int(seen["bytes"]),
        warnings=warnings,
        healthy_standby=bool(seen["standby"]),
    )
