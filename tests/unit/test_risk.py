"""The ranking: its rules line by line, and what must hold for all facts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.model import Asset, Level
from backends.risk import CUSTODY_SECONDS, DRILL_SECONDS, RECHECK_SECONDS, AssetFacts, assess, level_of, span

HOUR = 3600.0
DAY = 86400.0
PERFECT = AssetFacts(
    asset=Asset.DATABASE,
    age_seconds=HOUR,
    goal_seconds=DAY,
    copies=2,
    offsite=True,
    bytes=100,
    usual_bytes=100,
    drilled_seconds=DAY,
    custody_confirmed=True,
)


def points(facts: AssetFacts) -> list[int]:
    return [reason.points for reason in assess(facts).reasons]


def test_nothing_to_say_of_a_perfect_copy() -> None:
    for asset in Asset:
        assessment = assess(replace(PERFECT, asset=asset))
        assert (assessment.level, assessment.score, assessment.reasons) == (Level.OK, 0, ())


@pytest.mark.parametrize(
    ("change", "weight", "says"),
    [
        ({"age_seconds": None}, 100, "never backed up"),
        ({"verify_failed": True}, 100, "failed verification"),
        ({"differs": True}, 100, "differ from the copy"),
        ({"opens_dump": False}, 100, "do not open the dump"),
        ({"age_seconds": DAY + 1}, 20, "24h old, 1.0 x the 24h goal"),
        ({"age_seconds": 2 * DAY + 1}, 40, "2d 00h old, 2.0 x"),
        ({"age_seconds": 4 * DAY + 1}, 60, "4.0 x"),
        ({"age_seconds": 10 * DAY + 1}, 80, "10.0 x"),
        ({"goal_seconds": None, "age_seconds": RECHECK_SECONDS + 1}, 20, "not compared with the host for 7d"),
        ({"same_machine": True}, 50, "on the machine it protects"),
        ({"failed_runs": 1, "failure": "no space"}, 15, "last run failed: no space"),
        ({"failed_runs": 2}, 25, "last 2 runs failed"),
        ({"failed_runs": 7}, 25, "last 7 runs failed"),
        ({"bytes": 49}, 25, "only 49% of its usual size"),
        ({"copies": 1}, 10, "only one copy"),
        ({"offsite": False}, 15, "no copy off-site"),
        ({"drilled_seconds": None}, 10, "never proven by a drill"),
        ({"drilled_seconds": DRILL_SECONDS + 1}, 5, "last drill 30d 00h ago"),
        ({"drill_failed": True, "last_drill_failed": True}, 100, "drill of the newest snapshot failed"),
        ({"last_drill_failed": True}, 40, "the last drill failed"),
        ({"custody_confirmed": False}, 15, "custody"),
        ({"custody_seconds": CUSTODY_SECONDS + 1}, 5, "custody last confirmed 180 days ago"),
        ({"custody_seconds": None}, 5, "not known"),
    ],
)
def test_each_rule(change: dict[str, object], weight: int, says: str) -> None:
    facts = replace(PERFECT, **change)  # type: ignore[arg-type]
    (reason,) = assess(facts).reasons
    assert reason.points == weight
    assert says in reason.text
    assert reason.action


@pytest.mark.parametrize(
    "change",
    [
        {"age_seconds": DAY},
        {"goal_seconds": None, "age_seconds": RECHECK_SECONDS},
        {"bytes": 50},
        {"bytes": None},
        {"usual_bytes": None},
        {"usual_bytes": 0},
        {"drilled_seconds": DRILL_SECONDS},
        {"opens_dump": True},
        {"opens_dump": None},
        {"healthy_standby": True},
        {"copies": 3},
    ],
)
def test_edges_that_are_still_good(change: dict[str, object]) -> None:
    assert points(replace(PERFECT, **change)) == []  # type: ignore[arg-type]


def test_weights_are_scaled_by_impact() -> None:
    never = {asset: assess(AssetFacts(asset=asset)).score for asset in Asset}
    assert never == {Asset.DATABASE: 100, Asset.SECRETS: 90, Asset.MEDIA: 60, Asset.REDIS: 15}
    assert assess(AssetFacts(asset=Asset.REDIS)).level is Level.MED
    assert assess(AssetFacts(asset=Asset.MEDIA)).level is Level.HIGH


def test_only_database_and_secrets_are_drilled() -> None:
    for asset in (Asset.MEDIA, Asset.REDIS):
        assert points(replace(PERFECT, asset=asset, drilled_seconds=None)) == []
        assert points(replace(PERFECT, asset=asset, last_drill_failed=True)) != []


def test_a_standby_lowers_only_what_it_helps_against() -> None:
    old = replace(PERFECT, age_seconds=3 * DAY, copies=1, healthy_standby=True)
    assert points(old) == [40, 10, -15]
    assert assess(old).score == 35
    assert points(replace(PERFECT, copies=1, healthy_standby=True)) == [10, -10]
    failing = replace(PERFECT, failed_runs=2, healthy_standby=True)
    assert points(failing) == [25]
    assert points(replace(PERFECT, age_seconds=None, healthy_standby=True)) == [100]
    assert points(replace(old, asset=Asset.MEDIA)) == [24, 6]


def test_what_a_provider_keeps_needs_no_copy() -> None:
    kept = assess(AssetFacts(asset=Asset.MEDIA, provider="Wasabi", failed_runs=3))
    assert (kept.level, kept.score, kept.reasons) == (Level.OK, 0, ())
    assert assess(AssetFacts(asset=Asset.MEDIA, provider="Wasabi", asked=False)).level is Level.UNKN


def test_levels() -> None:
    expected = {0: "OK", 1: "LOW", 14: "LOW", 15: "MED", 39: "MED", 40: "HIGH", 69: "HIGH", 70: "CRIT", 100: "CRIT"}
    assert {score: level_of(score).value for score in expected} == expected


def test_spans() -> None:
    seconds = (-1, 0, 59, 60, 3599, 3600, 172799, 172800, 273600)
    assert [span(each) for each in seconds] == ["0s", "0s", "59s", "1m", "59m", "1h", "47h", "2d 00h", "3d 04h"]


AGES = st.none() | st.floats(0, 400 * DAY)
FACTS = st.builds(
    AssetFacts,
    asset=st.sampled_from(Asset),
    age_seconds=AGES,
    goal_seconds=st.none() | st.floats(0, 30 * DAY),
    differs=st.booleans(),
    opens_dump=st.none() | st.booleans(),
    verify_failed=st.booleans(),
    copies=st.integers(1, 4),
    offsite=st.booleans(),
    same_machine=st.booleans(),
    failed_runs=st.integers(0, 5),
    bytes=st.none() | st.integers(0, 10**12),
    usual_bytes=st.none() | st.integers(0, 10**12),
    drilled_seconds=AGES,
    drill_failed=st.booleans(),
    last_drill_failed=st.booleans(),
    custody_confirmed=st.booleans(),
    custody_seconds=AGES,
    healthy_standby=st.booleans(),
    provider=st.sampled_from(["", "", "", "Wasabi"]),
    asked=st.booleans(),
)


@given(FACTS)
def test_the_score_is_the_sum_of_its_reasons(facts: AssetFacts) -> None:
    assessment = assess(facts)
    total = sum(reason.points for reason in assessment.reasons)
    assert assessment.score == min(100, total)
    assert 0 <= assessment.score <= 100
    assert all(reason.points and reason.text and reason.action for reason in assessment.reasons)
    assert [r.points for r in assessment.reasons] == sorted((r.points for r in assessment.reasons), reverse=True)


@given(FACTS)
def test_what_is_not_known_is_never_shown_as_good(facts: AssetFacts) -> None:
    assessment = assess(replace(facts, asked=False))
    assert assessment.level is Level.UNKN
    assert assessment.score == assess(replace(facts, asked=True)).score


@given(FACTS, st.floats(0, 400 * DAY))
def test_older_is_never_safer(facts: AssetFacts, more: float) -> None:
    if facts.age_seconds is not None:
        assert assess(replace(facts, age_seconds=facts.age_seconds + more)).score >= assess(facts).score
        assert assess(replace(facts, age_seconds=None)).score >= min(facts.asset.impact, assess(facts).score)


@given(FACTS, st.booleans(), st.booleans())
def test_one_more_copy_is_never_riskier(facts: AssetFacts, offsite: bool, same: bool) -> None:
    more = replace(
        facts,
        copies=facts.copies + 1,
        offsite=facts.offsite or offsite,
        same_machine=facts.same_machine and same,
    )
    assert assess(more).score <= assess(facts).score


@given(FACTS, st.floats(0, 400 * DAY))
def test_a_later_drill_is_never_riskier(facts: AssetFacts, earlier: float) -> None:
    worse = None if facts.drilled_seconds is None else facts.drilled_seconds + earlier
    assert assess(facts).score <= assess(replace(facts, drilled_seconds=worse)).score
    assert assess(facts).score <= assess(replace(facts, drilled_seconds=None)).score


@given(FACTS, st.floats(0, 400 * DAY))
def test_custody_confirmed_later_is_never_riskier(facts: AssetFacts, earlier: float) -> None:
    worse = None if facts.custody_seconds is None else facts.custody_seconds + earlier
    assert assess(facts).score <= assess(replace(facts, custody_seconds=worse)).score
    assert assess(facts).score <= assess(replace(facts, custody_confirmed=False)).score


@given(FACTS, st.integers(0, 5))
def test_one_more_failure_is_never_safer(facts: AssetFacts, more: int) -> None:
    assert assess(replace(facts, failed_runs=facts.failed_runs + more)).score >= assess(facts).score


@given(FACTS)
def test_each_worry_only_adds(facts: AssetFacts) -> None:
    score = assess(facts).score
    worries = ("differs", "verify_failed", "drill_failed", "last_drill_failed")
    for worry in (*({name: True} for name in worries), {"opens_dump": False}, {"custody_confirmed": False}):
        assert assess(replace(facts, **worry)).score >= score  # type: ignore[arg-type]
    assert assess(replace(facts, healthy_standby=True)).score <= assess(replace(facts, healthy_standby=False)).score
