"""Which hosts a lab has and what each of them shows."""

from __future__ import annotations

from dataclasses import dataclass

from backends.lab.population import Population, populate

STATUSES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """What one host is to be.

    `cheap` hosts share one PostgreSQL role, a template database, one Redis and one set of encryption keys; `socket`
    hosts name their database by the directory of its unix socket; `empty` ones have servers of their own and Mastodon's
    code, but no settings, no database and no media; `rate` is the speed of a host's line in bytes a
    second, None for as fast as it goes; `backups` are the ages in hours of the snapshots that the demo begins with,
    `failures` those of attempts that failed.
    """

    name: str
    seed: int
    version: str = "4.7.4"
    offline: bool = False
    bucket: bool = False
    socket: bool = False
    cheap: bool = False
    empty: bool = False
    env_mode: int = 0o600
    statuses: int = STATUSES
    vaults: tuple[str, ...] = ("local", "offsite")
    rate: float | None = None
    backups: tuple[float, ...] = ()
    failures: tuple[float, ...] = ()

    @property
    def domain(self) -> str:
        """Its LOCAL_DOMAIN."""
        return f"{self.name}.example"

    def population(self) -> Population:
        """Who and what lives there."""
        size = (3, 6, 4, 2) if self.cheap else (24, 160, 90, 40)
        people, remote, media, cached = size
        return populate(self.seed, people=people, remote=remote, media=media, cached=cached, statuses=self.statuses)


def plan_fleet(count: int, seed: int, statuses: int, *, demo: bool, spare: bool = False) -> tuple[HostPlan, ...]:
    """The first `count` hosts: one fresh, one stale, one never backed up with media in S3, one offline, then many.

    In a demo two of them are at the end of a slow line, so that there is time to see a backup at work. With `spare`
    there is an empty host too, at the end.
    """
    slow = 1_500_000.0 if demo else None
    named = (
        HostPlan(name="social", seed=seed, backups=(49, 25, 0.2), statuses=statuses),
        HostPlan(
            name="art",
            seed=seed + 1,
            version="4.6.5",
            socket=True,
            env_mode=0o644,
            vaults=("local",),
            rate=slow,
            backups=(220, 148),
            failures=(50, 26, 2),
            statuses=statuses,
        ),
        HostPlan(name="club", seed=seed + 2, bucket=True, statuses=statuses * (8 if demo else 1), rate=slow),
        HostPlan(name="lan", seed=seed + 3, version="4.5.11", offline=True, backups=(31,), statuses=statuses),
    )
    many = (
        HostPlan(name=f"host{number:03d}", seed=seed + number, cheap=True, statuses=min(statuses, 100))
        for number in range(5, count + 1)
    )
    empty = (HostPlan(name="spare", seed=seed + 4, empty=True, statuses=0),) if spare else ()
    return (*named[:count], *many, *empty)
