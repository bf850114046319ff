"""The rows of the fleet: one an asset, the assets of a host that is away folded into one, sorted and filtered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from backends.model import Asset, AssetStatus, HostObservation, HostState, JobState, Level
from backends.operations.fleet import Fleet
from tui import filter as filters
from tui import jobs

COLUMNS = ("risk", "host", "asset", "age", "goal", "size", "state")
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One row. `statuses` holds one status, or those of a folded host; `observation` is what was seen of the host."""

    key: str
    host: str
    statuses: tuple[AssetStatus, ...]
    observation: HostObservation | None
    job: jobs.JobEntry | None = None
    rank: int = field(default=0, compare=False)

    @property
    def folded(self) -> bool:
        """Whether the row stands for several assets."""
        return len(self.statuses) > 1

    @property
    def first(self) -> AssetStatus:
        """The asset, or the most important one of a folded row."""
        return self.statuses[0]

    @property
    def name(self) -> str:
        """What stands in the asset column."""
        return f"{len(self.statuses)} assets" if self.folded else self.first.asset.value

    @property
    def level(self) -> Level:
        """The level of the row."""
        return self.first.level

    @property
    def stale(self) -> bool:
        """Whether the values are the last known ones only."""
        return any(status.stale for status in self.statuses)

    @property
    def at(self) -> datetime | None:
        """The time of the newest copy; of a folded row, the oldest of these."""
        times = [status.newest.at if status.newest else None for status in self.statuses]
        return None if None in times else min(time for time in times if time is not None)

    @property
    def bytes(self) -> int | None:
        """How large the newest copy is."""
        return None if self.folded or self.first.newest is None else self.first.newest.bytes

    @property
    def provider(self) -> str:
        """The object storage that keeps it, when its own copies are nobody's business here."""
        assets = self.observation.assets if self.observation is not None and not self.folded else ()
        found = next((one.provider for one in assets if one.asset is self.first.asset), None)
        return found or "" if self.at is None else ""

    @property
    def targets(self) -> tuple[Asset, ...]:
        """What a backup of this row covers."""
        return tuple(status.asset for status in self.statuses)

    def state(self, now: datetime) -> tuple[str, str]:
        """The last column and the name of its style: what runs, else what is wrong, else how it is."""
        if self.job is not None:
            return _running(self.job), "run"
        if self.folded and self.observation is not None:
            return host_state(self.observation, now)
        return self.first.state, self._tone()

    def _tone(self) -> str:
        text = self.first.state
        if self.level is Level.UNKN:
            return "unkn"
        if self.level not in {Level.CRIT, Level.HIGH}:
            return ""
        if "FAILED" in text or text.startswith("never"):
            return "bad"
        return "warn" if text.startswith(("overdue", "changed", "not ", "no longer")) else ""


_HOST_STATES: Mapping[HostState, tuple[str, str]] = {
    HostState.UNASKED: ("not asked yet", "quiet"),
    HostState.ONLINE: ("online ✓", "ok"),
    HostState.LOGIN_FAILED: ("LOGIN FAILED", "bad"),
    HostState.HOST_KEY_UNKNOWN: ("HOST KEY NOT ACCEPTED", "warn"),
    HostState.HOST_KEY_CHANGED: ("HOST KEY CHANGED ▲▲", "crit"),
    HostState.NO_MASTODON: ("NO MASTODON FOUND", "warn"),
    HostState.FAILED: ("ASKING FAILED", "bad"),
}


def host_state(seen: HostObservation, now: datetime) -> tuple[str, str]:
    """How a host is, in words with their style; offline says since when."""
    if seen.state is HostState.OFFLINE:
        recent = now - seen.since < timedelta(hours=24)
        return f"OFFLINE since {seen.since.astimezone(UTC):{'%H:%M' if recent else '%m-%d'}}", "unkn"
    return _HOST_STATES[seen.state]


def _running(entry: jobs.JobEntry) -> str:
    if entry.job.state is JobState.QUEUED:
        return "queued"
    if entry.job.state is JobState.CANCELLING:
        return "CANCELLING…"
    if entry.question is not None:
        return "ASKS, see jobs"
    part = jobs.percent(entry.job)
    what = "running" if entry.run.kind == "backup" else entry.what
    return f"{what} {part}%" if part is not None else f"{what}, {entry.job.step or 'starting'}"


def build(fleet: Fleet, found: Sequence[jobs.JobEntry], unfolded: Set[str]) -> tuple[FleetRow, ...]:
    """All rows, worst first as the fleet has them; hosts in `unfolded` show each asset even when they are away."""
    seen = {host.host: host for host in fleet.hosts}
    working = jobs.at_work(found)
    away = _away(fleet, seen, unfolded)
    rows: list[FleetRow] = []
    done: set[str] = set()
    for rank, status in enumerate(fleet.assets):
        observation = seen.get(status.host)
        if status.host in away and status.level is Level.UNKN:
            if status.host in done:
                continue
            done.add(status.host)
            group = away[status.host]
            at_work = [working[one.host, one.asset] for one in group if (one.host, one.asset) in working]
            rows.append(
                FleetRow(
                    key=f"{status.host}/*",
                    host=status.host,
                    statuses=group,
                    observation=observation,
                    job=at_work[0] if at_work else None,
                    rank=rank,
                )
            )
            continue
        rows.append(
            FleetRow(
                key=f"{status.host}/{status.asset}",
                host=status.host,
                statuses=(status,),
                observation=observation,
                job=working.get((status.host, status.asset)),
                rank=rank,
            )
        )
    return tuple(rows)


def _away(
    fleet: Fleet, seen: Mapping[str, HostObservation], unfolded: Set[str]
) -> Mapping[str, tuple[AssetStatus, ...]]:
    groups: dict[str, list[AssetStatus]] = {}
    for status in fleet.assets:
        observation = seen.get(status.host)
        if observation is None or observation.state is HostState.ONLINE or status.host in unfolded:
            continue
        if status.level is Level.UNKN:
            groups.setdefault(status.host, []).append(status)
    order = list(Asset)
    return {
        host: tuple(sorted(group, key=lambda status: order.index(status.asset)))
        for host, group in groups.items()
        if len(group) > 1
    }


def _sort_key(column: str, now: datetime) -> Callable[[FleetRow], Any]:
    keys: Mapping[str, Callable[[FleetRow], Any]] = {
        "risk": lambda row: row.rank,
        "host": lambda row: row.host,
        "asset": lambda row: row.name,
        "age": lambda row: row.at or _NEVER,
        "goal": lambda row: row.first.goal_seconds or 0,
        "size": lambda row: -(row.bytes or -1),
        "state": lambda row: row.state(now)[0].lower(),
    }
    return keys[column]


def arrange(rows: Sequence[FleetRow], *, text: str, column: str, reverse: bool, now: datetime) -> tuple[FleetRow, ...]:
    """The rows that pass the filter, in the chosen order; equal ones stay worst first."""
    terms = filters.parse(text)
    kept = [row for row in rows if filters.matches(terms, _values(row, now))] if terms else list(rows)
    if column == "risk":
        kept.sort(key=_sort_key(column, now), reverse=reverse)
    else:
        kept.sort(key=lambda row: row.rank)
        kept.sort(key=_sort_key(column, now), reverse=reverse)
    return tuple(kept)


def _values(row: FleetRow, now: datetime) -> dict[str, str]:
    return {
        "host": row.host,
        "asset": " ".join(status.asset.value for status in row.statuses),
        "risk": row.level.value,
        "state": row.state(now)[0],
    }
