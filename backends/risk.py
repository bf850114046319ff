"""The ranking: what could be lost, as points from 0 to 100 with the reasons that add up to them (docs/risk.md).

Pure: values in, values out. More age, more failures or fewer copies never lower a score.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.model import Asset, Level, Reason

RECHECK_SECONDS = 7 * 86400.0
"""How long a comparison of the secrets stays good when they have no goal in days."""
DRILL_SECONDS = 30 * 86400.0
CUSTODY_SECONDS = 180 * 86400.0
"""How long the word of somebody who had the recovery key in hand stays good."""
_AGE_WEIGHTS = ((10, 80), (4, 60), (2, 40), (1, 20))
_LEVELS = ((70, Level.CRIT), (40, Level.HIGH), (15, Level.MED), (1, Level.LOW))
_DRILLED = frozenset({Asset.DATABASE, Asset.SECRETS})
_STANDBY = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFacts:
    """What is known of one asset of one host.

    `age_seconds` counts from when the newest snapshot was begun, or from when its content was last seen to be that of
    the host; None means never backed up. `copies`, `offsite`, `same_machine`, `verify_failed`, `torn` (what it lacks),
    `opens_dump` and `drill_failed` are of the newest snapshot; `last_drill_failed` is of any. `usual_bytes` is what
    snapshots before it used to have. `untrusted` says what is wrong with a newer snapshot, or with one of its copies,
    whose writer is not trusted; all else is of the newest trusted one. `asked` is False when the host or the vaults
    could not be asked, and all this is what was last known.
    """

    asset: Asset
    age_seconds: float | None = None
    goal_seconds: float | None = None
    differs: bool = False
    opens_dump: bool | None = None
    verify_failed: bool = False
    torn: str = ""
    copies: int = 0
    offsite: bool = False
    same_machine: bool = False
    failed_runs: int = 0
    failure: str = ""
    bytes: int | None = None
    usual_bytes: int | None = None
    drilled_seconds: float | None = None
    drill_failed: bool = False
    last_drill_failed: bool = False
    custody_confirmed: bool = False
    custody_seconds: float | None = 0.0
    """Since it was confirmed; None when nobody knows."""
    healthy_standby: bool = False
    provider: str = ""
    untrusted: str = ""
    asked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """How urgent it is, and why; `score` is the sum of the reasons' points, at most 100."""

    level: Level
    score: int
    reasons: tuple[Reason, ...]


def assess(facts: AssetFacts) -> Assessment:
    """Rank one asset. What a provider keeps needs no copy here, and scores 0."""
    reasons = () if facts.provider else _reasons(facts)
    score = max(0, min(100, sum(reason.points for reason in reasons)))
    return Assessment(level=level_of(score) if facts.asked else Level.UNKN, score=score, reasons=reasons)


def level_of(score: int) -> Level:
    """The word for a score."""
    return next((level for least, level in _LEVELS if score >= least), Level.OK)


def span(seconds: float) -> str:
    """A duration for a sentence: `45s`, `27m`, `25h`, `3d 04h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 172800:
        return f"{whole // 3600}h"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def _reasons(facts: AssetFacts) -> tuple[Reason, ...]:
    """Every reason, heaviest first; the standby's, which takes away, last."""
    lowered = [*_age(facts), *_copies(facts)]
    reasons = [
        *_worthless(facts),
        *lowered,
        *_runs(facts),
        *_size(facts),
        *_proof(facts),
        *_custody(facts),
        *_writer(facts),
    ]
    reasons.sort(key=lambda reason: -reason.points)
    relief = min(_points(facts, _STANDBY), sum(reason.points for reason in lowered))
    if facts.healthy_standby and facts.asset is Asset.DATABASE and relief:
        reasons.append(Reason(points=-relief, text="a healthy standby follows it", action="keep the standby healthy"))
    return tuple(reasons)


