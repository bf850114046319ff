"""Whether the jobs in a snapshot of Redis belong to the database that they will meet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from backends.archive.manifest import Manifest
from backends.model import Asset
from backends.restore.plan import Finding, RestoreRequest
from backends.restore.redis_saved import saved_servers
from backends.restore.source import Source

_SAME_MOMENT = timedelta(minutes=15)


def moment(request: RestoreRequest, sources: Mapping[Asset, Source], source: Source | None) -> Finding:
    """What to say of it: an old queue replayed against another database mails and deletes anew."""
    if source is None:
        return Finding(
            level="note",
            text="Redis starts empty: waiting jobs and the activity counters of six months are gone, feeds come back",
            way_out="`tootctl feeds build` runs after the restore.",
            asset=Asset.REDIS,
        )
    at = _saved_at(source.manifest)
    other = sources.get(Asset.DATABASE)
    if other is not None:
        apart = abs(other.manifest.started_at - at)
        if other.manifest.run == source.manifest.run or apart <= _SAME_MOMENT:
            return Finding(level="ok", text="Redis and the database are of the same moment", asset=Asset.REDIS)
        older = "older" if at < other.manifest.started_at else "newer"
        text = f"the Redis snapshot is {_span(apart)} {older} than the database's: its jobs may run twice or fail"
    else:
        apart = max(request.at - at, timedelta())
        text = f"jobs that waited {_span(apart)} ago come back, and the database stays as it is: they may run twice"
    return Finding(
        level="note",
        text=text,
        way_out="Recommended: let Redis start empty, the feeds are built again from the database.",
        asset=Asset.REDIS,
    )


def _saved_at(manifest: Manifest) -> datetime:
    times = [one.saved_at for one in saved_servers(manifest) if one.saved_at]
    try:
        return datetime.fromtimestamp(min(times), UTC) if times else manifest.started_at
    except (OverflowError, ValueError, OSError):
        return manifest.started_at


def _span(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    if minutes < 2:
        return "a minute"
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 48 * 60 else f"{minutes // 1440} days"
