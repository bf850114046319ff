"""What is kept and what may go: the policy of one host, as a verdict with its reasons on every snapshot.

Pure: values in, values out (docs/retention.md). Days, weeks, months and years are those of UTC.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from backends.archive.layout import time_of
from backends.archive.signing import trust_of
from backends.config.schema import Config, Policy
from backends.errors import ConfigurationError
from backends.model import Asset, SnapshotInfo, Trust, rfc3339

_CLOCKS = timedelta(hours=1)
"""How far clocks may differ before a snapshot counts as one of the future."""
_SECOND = timedelta(seconds=1)
_FOR_EVER = 9999
"""The year until which a legal hold is said to last."""
_PERIODS: tuple[tuple[str, Callable[[datetime], str]], ...] = (
    ("daily", lambda at: f"{at:%Y-%m-%d}"),
    ("weekly", lambda at: f"{at:%G-W%V}"),
    ("monthly", lambda at: f"{at:%Y-%m}"),
    ("yearly", lambda at: f"{at:%Y}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one snapshot is kept, and why: `daily 2026-11-22`, `the last good one`."""

    snapshot: SnapshotInfo
    keep: bool
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    """What one vault holds of the host, and why each of it is kept by what that vault holds alone."""

    newest_first: Sequence[SnapshotInfo]
    ours: Sequence[SnapshotInfo]
    """Those whose writer is trusted, those of the future too; newest first."""
    why: dict[str, list[str]]

    @property
    def good(self) -> list[SnapshotInfo]:
        """What can be restored, as far as is known."""
        return [each for each in self.ours if not each.verify_failed]

    @property
    def kept(self) -> set[str]:
        """Ids of those that stay."""
        return {each.id for each in self.ours if self.why[each.id]}

    @property
    def databases(self) -> list[SnapshotInfo]:
        """The good ones that are kept."""
        return [each for each in self.good if each.asset is Asset.DATABASE and self.why[each.id]]


def judge(
    snapshots: Sequence[SnapshotInfo],
    config: Config,
    host: str,
    now: datetime,
    *,
    beside: Sequence[Sequence[SnapshotInfo]] = (),
    unread: Collection[str] = (),
    locked: Mapping[str, datetime] = MappingProxyType({}),
) -> list[Verdict]:
    """What the policies of a host say of its snapshots, newest first.

    Args:
        snapshots: all of the host's, of every asset, as one vault holds them.
        config: the policies, and whose snapshots are trusted.
        host: the host's name. Of one that is not configured nothing goes.
        now: by the vault's clock.
        beside: the same of each other vault: a database that is kept there may need secrets that are only here.
        unread: ids of snapshots, in whatever vault, whose manifest cannot be read now: they may need something, too.
        locked: ids of snapshots that are under an Object Lock in this vault, and until when.

    Raises:
        ConfigurationError: a policy keeps nothing.
    """
    if host not in config.hosts:
        newest_first = _newest_first(snapshots)
        return [Verdict(snapshot=each, keep=True, why=("its host is not configured",)) for each in newest_first]
    policies = {asset: _policy(config, host, asset) for asset in Asset}
    here = _held(snapshots, config, policies, now)
    for each in here.newest_first:
        if each.id in locked:
            here.why[each.id].append(_lock_words(locked[each.id]))
    others = [_held(each, config, policies, now) for each in beside]
    _by_need(here, others, _bound(config, host), unread)
    return [
        Verdict(snapshot=each, keep=bool(why), why=tuple(why) or (_gone(each, policies[each.asset]),))
        for each in here.newest_first
        for why in (here.why[each.id],)
    ]


def policy_words(policy: Policy) -> str:
    """A policy as one line: `last 3, daily 7, within 14d`."""
    numbers = [(name, getattr(policy, name)) for name in ("last", *(name for name, _ in _PERIODS))]
    words = [f"{name} {number}" for name, number in numbers if number]
    if policy.within:
        words.append(_within_words(policy.within))
    return ", ".join(words)


