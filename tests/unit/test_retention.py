"""What is kept and what may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.config.schema import Config, Policy
from backends.errors import ConfigurationError
from backends.model import Asset, SnapshotInfo
from backends.retention import Verdict, judge, policy_words

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def config(retention: dict[str, Any], **own: Any) -> Config:
    return Config.model_validate({"retention": retention, "hosts": {"social": {"address": "x", **own}}})


def snapshot(age: timedelta, asset: Asset = Asset.DATABASE, run: str = "", **more: Any) -> SnapshotInfo:
    at = NOW - age
    mark = f"{at:%Y%m%dT%H%M%SZ}-{more.pop('mark', 0):08x}"
    known: dict[str, Any] = {"bytes": 9, "vaults": ("v",), "run": run or mark, **more}
    return SnapshotInfo(id=f"social/{asset}/{mark}", host="social", asset=asset, at=at, **known)


def kept(verdicts: list[Verdict]) -> set[str]:
    return {verdict.snapshot.id for verdict in verdicts if verdict.keep}


def why(verdicts: list[Verdict], wanted: SnapshotInfo) -> str:
    return "; ".join(next(each.why for each in verdicts if each.snapshot.id == wanted.id))


def test_days_weeks_months_and_years() -> None:
    every = [snapshot(number * 12 * HOUR) for number in range(800)]
    found = judge(every, config({"daily": 3, "weekly": 2, "monthly": 2, "yearly": 2}), "social", NOW)
    dates = sorted({f"{each.snapshot.at:%Y-%m-%d %H}" for each in found if each.keep}, reverse=True)
    assert dates == [
        "2026-11-22 14",
        "2026-11-21 14",
        "2026-11-20 14",
        "2026-11-15 14",
        "2026-10-31 14",
        "2025-12-31 14",
    ]
    assert why(found, every[0]) == (
        "the last good one; daily 2026-11-22; weekly 2026-W47; monthly 2026-11; yearly 2026"
    )
    assert why(found, every[20]) == "beyond daily 3, weekly 2, monthly 2, yearly 2"


def test_last_and_within() -> None:
    every = [snapshot(number * HOUR) for number in range(50)]
    found = judge(every, config({"last": 2, "within": "12h"}), "social", NOW)
    assert kept(found) == {each.id for each in every[:12]}
    assert policy_words(config({"last": 2, "within": "12h"}).retention) == "last 2, within 12h"
    assert policy_words(config({"daily": 7, "within": "14d"}).retention) == "daily 7, within 14d"


def test_a_good_one_fills_its_day_before_one_in_part_or_damaged() -> None:
    good, part, bad = snapshot(3 * HOUR), snapshot(2 * HOUR, in_part=True), snapshot(HOUR, verify_failed=True)
    old_part, old_bad = snapshot(2 * DAY, in_part=True), snapshot(2 * DAY - HOUR, verify_failed=True)
    found = judge([bad, part, good, old_bad, old_part], config({"daily": 9}), "social", NOW)
    assert kept(found) == {good.id, part.id, old_part.id}
    assert "daily 2026-11-22" in why(found, good)
    assert why(found, part) == "newer than the last good one"
    assert why(found, bad).startswith("damaged, beyond")


def test_the_last_good_and_the_proven_one_always_stay() -> None:
    proven = snapshot(90 * DAY, drilled_at=NOW - 80 * DAY)
    older_proof = snapshot(91 * DAY, drilled_at=NOW - 85 * DAY)
    failed = snapshot(70 * DAY, drilled_at=NOW - 75 * DAY, drill_failed=True)
    good = snapshot(60 * DAY)
    bad = [snapshot(number * DAY, verify_failed=True) for number in range(1, 5)]
    found = judge([*bad, good, failed, proven, older_proof], config({"last": 1}), "social", NOW)
    assert kept(found) == {good.id, proven.id}
    assert why(found, proven) == "proven by the last drill"


def test_only_damaged_ones_leave_the_newest() -> None:
    bad = [snapshot(number * DAY, verify_failed=True) for number in range(1, 5)]
    assert kept(judge(bad, config({"last": 1}), "social", NOW)) == {bad[0].id}


def test_what_was_dated_in_the_future_stays_and_counts_for_nothing() -> None:
    future, good = snapshot(-48 * HOUR), snapshot(HOUR)
    found = judge([future, good, snapshot(DAY)], config({"last": 1}), "social", NOW)
    assert kept(found) == {future.id, good.id}
    assert "clock" in why(found, future)


def test_a_kept_database_keeps_its_secrets_media_and_redis() -> None:
    databases = [snapshot(number * DAY, run=f"r{number}") for number in range(5)]
    media = [snapshot(number * DAY, Asset.MEDIA, run=f"r{number}") for number in range(5)]
    secrets = [snapshot(30 * DAY, Asset.SECRETS), snapshot(2.5 * DAY, Asset.SECRETS), snapshot(HOUR, Asset.SECRETS)]
    found = judge([*databases, *media, *secrets], config({"last": 1, "database": {"last": 4}}), "social", NOW)
    assert kept(found) == {each.id for each in (*databases[:4], *media[:4], *secrets)}
    assert "belongs to the database of 2026-11-19" in why(found, secrets[0])

    own = config({"last": 1, "database": {"last": 4}, "media": {"last": 2}})
    found = judge([*databases, *media, *secrets], own, "social", NOW)
    assert kept(found) == {each.id for each in (*databases[:4], *media[:2], *secrets)}, (
        "media have a policy of their own"
    )


def test_secrets_of_later_are_better_than_none() -> None:
    database = snapshot(5 * DAY)
    secrets = [snapshot(number * DAY, Asset.SECRETS) for number in range(3)]
    found = judge([database, *secrets], config({"last": 1}), "social", NOW)
    assert kept(found) == {database.id, secrets[0].id, secrets[2].id}


@pytest.mark.parametrize(
    "more", [{"signature": "none"}, {"signature": "bad", "signer": "x"}, {"signature": "good", "signer": "y"}]
)
def test_what_somebody_else_put_there_counts_for_nothing_and_stays(more: dict[str, Any]) -> None:
    judged = Config.model_validate(
        {"retention": {"last": 1}, "signers": {"us": "x"}, "hosts": {"social": {"address": "x"}}}
    )
    ours = [snapshot(number * DAY, signature="good", signer="x") for number in range(1, 4)]
    planted = [snapshot(number * HOUR, mark=number, **more) for number in range(1, 9)]
    found = judge([*planted, *ours], judged, "social", NOW)
    assert kept(found) == {ours[0].id, *(each.id for each in planted)}
    assert "removed by nobody but you" in why(found, planted[0])


def test_unknown_hosts_and_empty_policies() -> None:
    every = [snapshot(number * DAY) for number in range(3)]
    assert kept(judge(every, config({"last": 1}), "gone", NOW)) == {each.id for each in every}
    nothing = Config.model_construct(retention=Policy(), hosts=config({"last": 1}).hosts)
    object.__setattr__(nothing, "retention", config({"last": 1}).retention.model_copy(update={"last": 0}))
    with pytest.raises(ConfigurationError, match="keeps nothing"):
        judge(every, nothing, "social", NOW)


POLICIES = st.fixed_dictionaries(
    {name: st.integers(0, 4) for name in ("last", "daily", "weekly", "monthly", "yearly")}
).filter(lambda policy: any(policy.values()))
SNAPSHOTS = st.lists(
    st.builds(
        snapshot,
        st.integers(-50, 20_000).map(lambda hours: hours * HOUR),
        st.sampled_from(Asset),
        run=st.sampled_from(["", "r1", "r2", "r3"]),
        mark=st.integers(0, 1 << 31),
        in_part=st.booleans(),
        verify_failed=st.booleans(),
        drilled_at=st.none() | st.integers(0, 90).map(lambda days: NOW - days * DAY),
        drill_failed=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda each: each.id,
)


@settings(max_examples=150, deadline=None)
@given(SNAPSHOTS, POLICIES)
def test_what_always_holds(every: list[SnapshotInfo], policy: dict[str, int]) -> None:
    its = config(policy)
    found = judge(every, its, "social", NOW)
    assert {each.snapshot.id for each in found} == {each.id for each in every}
    assert all(verdict.why and all(verdict.why) for verdict in found)
    left = [verdict.snapshot for verdict in found if verdict.keep]
    assert kept(judge(left, its, "social", NOW)) == {each.id for each in left}, "nothing more goes the next time"
    for asset in Asset:
        past = [each for each in every if each.asset is asset and each.at <= NOW]
        good = [each for each in past if not (each.verify_failed or each.in_part)]
        if good:
            assert max(good, key=lambda each: (each.at, each.id)) in left
        assert not past or any(each.asset is asset for each in left)
        proven = [each for each in past if each.drilled_at and not each.drill_failed]
        assert not proven or any(each in left for each in proven)
    databases = [each for each in left if each.asset is Asset.DATABASE and not each.verify_failed and each.at <= NOW]
    secrets = [each for each in every if each.asset is Asset.SECRETS and not each.verify_failed and each.at <= NOW]
    if databases and secrets:
        assert any(each in left for each in secrets)


@settings(max_examples=100, deadline=None)
@given(SNAPSHOTS, POLICIES, POLICIES)
def test_a_larger_policy_keeps_all_that_a_smaller_one_does(
    every: list[SnapshotInfo], policy: dict[str, int], more: dict[str, int]
) -> None:
    larger = {name: policy[name] + more[name] for name in policy}
    small, large = (kept(judge(every, config(its), "social", NOW)) for its in (policy, larger))
    assert small <= large
