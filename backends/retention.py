"""What is kept and what may go: the policy of one host, as a verdict with its reasons on every snapshot.

Pure: values in, values out (docs/retention.md). Days, weeks, months and years are those of UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backends.archive.signing import trust_of
from backends.config.schema import Config, Policy
from backends.errors import ConfigurationError
from backends.model import Asset, SnapshotInfo, Trust

_CLOCKS = timedelta(hours=1)
"""How far clocks may differ before a snapshot counts as one of the future."""
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


def judge(snapshots: Sequence[SnapshotInfo], config: Config, host: str, now: datetime) -> list[Verdict]:
    """What the policies of a host say of its snapshots, newest first.

    Args:
        snapshots: all of the host's, of every asset, as one vault holds them.
        config: the policies, and whose snapshots are trusted.
        host: the host's name. Of one that is not configured nothing goes.
        now: by the vault's clock.

    Raises:
        ConfigurationError: a policy keeps nothing.
    """
    newest_first = sorted(snapshots, key=lambda each: (each.at, each.id), reverse=True)
    why: dict[str, list[str]] = {each.id: [] for each in newest_first}
    if host not in config.hosts:
        return [Verdict(snapshot=each, keep=True, why=("its host is not configured",)) for each in newest_first]
    ours = []
    for each in newest_first:
        if said := _not_ours(each, config):
            why[each.id].append(said)
        elif each.at > now + _CLOCKS:
            why[each.id].append("dated in the future: a clock was wrong")
        else:
            ours.append(each)
    beyond: dict[Asset, str] = {}
    for asset in Asset:
        policy, _ = config.policy(host, asset)
        if policy.empty:
            raise ConfigurationError(
                f"the retention of {host}/{asset} keeps nothing", "Name at least one of last, daily, within ..."
            )
        beyond[asset] = f"beyond {policy_words(policy)}"
        _by_policy([each for each in ours if each.asset is asset], policy, now, why)
    _by_need(ours, config, host, why)
    return [
        Verdict(snapshot=each, keep=bool(why[each.id]), why=tuple(why[each.id]) or (_gone(each, beyond),))
        for each in newest_first
    ]


def policy_words(policy: Policy) -> str:
    """A policy as one line: `last 3, daily 7, within 14d`."""
    numbers = [(name, getattr(policy, name)) for name in ("last", *(name for name, _ in _PERIODS))]
    words = [f"{name} {number}" for name, number in numbers if number]
    if policy.within:
        words.append(_within_words(policy.within))
    return ", ".join(words)


def _within_words(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    return f"within {hours // 24}d" if hours % 24 == 0 else f"within {hours}h"


def _not_ours(snapshot: SnapshotInfo, config: Config) -> str:
    """Why a snapshot is none that a policy may count, or remove: whoever put it there may have wanted just that."""
    if snapshot.altered:
        return "altered: another manifest of it is trusted more; look at it"
    trust = trust_of(snapshot.signature, snapshot.signer, config.signers)
    words = {Trust.UNSIGNED: "not signed", Trust.FOREIGN: "signed by somebody else", Trust.CHANGED: "changed"}
    return "" if trust.good else f"{words[trust]}: removed by nobody but you"


def _gone(snapshot: SnapshotInfo, beyond: dict[Asset, str]) -> str:
    state = "damaged, " if snapshot.verify_failed else "in part, " if snapshot.in_part else ""
    return state + beyond[snapshot.asset]


def _by_policy(newest_first: Sequence[SnapshotInfo], policy: Policy, now: datetime, why: dict[str, list[str]]) -> None:
    """The reasons of one asset's own policy, and those that no policy takes away."""
    whole = [each for each in newest_first if _worth(each) == 0]
    usable = [each for each in newest_first if _worth(each) < 2]
    if last_good := next(iter(whole or usable or newest_first), None):
        why[last_good.id].append("the last good one")
        for each in usable:
            if each.at > last_good.at:
                why[each.id].append("newer than the last good one")
    proven = [each for each in newest_first if each.drilled_at is not None and not each.drill_failed]
    if proven:
        why[max(proven, key=lambda each: (each.drilled_at or each.at, each.id)).id].append("proven by the last drill")
    for each in (whole or newest_first)[: policy.last]:
        why[each.id].append(f"last {policy.last}")
    for each in newest_first:
        if policy.within and each.at > now - policy.within:
            why[each.id].append(_within_words(policy.within))
    for name, period in _PERIODS:
        for when, best in list(_best_of_each(newest_first, period))[: getattr(policy, name)]:
            why[best.id].append(f"{name} {when}")


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


def _by_need(newest_first: Sequence[SnapshotInfo], config: Config, host: str, why: dict[str, list[str]]) -> None:
    """What the restore points of the kept databases need.

    A database without its secrets cannot be read, so that these always stay. Media and Redis stay with it unless
    somebody wrote a policy for that very asset: then they want just that.
    """
    bound = [Asset.SECRETS]
    bound += [asset for asset in (Asset.MEDIA, Asset.REDIS) if not config.policy(host, asset)[1]]
    good = [each for each in newest_first if not each.verify_failed]
    for database in (each for each in good if each.asset is Asset.DATABASE and why[each.id]):
        for asset in bound:
            parts = [each for each in good if each.asset is asset]
            part = next(
                (each for each in parts if each.run == database.run),
                next((each for each in parts if each.at <= database.at), parts[-1] if parts else None),
            )
            if part is not None:
                why[part.id].append(f"belongs to the database of {database.at:%Y-%m-%d %H:%M}")