def _points(facts: AssetFacts, weight: int) -> int:
    """Rounded half up, so that a weight above 0 never counts for nothing."""
    return max(1, (facts.asset.impact * weight + 50) // 100)


def _reason(facts: AssetFacts, weight: int, text: str, action: str) -> Reason:
    return Reason(points=_points(facts, weight), text=text, action=action)


def _worthless(facts: AssetFacts) -> list[Reason]:
    """What makes the newest copy no copy at all."""
    found = []
    if facts.age_seconds is None:
        text = "no snapshot of it is trusted" if facts.untrusted else "never backed up"
        found.append(_reason(facts, 100, text, "back it up"))
    elif facts.verify_failed:
        text = (
            f"the newest snapshot is damaged: {facts.torn}" if facts.torn else "the newest snapshot failed verification"
        )
        found.append(_reason(facts, 100, text, "back it up again, and check that vault"))
    if facts.drill_failed and facts.age_seconds is not None:
        found.append(
            _reason(facts, 100, "the drill of the newest snapshot failed", "see what it said, back it up again")
        )
    if facts.differs and facts.age_seconds is not None:
        found.append(_reason(facts, 100, "the secrets on the host differ from the copy", "back them up"))
    if facts.opens_dump is False:
        found.append(
            _reason(facts, 100, "the saved secrets do not open the dump", "find the keys that belong to that database")
        )
    return found


def _age(facts: AssetFacts) -> list[Reason]:
    goal = facts.goal_seconds
    if facts.age_seconds is None:
        return []
    limit = RECHECK_SECONDS if goal is None else goal
    weight = next((weight for times, weight in _AGE_WEIGHTS if facts.age_seconds > times * limit), 0)
    if not weight:
        return []
    if goal is None:
        text = f"not compared with the host for {span(facts.age_seconds)}"
        return [_reason(facts, weight, text, "refresh, or back them up")]
    times = f"{facts.age_seconds / limit:.1f} x the {span(limit)} goal" if limit else "with a goal of nothing"
    return [_reason(facts, weight, f"{span(facts.age_seconds)} old, {times}", "back it up")]


def _copies(facts: AssetFacts) -> list[Reason]:
    found: list[Reason] = []
    if facts.age_seconds is None:
        return found
    if facts.same_machine:
        found.append(_reason(facts, 50, "every copy is on the machine it protects", "add a vault on another machine"))
    if facts.copies <= 1:
        found.append(_reason(facts, 10, "only one copy", "add a second vault"))
    if not facts.offsite:
        found.append(
            _reason(facts, 15, "no copy off-site", "add a vault at another site, or mark one as `offsite = true`")
        )
    return found


def _runs(facts: AssetFacts) -> list[Reason]:
    if not facts.failed_runs:
        return []
    said = f": {facts.failure}" if facts.failure else ""
    action = "read its log, repair the cause, back it up"
    if facts.failed_runs == 1:
        return [_reason(facts, 15, f"last run failed{said}", action)]
    return [_reason(facts, 25, f"last {facts.failed_runs} runs failed{said}", action)]


def _size(facts: AssetFacts) -> list[Reason]:
    if facts.bytes is None or not facts.usual_bytes or facts.bytes * 2 >= facts.usual_bytes:
        return []
    share = facts.bytes * 100 // facts.usual_bytes
    return [_reason(facts, 25, f"only {share}% of its usual size", "look at what it lacks, then back it up again")]


def _proof(facts: AssetFacts) -> list[Reason]:
    if facts.age_seconds is None or facts.drill_failed:
        return []
    if facts.last_drill_failed:
        return [_reason(facts, 40, "the last drill failed", "see what it said, then drill the newest snapshot")]
    if facts.asset not in _DRILLED:
        return []
    if facts.drilled_seconds is None:
        return [_reason(facts, 10, "never proven by a drill", "prove it with a drill")]
    if facts.drilled_seconds > DRILL_SECONDS:
        return [_reason(facts, 5, f"last drill {span(facts.drilled_seconds)} ago", "prove it with a drill")]
    return []


def _custody(facts: AssetFacts) -> list[Reason]:
    if facts.age_seconds is None:
        return []
    if not facts.custody_confirmed:
        action = "keep the recovery key elsewhere, then `mastovault key check --confirm-custody`"
        return [_reason(facts, 15, "custody of the recovery key is not confirmed", action)]
    ago = facts.custody_seconds
    if ago is not None and ago <= CUSTODY_SECONDS:
        return []
    text = "when custody was last confirmed is not known" if ago is None else f"custody last confirmed {_days(ago)} ago"
    return [_reason(facts, 5, text, "fetch the recovery key, then `mastovault key check --recovery`")]


def _days(seconds: float) -> str:
    return f"{int(seconds // 86400)} days"


def _writer(facts: AssetFacts) -> list[Reason]:
    if not facts.untrusted:
        return []
    return [
        _reason(facts, 25, facts.untrusted, "find out who writes to the vault; `mastovault list` shows which it is")
    ]