def _within_words(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"within {seconds // length}{unit}"
    return f"within {seconds}s"


def _lock_words(until: datetime) -> str:
    end = "for ever" if until.year >= _FOR_EVER else f"until {rfc3339(until)}"
    return f"under an Object Lock {end}"


def _policy(config: Config, host: str, asset: Asset) -> Policy:
    policy, _ = config.policy(host, asset)
    if policy.empty:
        raise ConfigurationError(
            f"the retention of {host}/{asset} keeps nothing", "Name at least one of last, daily, within ..."
        )
    return policy


def _bound(config: Config, host: str) -> tuple[Asset, ...]:
    """What stays with a database that is kept.

    A database without its secrets cannot be read, so that these always do. Media and Redis do unless somebody wrote a
    policy for that very asset: then they want just that.
    """
    return (Asset.SECRETS, *(asset for asset in (Asset.MEDIA, Asset.REDIS) if not config.policy(host, asset)[1]))


def _newest_first(snapshots: Iterable[SnapshotInfo]) -> list[SnapshotInfo]:
    return sorted(snapshots, key=lambda each: (each.at, each.id), reverse=True)


def _held(snapshots: Sequence[SnapshotInfo], config: Config, policies: Mapping[Asset, Policy], now: datetime) -> _Held:
    """Judge what one vault holds, by the policies and by what no policy takes away."""
    newest_first = _newest_first(snapshots)
    why: dict[str, list[str]] = {each.id: [] for each in newest_first}
    ours, past = [], []
    for each in newest_first:
        if said := _not_ours(each, config):
            why[each.id].append(said)
            continue
        ours.append(each)
        if each.at > now + _CLOCKS:
            why[each.id].append("dated in the future: a clock was wrong")
        else:
            past.append(each)
    for asset, policy in policies.items():
        _by_policy([each for each in past if each.asset is asset], policy, now, why)
    return _Held(newest_first, ours, why)


def _not_ours(snapshot: SnapshotInfo, config: Config) -> str:
    """Why a snapshot is none that a policy may count, or remove: whoever put it there may have wanted just that."""
    if snapshot.altered:
        return "altered: another manifest of it is trusted more; look at it"
    trust = trust_of(snapshot.signature, snapshot.signer, config.signers)
    words = {Trust.UNSIGNED: "not signed", Trust.FOREIGN: "signed by somebody else", Trust.CHANGED: "changed"}
    return "" if trust.good else f"{words[trust]}: removed by nobody but you"


def _gone(snapshot: SnapshotInfo, policy: Policy) -> str:
    state = "damaged, " if snapshot.verify_failed else "in part, " if snapshot.in_part else ""
    return f"{state}beyond {policy_words(policy)}"


def _by_policy(newest_first: Sequence[SnapshotInfo], policy: Policy, now: datetime, why: dict[str, list[str]]) -> None:
    """The reasons of one asset's own policy, and those that no policy takes away."""
    whole = [each for each in newest_first if _worth(each) == 0]
    usable = [each for each in newest_first if _worth(each) < 2]
    if last_good := next(iter(whole or usable or newest_first), None):
        why[last_good.id].append("the last good one")
        for each in usable:
            if each.at > last_good.at:
                why[each.id].append("newer than the last good one")
    if proven := _proven(newest_first):
        why[proven.id].append("proven by the last drill")
    for each in (whole or newest_first)[: policy.last]:
        why[each.id].append(f"last {policy.last}")
    for each in newest_first:
        if policy.within and each.at > now - policy.within:
            why[each.id].append(_within_words(policy.within))
    for name, period in _PERIODS:
        for when, best in list(_best_of_each(newest_first, period))[: getattr(policy, name)]:
            why[best.id].append(f"{name} {when}")


def _proven(newest_first: Sequence[SnapshotInfo]) -> SnapshotInfo | None:
    """What was restored last, in a drill that went well; one whose copy here is damaged since only when all are."""
    drilled = [each for each in newest_first if each.drilled_at is not None and not each.drill_failed]
    sound = [each for each in drilled if not each.verify_failed]
    return max(sound or drilled, key=lambda each: (each.drilled_at or each.at, each.id), default=None)


def _best_of_each(
    newest_first: Iterable[SnapshotInfo], period: Callable[[datetime], str]
) -> Iterable[tuple[str, SnapshotInfo]]:
    """The newest good snapshot of each period; where there is none, one that is in part, or else a damaged one."""
    groups: dict[str, list[SnapshotInfo]] = {}
    for each in newest_first:
        groups.setdefault(period(each.at), []).append(each)
    for when, group in groups.items():
        yield when, min(group, key=_worth)  # the newest of the best: min keeps the first


def _worth(snapshot: SnapshotInfo) -> int:
    return 2 if snapshot.verify_failed else 1 if snapshot.in_part else 0


def _by_need(here: _Held, others: Sequence[_Held], bound: Sequence[Asset], unread: Collection[str]) -> None:
    """What the restore points of the kept databases need: of this vault by itself, and of all vaults together."""
    needs: list[tuple[_Parts, Sequence[SnapshotInfo]]] = [(_Parts(here.good, bound, here.kept), here.databases)]
    together = needs[0][0]
    if others:
        every = {each.id: each for held in (here, *others) for each in held.good}
        kept = set().union(here.kept, *(held.kept for held in others))
        together = _Parts(_newest_first(every.values()), bound, kept)
        databases = {each.id: each for held in (here, *others) for each in held.databases}
        needs.append((together, list(databases.values())))
    users: dict[str, set[str]] = {}
    for parts, databases_of in needs:
        for database in databases_of:
            for part in parts.of(database):
                users.setdefault(part.id, set()).add(f"{database.at:%Y-%m-%d %H:%M}")
    lost = {part.id: f"{at:%Y-%m-%d %H:%M}" for at, part in _unread_parts(unread, together)}
    for each in here.good:
        if times := sorted(users.get(each.id, ())):
            many = f"{len(times)} databases, {times[0]} to {times[-1]}"
            here.why[each.id].append(f"belongs to {f'the database of {times[0]}' if len(times) == 1 else many}")
        if each.id in lost:
            here.why[each.id].append(f"may belong to the database of {lost[each.id]}, whose manifest cannot be read")


class _Parts:
    """Good snapshots of one host, in which the parts of restore points are looked up as `operations.choose` does.

    Args:
        newest_first: good snapshots of every asset.
        bound: the assets that stay with a database.
        kept: ids of those that stay anyway.
    """

    def __init__(self, newest_first: Sequence[SnapshotInfo], bound: Sequence[Asset], kept: Collection[str]) -> None:
        self._bound, self._kept = tuple(bound), kept
        self._runs: dict[str, list[SnapshotInfo]] = {}
        for each in newest_first:
            self._runs.setdefault(each.run, []).append(each)
        self._of = {asset: [each for each in reversed(newest_first) if each.asset is asset] for asset in bound}
        """The oldest first."""
        self._times = {asset: [each.at for each in some] for asset, some in self._of.items()}

    def of(self, database: SnapshotInfo) -> Iterator[SnapshotInfo]:
        """What a kept database needs, of each bound asset; the same may come more than once."""
        run = self._runs.get(database.run, [])
        own = {asset: next((each for each in run if each.asset is asset), None) for asset in self._bound}
        moments = {database.at}
        moments |= {part.at for part in own.values() if part is not None}
        # A point is as old as the last part of its run. So look at each such moment: parts may go one by one.
        moments |= {each.at for each in run if each.asset not in own and each.id in self._kept}
        for asset, part in own.items():
            if part is not None:
                yield part
            else:
                yield from self._before(asset, moments)

    def around(self, moment: datetime) -> Iterator[SnapshotInfo]:
        """What a database of that second may need of which nothing else is known."""
        for asset, some in self._of.items():
            place = bisect_right(self._times[asset], moment + _SECOND)
            yield from some[max(0, place - 1) : place + 1]

    def _before(self, asset: Asset, moments: Iterable[datetime]) -> Iterator[SnapshotInfo]:
        """The newest of each moment; the oldest where there was none yet, for that is better than nothing."""
        some = self._of[asset]
        for moment in moments if some else ():
            yield some[max(0, bisect_right(self._times[asset], moment) - 1)]


def _unread_parts(unread: Collection[str], parts: _Parts) -> Iterator[tuple[datetime, SnapshotInfo]]:
    """What the databases among some snapshots may need, and when each of these was made.

    Args:
        unread: ids of snapshots whose manifests cannot be read.
        parts: what there is.
    """
    for snapshot in unread:
        if f"/{Asset.DATABASE}/" in snapshot:
            try:
                at = time_of(snapshot)
            except ValueError:  # no such day: a name only
                continue
            for part in parts.around(at):
                yield at, part
